"""Intervals and rank correlations of few numbers, without scipy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vlmrm_fast.errors import ArgumentError

# Two-sided 95 % of the normal distribution.
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        mean: the estimate.
        low: lower end; None where one number alone tells no spread.
        high: upper end, likewise.
        count: how many numbers it comes from.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


def wilson(successes: int, trials: int) -> Interval:
    """Return a share with Wilson's score interval, which holds for few trials and for 0 and 1.

    Args:
        successes: 0 ... trials.
        trials: at least 1.

    Returns:
        successes / trials with its 95 % interval, inside [0, 1].

    Raises:
        ArgumentError: the counts are out of range.

    Source: Wilson, Journal of the American Statistical Association 22 (1927).
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ArgumentError(f"successes must be 0 ... trials, got {successes} of {trials}.")
    share, z2 = successes / trials, NORMAL_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    half = NORMAL_95 * spread / (1 + z2 / trials)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), trials)


def student(values: ArrayLike, low: float = -math.inf, high: float = math.inf) -> Interval:
    """Return a mean with Student's t interval, honest for the few seeds that studies have.

    Args:
        values: (n,) independent finite numbers, n at least 1.
        low: what the quantity cannot go below.
        high: what it cannot go above.

    Returns:
        The mean with its 95 % interval, cut to [low, high]; one number has none.

    Raises:
        ArgumentError: there are no numbers, or one is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ArgumentError(f"values must be finite numbers, at least one, got {numbers}.")
    mean, count = float(numbers.mean()), len(numbers)
    if count == 1:
        return Interval(mean, None, None, 1)
    half = t_quantile(count - 1) * float(numbers.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, max(low, mean - half), min(high, mean + half), count)


@functools.lru_cache
def t_quantile(degrees: int, probability: float = 0.975) -> float:
    """Return a quantile of Student's t distribution.

    Args:
        degrees: degrees of freedom, at least 1.
        probability: above 0.5, below 1.

    Returns:
        The quantile, to about 1e-9.
    """
    # t = tan(angle) sqrt(degrees): the density becomes cos(angle)^(degrees - 1), which is smooth
    # on a finite interval, so that Gauss-Legendre integrates it to the last digits.
    norm = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def beyond_median(angle: float) -> float:
        points = angle * (nodes + 1) / 2
        return norm * angle / 2 * float(weights @ np.cos(points) ** (degrees - 1))

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if beyond_median(middle) < probability - 0.5:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(degrees)


def kendall(left: ArrayLike, right: ArrayLike) -> float:
    """Return Kendall's tau-b: agreement of the order of all pairs, ties taken out of the norm.

    Args:
        left: (n,) finite numbers, not all equal, n at least 2.
        right: (n,) likewise.

    Returns:
        -1 ... 1.

    Raises:
        ArgumentError: lengths differ, or a series is too short, constant or not finite.

    Source: Kendall, Biometrika 33 (1945).
    """
    series = [np.asarray(values, dtype=np.float64) for values in (left, right)]
    if len(series[0]) != len(series[1]) or len(series[0]) < 2:
        raise ArgumentError(
            f"left and right must have one length of at least 2, got {len(series[0])} and "
            f"{len(series[1])}."
        )
    signs = []
    for values in series:
        if not np.isfinite(values).all() or values.min() == values.max():
            raise ArgumentError(f"values must be finite and not all equal, got {values}.")
        signs.append(np.sign(values[:, None] - values[None, :]))
    return float(
        (signs[0] * signs[1]).sum() / math.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum())
    )


def rises(before: np.ndarray, after: np.ndarray) -> bool:
    """Say whether paired numbers rise by more than chance: mean difference > 2 standard errors.

    Args:
        before: (n,) numbers, for example returns from n start states.
        after: (n,) numbers of the same start states.

    Returns:
        True if they rise; with a single pair, whether it rises at all.
    """
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return bool(difference.mean() > max(2 * error, 1e-9))


def value_or_none(function: Callable[..., float], *arguments: ArrayLike) -> float | None:
    """Return a figure, or None where it is not defined, as for a policy that always succeeds.

    Args:
        function: one of `metrics` or of this module.
        arguments: what it takes.

    Returns:
        Its value, or None where it raises ArgumentError.
    """
    try:
        return function(*arguments)
    except ArgumentError:
        return None
