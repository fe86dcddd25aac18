"""How well a reward tells goal states from others: distances, correlations and error rates.

Every function takes one reward a state and the truth of the same states, in any numeric dtype, and
computes in float64. Where a figure is not defined it raises instead of returning NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vlmrm_fast.errors import ArgumentError

# Quantiles that `margin` compares: a tenth of each class may lie on the wrong side.
MARGIN_QUANTILES = (0.1, 0.9)


def epic_distance(reward: ArrayLike, truth: ArrayLike) -> float:
    """Return the EPIC distance of two rewards of states: sqrt((1 - rho) / 2).

    rho is Pearson's correlation over the given states, so scale and offset do not matter.

    Args:
        reward: (N,) finite numbers, not all equal.
        truth: (N,) finite numbers or booleans, not all equal.

    Returns:
        0 (the same ordering and spacing) ... 1 (reversed); 0.707 for unrelated rewards.

    Raises:
        ArgumentError: as `pearson`.

    Source:
        Gleave et al., ICLR 2021, Definition 4.6; for rewards of a state alone, Rocamonde et al.,
        ICLR 2024, appendix A.
    """
    return float(np.sqrt((1 - pearson(reward, truth)) / 2))


def pearson(reward: ArrayLike, truth: ArrayLike) -> float:
    """Return Pearson's correlation: the mean product of the standardised series.

    Args:
        reward: (N,) finite numbers, not all equal.
        truth: (N,) finite numbers or booleans, not all equal.

    Returns:
        The correlation, in [-1, 1].

    Raises:
        ArgumentError: a series is empty, not 1-d, not finite or constant, or their lengths differ.
    """
    left, right = _standardised("reward", reward), _standardised("truth", truth)
    _check_lengths("truth", left, right)
    return float(np.clip(left @ right, -1, 1))


def spearman(reward: ArrayLike, truth: ArrayLike) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, equal values sharing their mean rank.

    Args:
        reward: (N,) finite numbers, not all equal.
        truth: (N,) finite numbers or booleans, not all equal.

    Returns:
        The correlation, in [-1, 1].

    Raises:
        ArgumentError: as `pearson`.
    """
    left, right = _checked("reward", reward), _checked("truth", truth)
    _check_lengths("truth", left, right)
    _standardised("reward", left), _standardised("truth", right)
    return pearson(_ranks(left), _ranks(right))


def auc(reward: ArrayLike, label: ArrayLike) -> float:
    """Return the chance that a goal state's reward exceeds another's, ties counted half.

    Args:
        reward: (N,) finite numbers.
        label: (N,) booleans or 0 and 1, both classes present.

    Returns:
        The area under the ROC curve, in [0, 1]; 0.5 is chance.

    Raises:
        ArgumentError: `reward` is empty, not 1-d or not finite; `label` has another length, other
            values, or one class only.
    """
    values, goal = _classes(reward, label)
    positives = int(goal.sum())
    wins = _ranks(values)[goal].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * (len(goal) - positives)))


def fpr_at_recall(reward: ArrayLike, label: ArrayLike, recall: float = 0.95) -> float:
    """Return the share of other states that pass the threshold which `recall` of the goals pass.

    The threshold is the highest reward that at least `recall` of the goal states reach; states with
    exactly that reward pass.

    Args:
        reward: (N,) finite numbers.
        label: (N,) booleans or 0 and 1, both classes present.
        recall: share of goal states that must pass, above 0, at most 1.

    Returns:
        The false-positive rate, in [0, 1]; a constant reward gives 1.

    Raises:
        ArgumentError: as `auc`, or `recall` is out of range.
    """
    if not 0 < recall <= 1:
        raise ArgumentError(f"recall must be above 0 and at most 1, got {recall!r}.")
    values, goal = _classes(reward, label)
    descending = np.sort(values[goal])[::-1]
    # Less a rounding error: 0.95 * 20 is not above 19 in exact arithmetic.
    needed = max(1, int(np.ceil(recall * len(descending) - 1e-9)))
    return float((values[~goal] >= descending[needed - 1]).mean())


def margin(reward: ArrayLike, label: ArrayLike) -> float:
    """Return the gap between the classes' tails: (q10 of goals - q90 of others) / std of all.

    Above 0, nine in ten goal states beat nine in ten others; the deviation makes prompts, alphas
    and models comparable, whose rewards differ in scale. Quantiles interpolate linearly.

    Args:
        reward: (N,) finite numbers, not all equal.
        label: (N,) booleans or 0 and 1, both classes present.

    Returns:
        The margin [standard deviations].

    Raises:
        ArgumentError: as `auc`, or `reward` is constant.
    """
    values, goal = _classes(reward, label)
    _standardised("reward", values)
    scaled = values / np.abs(values).max()
    low = np.quantile(scaled[goal], MARGIN_QUANTILES[0])
    high = np.quantile(scaled[~goal], MARGIN_QUANTILES[1])
    return float((low - high) / scaled.std())


def top_precision(reward: ArrayLike, label: ArrayLike) -> float:
    """Return the share of goal states among the best-rewarded: what an optimiser would find.

    The best are as many as half the goal states, rounded up, and all that tie with the last.

    Args:
        reward: (N,) finite numbers.
        label: (N,) booleans or 0 and 1, both classes present.

    Returns:
        The precision, in [0, 1]; a constant reward gives the share of goal states.

    Raises:
        ArgumentError: as `auc`.
    """
    values, goal = _classes(reward, label)
    least = np.sort(values)[::-1][-(-int(goal.sum()) // 2) - 1]
    return float(goal[values >= least].mean())


def _checked(name: str, series: ArrayLike) -> np.ndarray:
    """Return a (N,) float64 series, N > 0, all finite."""
    values = np.asarray(series)
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise ArgumentError(f"{name} must be (N,) numbers, got {values.shape} {values.dtype}.")
    if not len(values):
        raise ArgumentError(f"{name} must hold at least one state, got none.")
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ArgumentError(
            f"{name} must be finite, got {values[bad[0]]} at state {bad[0]} "
            f"({len(bad)} of {len(values)} states)."
        )
    return values


def _standardised(name: str, series: ArrayLike) -> np.ndarray:
    """Return a checked series with mean 0 and length 1."""
    values = _checked(name, series)
    if values.min() == values.max():
        raise ArgumentError(
            f"{name} must differ between states, got {values[0]:g} for all {len(values)}. "
            "A correlation with a constant is not defined."
        )
    # Divided first: squares of huge or tiny numbers leave the range of float64.
    centred = values / np.abs(values).max()
    centred -= centred.mean()
    centred /= np.abs(centred).max()
    return centred / np.linalg.norm(centred)


def _check_lengths(name: str, left: np.ndarray, right: np.ndarray) -> None:
    if len(left) != len(right):
        raise ArgumentError(
            f"{name} must be as long as reward, {len(left)} states, got {len(right)}."
        )


def _classes(reward: ArrayLike, label: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) float64 rewards and (N,) bool labels with both classes."""
    values, marks = _checked("reward", reward), _checked("label", label)
    _check_lengths("label", values, marks)
    if not np.isin(marks, (0, 1)).all():
        other = marks[~np.isin(marks, (0, 1))][0]
        raise ArgumentError(f"label must be booleans or 0 and 1, got {other:g}.")
    goal = marks == 1
    if goal.all() or not goal.any():
        only = "goal states" if goal.all() else "other states"
        raise ArgumentError(
            f"label must hold goal states and others, got {len(goal)} {only} only. "
            "Add states of the other class."
        )
    return values, goal


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return (N,) float64 ranks from 1, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
