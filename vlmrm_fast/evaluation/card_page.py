"""A report card for people: one page, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.evaluation.card_plots import plot_curve, plot_episode, plot_policies, plot_rewards
from vlmrm_fast.evaluation.html import Page
from vlmrm_fast.evaluation.recording import JUDGE, OWN, Moment

if TYPE_CHECKING:
    from vlmrm_fast.evaluation.card import Card

# Frames of a kind on the page.
_FRAMES = 6
_TITLES = {"epic": "EPIC", "pearson": "Pearson", "spearman": "Spearman", "auc": "AUC"}
_NAMES = {OWN: "the run's own", JUDGE: "judge"}


def write_page(card: Card, path: str | Path) -> Path:
    """Write a report card as one self-contained HTML page.

    Args:
        card: what to show.
        path: the file to write.

    Returns:
        The file's path.
    """
    report = card.report
    page = Page(f"Report card: {report['task']}, seed {report['seed']}")
    page.text(
        f"{report['algorithm']}, {report['steps']:,} steps, trained by {report['model']} on "
        f'"{report["goal"]}". Run folder {report["run_dir"]}.'
    )
    _verdicts(page, report)
    page.heading("Learning curve")
    page.figure(
        plot_curve(card),
        "VLM reward while training (line) and ground truth of the evaluated checkpoints (dots with "
        "95 % intervals).",
    )
    _reward_section(page, card)
    _policy_section(page, card)
    video = card.result.run_dir / "video.mp4"
    if card.config.evaluation.video and video.is_file():
        page.heading("Video").video(video, "The newest checkpoint, with the VLM reward below.")
    page.heading("Settings")
    page.table(["setting", "value"], _settings(card))
    for note in report["notes"]:
        page.note(note)
    return page.write(path)


def card_table(report: Mapping[str, Any]) -> Any:
    """Return a report card as a table for the terminal.

    Args:
        report: the content of report.json.

    Returns:
        A `rich.table.Table`.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text("report card"), show_header=False)
    newest = report["newest"]
    lines = [
        ("success", _share(newest["success"])),
        ("ground-truth return", _interval(newest["ground_truth_return"])),
        ("VLM return", _interval(newest["returns"][OWN])),
    ]
    for row in report["state_measures"]:
        figures = [f"{title} {_number(row[name])}" for name, title in _TITLES.items()]
        lines.append((f"{_name(row['reward'])}, {row['states']}", "  ".join(figures)))
    order = report["value_order"]
    lines += [(f"VOC, {_name(row['reward'])}", _interval(row["voc"])) for row in order]
    for name, ranking in (report["ranking"] or {}).items():
        text = (
            f"Kendall {_number(ranking['kendall'])}  Spearman {_number(ranking['spearman'])}  "
            f"of {ranking['policies']} checkpoints; picks step {ranking['picked']}, "
            f"regret {ranking['regret']:.4g}"
        )
        lines.append((f"policy order, {_name(name)}", text))
    lines.append(("reward hacking", hacking_text(report["hacking"])))
    lines += [("note", note) for note in report["notes"]]
    for name, value in lines:
        table.add_row(Text(name), Text(value))
    return table


def hacking_text(hacking: Mapping[str, Any] | None) -> str:
    """Return the outcome of the check against reward hacking, in a sentence.

    Args:
        hacking: that part of report.json.

    Returns:
        The sentence.
    """
    if hacking is None:
        return "not checked: a single checkpoint"
    against = "ground truth and judge" if hacking["judge"] else "ground truth"
    if not hacking["flags"]:
        return f"no sign: the VLM return never rises alone (against {against})"
    flag = max(hacking["flags"], key=lambda flag: flag["vlm_rise"])
    change = "falls" if flag["truth_falls"] else "does not rise"
    return (
        f"FLAGGED at {len(hacking['flags'])} checkpoints; at step {flag['step']} the VLM return is "
        f"{flag['vlm_rise']:.4g} above step {flag['reference']} while {against} {change} "
        f"({flag['truth_change']:+.4g})"
    )


def _verdicts(page: Page, report: Mapping[str, Any]) -> None:
    """Say in boxes what matters: success, and whether the reward was gamed."""
    newest, hacking = report["newest"], report["hacking"]
    success = newest["success"]
    truth = f"Ground-truth return {_interval(newest['ground_truth_return'])}."
    if success is None:
        page.note(truth)
    else:
        page.note(f"Success {_share(success)}. {truth}", "good" if success["low"] > 0.5 else "bad")
    kind = "plain" if hacking is None else ("bad" if hacking["flags"] else "good")
    page.note(f"Reward hacking: {hacking_text(hacking)}.", kind)


def _reward_section(page: Page, card: Card) -> None:
    """Show how the reward and the truth of states go together."""
    report = card.report
    page.heading("Reward against ground truth, state by state")
    page.text(
        "EPIC is 0 for a reward that orders and spaces states as the ground truth does, 0.707 for "
        "an unrelated one, 1 for a reversed one. An empty cell is not defined: all states are of "
        "one class, or all rewards equal."
    )
    rows = [
        [row["states"], _name(row["reward"]), row["count"], row["goal_share"]]
        + [row[name] for name in _TITLES]
        for row in report["state_measures"]
    ]
    headers = ["states", "reward", "number", "goal states", "EPIC", "Pearson", "Spearman", "AUC"]
    page.table(headers, rows)
    page.figure(plot_rewards(card), "VLM rewards of the states that the policies visit.")
    page.heading("Value-order correlation", 3)
    page.text(
        "Rank correlation of a reward with time within an episode of the newest checkpoint: high "
        "where the reward sees progress. For a goal that is to be held, not reached, it is near 0."
    )
    page.table(
        ["reward", "VOC", "episodes without"],
        [
            [_name(row["reward"]), _interval(row["voc"]), row["constant_episodes"]]
            for row in report["value_order"]
        ],
    )
    page.figure(plot_episode(card), "Median episode of the newest checkpoint; half of all between.")
    every = [*card.policies, *([card.random] if card.random else [])]
    newest = card.newest.record
    _frames(page, "Highest-scored frame of an episode, newest checkpoint", newest.highest)
    _frames(page, "Lowest-scored frame of an episode, newest checkpoint", newest.lowest)
    wrong = [m for policy in every for m in policy.record.wrong]
    missed = [m for policy in every for m in policy.record.missed]
    _frames(page, "Scored high, yet no goal state (all policies)", wrong, -1)
    _frames(page, "Scored low, yet a goal state (all policies)", missed, 1)


def _policy_section(page: Page, card: Card) -> None:
    """Show the checkpoints side by side."""
    report = card.report
    page.heading("Policies")
    names = list(report["policies"][0]["returns"])
    headers = ["policy", "success", "ground-truth return", *(f"return: {_name(n)}" for n in names)]
    page.table(
        headers,
        [
            [row["name"], _share(row["success"]), _interval(row["ground_truth_return"])]
            + [_interval(row["returns"][name]) for name in names]
            for row in report["policies"]
        ],
    )
    page.figure(plot_policies(card), "One dot a policy; the order from left to right is the VLM's.")
    if report["ranking"]:
        rows = [{"order by": _name(name), **row} for name, row in report["ranking"].items()]
        names = ["policies", "kendall", "spearman", "picked", "best", "regret"]
        page.table(*_columns(rows, ["order by", *names]))
    if report["hacking"]:
        page.heading("Reward hacking", 3)
        page.text(report["hacking"]["rule"])
        flags = report["hacking"]["flags"]
        if flags:
            page.table(*_columns(flags, list(flags[0])))


def _columns(rows: Sequence[Mapping[str, Any]], names: list[str]) -> tuple[list[str], list[Any]]:
    """Return headers and cells of some columns."""
    return [name.replace("_", " ") for name in names], [[row[n] for n in names] for row in rows]


def _frames(page: Page, title: str, moments: Sequence[Moment], sign: int = 0) -> None:
    """Add a row of frames, if there are any."""
    if not moments:
        return
    # Frames of several policies are not yet in order.
    shown = sorted(moments, key=lambda moment: sign * moment.reward)[:_FRAMES]
    page.heading(title, 3)
    captions = [
        f"reward {m.reward:.3f}, step {m.step}"
        + ("" if m.success is None else ", goal state" if m.success else ", no goal state")
        for m in shown
    ]
    page.frames([moment.frame for moment in shown], captions)


def _settings(card: Card) -> list[list[str]]:
    """Return what made the run."""
    config, reward = card.config, card.config.reward
    return [
        ["goal", "; ".join(reward.goal or ())],
        ["baseline", "; ".join(reward.baseline or ())],
        ["alpha", f"{reward.alpha:g}"],
        ["model", reward.model],
        ["judge", card.report["judge"] or "none"],
        ["algorithm", str(config.algorithm.algorithm)],
        ["hyperparameters", str(config.algorithm.hyperparameters)],
        ["environments", str(config.num_envs)],
        ["episode length", str(config.episode_length)],
        ["evaluation episodes of each policy", str(card.report["episodes"])],
    ]


def _name(reward: str) -> str:
    return _NAMES.get(reward, reward)


def _number(value: float | None) -> str:
    """Return a figure, or a dash where it is not defined."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _interval(interval: Mapping[str, Any] | None) -> str:
    """Return a mean with its 95 % interval."""
    if interval is None:
        return "-"
    if interval["low"] is None:
        return f"{interval['mean']:.4g}"
    return f"{interval['mean']:.4g} [{interval['low']:.4g}, {interval['high']:.4g}]"


def _share(share: Mapping[str, Any] | None) -> str:
    """Return a success rate with its 95 % interval and its episodes."""
    if share is None:
        return "not known"
    won = round(share["mean"] * share["count"])
    return (
        f"{share['mean']:.0%} [{share['low']:.0%}, {share['high']:.0%}] "
        f"({won} of {share['count']} episodes)"
    )
