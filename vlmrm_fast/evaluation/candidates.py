"""What the prompt lab compares, from the user's words: goals x baselines x strengths, cameras."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from vlmrm_fast import coercion
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.prompts import check_alpha, check_prompts
from vlmrm_fast.rendering import Camera

# One flag with several words, several flags, or both.
Words = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
TASK_CAMERA = "task"


@dataclass(frozen=True)
class Candidate:
    """One reward to try.

    Attributes:
        goal: the prompt.
        baseline: the scene without the goal; None where alpha is 0, which needs none.
        alpha: strength of the goal-baseline regularisation, 0 ... 1.
        reference: whether it is the task's own prompt.
    """

    goal: str
    baseline: str | None
    alpha: float
    reference: bool = False


def flat(words: Sequence[Sequence[str]]) -> list[str]:
    """Return what was given after all flags of one name, each once.

    Args:
        words: by flag.

    Returns:
        The words in order.
    """
    return list(dict.fromkeys(word for group in words for word in group))


def cross(
    goals: Sequence[str],
    baselines: Sequence[str],
    alphas: Sequence[float],
    reference: tuple[str, str | None] | None,
) -> list[Candidate]:
    """Return every combination once, the task's own prompt first.

    Args:
        goals: the user's goals.
        baselines: their baselines; may be empty where all alphas are 0.
        alphas: strengths.
        reference: the task's own goal and baseline, tried with the same strengths, those above 0
            only if it has a baseline; None to leave it out.

    Returns:
        At least one candidate.

    Raises:
        ArgumentError: there is no goal, a prompt is empty, an alpha is out of range, or above 0
            where the baseline is missing or says the same as the goal.
    """
    found: dict[tuple[str, str | None, float], Candidate] = {}

    def add(goal: str, baseline: str | None, alpha: float, own: bool) -> None:
        value = check_alpha(alpha, (goal,), check_prompts("baseline", baseline))
        kept = baseline if value > 0 else None
        found.setdefault((goal, kept, value), Candidate(goal, kept, value, own))

    for goal in check_prompts("goal", goals) if goals else ():
        for baseline in check_prompts("baseline", baselines) if baselines else (None,):
            for alpha in alphas:
                add(goal, baseline, alpha, reference is not None and goal == reference[0])
    if reference is not None:
        own, scene = reference
        for alpha in alphas:
            if alpha == 0 or scene is not None:
                add(own, scene, alpha, True)
    if not found:
        raise ArgumentError('goal must be given, got none. Add --goal "what the frames may show".')
    return sorted(found.values(), key=lambda each: not each.reference)


def parse_alphas(texts: Iterable[str], known_baseline: bool) -> tuple[float, ...]:
    """Return the strengths of "0,0.5" or of several such texts.

    Args:
        texts: what the user wrote; empty for the default.
        known_baseline: whether there is a baseline, so that the default may go above 0.

    Returns:
        Different strengths in the order given.

    Raises:
        ArgumentError: one is not a number in [0, 1].
    """
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not parts:
        return ALPHAS if known_baseline else (0.0,)
    values = []
    for part in parts:
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise ArgumentError(f"alpha must be a number in [0, 1], got {part!r}.")
        values.append(value)
    return tuple(dict.fromkeys(values))


def parse_camera(text: str, view: Any = None) -> Any:
    """Return the camera that a text names, as `Scene.from_model` takes it.

    Args:
        text: "task" for the task's own, the name or id of a camera in the model, or a free camera
            as "distance=4,azimuth=90,elevation=-10,lookat=0/0/1,track_body=torso", any of these.
        view: the task's camera; where it is a free one, its values are kept for what the text
            does not say.

    Returns:
        None for the task's own, a name, an id, or a `rendering.Camera`.

    Raises as `coercion.parse_camera`.
    """
    if text.strip() in {"", TASK_CAMERA}:
        return None
    found = coercion.parse_camera(text)
    if not isinstance(found, dict):
        return found
    return Camera(**{**(view if isinstance(view, Mapping) else {}), **found})
