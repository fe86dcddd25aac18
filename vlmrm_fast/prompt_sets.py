"""Many rewards of the same frames: objectives embedded and folded into constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vlmrm_fast.clip import LoadedModel
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.inputs import borrowable
from vlmrm_fast.kernels.reference import Preprocessing
from vlmrm_fast.objective import Objective, make_objective
from vlmrm_fast.prompts import Prompts
from vlmrm_fast.rules import Heads, make_heads


@dataclass(frozen=True)
class PromptSet:
    """P rewards that score the same embeddings.

    Attributes:
        objectives: what each scores against.
        heads: their constants, on the model's device in float32.
        model_id: the model that embedded them, as the user wrote it.
    """

    objectives: tuple[Objective, ...]
    heads: Heads
    model_id: str

    @property
    def goals(self) -> tuple[tuple[str, ...], ...]:
        """P goals, each one or several prompts."""
        return tuple(objective.goal for objective in self.objectives)

    @property
    def baselines(self) -> tuple[tuple[str, ...], ...]:
        """P baselines, each prompts or empty."""
        return tuple(objective.baseline for objective in self.objectives)

    @property
    def alphas(self) -> tuple[float, ...]:
        """P strengths in [0, 1]."""
        return tuple(objective.alpha for objective in self.objectives)

    @property
    def rules(self) -> tuple[str, ...]:
        """P names of rules."""
        return tuple(objective.rule for objective in self.objectives)

    def __len__(self) -> int:
        """Return P."""
        return len(self.objectives)

    def heads_for(self, model_id: str) -> Heads:
        """Return the constants for embeddings of a model.

        Args:
            model_id: as the user wrote it.

        Returns:
            `heads`.

        Raises:
            ArgumentError: another model embedded the prompts.
        """
        if model_id != self.model_id:
            raise ArgumentError(
                f"prompts must be of the reward's own model, {model_id!r}, got some of "
                f"{self.model_id!r}. Make them with this reward's prompt_set()."
            )
        return self.heads


def list_objectives(
    goals: Sequence[Prompts | Objective],
    baselines: Prompts | Sequence[Prompts | None] | None,
    alphas: float | Sequence[float],
    rules: str | Sequence[str] = "goal-baseline",
    negatives: Prompts | None = None,
    temperature: float | None = None,
) -> list[Objective]:
    """Check the prompts of P rewards; see `VLMReward.prompt_set`.

    Args:
        goals: P goals; one that is an objective already stays as it is.
        baselines: one prompt, P baselines, or None.
        alphas: one strength, or P.
        rules: one name, or P.
        negatives: of every softmax.
        temperature: of every softmax.

    Returns:
        P objectives.

    Raises:
        ArgumentError: a prompt or strength cannot be used, or their numbers differ.
    """
    if isinstance(goals, str) or not isinstance(goals, Sequence) or not goals:
        raise ArgumentError(f"goals must be a list of goals, got {goals!r}.")
    given: dict[str, Any] = {"baselines": baselines, "alphas": alphas, "rules": rules}
    columns: dict[str, Sequence[Any]] = {
        name: value if _is_list(value) else [value] * len(goals) for name, value in given.items()
    }
    for name, column in columns.items():
        if len(column) != len(goals):
            raise ArgumentError(
                f"{name} must be one for all or as many as goals, {len(goals)}, got {len(column)}."
            )
    contested: dict[str, Any] = {"negatives": negatives, "temperature": temperature}
    # Where nothing is a softmax, these are refused by the first reward.
    takers = {"softmax"} if "softmax" in columns["rules"] else set(columns["rules"])
    return [
        goal
        if isinstance(goal, Objective)
        else make_objective(goal, *rest, rule=rule, **(contested if rule in takers else {}))
        for goal, *rest, rule in zip(goals, *columns.values(), strict=True)
    ]


def _is_list(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str)


def build_prompt_set(
    model: LoadedModel, objectives: Sequence[Objective], how: Preprocessing, *, compat: bool
) -> PromptSet:
    """Embed objectives and fold them into constants.

    Args:
        model: embeds them, each different prompt once.
        objectives: P rewards, checked.
        how: preprocessing of goal images.
        compat: whether averages of several prompts keep their length.

    Returns:
        The set, on the model's device.
    """
    # Every different prompt goes through the text tower once.
    prompts = tuple(dict.fromkeys(p for objective in objectives for p in objective.prompts))
    rows = model.embed_text(prompts).cpu().double() if prompts else ()
    embedded = dict(zip(prompts, rows, strict=True))
    nothing = torch.zeros(model.embed_dim, dtype=torch.float64)

    def mean(group: Sequence[str]) -> torch.Tensor:
        return _mean([embedded[prompt] for prompt in group], compat) if group else nothing

    goals: list[torch.Tensor] = []
    baselines: list[torch.Tensor] = []
    negatives: list[torch.Tensor] = []
    for objective in objectives:
        goals.append(_goal(model, objective, mean(objective.goal), how, compat=compat))
        baselines.append(mean(objective.baseline))
        listed = [embedded[prompt] for prompt in objective.negatives]
        negatives.append(torch.stack(listed) if listed else nothing[None])
        _check_told_apart(objective, goals[-1], baselines[-1], negatives[-1])
    heads = make_heads(
        [objective.rule for objective in objectives],
        torch.stack(goals),
        torch.stack(baselines),
        torch.tensor([objective.alpha for objective in objectives], dtype=torch.float64),
        negatives,
        [1 / objective.temperature if objective.temperature else model.logit_scale
         for objective in objectives],
    )  # fmt: skip
    return PromptSet(tuple(objectives), heads.to(model.device), model.model_id)


def _goal(
    model: LoadedModel,
    objective: Objective,
    sentence: torch.Tensor,
    how: Preprocessing,
    *,
    compat: bool,
) -> torch.Tensor:
    """Return the (D,) goal: the sentence's embedding, the pictures', or a mixture."""
    if not objective.goal_images:
        return sentence
    rows: list[torch.Tensor] = []
    for images in objective.goal_images:
        # One by one: pictures are few, and may be large.
        for image in images:
            frames = torch.from_numpy(borrowable(np.ascontiguousarray(image)[None]))
            rows += model.embed_images(frames.to(model.device), how).cpu().double()
    share = objective.image_weight
    mixed = (1 - share) * sentence + share * _mean(rows, compat)
    return mixed if compat else mixed / mixed.norm()


def _mean(rows: Sequence[torch.Tensor], compat: bool) -> torch.Tensor:
    """Return the (D,) float64 mean of embeddings, of unit length unless `compat`."""
    mean = torch.stack(list(rows)).mean(0)
    return mean if compat else mean / mean.norm()


def _check_told_apart(
    objective: Objective, goal: torch.Tensor, baseline: torch.Tensor, negatives: torch.Tensor
) -> None:
    """Refuse prompts that a rule compares and that the model embeds alike."""
    if (objective.alpha > 0 or objective.rule == "difference") and _alike(goal, baseline):
        when = "where alpha is above 0" if objective.alpha > 0 else 'for rule="difference"'
        fix = ", or set alpha=0" if objective.alpha > 0 else ""
        raise ArgumentError(
            f"baseline must differ from goal {when}, got {objective.baseline[0]!r}, which the "
            f"model cannot tell from the goal. Reword one of them{fix}."
        )
    for prompt, negative in zip(objective.negatives, negatives, strict=False):
        if _alike(goal, negative):
            raise ArgumentError(
                f'negatives must differ from goal for rule="softmax", got {prompt!r}, which the '
                "model cannot tell from the goal. Reword one of them."
            )


def _alike(goal: torch.Tensor, other: torch.Tensor) -> bool:
    return float((goal - other).norm()) < 1e-6
