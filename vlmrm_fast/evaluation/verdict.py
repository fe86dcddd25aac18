"""Go or no go: whether a reward tells the goal well enough to train on, and why not.

Every bound must hold. They lie between what the built-in model gives for prompts that describe the
goal and for ones that do not (docs/prompt-lab.md shows both, and training runs on either side).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmrm_fast.evaluation.figures import RECALL

# Chance is 0.71. 0.45 is a correlation of 0.6 with the label: more than a third of the reward's
# variance is about the goal, the rest is what the agent may chase instead.
EPIC_LIMIT = 0.45
# A goal state beats another in nine of ten pairs. Needed beside EPIC, which a few outliers govern.
AUC_LEAST = 0.90
# Near misses are what training reaches first; a reward blind to the difference stops there.
NEAR_AUC_LEAST = 0.80
# Of the states that an agent may end in unpunished, the share that passes for the goal.
FPR_LIMIT = 0.30
# An optimiser ends at the highest rewards, so those must be goal states.
TOP_LEAST = 0.90
# Below this many of a class, a recall of 0.95 is decided by its single worst state.
LEAST_STATES = 20


@dataclass(frozen=True)
class Row:
    """One reward that was tried, with its figures; `figures.Figures` says what they mean.

    Attributes:
        goal: the prompt.
        baseline: the scene without the goal, or None.
        alpha: strength of the goal-baseline regularisation.
        model: the vision-language model, as the user wrote it.
        camera: likewise.
        reference: whether it is the task's own prompt.
        epic, pearson, spearman, auc, near_auc, fpr, margin, top: NaN where not defined.
        goal_mean, near_mean, other_mean: mean rewards.
        reasons: why not to train on it; empty for "go".
    """

    goal: str
    baseline: str | None
    alpha: float
    model: str
    camera: str
    reference: bool
    epic: float
    pearson: float
    spearman: float
    auc: float
    near_auc: float
    fpr: float
    margin: float
    top: float
    goal_mean: float
    near_mean: float
    other_mean: float
    reasons: tuple[str, ...] = ()

    @property
    def go(self) -> bool:
        """Whether every bound holds."""
        return not self.reasons


# Sort keys: the figure and whether more is better.
SORTS = {
    "epic": False,
    "pearson": True,
    "spearman": True,
    "auc": True,
    "near_auc": True,
    "fpr": False,
    "margin": True,
    "top": True,
}


def find_reasons(row: Row, num_goals: int, num_others: int) -> tuple[str, ...]:
    """Return why a reward should not be trained on.

    Args:
        row: its figures.
        num_goals: goal states that it was judged on.
        num_others: other states.

    Returns:
        One line a bound that it misses; empty if it holds them all.
    """
    reasons = []
    for count, kind in ((num_goals, "goal"), (num_others, "other")):
        if count < LEAST_STATES:
            reasons.append(f"only {count} {kind} states, too few to tell (least {LEAST_STATES})")
    if math.isnan(row.epic):
        return (*reasons, "the reward is the same for all states")
    if row.epic > EPIC_LIMIT:
        reasons.append(f"EPIC distance {row.epic:.2f} is above {EPIC_LIMIT:.2f}")
    if row.auc < AUC_LEAST:
        reasons.append(f"AUC {row.auc:.2f} is below {AUC_LEAST:.2f}")
    if row.near_auc < NEAR_AUC_LEAST:
        reasons.append(f"AUC against near misses {row.near_auc:.2f} is below {NEAR_AUC_LEAST:.2f}")
    if row.fpr > FPR_LIMIT:
        reasons.append(
            f"{row.fpr:.0%} of other states pass where {RECALL:.0%} of goals do, "
            f"more than {FPR_LIMIT:.0%}"
        )
    if row.top < TOP_LEAST:
        reasons.append(
            f"{row.top:.0%} of the best-rewarded states are goals, less than {TOP_LEAST:.0%}"
        )
    return tuple(reasons)


def rank_rows(rows: list[Row], sort: str = "epic") -> list[Row]:
    """Return rows from best to worst; undefined figures come last, ties keep their order.

    Args:
        rows: the rows.
        sort: a key of `SORTS`.

    Returns:
        A new list.
    """
    sign = -1 if SORTS[sort] else 1

    def key(row: Row) -> float:
        value = getattr(row, sort)
        return math.inf if math.isnan(value) else sign * value

    return sorted(rows, key=key)


def choose(rows: list[Row]) -> Row:
    """Return the row to train on: the first that says go, else the first.

    Args:
        rows: ranked, at least one.

    Returns:
        One of them.
    """
    return next((row for row in rows if row.go), rows[0])


def verdict_lines(rows: list[Row]) -> list[str]:
    """Return the verdict in words.

    Args:
        rows: ranked, at least one.

    Returns:
        The first line says go or no go and for what, the others why.
    """
    best = choose(rows)
    what = f'"{best.goal}", alpha {best.alpha:g}, model {best.model}, camera {best.camera}'
    lines = [f"{'GO' if best.go else 'NO GO'}: {what}"]
    if best.go:
        near = "" if math.isnan(best.near_auc) else f" ({best.near_auc:.2f} against near misses)"
        lines.append(
            f"EPIC distance {best.epic:.2f}, AUC {best.auc:.2f}{near}, {best.fpr:.0%} of other "
            f"states pass where {RECALL:.0%} of goals do, {best.top:.0%} of the best-rewarded "
            "states are goals: all bounds hold."
        )
    else:
        lines += [f"- {reason}" for reason in best.reasons]
    own = [row.epic for row in rows if row.reference and not math.isnan(row.epic)]
    if own and not best.reference:
        lines.append(f"The task's own prompt has EPIC distance {min(own):.2f} at best.")
    return lines
