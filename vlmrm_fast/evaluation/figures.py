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
        rewards: (N, P) float32, finite.
        goal: (N,) bool, which states show the goal; both kinds present.
        near: (N,) bool, which of the others are near misses; may be none.
        truth: (N,) float64, the ground-truth reward, not constant.

    Returns:
        The figures, equal to those of `metrics`, reward by reward.
    """
    # Rows are contiguous, so that sorting one does not stride through memory.
    single = np.ascontiguousarray(rewards.T, dtype=np.float32)
    values = single.astype(np.float64)
    # One sort serves all: what follows reads labels and truth in the order of the rewards.
    order = _orders(single)
    ordered = np.take_along_axis(values, order, axis=1)
    hit = goal[order]
    ranks = _sorted_ranks(ordered)
    moves = ordered[:, 0] != ordered[:, -1]
    goals = ordered[hit].reshape(len(values), -1)
    others = ordered[~hit].reshape(len(values), -1)
    truth_ranks = _sorted_ranks(np.sort(truth)[None])[0][np.argsort(np.argsort(truth))]
    with np.errstate(invalid="ignore", divide="ignore"):
        linear = _correlation(values, goal.astype(np.float64))
        margin = (_quantile(goals, 0) - _quantile(others, 1)) / values.std(axis=1)
        pearson = _correlation(values, _scaled(truth))
        spearman = _correlation(ranks, truth_ranks[order])
    undefined = np.where(moves, 0.0, np.nan)
    return Figures(
        epic=np.sqrt((1 - linear) / 2) + undefined,
        pearson=pearson + undefined,
        spearman=spearman + undefined,
        auc=_auc(ranks, hit),
        near_auc=_near_auc(ordered, hit, (goal | near)[order]) if near.any() else _nan(values),
        fpr=_fpr(goals, others),
        margin=margin + undefined,
        top=_top(ordered, hit),
        goal_mean=values[:, goal].mean(axis=1),
        near_mean=_mean(values, near),
        other_mean=_mean(values, ~(goal | near)),
    )


def _nan(values: np.ndarray) -> np.ndarray:
    return np.full(len(values), np.nan)


def _mean(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the mean reward (P,) of the marked states, NaN where there are none."""
    return values[:, kept].mean(axis=1) if kept.any() else _nan(values)


def _orders(values: np.ndarray) -> np.ndarray:
    """Return the order (P, N) that sorts each row of (P, N) float32.

    A number and its place are packed into 64 bits, which numpy sorts with vector instructions: a
    third of argsort's time.
    """
    # Adding zero makes -0 equal to 0, as comparing does.
    bits = (values + np.float32(0)).view(np.uint32)
    sign = np.uint32(1 << 31)
    keys = np.where(bits & sign, ~bits, bits | sign).astype(np.uint64)
    packed = keys << np.uint64(32) | np.arange(values.shape[1], dtype=np.uint64)
    packed.sort(axis=1)
    return (packed & np.uint64(0xFFFFFFFF)).astype(np.intp)


def _sorted_ranks(ordered: np.ndarray) -> np.ndarray:
    """Return ranks from 1 of sorted rows (P, N), equal values sharing their mean rank."""
    width = ordered.shape[1]
    ranks = np.tile(np.arange(1.0, width + 1), (len(ordered), 1))
    same = ordered[:, 1:] == ordered[:, :-1]
    for row in np.flatnonzero(same.any(axis=1)):
        starts = np.flatnonzero(np.r_[True, ~same[row]])
        lengths = np.diff(np.r_[starts, width])
        ranks[row] = np.repeat(starts + (lengths + 1) / 2, lengths)
    return ranks


def _scaled(truth: np.ndarray) -> np.ndarray:
    """Return a series with mean 0 and 1 as its largest number, whatever the series' own scale."""
    # Divided first, as in `metrics`: squares of huge or tiny numbers leave the range of float64.
    centred = truth / np.abs(truth).max()
    centred -= centred.mean()
    return centred / np.abs(centred).max()


def _correlation(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation (P,) of rows (P, N) with a series (N,) or with rows."""
    centred = values - values.mean(axis=1, keepdims=True)
    target = truth - truth.mean(axis=-1, keepdims=True)
    products = centred @ target if truth.ndim == 1 else np.einsum("pn,pn->p", centred, target)
    norms = np.sqrt(np.einsum("pn,pn->p", centred, centred)) * np.linalg.norm(target, axis=-1)
    return np.clip(products / norms, -1, 1)


def _auc(ranks: np.ndarray, hit: np.ndarray) -> np.ndarray:
    positives = int(hit[0].sum())
    wins = np.einsum("pn,pn->p", ranks, hit) - positives * (positives + 1) / 2
    return wins / (positives * (hit.shape[1] - positives))


def _near_auc(ordered: np.ndarray, hit: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Return `_auc` of the states marked in `close` alone; sorted rows stay sorted."""
    shape = len(ordered), -1
    return _auc(_sorted_ranks(ordered[close].reshape(shape)), hit[close].reshape(shape))


def _fpr(goals: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the false-positive rate; rows are sorted."""
    positives = goals.shape[1]
    needed = max(1, int(np.ceil(RECALL * positives - 1e-9)))
    return (others >= goals[:, positives - needed, None]).mean(axis=1)


def _quantile(ordered: np.ndarray, which: int) -> np.ndarray:
    """Return a quantile (P,) of sorted rows, with linear interpolation, as numpy's."""
    place = MARGIN_QUANTILES[which] * (ordered.shape[1] - 1)
    low = int(place)
    high = min(low + 1, ordered.shape[1] - 1)
    return ordered[:, low] + (place - low) * (ordered[:, high] - ordered[:, low])


def _top(ordered: np.ndarray, hit: np.ndarray) -> np.ndarray:
    place = ordered.shape[1] - -(-int(hit[0].sum()) // 2)
    best = ordered >= ordered[:, place, None]
    return (best & hit).sum(axis=1) / best.sum(axis=1)
