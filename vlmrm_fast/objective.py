"""What frames are scored against: sentences, pictures and the rule that makes them a reward."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError, unknown_name
from vlmrm_fast.frame_files import frame_chunks
from vlmrm_fast.inputs import check_frames
from vlmrm_fast.prompts import Prompts, check_alpha, check_differs, check_prompts

RULES = ("cosine", "difference", "goal-baseline", "softmax")

Images = np.ndarray | str | os.PathLike[str] | Sequence[Any]
"""Frames (B, H, W, 3) or (H, W, 3) uint8, a file or folder of frames, or a list of either."""


@dataclass(frozen=True, eq=False)
class Objective:
    """One reward, checked, before a model has seen it. Build it with `make_objective`.

    Attributes:
        goal: prompts whose embeddings are averaged; may be empty where there are images.
        baseline: prompts of the scene without the goal; may be empty.
        alpha: strength of the goal-baseline regularisation, 0 ... 1.
        rule: one of `RULES`.
        negatives: prompts that compete with the goal under "softmax".
        temperature: of "softmax", above 0; None for the model's own.
        goal_images: pictures of the goal, each (n, H, W, 3) uint8.
        image_weight: share of the pictures in the goal, 0 (there are none) ... 1 (no sentence).
    """

    goal: tuple[str, ...]
    baseline: tuple[str, ...] = ()
    alpha: float = 0.0
    rule: str = "goal-baseline"
    negatives: tuple[str, ...] = ()
    temperature: float | None = None
    goal_images: tuple[np.ndarray, ...] = ()
    image_weight: float = 0.0

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, in the order goal, baseline, negatives."""
        return self.goal + self.baseline + self.negatives

    def describe(self, temperature: float) -> dict[str, Any]:
        """Return what a run must record; of pictures, their number and a digest.

        Args:
            temperature: the model's own.

        Returns:
            Plain values.
        """
        found: dict[str, Any] = {
            "goal": list(self.goal),
            "baseline": list(self.baseline),
            "alpha": self.alpha,
            "rule": self.rule,
        }
        if self.negatives:
            found["negatives"] = list(self.negatives)
            found["temperature"] = self.temperature or temperature
        if self.goal_images:
            digest = hashlib.sha256()
            for images in self.goal_images:
                digest.update(repr(images.shape).encode() + np.ascontiguousarray(images).tobytes())
            found["goal_images"] = sum(map(len, self.goal_images))
            found["goal_images_sha256"] = digest.hexdigest()
            found["image_weight"] = self.image_weight
        return found


def make_objective(
    goal: Prompts | None,
    baseline: Prompts | None = None,
    alpha: float = 0.0,
    *,
    rule: str = "goal-baseline",
    negatives: Prompts | None = None,
    temperature: float | None = None,
    goal_images: Images | None = None,
    image_weight: float | None = None,
) -> Objective:
    """Check what frames shall be scored against; the arguments are those of `VLMReward`.

    Args:
        goal: prompts, or None where there are images.
        baseline: prompts.
        alpha: 0 ... 1.
        rule: one of `RULES`.
        negatives: prompts; for "softmax" only.
        temperature: above 0; for "softmax" only.
        goal_images: frames, files, or a list of either.
        image_weight: above 0, at most 1. None: 1 without a goal prompt, else 0.5.

    Returns:
        The objective; files have been read.

    Raises:
        ArgumentError: a value cannot be used, or two do not fit each other.
        UnknownNameError: there is no such rule.
    """
    if goal is None and goal_images is None:
        raise ArgumentError("goal must be a prompt or a list of prompts, got None.")
    if rule not in RULES:
        error = unknown_name("rule", str(rule), RULES)
        raise error
    images = () if goal_images is None else _load_images(goal_images)
    share = _check_share(image_weight, bool(images), goal is not None)
    prompts = {
        name: check_prompts(name, given)
        for name, given in (("goal", goal), ("baseline", baseline), ("negatives", negatives))
    }
    # Of a goal that pictures have a part in, the sentence alone says nothing about the embedding.
    sentence = () if images else prompts["goal"]
    made = Objective(
        **prompts,
        alpha=check_alpha(alpha, sentence, prompts["baseline"]),
        rule=rule,
        temperature=temperature,
        goal_images=images,
        image_weight=share,
    )
    _check_rule(made, sentence)
    return made


def _check_rule(made: Objective, sentence: tuple[str, ...]) -> None:
    """Check that a rule has what it needs, and that nothing is given that it ignores."""
    rule = made.rule
    if made.alpha and rule != "goal-baseline":
        raise ArgumentError(
            f"alpha must be 0 for rule={rule!r}, got {made.alpha:g}. "
            'Only the rule "goal-baseline" uses it.'
        )
    if rule == "difference" and not made.baseline:
        raise ArgumentError(
            'baseline must be given for rule="difference", got none. '
            "Describe the scene without the goal."
        )
    if rule == "difference":
        check_differs("baseline", 'for rule="difference"', sentence, made.baseline)
    for name in ("negatives", "temperature"):
        if rule != "softmax" and getattr(made, name) not in ((), None):
            raise ArgumentError(
                f"{name} must be left out for rule={rule!r}, got {getattr(made, name)!r}. "
                'They are for rule="softmax".'
            )
    if rule != "softmax":
        return
    if not made.negatives:
        raise ArgumentError(
            'negatives must be given for rule="softmax", got none. '
            "Describe what the camera sees when the goal is not reached."
        )
    for negative in made.negatives:
        check_differs("negatives", 'for rule="softmax"', sentence, (negative,))
    check_temperature(made.temperature)


def check_temperature(temperature: float | None, name: str = "temperature") -> None:
    """Check the temperature of a softmax.

    Args:
        temperature: a number, or None for the model's own.
        name: what to call it in errors.

    Raises:
        ArgumentError: it is not finite or not above 0.
    """
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise ArgumentError(
            f"{name} must be a finite number above 0, got {temperature}. CLIP's own is about 0.01."
        )


def _check_share(share: float | None, has_images: bool, has_goal: bool) -> float:
    """Return the images' share in the goal."""
    if not has_images:
        if share is not None:
            raise ArgumentError(
                f"image_weight must be left out without goal_images, got {share}. Give pictures."
            )
        return 0.0
    if share is None:
        return 0.5 if has_goal else 1.0
    if not 0 < share <= 1:
        raise ArgumentError(
            f"image_weight must lie above 0 and be at most 1, got {share}. It is the share of the "
            "pictures in the goal; 1 leaves the sentence out."
        )
    if share < 1 and not has_goal:
        raise ArgumentError(
            f"goal must be given where image_weight is below 1, got {share} without one. "
            "Leave image_weight out."
        )
    return float(share)


def _load_images(images: Images) -> tuple[np.ndarray, ...]:
    """Return pictures as arrays (n, H, W, 3) uint8, at least one; sizes may differ."""
    found: list[np.ndarray] = []
    for item in images if isinstance(images, (list, tuple)) else [images]:
        if isinstance(item, (str, os.PathLike)):
            found += _read_images(item)
            continue
        frames = np.asarray(item)
        frames = frames[None] if frames.ndim == 3 else frames
        try:
            check_frames(frames)
        except ArgumentError as error:
            raise ArgumentError(f"goal_images: {error}") from None
        found.append(frames)
    if not sum(map(len, found)):
        raise ArgumentError("goal_images must hold at least one picture, got none.")
    return tuple(part for part in found if len(part))


def _read_images(path: str | os.PathLike[str]) -> list[np.ndarray]:
    """Return the pictures of a file or folder."""
    try:
        return [frames for _, frames in frame_chunks(str(Path(path)))]
    except ArgumentError as error:
        raise ArgumentError(f"goal_images: {error}") from error
