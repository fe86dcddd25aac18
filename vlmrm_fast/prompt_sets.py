"""Many rewards of the same frames: goals, baselines and strengths folded into constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vlmrm_fast.clip import LoadedModel
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.kernels.reference import Tasks, make_tasks
from vlmrm_fast.prompts import Prompts, check_alpha, check_prompts


@dataclass(frozen=True)
class PromptSet:
    """P rewards that score the same embeddings.

    Attributes:
        goals: P goals, each one or several prompts.
        baselines: P baselines, each prompts or empty.
        alphas: P strengths in [0, 1].
        tasks: their constants, on the model's device in float32.
        model_id: the model that embedded them, as the user wrote it.
    """

    goals: tuple[tuple[str, ...], ...]
    baselines: tuple[tuple[str, ...], ...]
    alphas: tuple[float, ...]
    tasks: Tasks
    model_id: str

    def __len__(self) -> int:
        """Return P."""
        return len(self.goals)

    def tasks_for(self, model_id: str) -> Tasks:
        """Return the constants for embeddings of a model.

        Args:
            model_id: as the user wrote it.

        Returns:
            `tasks`.

        Raises:
            ArgumentError: another model embedded the prompts.
        """
        if model_id != self.model_id:
            raise ArgumentError(
                f"prompts must be of the reward's own model, {model_id!r}, got some of "
                f"{self.model_id!r}. Make them with this reward's prompt_set()."
            )
        return self.tasks


def build_prompt_set(
    model: LoadedModel,
    goals: Sequence[Prompts],
    baselines: Prompts | Sequence[Prompts | None] | None,
    alphas: float | Sequence[float],
    *,
    compat: bool,
) -> PromptSet:
    """Check and embed prompts; see `VLMReward.prompt_set`.

    Args:
        model: embeds them, each different prompt once.
        goals: P goals.
        baselines: one prompt, P baselines, or None.
        alphas: one strength, or P.
        compat: whether averages of several prompts keep their length.

    Returns:
        The set, on the model's device.

    Raises:
        ArgumentError: a prompt or strength cannot be used, or their numbers differ.
    """
    if isinstance(goals, str) or not isinstance(goals, Sequence) or not goals:
        raise ArgumentError(f"goals must be a list of goals, got {goals!r}.")
    listed: Sequence[Prompts | None] = [None] * len(goals)
    if baselines is not None:
        listed = [baselines] * len(goals) if isinstance(baselines, str) else baselines
    strengths = alphas if isinstance(alphas, Sequence) else [alphas] * len(goals)
    for name, count in (("baselines", len(listed)), ("alphas", len(strengths))):
        if count != len(goals):
            raise ArgumentError(
                f"{name} must be one for all or as many as goals, {len(goals)}, got {count}."
            )
    checked_goals = tuple(check_prompts("goal", goal) for goal in goals)
    checked_baselines = tuple(check_prompts("baseline", baseline) for baseline in listed)
    checked_alphas = tuple(map(check_alpha, strengths, checked_goals, checked_baselines))

    # Every different prompt goes through the text tower once.
    prompts = tuple(dict.fromkeys(p for group in checked_goals + checked_baselines for p in group))
    embeddings = dict(zip(prompts, model.embed_text(prompts).cpu().double(), strict=True))
    goal = _means(checked_goals, embeddings, compat)
    baseline = _means(checked_baselines, embeddings, compat)
    strength = torch.tensor(checked_alphas, dtype=torch.float64)
    for index in torch.nonzero((strength > 0) & ((goal - baseline).norm(dim=1) < 1e-6)).flatten():
        raise ArgumentError(
            f"baseline must differ from goal where alpha is above 0, got "
            f"{checked_baselines[index][0]!r}, which the model cannot tell from the goal. "
            "Reword one of them, or set alpha=0."
        )
    tasks = make_tasks(goal, baseline, strength).to(model.device)
    return PromptSet(checked_goals, checked_baselines, checked_alphas, tasks, model.model_id)


def _means(
    groups: Sequence[tuple[str, ...]], embeddings: dict[str, torch.Tensor], compat: bool
) -> torch.Tensor:
    """Return (P, D) float64 mean embeddings, of unit length unless `compat`; 0 without prompts."""
    width = len(next(iter(embeddings.values())))
    rows = torch.zeros(len(groups), width, dtype=torch.float64)
    for row, group in zip(rows, groups, strict=True):
        if group:
            mean = torch.stack([embeddings[prompt] for prompt in group]).mean(0)
            row[:] = mean if compat else mean / mean.norm()
    return rows
