"""All figures of many rewards of the same states at once: `metrics`, a column a reward.

Ranking hundreds of prompts and strengths may not cost more than a tenth of encoding the frames
that they share (bench/test_lab.py), so each figure is computed for all rewards in one go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmrm_fast.evaluation.metrics import MARGIN_QUANTILES

RECALL = 0.95


@dataclass(frozen=True)
class Figures:
    """Figures of P rewards, each (P,) float64; NaN where one is not defined.

    Correlations and the margin of a constant reward are not, nor is anything about near misses
    where there are none.

    Attributes:
        epic: `epic_distance` to the label, 0 ... 1; smaller is better, as only here and in `fpr`.
        pearson: `pearson` with the ground-truth reward.
        spearman: `spearman` with it.
        auc: `auc` of the label.
        near_auc: `auc` over goal states and near misses alone.
        fpr: `fpr_at_recall` at `RECALL`.
        margin: `margin` of the label.
        top: `top_precision` of the label.
        goal_mean: mean reward of goal states.
        near_mean: of near misses.
        other_mean: of all other states.
    """

    epic: np.ndarray
    pearson: np.ndarray
    spearman: np.ndarray
    auc: np.ndarray
    near_auc: np.ndarray
    fpr: np.ndarray
    margin: np.ndarray
    top: np.ndarray
    goal_mean: np.ndarray
    near_mean: np.ndarray
    other_mean: np.ndarray


def compute_figures(
    rewards: np.ndarray, goal: np.ndarray, near: np.ndarray, truth: np.ndarray
) -> Figures:
    """Return the figures of P rewards of N states.

    Args:
        rewards: (N, P) finite numbers.
        goal: (N,) bool, which states show the goal; both kinds present.
        near: (N,) bool, which of the others are near misses; may be none.
        truth: (N,) float64, the ground-truth reward, not constant.

    Returns:
        The figures, equal to those of `metrics`, reward by reward.
    """
    # Rows are contiguous, so that sorting one does not stride through memory.
    values = np.ascontiguousarray(rewards.T, dtype=np.float64)
    moves = values.min(axis=1) != values.max(axis=1)
    ranks = _ranks(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        linear = np.where(moves, _correlation(values, goal.astype(np.float64)), np.nan)
        margin = np.where(moves, _margin(values, goal), np.nan)
        pearson = np.where(moves, _correlation(values, truth), np.nan)
        spearman = np.where(moves, _correlation(ranks, _ranks(truth[None])[0]), np.nan)
    close = goal | near
    near_auc = _auc(_ranks(values[:, close]), goal[close]) if near.any() else _nan(values)
    return Figures(
        epic=np.sqrt((1 - linear) / 2),
        pearson=pearson,
        spearman=spearman,
        auc=_auc(ranks, goal),
        near_auc=near_auc,
        fpr=_fpr(values, goal),
        margin=margin,
        top=_top(values, goal),
        goal_mean=values[:, goal].mean(axis=1),
        near_mean=values[:, near].mean(axis=1) if near.any() else _nan(values),
        other_mean=_others_mean(values, ~close),
    )


def _nan(values: np.ndarray) -> np.ndarray:
    return np.full(len(values), np.nan)


def _others_mean(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean reward (P,) of the marked states, NaN where there are none."""
    return values[:, other].mean(axis=1) if other.any() else _nan(values)


def _correlation(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation (P,) of rows (P, N) with a series (N,)."""
    centred = values - values.mean(axis=1, keepdims=True)
    target = truth - truth.mean()
    norms = np.sqrt((centred**2).sum(axis=1)) * np.linalg.norm(target)
    return np.clip(centred @ target / norms, -1, 1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1 within each row of (P, N), equal values sharing their mean rank."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    width = values.shape[1]
    # Where a run of equal values starts and ends, each place filled from its run's edge.
    starts = np.ones(values.shape, bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones(values.shape, bool)
    ends[:, :-1] = starts[:, 1:]
    place = np.arange(width)
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, place, width)[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def _auc(ranks: np.ndarray, goal: np.ndarray) -> np.ndarray:
    positives = int(goal.sum())
    wins = ranks[:, goal].sum(axis=1) - positives * (positives + 1) / 2
    return wins / (positives * (len(goal) - positives))


def _fpr(values: np.ndarray, goal: np.ndarray) -> np.ndarray:
    positives = int(goal.sum())
    needed = max(1, int(np.ceil(RECALL * positives - 1e-9)))
    kept = positives - needed
    threshold = np.partition(values[:, goal], kept, axis=1)[:, kept]
    return (values[:, ~goal] >= threshold[:, None]).mean(axis=1)


def _margin(values: np.ndarray, goal: np.ndarray) -> np.ndarray:
    low = np.quantile(values[:, goal], MARGIN_QUANTILES[0], axis=1)
    high = np.quantile(values[:, ~goal], MARGIN_QUANTILES[1], axis=1)
    return (low - high) / values.std(axis=1)


def _top(values: np.ndarray, goal: np.ndarray) -> np.ndarray:
    place = values.shape[1] - -(-int(goal.sum()) // 2)
    best = values >= np.partition(values, place, axis=1)[:, place, None]
    return (best & goal).sum(axis=1) / best.sum(axis=1)
