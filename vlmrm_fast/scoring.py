"""`vlmrm-fast score`: frames, a video or a task's states against prompts."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.frame_files import frame_chunks
from vlmrm_fast.prompts import check_prompts

if TYPE_CHECKING:
    from vlmrm_fast.tasks import GymTask, Task

# Worlds that run side by side when a task's states are drawn: half a dozen episodes are in view.
_WORLDS = 8


@dataclass(frozen=True)
class ScoreConfig:
    """What to score, against which prompts, and where to leave the results.

    Attributes:
        source: a .npy or .npz of frames (B, H, W, 3) uint8, a picture, a folder of pictures, or a
            video. Leave it out with --task.
        task: score states of this task, reached by a random policy; prompts and alpha that are
            not given are the task's.
        goal: one or more goals; each is scored on its own and gets a column.
        baseline: the scene without the goal; needed where alpha is above 0.
        alpha: strength of the goal-baseline regularisation, 0 ... 1; 0 if neither this nor a
            task is given.
        rule: cosine, difference, goal-baseline or softmax.
        negatives: prompts that compete with the goal under softmax.
        temperature: of the softmax; the model's own by default.
        model: "builtin", "NAME/PRETRAINED" of open_clip, a local folder or "hf-hub:ORG/NAME".
        out: folder for scores.csv and scores.png.
        num_states: states of the task to draw.
        seed: of the task's states.
        textures: look of the task's scene: original or photographic; None: the task's.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "fp16", "bf16", "int8" or "fp8".
        compat: reproduce the numbers of the paper's authors.
    """

    source: tyro.conf.Positional[str | None] = None
    task: str | None = None
    goal: tuple[str, ...] = ()
    baseline: str | None = None
    alpha: float | None = None
    rule: str = "goal-baseline"
    negatives: tuple[str, ...] = ()
    temperature: float | None = None
    model: str = "builtin"
    out: str = "scores"
    num_states: int = 200
    seed: int = 0
    textures: str | None = None
    device: str = "auto"
    precision: str = "auto"
    compat: bool = False


@dataclass(frozen=True)
class Scores:
    """Rewards of F frames for P goals.

    Attributes:
        labels: F names of frames: file names, frame numbers, or world and step.
        goals: P prompts.
        rewards: (F, P) float32.
        ground_truth: (F,) float64, the task's own reward, or None without a task.
        rule: how they were scored, for titles.
        model: what the rewards come from.
    """

    labels: list[str]
    goals: tuple[str, ...]
    rewards: np.ndarray
    ground_truth: np.ndarray | None
    rule: str
    model: str


def run_score(config: ScoreConfig) -> int:
    """Score, print a table, and leave a CSV file and a plot.

    Args:
        config: what to score.

    Returns:
        The exit code 0.

    Raises:
        ArgumentError: the source, a prompt or a number cannot be used, or `out` not be written.
    """
    from rich.console import Console

    out = make_folder(config.out)
    scores = score_frames(config)
    write_csv(out / "scores.csv", scores)
    plot_scores(out / "scores.png", scores)
    console = Console()
    console.print(scores_table(scores))
    line = f"{len(scores.labels)} frames. Wrote {out / 'scores.csv'}, {out / 'scores.png'}."
    console.print(line, markup=False, highlight=False)
    return 0


def score_frames(config: ScoreConfig) -> Scores:
    """Score every frame of a source, or of a task's states, for every goal.

    Each frame is encoded once, whatever the number of goals, and not kept.

    Args:
        config: what to score; `out` is not used.

    Returns:
        The rewards.

    Raises:
        ArgumentError: the source, a prompt or a number cannot be used.
    """
    task = _find_task(config)
    goals = check_prompts("goal", config.goal or (task.goal if task else None))
    baseline: str | tuple[str, ...] | None = config.baseline
    if baseline is None and task is not None:
        baseline = task.baseline
    if not goals:
        raise ArgumentError('goal must be given, got none. Add --goal "what the frames may show".')
    from vlmrm_fast.prompt_sets import list_objectives
    from vlmrm_fast.reward import VLMReward

    # The task's alpha belongs to the paper's rule.
    own = task.alpha if task and config.rule == "goal-baseline" else 0.0
    objectives = list_objectives(
        goals, [baseline] * len(goals), own if config.alpha is None else config.alpha,
        config.rule, config.negatives or None, config.temperature,
    )  # fmt: skip
    chunks = None if task else frame_chunks(str(config.source))
    load = {name: getattr(config, name) for name in ("device", "precision", "compat")}
    reward = VLMReward(config.model, goal=goals[0], **load)
    prompts = reward.prompt_set(objectives)
    labels: list[str] = []
    rows: list[np.ndarray] = []
    truth: list[float] = []
    if task:
        chunks = _with_truth(
            task_states(task, reward.image_size, config.num_states, config.seed), truth
        )
    assert chunks is not None
    for names, frames in chunks:
        labels += names
        rows.append(reward.score_many(frames, prompts))
    rewards = np.concatenate(rows)
    known = np.array(truth) if task else None
    how = f"alpha = {objectives[0].alpha:g}" if config.rule == "goal-baseline" else config.rule
    return Scores(labels, goals, rewards, known, how, config.model)


def _find_task(config: ScoreConfig) -> Task | GymTask | None:
    """Return the task to draw, or None where files are scored.

    Raises:
        ArgumentError: both or neither are given, the number of states is not positive, or frames
            are to be shown in another look.
    """
    if (config.source is None) == (config.task is None):
        given = "neither" if config.source is None else "both"
        raise ArgumentError(f"source or --task must be given, one of them, got {given}.")
    if config.task is None:
        if config.textures is not None:
            raise ArgumentError(
                f"textures must be left out where frames are given, got {config.textures!r}."
            )
        return None
    if config.num_states < 1:
        raise ArgumentError(f"num_states must be at least 1, got {config.num_states}.")
    from vlmrm_fast.tasks import get_task

    task = get_task(config.task)
    return task.with_textures(config.textures or task.textures)


class Unscored:
    """Stands in for a reward while states are drawn: they are encoded once, afterwards."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def score(self, frames: np.ndarray) -> np.ndarray:
        """Return (B,) zeros."""
        return np.zeros(len(frames), np.float32)


def task_states(
    task: Task | GymTask, image_size: int, num_states: int, seed: int
) -> Iterator[tuple[list[str], np.ndarray, list[float]]]:
    """Draw states of a task under uniformly random actions, evenly spread over its horizon.

    Args:
        task: what to simulate.
        image_size: side of the square frames [pixels]; not for tasks that draw themselves.
        num_states: how many.
        seed: of states and actions.

    Yields:
        Labels "world 0 step 8", frames (n, H, W, 3) uint8 and the task's own rewards, world by
        world.
    """
    from vlmrm_fast.envs.core import TaskWorlds
    from vlmrm_fast.tasks import Task

    count = min(_WORLDS, num_states)
    kept = -(-num_states // count)
    stride = max(1, task.horizon // kept)
    if not isinstance(task, Task):
        for world in range(count):
            length = min(kept, num_states - world * kept)
            if length > 0:
                yield _gym_episode(task, world, length, stride, seed)
        return
    worlds = TaskWorlds(task, count, Unscored(image_size), seed=seed)
    rng = np.random.default_rng(seed)
    worlds.reset()
    space: Any = worlds.action_space
    pictures, values = [], []
    for step in range(1, kept * stride + 1):
        actions = rng.uniform(space.low, space.high, (count, *space.shape))
        result = worlds.step(actions)
        if step % stride == 0:
            pictures.append(worlds.last_frames.copy())
            values.append(result.env_reward)
    # World by world, so that the plot shows one episode after the other.
    left = num_states
    for world in range(count):
        length = min(kept, left)
        left -= length
        if not length:
            return
        names = [f"world {world} step {(index + 1) * stride}" for index in range(length)]
        frames = np.stack([pictures[step][world] for step in range(length)])
        yield names, frames, [float(values[step][world]) for step in range(length)]


def _gym_episode(
    task: GymTask, world: int, count: int, stride: int, seed: int
) -> tuple[list[str], np.ndarray, list[float]]:
    """Return `count` states of one world of a task that draws itself, every `stride` steps."""
    env = task.make()
    env.action_space.seed(seed + world)
    env.reset(seed=seed + world)
    pictures, values = [], []
    for step in range(1, count * stride + 1):
        _, reward, _, truncated, _ = env.step(env.action_space.sample())
        if step % stride == 0:
            pictures.append(np.array(env.render()))
            values.append(float(reward))
        if truncated:
            env.reset()
    env.close()
    names = [f"world {world} step {(index + 1) * stride}" for index in range(count)]
    return names, np.stack(pictures), values


def _with_truth(
    states: Iterator[tuple[list[str], np.ndarray, list[float]]], truth: list[float]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Pass labels and frames on and append the task's own rewards to `truth`."""
    for names, frames, values in states:
        truth += values
        yield names, frames


def write_csv(path: str | Path, scores: Scores) -> None:
    """Write one line a frame: its label, one column a goal, and the ground truth if known.

    Args:
        path: the file to write.
        scores: what to write.
    """
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        known = scores.ground_truth is not None
        writer.writerow(["frame", *scores.goals, *(["ground_truth"] if known else [])])
        for index, label in enumerate(scores.labels):
            truth = [] if scores.ground_truth is None else [scores.ground_truth[index]]
            numbers = [*scores.rewards[index].tolist(), *truth]
            writer.writerow([label, *(f"{number:.6g}" for number in numbers)])


def plot_scores(path: str | Path, scores: Scores) -> None:
    """Plot the reward of each frame, one line a goal; the ground truth on a second axis.

    Args:
        path: the PNG to write.
        scores: what to plot.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    marker = "o" if len(scores.labels) <= 60 else ""
    for column, goal in enumerate(scores.goals):
        axes.plot(scores.rewards[:, column], marker=marker, markersize=3, label=_short(goal))
    title = f"{scores.model}, {scores.rule}"
    axes.set(xlabel="frame", ylabel="VLM reward", title=title)
    handles, names = axes.get_legend_handles_labels()
    if scores.ground_truth is not None:
        other = axes.twinx()
        other.plot(scores.ground_truth, color="0.6", linewidth=0.8, label="ground truth")
        other.set_ylabel("ground-truth reward")
        more, further = other.get_legend_handles_labels()
        handles, names = handles + more, names + further
    axes.legend(handles, names, loc="best", fontsize="small")
    figure.savefig(path, dpi=120)


def scores_table(scores: Scores) -> Any:
    """Return a table for the terminal: a line a goal.

    Args:
        scores: what to show.

    Returns:
        A `rich.table.Table`.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{scores.model}, {scores.rule}"))
    table.add_column("goal", overflow="fold")
    headings = ["mean", "std", "min", "max"]
    if scores.ground_truth is not None:
        headings.append("rank corr. with truth")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("best frame")
    for column, goal in enumerate(scores.goals):
        values = scores.rewards[:, column]
        numbers = [values.mean(), values.std(), values.min(), values.max()]
        if scores.ground_truth is not None:
            numbers.append(rank_correlation(values, scores.ground_truth))
        best = scores.labels[int(values.argmax())]
        table.add_row(Text(goal), *(f"{number:.4f}" for number in numbers), Text(best))
    return table


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Return Spearman's correlation of two series; equal values share their mean rank.

    Args:
        left: (F,) numbers.
        right: (F,) numbers.

    Returns:
        -1 ... 1, or NaN where one series is constant.
    """
    ranks = [_ranks(left), _ranks(right)]
    centred = [rank - rank.mean() for rank in ranks]
    norm = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return float(centred[0] @ centred[1]) / norm if norm else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, the mean rank among equals."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _short(text: str, limit: int = 60) -> str:
    """Return text that fits a legend."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def make_folder(out: str) -> Path:
    """Return the output folder, created and proven to be writeable before any work.

    Raises:
        ArgumentError: it cannot be created or written to.
    """
    folder = Path(out).expanduser()
    probe = folder / ".vlmrm-fast-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ArgumentError(f"out must be a folder to write to, got {out!r}: {error}.") from error
    return folder
