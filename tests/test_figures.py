import math
from dataclasses import replace

import numpy as np
import pytest

from vlmrm_fast.evaluation import metrics
from vlmrm_fast.evaluation.figures import compute_figures
from vlmrm_fast.evaluation.verdict import (
    Row,
    choose,
    find_reasons,
    rank_rows,
    verdict_lines,
)

GOOD = Row(
    "kneeling", None, 0.0, "m", "task", False,
    epic=0.3, pearson=0.8, spearman=0.7, auc=0.97, near_auc=0.9, fpr=0.1, margin=0.5, top=0.95,
    goal_mean=0.4, near_mean=0.1, other_mean=-0.2,
)  # fmt: skip


@pytest.mark.parametrize("decimals", [12, 1, 0])
def test_figures_of_many_rewards_equal_those_of_each(decimals):
    rng = np.random.default_rng(decimals)
    goal = rng.random(123) < 0.3
    near = (rng.random(123) < 0.4) & ~goal
    truth = goal + rng.normal(size=123).round(1)
    rewards = (rng.normal(size=(123, 5)) + np.outer(goal, rng.random(5))).round(decimals)
    found = compute_figures(rewards.astype(np.float32), goal, near, truth)
    close = goal | near
    for column in range(5):
        r = rewards[:, column].astype(np.float32)
        expected = {
            "epic": metrics.epic_distance(r, goal),
            "pearson": metrics.pearson(r, truth),
            "spearman": metrics.spearman(r, truth),
            "auc": metrics.auc(r, goal),
            "near_auc": metrics.auc(r[close], goal[close]),
            "fpr": metrics.fpr_at_recall(r, goal),
            "margin": metrics.margin(r, goal),
            "top": metrics.top_precision(r, goal),
            "goal_mean": r[goal].astype(np.float64).mean(),
            "near_mean": r[near].astype(np.float64).mean(),
            "other_mean": r[~close].astype(np.float64).mean(),
        }
        for name, value in expected.items():
            assert getattr(found, name)[column] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e200, 1e308])
def test_the_scale_of_the_truth_does_not_matter(scale):
    rng = np.random.default_rng(0)
    goal, truth = rng.random(50) < 0.5, rng.uniform(-1, 1, 50)
    rewards = (truth + rng.normal(size=50))[:, None].astype(np.float32)
    found = compute_figures(rewards, goal, np.zeros(50, bool), truth * scale)
    plain = metrics.pearson(rewards[:, 0], truth)
    assert 0.3 < plain < 0.7
    assert found.pearson[0] == pytest.approx(plain, abs=1e-9)
    assert found.spearman[0] == pytest.approx(metrics.spearman(rewards[:, 0], truth), abs=1e-9)


def test_undefined_figures_are_nan_and_the_others_stand():
    goal = np.array([True, False, True, False])
    rewards = np.stack([np.ones(4), [3.0, 1.0, 4.0, 2.0]], axis=1)
    found = compute_figures(rewards, goal, np.zeros(4, bool), goal.astype(float))
    assert np.isnan(found.epic).tolist() == [True, False]
    assert np.isnan(found.near_auc).all()
    assert found.auc.tolist() == [0.5, 1.0]
    assert found.fpr.tolist() == [1.0, 0.0]
    assert found.top.tolist() == [0.5, 1.0]


def test_top_precision_counts_goals_among_the_best_half_as_many_as_there_are_goals():
    label = [1, 1, 1, 1, 0, 0]
    assert metrics.top_precision([1.0, 2.0, 3.0, 9.0, 8.0, 0.0], label) == 0.5
    # Ties with the last of them count too.
    assert metrics.top_precision([8.0, 8.0, 3.0, 9.0, 8.0, 0.0], label) == 0.75


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epic": 0.46}, "EPIC distance 0.46 is above 0.45"),
        ({"auc": 0.89}, "AUC 0.89 is below 0.90"),
        ({"near_auc": 0.5}, "AUC against near misses 0.50 is below 0.80"),
        ({"fpr": 0.4}, "40% of other states pass where 95% of goals do, more than 30%"),
        ({"top": 0.8}, "80% of the best-rewarded states are goals, less than 90%"),
        ({"epic": math.nan}, "the reward is the same for all states"),
    ],
)
def test_each_missed_bound_is_a_reason_not_to_train(change, reason):
    assert find_reasons(GOOD, 50, 50) == ()
    assert find_reasons(replace(GOOD, **change), 50, 50) == (reason,)


def test_sets_without_near_misses_are_judged_by_the_other_bounds():
    assert find_reasons(replace(GOOD, near_auc=math.nan), 50, 50) == ()


def test_too_few_states_are_a_reason_not_to_train():
    assert find_reasons(GOOD, 19, 50) == ("only 19 goal states, too few to tell (least 20)",)
    assert find_reasons(GOOD, 50, 3) == ("only 3 other states, too few to tell (least 20)",)


def test_rows_are_ranked_in_the_direction_of_each_figure():
    low, high = replace(GOOD, epic=0.1, auc=0.1), replace(GOOD, epic=0.9, auc=0.9)
    undefined = replace(GOOD, epic=math.nan, auc=math.nan)
    assert rank_rows([undefined, high, low], "epic") == [low, high, undefined]
    assert rank_rows([undefined, low, high], "auc") == [high, low, undefined]


def test_the_verdict_names_the_best_row_that_passes_or_why_none_does():
    bad = replace(GOOD, goal="soup", epic=0.2, reasons=("AUC 0.10 is below 0.90",))
    own = replace(GOOD, goal="own", epic=0.4, reference=True, reasons=("EPIC",))
    assert choose([bad, GOOD, own]) is GOOD
    lines = verdict_lines([bad, GOOD, own])
    assert lines[0] == 'GO: "kneeling", alpha 0, model m, camera task'
    assert lines[-1] == "The task's own prompt has EPIC distance 0.40 at best."
    # Whatever the rows are sorted by, "at best" is the smallest distance.
    better = replace(own, epic=0.31)
    undefined = replace(own, epic=math.nan)
    last = verdict_lines([undefined, GOOD, own, better])[-1]
    assert last == "The task's own prompt has EPIC distance 0.31 at best."
    assert verdict_lines([bad])[:2] == [
        'NO GO: "soup", alpha 0, model m, camera task',
        "- AUC 0.10 is below 0.90",
    ]
