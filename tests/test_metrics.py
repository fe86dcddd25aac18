import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluation.metrics import (
    auc,
    epic_distance,
    fpr_at_recall,
    margin,
    pearson,
    spearman,
)

ALL = (epic_distance, pearson, spearman, auc, fpr_at_recall, margin)
CORRELATIONS = (epic_distance, pearson, spearman)
LABELLED = (auc, fpr_at_recall, margin)


def plain_pearson(left, right):
    """The textbook's sums, in plain Python."""
    n = len(left)
    a, b = math.fsum(left) / n, math.fsum(right) / n
    products = math.fsum((x - a) * (y - b) for x, y in zip(left, right, strict=True))
    squares = math.fsum((x - a) ** 2 for x in left) * math.fsum((y - b) ** 2 for y in right)
    return products / math.sqrt(squares)


def canonical_epic(reward, truth, gamma=0.9):
    """Gleave's definition with its shaping, for rewards of the state alone.

    C(r)(s, s') = r(s) + E[gamma r(S') - r(S) - gamma r(S')], S and S' from the given states: what
    the shaping leaves is r less its mean, and the distance is that of the canonical rewards.
    """

    def canonical(r):
        mean = math.fsum(r) / len(r)
        return [x + gamma * mean - mean - gamma * mean for x in r]

    a, b = canonical(reward), canonical(truth)
    norm_a, norm_b = (math.sqrt(math.fsum(x * x for x in c)) for c in (a, b))
    # Half the distance of the normalised rewards: |a/|a| - b/|b|| / 2.
    gap = math.fsum((x / norm_a - y / norm_b) ** 2 for x, y in zip(a, b, strict=True))
    return math.sqrt(gap) / 2


def plain_auc(reward, label):
    pairs = [(g, o) for g, a in zip(reward, label, strict=True) if a
             for o, b in zip(reward, label, strict=True) if not b]  # fmt: skip
    return sum((g > o) + 0.5 * (g == o) for g, o in pairs) / len(pairs)


def plain_fpr(reward, label, recall):
    """Try every reward as the threshold and keep the highest with enough recall."""
    goals = [r for r, a in zip(reward, label, strict=True) if a]
    others = [r for r, a in zip(reward, label, strict=True) if not a]
    fit = [t for t in reward if sum(g >= t for g in goals) >= recall * len(goals) - 1e-9]
    return sum(o >= max(fit) for o in others) / len(others)


@pytest.fixture(params=["spread", "ties"])
def data(request):
    rng = np.random.default_rng(3)
    label = rng.random(123) < 0.3
    reward = rng.normal(size=123) + label
    return (reward if request.param == "spread" else np.round(reward)), label


def test_epic_distance_equals_its_definition_with_canonical_rewards(data):
    reward, label = data
    expected = canonical_epic(reward.tolist(), label.astype(float).tolist())
    assert epic_distance(reward, label) == pytest.approx(expected, abs=1e-12)
    rho = plain_pearson(reward.tolist(), label.astype(float).tolist())
    assert epic_distance(reward, label) == pytest.approx(math.sqrt((1 - rho) / 2), abs=1e-12)


def test_epic_distance_is_zero_for_a_scaled_reward_and_one_for_a_reversed_one():
    truth = np.array([0.0, 1.0, 0.0, 2.0])
    assert epic_distance(3 * truth + 7, truth) == pytest.approx(0, abs=1e-7)
    assert epic_distance(-truth, truth) == pytest.approx(1, abs=1e-12)


def test_correlations_equal_scipy(data):
    stats = pytest.importorskip("scipy.stats")
    reward, _ = data
    truth = np.round(np.random.default_rng(4).normal(size=len(reward)) + reward, 1)
    assert pearson(reward, truth) == pytest.approx(stats.pearsonr(reward, truth)[0], abs=1e-12)
    assert spearman(reward, truth) == pytest.approx(stats.spearmanr(reward, truth)[0], abs=1e-12)


def test_auc_equals_counting_all_pairs(data):
    reward, label = data
    assert auc(reward, label) == pytest.approx(plain_auc(reward, label), abs=1e-12)
    assert auc(reward, 1 - label.astype(int)) == pytest.approx(1 - auc(reward, label), abs=1e-12)


@pytest.mark.parametrize("recall", [0.5, 0.95, 1.0])
def test_false_positive_rate_equals_trying_every_threshold(data, recall):
    reward, label = data
    assert fpr_at_recall(reward, label, recall) == plain_fpr(reward, label, recall)


def test_false_positive_rate_asks_for_nineteen_of_twenty_goals():
    reward = np.r_[0.0, np.full(19, 2.0), 1.0, 3.0]
    label = np.r_[np.ones(20), np.zeros(2)]
    assert fpr_at_recall(reward, label, 0.95) == 0.5
    assert fpr_at_recall(reward, label, 1.0) == 1.0


def test_a_constant_reward_has_chance_auc_and_lets_everything_pass():
    label = [True, False, False]
    assert auc([1.0, 1.0, 1.0], label) == 0.5
    assert fpr_at_recall([1.0, 1.0, 1.0], label) == 1.0


def test_margin_is_the_gap_of_the_tails_in_standard_deviations():
    reward = np.r_[np.linspace(10, 20, 11), np.linspace(0, 5, 11)]
    label = np.r_[np.ones(11), np.zeros(11)]
    assert margin(reward, label) == pytest.approx((11 - 4.5) / reward.std())
    assert margin(100 * reward - 7, label) == pytest.approx(margin(reward, label))
    assert margin(reward, 1 - label) < 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=2, max_size=40),
    st.sampled_from([1e-150, 1.0, 1e250]),
)
def test_figures_stay_in_their_ranges(pairs, scale):
    reward, label = np.array([p[0] for p in pairs]) * scale, np.array([p[1] for p in pairs])
    if label.all() or not label.any() or reward.min() == reward.max():
        return
    assert 0 <= epic_distance(reward, label) <= 1
    assert -1 <= spearman(reward, label) <= 1
    assert 0 <= auc(reward, label) <= 1
    assert 0 <= fpr_at_recall(reward, label) <= 1
    assert np.isfinite(margin(reward, label))


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rewards_that_are_not_finite_are_named(metric, bad):
    with pytest.raises(ArgumentError, match=r"reward must be finite, got .* at state 1 \(1 of 3"):
        metric([0.0, bad, 1.0], [1, 0, 1])


@pytest.mark.parametrize("metric", ALL)
def test_empty_series_are_refused(metric):
    with pytest.raises(ArgumentError, match="reward must hold at least one state, got none"):
        metric(np.zeros(0), np.zeros(0))


@pytest.mark.parametrize("metric", ALL)
def test_series_of_other_lengths_and_shapes_are_refused(metric):
    with pytest.raises(ArgumentError, match="must be as long as reward, 3 states, got 2"):
        metric([0.0, 1.0, 2.0], [1, 0])
    with pytest.raises(ArgumentError, match=r"reward must be \(N,\) numbers, got \(2, 2\)"):
        metric(np.eye(2), [1, 0])


@pytest.mark.parametrize("metric", LABELLED)
def test_labels_of_one_class_are_refused(metric):
    with pytest.raises(ArgumentError, match="goal states and others, got 3 goal states only"):
        metric([0.0, 1.0, 2.0], [1, 1, 1])
    with pytest.raises(ArgumentError, match="got 3 other states only"):
        metric([0.0, 1.0, 2.0], np.zeros(3, bool))
    with pytest.raises(ArgumentError, match="booleans or 0 and 1, got 2"):
        metric([0.0, 1.0, 2.0], [0, 1, 2])


@pytest.mark.parametrize("metric", [*CORRELATIONS, margin])
def test_a_constant_reward_is_refused_where_the_figure_is_undefined(metric):
    with pytest.raises(ArgumentError, match="reward must differ between states, got 2 for all 3"):
        metric([2.0, 2.0, 2.0], [1, 0, 1])


@pytest.mark.parametrize("metric", CORRELATIONS)
def test_a_constant_truth_is_refused(metric):
    with pytest.raises(ArgumentError, match="truth must differ between states, got 0 for all 3"):
        metric([2.0, 1.0, 2.0], [0, 0, 0])


def test_a_recall_out_of_range_is_refused():
    with pytest.raises(ArgumentError, match="recall must be above 0 and at most 1, got 0"):
        fpr_at_recall([0.0, 1.0], [0, 1], 0)
