"""The plots of a report card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.evaluation.policies import pooled
from vlmrm_fast.evaluation.recording import JUDGE, OWN, Policy

if TYPE_CHECKING:
    from vlmrm_fast.evaluation.card import Card

_VLM, _TRUTH, _JUDGE = "tab:blue", "tab:orange", "tab:green"


def plot_curve(card: Card) -> Any:
    """Plot VLM reward and success over training, and the evaluated checkpoints.

    Args:
        card: what to show.

    Returns:
        A matplotlib `Figure`.
    """
    figure = _figure(10, 3.8)
    left = figure.subplots()
    left.set(xlabel="environment steps", ylabel="VLM reward (mean)")
    left.yaxis.label.set_color(_VLM)
    points = [(r["step"], r["vlm_reward_mean"]) for r in card.curve if "vlm_reward_mean" in r]
    if points:
        left.plot(*zip(*points, strict=True), color=_VLM)
    right = left.twinx()
    known = all(policy["success"] is not None for policy in card.report["policies"])
    column = "success_rate" if known else "ground_truth_return"
    points = [(r["step"], r[column]) for r in card.curve if column in r]
    if points:
        right.plot(*zip(*points, strict=True), color=_TRUTH, linewidth=0.8, alpha=0.6)
    for row in card.report["policies"]:
        if row["step"] is not None:
            share = row["success" if known else "ground_truth_return"]
            if share is not None:
                _dot(right, row["step"], share)
    right.set_ylabel("success rate" if known else "ground-truth return")
    if known:
        right.set_ylim(-0.03, 1.03)
    right.yaxis.label.set_color(_TRUTH)
    return figure


def plot_rewards(card: Card) -> Any:
    """Plot how rewards are spread over goal states and others.

    Args:
        card: what to show.

    Returns:
        A matplotlib `Figure`: the newest policy on the left, all policies on the right.
    """
    every = [*card.policies, *([card.random] if card.random else [])]
    edges = np.histogram_bin_edges(pooled(every)[0][OWN], 40)
    figure = _figure(10, 3.2)
    for axes, policies, title in zip(
        figure.subplots(1, 2, sharex=True),
        ([card.newest], every),
        (f"{card.newest.name}", f"all {len(every)} policies"),
        strict=True,
    ):
        _spread(axes, policies, edges)
        axes.set(title=title, xlabel="VLM reward of a state", ylabel="states")
    return figure


def plot_episode(card: Card) -> Any:
    """Plot rewards over the steps of an episode: median and middle half of all episodes.

    Args:
        card: what to show.

    Returns:
        A matplotlib `Figure`.
    """
    record = card.newest.record
    names = [name for name in (OWN, JUDGE) if name in record.scores]
    figure = _figure(10, 2.8 * len(names))
    steps = np.unique(record.step)
    truth = [record.label[record.step == step].mean() for step in steps]
    # Rewards of two models have levels of their own: each gets its axes.
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        color = _VLM if name == OWN else _JUDGE
        values = [record.scores[name][record.step == step] for step in steps]
        bands = [np.quantile(v, (0.25, 0.5, 0.75)) for v in values]
        low, middle, high = np.array(bands).reshape(-1, 3).T
        axes.plot(steps, middle, color=color)
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        whose = "VLM reward" if name == OWN else "judge's reward"
        axes.set(xlabel="step of the episode", ylabel=whose)
        other = axes.twinx()
        other.plot(steps, truth, color=_TRUTH, linewidth=0.8)
        known = record.success is not None
        other.set_ylabel("share of goal states" if known else "ground-truth reward")
        other.yaxis.label.set_color(_TRUTH)
        if known:
            other.set_ylim(-0.03, 1.03)
    return figure


def plot_policies(card: Card) -> Any:
    """Plot ground-truth returns over VLM returns, one dot a policy.

    Args:
        card: what to show.

    Returns:
        A matplotlib `Figure`; with a judge, its returns in a second plot.
    """
    every = card.report["policies"]
    names = [name for name in (OWN, JUDGE) if name in every[0]["returns"]]
    # Of a policy whose episodes have no states there is nothing to show.
    rows = [row for row in every if row["ground_truth_return"] is not None]
    figure = _figure(5.5 * len(names), 3.8)
    trained = [row for row in rows if row["step"] is not None]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for row in rows:
            if row["step"] is None:
                place = row["returns"][name]["mean"], row["ground_truth_return"]["mean"]
                axes.plot(*place, "x", color="black", label=row["name"])
        dots = axes.scatter(
            [row["returns"][name]["mean"] for row in trained],
            [row["ground_truth_return"]["mean"] for row in trained],
            c=[row["step"] for row in trained],
            cmap="viridis",
        )
        figure.colorbar(dots, ax=axes, label="environment steps")
        whose = "VLM" if name == OWN else "judge's"
        axes.set(xlabel=f"{whose} return of an episode", ylabel="ground-truth return")
        if any(row["step"] is None for row in rows):
            axes.legend(loc="best", fontsize="small")
    return figure


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _dot(axes: Any, step: int, share: Any) -> None:
    """Draw an estimate with its interval."""
    low = share["mean"] if share["low"] is None else share["low"]
    high = share["mean"] if share["high"] is None else share["high"]
    # At 0 and at 1 an end of the interval is the estimate itself, up to rounding.
    spread = np.maximum([[share["mean"] - low], [high - share["mean"]]], 0)
    look = {"fmt": "o", "color": _TRUTH, "capsize": 3, "clip_on": False}
    axes.errorbar([step], [share["mean"]], yerr=spread, **look)


def _spread(axes: Any, policies: list[Policy], edges: np.ndarray) -> None:
    """Draw histograms of rewards by class."""
    own = pooled(policies)[0][OWN]
    if any(policy.record.success is None for policy in policies):
        axes.hist(own, edges, color=_VLM)
        return
    success = np.concatenate([np.asarray(policy.record.success) for policy in policies])
    for kind, color, label in ((True, _TRUTH, "goal states"), (False, "0.5", "other states")):
        axes.hist(own[success == kind], edges, color=color, alpha=0.6, label=label)
    axes.legend(fontsize="small")
