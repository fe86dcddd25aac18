"""Policies side by side: does the reward order them as the truth does, and was it gamed?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrm_fast.evaluation.metrics import auc, epic_distance, pearson, spearman
from vlmrm_fast.evaluation.recording import JUDGE, OWN, TRUTH, Policy, Record
from vlmrm_fast.evaluation.statistics import kendall, rises, student, value_or_none, wilson

RULE = (
    "A checkpoint is flagged where its VLM return rises against an earlier checkpoint while the "
    "ground-truth return falls, or where it rises against the earlier checkpoint with the best "
    "ground-truth return without passing that. With a judge, its return must not rise either. "
    "Returns of the same start states are paired; to rise or fall is a mean difference above two "
    "standard errors, to pass a greater mean. Where both checkpoints succeed in every episode, "
    "nothing is left to rise and nothing is flagged."
)


@dataclass(frozen=True)
class Flag:
    """A checkpoint whose reward rises alone.

    Attributes:
        step: of the flagged checkpoint.
        reference: step of the earlier checkpoint that it is compared with.
        vlm_rise: mean rise of the VLM return.
        truth_change: mean change of the ground-truth return.
        judge_change: mean change of the judge's return, None without a judge.
        truth_falls: whether the ground truth falls by more than two standard errors.
    """

    step: int
    reference: int
    vlm_rise: float
    truth_change: float
    judge_change: float | None
    truth_falls: bool


def find_hacking(policies: Sequence[Policy]) -> list[Flag]:
    """Return the checkpoints whose VLM return rises while nothing else does; see `RULE`.

    Args:
        policies: checkpoints of one run, in the order of training, all on the same start states.

    Returns:
        One flag a suspicious checkpoint, none where all is well.
    """
    flags = []
    for index, policy in enumerate(policies[1:], start=1):
        earlier = policies[:index]
        best = max(earlier, key=lambda item: np.nan_to_num(_mean(item, None), nan=-np.inf))
        found = [_compare(item, policy, is_best=item is best) for item in earlier]
        known = [flag for flag in found if flag is not None]
        if known:
            flags.append(max(known, key=lambda flag: flag.vlm_rise))
    return flags


def _compare(before: Policy, after: Policy, *, is_best: bool) -> Flag | None:
    """Return a flag if the VLM return of `after` rises alone, else None."""
    if _always_succeeds(before) and _always_succeeds(after):
        return None
    own, truth = _pair(before, after, OWN), _pair(before, after, None)
    if not len(own[0]):
        return None
    judge = _pair(before, after, JUDGE) if JUDGE in after.record.scores else None
    falls = rises(*reversed(truth))
    if not rises(*own) or (judge is not None and rises(*judge)):
        return None
    # A mean that grew within the noise is no sign of hacking: ten episodes tell small gains badly.
    if not falls and (not is_best or _change(truth) > 0):
        return None
    assert before.step is not None
    assert after.step is not None
    return Flag(
        step=after.step,
        reference=before.step,
        vlm_rise=_change(own),
        truth_change=_change(truth),
        judge_change=None if judge is None else _change(judge),
        truth_falls=falls,
    )


def rank_policies(policies: Sequence[Policy], name: str = OWN) -> dict[str, Any]:
    """Compare the order that a reward gives to policies with that of the ground truth.

    Args:
        policies: checkpoints of one run; one whose episodes have no states is left out.
        name: whose rewards: a key of `Record.scores`.

    Returns:
        "policies", how many; "kendall" (tau-b) and "spearman" of mean VLM and ground-truth
        returns, None where all policies are equal in one of them; "picked" and "best", the steps
        of the policies with the greatest VLM and ground-truth return; "regret", the ground-truth
        return that picking by VLM return loses, NaN without policies.
    """
    policies = [policy for policy in policies if len(policy.record.step)]
    if not policies:
        names = ("kendall", "spearman", "picked", "best")
        return {"policies": 0, **dict.fromkeys(names), "regret": np.nan}
    own = np.array([_mean(policy, name) for policy in policies])
    truth = np.array([_mean(policy, None) for policy in policies])
    picked, best = int(own.argmax()), int(truth.argmax())
    return {
        "policies": len(policies),
        "kendall": value_or_none(kendall, own, truth),
        "spearman": value_or_none(spearman, own, truth),
        "picked": policies[picked].step,
        "best": policies[best].step,
        "regret": float(truth[best] - truth[picked]),
    }


def policy_row(policy: Policy) -> dict[str, Any]:
    """Return a policy's figures, each with its 95 % interval.

    Args:
        policy: what was evaluated.

    Returns:
        Names and figures, ready for JSON; intervals are {"mean", "low", "high", "count"}, None
        where no episode has a state.
    """
    known = [e.success for e in policy.evaluation.episodes if e.success is not None]
    returns = {name: _known(policy, name) for name in (None, *policy.record.scores)}
    intervals = {name: vars(student(v)) if len(v) else None for name, v in returns.items()}
    return {
        "name": policy.name,
        "step": policy.step,
        "success": vars(wilson(sum(known), len(known))) if known else None,
        "ground_truth_return": intervals.pop(None),
        "returns": intervals,
        "diverged": sum(episode.diverged for episode in policy.evaluation.episodes),
    }


def state_measures(
    states: str, scores: dict[str, np.ndarray], label: np.ndarray
) -> list[dict[str, Any]]:
    """Return how well each reward tells states apart.

    Args:
        states: which states these are, for people.
        scores: (M,) rewards by name.
        label: (M,) truth: 1 for goal states and 0 for others, or any real reward.

    Returns:
        One row a reward: EPIC distance, Pearson's and Spearman's correlation, AUC; None where a
        figure is not defined, as where all states are goal states.
    """
    binary = bool(np.isin(label, (0, 1)).all())
    return [
        {
            "states": states,
            "reward": name,
            "count": len(label),
            "goal_share": float(label.mean()) if binary and len(label) else None,
            "epic": value_or_none(epic_distance, values, label),
            "pearson": value_or_none(pearson, values, label),
            "spearman": value_or_none(spearman, values, label),
            "auc": value_or_none(auc, values, label) if binary else None,
        }
        for name, values in scores.items()
    ]


def value_order(record: Record) -> list[dict[str, Any]]:
    """Return the value-order correlation (VOC) of each reward, and of the ground truth.

    VOC is the rank correlation of a reward with time within an episode: 1 where it rises all the
    way, 0 where it knows nothing of progress. Episodes in which the reward is constant have none.

    Args:
        record: of one policy.

    Returns:
        One row a reward: its mean over episodes, with a 95 % interval, or None.

    Source: Ma et al., Vision Language Models are In-Context Value Learners, ICLR 2025, section 3.
    """
    rows = []
    for name, values in {**record.scores, TRUTH: record.truth}.items():
        found = [
            value_or_none(spearman, values[rows_of], record.step[rows_of])
            for rows_of in record.episodes()
        ]
        known = [value for value in found if value is not None]
        voc = vars(student(known, -1, 1)) if known else None
        rows.append({"reward": name, "voc": voc, "constant_episodes": len(found) - len(known)})
    return rows


def pooled(policies: Sequence[Policy]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return scores by name and labels of the states that any of the policies visits.

    Args:
        policies: at least one; all with the same scores.

    Returns:
        (M,) scores by name, and (M,) labels.
    """
    records = [policy.record for policy in policies]
    scores = {
        name: np.concatenate([record.scores[name] for record in records])
        for name in records[0].scores
    }
    return scores, np.concatenate([record.label for record in records])


def _returns(policy: Policy, name: str | None) -> np.ndarray:
    """Return the (E,) returns of one reward, some perhaps NaN; None: of the ground truth."""
    record = policy.record
    return record.returns(record.truth if name is None else record.scores[name])


def _known(policy: Policy, name: str | None) -> np.ndarray:
    """Return the returns of the episodes that have states."""
    values = _returns(policy, name)
    return values[np.isfinite(values)]


def _mean(policy: Policy, name: str | None) -> float:
    """Return the mean return; NaN where no episode has a state."""
    values = _known(policy, name)
    return float(values.mean()) if len(values) else np.nan


def _pair(before: Policy, after: Policy, name: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the returns of two policies, of the start states that both have."""
    left, right = _returns(before, name), _returns(after, name)
    count = min(len(left), len(right))
    both = np.isfinite(left[:count]) & np.isfinite(right[:count])
    return left[:count][both], right[:count][both]


def _change(pair: tuple[np.ndarray, np.ndarray]) -> float:
    return float((pair[1] - pair[0]).mean())


def _always_succeeds(policy: Policy) -> bool:
    return policy.evaluation.success_rate == 1
