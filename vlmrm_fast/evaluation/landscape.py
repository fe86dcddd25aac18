"""`vlmrm-fast landscape`: the reward along a coordinate, for several strengths side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluation.candidates import (
    TASK_CAMERA,
    Candidate,
    Words,
    cross,
    flat,
    parse_alphas,
    parse_camera,
)
from vlmrm_fast.evaluation.state_sets import draw_states, label_states
from vlmrm_fast.evaluation.sweeps import Sweep, make_sweeps
from vlmrm_fast.run_folder import write_text
from vlmrm_fast.scoring import make_folder

if TYPE_CHECKING:
    from vlmrm_fast.tasks import GymTask, Task

# Strengths side by side if none is given; five would be too narrow for a page.
_ALPHAS = ("0,0.5,1",)
_FRAMES = 7
_FRAME_SIZE = 160
# Between frames [pixels].
_GAP = 4


@dataclass(frozen=True)
class LandscapeConfig:
    """Along what the reward is drawn, and for which prompts.

    Attributes:
        task: a registered task.
        over: coordinates: joints ("right_knee"), both sides of a pair ("knee"), or parts of a
            state ("angle", "position"); the task's usual ones if none is given.
        goal: goals, each a line; the task's own if none is given.
        baseline: the scene without the goal; the task's if none is given.
        alpha: strengths, "0,0.5" or several, side by side; 0, 0.5 and 1 if none is given.
        pose: the posed state that is varied; a goal pose, or an empty scene, if none is given.
        points: states a coordinate.
        model: "builtin", "NAME/PRETRAINED" of open_clip, a local folder or "hf-hub:ORG/NAME".
        camera: "task", the name or id of one in the task's model, or a free one as
            "distance=4,azimuth=90,elevation=-10,lookat=0/0/1,track_body=torso".
        textures: look of the task's scene: original or photographic; None: the task's.
        out: folder for landscape.png and landscape.csv.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "fp16", "bf16", "int8" or "fp8".
        compat: reproduce the numbers of the paper's authors.
    """

    task: tyro.conf.Positional[str]
    over: Words = ()
    goal: Words = ()
    baseline: str | None = None
    alpha: Words = ()
    pose: str | None = None
    points: int = 101
    model: str = "builtin"
    camera: str = TASK_CAMERA
    textures: str | None = None
    out: str = "landscape"
    device: str = "auto"
    precision: str = "auto"
    compat: bool = False


@dataclass(frozen=True)
class Plan:
    """A checked configuration: nothing has been scored yet.

    Attributes:
        config: what was asked.
        task: in the look asked for.
        candidates: prompts and strengths.
        sweeps: the coordinates and their states.
        camera: as `draw_states` takes it.
    """

    config: LandscapeConfig
    task: Task | GymTask
    candidates: list[Candidate]
    sweeps: list[Sweep]
    camera: Any


@dataclass(frozen=True)
class Curve:
    """Rewards along one sweep.

    Attributes:
        sweep: the coordinate and its states.
        rewards: (K, P) float32, a column a candidate.
        truth: (K,) float64, the task's own reward.
        success: (K,) bool, where the state shows the goal.
        frames: some of the frames, evenly spaced, for the picture.
    """

    sweep: Sweep
    rewards: np.ndarray
    truth: np.ndarray
    success: np.ndarray
    frames: list[np.ndarray]


def run_landscape(config: LandscapeConfig) -> int:
    """Score the sweeps, print where each reward peaks, and leave a picture and a CSV file.

    Args:
        config: what to draw.

    Returns:
        The exit code 0.

    Raises:
        ArgumentError: something cannot be used; nothing was scored then.
    """
    from rich.console import Console

    plan = make_plan(config)
    out = make_folder(config.out)
    candidates, curves = plan.candidates, score_plan(plan)
    try:
        write_text(out / "landscape.csv", csv_text(candidates, curves))
        plot_landscape(out / "landscape.png", config, candidates, curves)
    except OSError as error:
        raise ArgumentError(f"out must be a folder to write to, got {out}: {error}.") from error
    console = Console()
    console.print(peaks_table(config, candidates, curves))
    line = f"Wrote {out / 'landscape.png'}, {out / 'landscape.csv'}."
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def make_plan(config: LandscapeConfig) -> Plan:
    """Check everything that can be checked without the model's weights, and pose the states.

    Args:
        config: what to draw; `out` is not used.

    Returns:
        The plan.

    Raises:
        ArgumentError: a prompt, strength, coordinate, pose or camera cannot be used.
        ModelError: the model's files are not there.
    """
    from vlmrm_fast.clip import load_tokenizer, resolve_model
    from vlmrm_fast.tasks import get_task

    task = get_task(config.task)
    task = task.with_textures(config.textures or task.textures)
    baseline = config.baseline if config.baseline is not None else task.baseline
    alphas = parse_alphas(flat(config.alpha) or (_ALPHAS if baseline else ()), False)
    candidates = cross(
        flat(config.goal) or [task.goal], [baseline] if baseline else [], alphas, None
    )
    sweeps = make_sweeps(task, tuple(flat(config.over)), config.points, config.pose)
    camera = parse_camera(config.camera, getattr(task, "view", None))
    draw_states(task, sweeps[0].states[:1], 16, camera)
    prompts = [text for each in candidates for text in (each.goal, each.baseline or "")]
    load_tokenizer(resolve_model(config.model)).check(list(dict.fromkeys(prompts)))
    return Plan(config, task, candidates, sweeps, camera)


def score_plan(plan: Plan) -> list[Curve]:
    """Draw and score all sweeps; each frame is encoded once.

    Args:
        plan: from `make_plan`.

    Returns:
        A curve for each coordinate.
    """
    from vlmrm_fast.reward import VLMReward

    config, task, camera, candidates = plan.config, plan.task, plan.camera, plan.candidates
    goals, scenes = [c.goal for c in candidates], [c.baseline for c in candidates]
    reward = VLMReward(
        config.model,
        goal=goals[0],
        device=config.device,
        precision=config.precision,
        compat=config.compat,
    )
    prompts = reward.prompt_set(goals, scenes, [c.alpha for c in candidates])
    curves = []
    for sweep in plan.sweeps:
        frames = draw_states(task, sweep.states, reward.image_size, camera)
        rewards = np.concatenate([reward.score_many(chunk, prompts) for chunk in frames])
        known = label_states(task, sweep.states, "sweep", [""] * len(sweep.values))
        shown = sweep.states[np.linspace(0, len(sweep.values) - 1, _FRAMES).round().astype(int)]
        pictures = [f for chunk in draw_states(task, shown, _FRAME_SIZE, camera) for f in chunk]
        curves.append(Curve(sweep, rewards, known.reward, known.success, pictures))
    return curves


def csv_text(candidates: Sequence[Candidate], curves: Sequence[Curve]) -> str:
    """Return one line a state and candidate.

    Args:
        candidates: P of them.
        curves: with rewards (K, P).

    Returns:
        The text of a CSV file.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = ("over", "unit", "value", "goal", "baseline", "alpha", "reward", "ground_truth")
    writer.writerow([*heads, "success"])
    for curve in curves:
        for column, each in enumerate(candidates):
            what = (each.goal, each.baseline or "", f"{each.alpha:g}")
            rows = zip(
                curve.sweep.values,
                curve.rewards[:, column],
                curve.truth,
                curve.success,
                strict=True,
            )
            for value, reward, truth, success in rows:
                place = (curve.sweep.name, curve.sweep.unit, f"{value:.6g}")
                writer.writerow([*place, *what, f"{reward:.6g}", f"{truth:.6g}", int(success)])
    return buffer.getvalue()


def peaks_table(
    config: LandscapeConfig, candidates: Sequence[Candidate], curves: Sequence[Curve]
) -> Any:
    """Return where each reward is highest, and whether the goal is there.

    Args:
        config: what was drawn.
        candidates: P of them.
        curves: with rewards (K, P).

    Returns:
        A `rich.table.Table`.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"{config.task}: where the reward of {config.model} is highest"
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("over", no_wrap=True)
    table.add_column("goal", overflow="fold")
    for name in ("alpha", "peak at", "reward", "lowest"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("a goal state", no_wrap=True)
    for curve in curves:
        for column, each in enumerate(candidates):
            rewards = curve.rewards[:, column]
            best = int(rewards.argmax())
            table.add_row(
                curve.sweep.name,
                Text(each.goal),
                f"{each.alpha:g}",
                f"{round(curve.sweep.values[best], 2) + 0.0:.2f} {curve.sweep.unit}".strip(),
                f"{rewards[best]:.3f}",
                f"{rewards.min():.3f}",
                "yes" if curve.success[best] else "no",
            )
    return table


def plot_landscape(
    path: Path, config: LandscapeConfig, candidates: Sequence[Candidate], curves: Sequence[Curve]
) -> None:
    """Plot a row a coordinate and a column a strength, with frames below each row.

    Args:
        path: the PNG to write.
        config: what was drawn.
        candidates: P of them.
        curves: with rewards (K, P).
    """
    from matplotlib.figure import Figure

    alphas = sorted({each.alpha for each in candidates})
    width = max(7.0, 3.4 * len(alphas))
    figure = Figure(figsize=(width, 4.0 * len(curves)), layout="constrained")
    grid = figure.add_gridspec(2 * len(curves), len(alphas), height_ratios=[2.3, 1.5] * len(curves))
    axes: Any = None
    for row, curve in enumerate(curves):
        for place, alpha in enumerate(alphas):
            axes = figure.add_subplot(grid[2 * row, place])
            _plot_panel(axes, curve, candidates, alpha)
            axes.set_title(f"{curve.sweep.name}, alpha {alpha:g}", fontsize="medium")
            if place == 0:
                axes.set_ylabel("VLM reward")
        _plot_frames(figure.add_subplot(grid[2 * row + 1, :]), curve)
    figure.suptitle(f"{config.task}: reward of {config.model}; goal states shaded")
    if len({each.goal for each in candidates}) > 1:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", fontsize="small")
    figure.savefig(path, dpi=100)


def _plot_panel(axes: Any, curve: Curve, candidates: Sequence[Candidate], alpha: float) -> None:
    """Draw the lines of one strength over the shaded goal states."""
    values = curve.sweep.values
    for column, each in enumerate(candidates):
        if each.alpha == alpha:
            axes.plot(values, curve.rewards[:, column], label=each.goal)
    axes.fill_between(
        values, 0, 1, where=curve.success, transform=axes.get_xaxis_transform(),
        color="tab:green", alpha=0.15, linewidth=0, step="mid",
    )  # fmt: skip
    unit = f" [{curve.sweep.unit}]" if curve.sweep.unit else ""
    axes.set_xlabel(curve.sweep.name + unit)
    axes.margins(x=0)


def _plot_frames(axes: Any, curve: Curve) -> None:
    """Draw the frames side by side, each over its value."""
    height, side = curve.frames[0].shape[0], curve.frames[0].shape[1] + _GAP
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    axes.imshow(np.concatenate([part for frame in curve.frames for part in (frame, gap)], axis=1))
    shown = np.linspace(curve.sweep.values[0], curve.sweep.values[-1], len(curve.frames))
    places = side * (np.arange(len(shown)) + 0.5) - _GAP / 2
    # Adding zero takes the sign off what rounds to -0.
    axes.set_xticks(places, [f"{round(v, 2) + 0.0:.2f}" for v in shown], fontsize="small")
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
