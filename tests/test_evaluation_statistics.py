"""Intervals and rank correlations against tables and independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluation.statistics import kendall, rises, student, t_quantile, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Wilson's interval without continuity correction, as published tables have it.
    [(10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (1, 1, 0.2065, 1.0)],
)
def test_wilsons_interval_is_that_of_tables(
    successes: int, trials: int, low: float, high: float
) -> None:
    interval = wilson(successes, trials)
    assert (interval.low, interval.high) == (
        pytest.approx(low, abs=5e-5),
        pytest.approx(high, abs=5e-5),
    )
    assert interval.mean == successes / trials


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (9, 2.26216), (30, 2.04227), (1000, 1.96234)],
)
def test_quantiles_of_students_t_are_those_of_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile, abs=5e-5 * max(1, quantile / 2))


def test_a_t_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        interval = student(rng.normal(3, 2, 4))
        assert interval.low is not None
        assert interval.high is not None
        inside += interval.low <= 3 <= interval.high
    # Two standard errors of 2000 trials are 1 %.
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def test_one_number_has_no_interval_and_shares_stay_shares() -> None:
    assert student([2.0]).low is None
    interval = student([1.0, 0.9], 0, 1)
    assert (interval.low, interval.high) == (pytest.approx(0.95 - 12.7062 * 0.05, abs=1e-4), 1)
    with pytest.raises(ArgumentError, match="values must be finite numbers"):
        student([])
    with pytest.raises(ArgumentError, match=r"successes must be 0 \.\.\. trials, got 3 of 2"):
        wilson(3, 2)


def test_kendall_counts_pairs_and_takes_out_ties() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, 4, 12), rng.integers(0, 5, 12)
    agree = disagree = tied_left = tied_right = 0
    for i in range(12):
        for j in range(i):
            a, b = left[i] - left[j], right[i] - right[j]
            agree += a * b > 0
            disagree += a * b < 0
            tied_left += a == 0
            tied_right += b == 0
    pairs = 12 * 11 / 2
    expected = (agree - disagree) / math.sqrt((pairs - tied_left) * (pairs - tied_right))
    assert kendall(left, right) == pytest.approx(expected)
    assert kendall([1, 2, 3], [10, 20, 30]) == 1
    for bad in ([1, 1, 1], [1, 2], [1, math.nan, 2]):
        with pytest.raises(ArgumentError):
            kendall([1, 2, 3], bad)


def test_paired_numbers_rise_only_beyond_two_standard_errors() -> None:
    before = np.array([0.0, 5.0, 10.0, 15.0])
    assert rises(before, before + np.array([1, 1.1, 0.9, 1]))
    assert not rises(before, before + np.array([4, -3, 2, -1]))
    assert not rises(before, before)
    assert rises(np.array([1.0]), np.array([2.0]))
