"""Held-out accuracy of a model on the states of the tasks: the figures of evaluation.json."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vlmrm_fast.pretrain.captions import PAPER_PROMPTS, Caption, truth
from vlmrm_fast.pretrain.concepts import INDEX
from vlmrm_fast.pretrain.data import FRAMES_PER_BLOCK, BlockSpec, Frames, draw_frames
from vlmrm_fast.reward import VLMReward
from vlmrm_fast.tasks import get_task
from vlmrm_fast.tasks.classic import POSITION_BOUND
from vlmrm_fast.tasks.mountain import GOAL
from vlmrm_fast.tasks.poses import POSES

# Never a seed of training data: `PretrainConfig.seed` counts up from 0.
HELD_OUT_SEED = 1_000_003
ALPHAS = (0.0, 0.5, 1.0)
# A pole nearer to the vertical than this is upright [rad].
UPRIGHT = 0.1
# Edges of the bins of |angle| in which mean rewards are reported [rad].
ANGLE_EDGES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.7, 1.5, np.pi)
KNEELING = ("kneeling", "kneeling_on_heels", "kneeling_arms_raised")
# What kneeling has to be told from. Moments of random rollouts count as random states.
OTHERS: dict[str, tuple[str, ...]] = {
    "standing": tuple(name for name in POSES if name.startswith("standing")),
    "lying": tuple(name for name in POSES if name.startswith("lying")),
    "random": ("random", "rollout"),
    "sitting": ("sitting", "sitting_knees_bent", "sitting_lotus", "splits"),
    "crouching": ("crouching",),
    "one knee": ("kneeling_one_knee",),
    "all fours": ("all_fours",),
    "falling": tuple(name for name in POSES if name.startswith("falling")),
}
# View: (task look, task camera).
VIEWS = {"task": (True, True), "varied": (False, False)}
# The pictures of tasks that draw themselves: (scene, task look).
FLAT_VIEWS: dict[str, dict[str, tuple[str, bool]]] = {
    "cartpole": {"own": ("gym-cartpole", True), "varied": ("gym-cartpole", False)},
    "mountaincar": {
        "photographic": ("mountaincar", True),
        "original": ("mountaincar-original", True),
        "varied": ("mountaincar", False),
    },
}
# Edges of the bins of the car's position in which mean rewards are reported.
POSITION_EDGES = (-1.2, -0.8, -0.3, 0.1, 0.3, GOAL, 0.6)


def evaluate(
    model: str, side: int, count: int, seed: int = HELD_OUT_SEED, workers: int = 1
) -> dict[str, Any]:
    """Score held-out frames with the tasks' prompts.

    Args:
        model: a model name or folder, as `VLMReward` takes it.
        side: side of the frames [pixels].
        count: cart-pole frames a view, rounded up to whole blocks; twice as many of humanoids.
        seed: of the frames.
        workers: processes that draw.

    Returns:
        {"cartpole": {view: {alpha: figures}}, "humanoid": likewise, "CartPole-v1" and
        "MountainCarContinuous-v0": what `evaluate_flat` returns}, all plain numbers.
    """
    result: dict[str, Any] = {"cartpole": {}, "humanoid": {}}
    blocks = -(-count // FRAMES_PER_BLOCK)
    names = (*KNEELING, *(name for group in OTHERS.values() for name in group))
    upright, kneeling = get_task("cartpole-upright"), get_task("humanoid-kneeling")
    base = VLMReward(model, goal=upright.goal, baseline=upright.baseline)
    for number, (view, (look, camera)) in enumerate(VIEWS.items()):
        poles = [BlockSpec("cartpole", look, camera)] * blocks
        robots = [BlockSpec("humanoid", look, camera, None, names)] * (2 * blocks)
        frames = draw_frames(poles, side, seed + 2 * number, workers)
        result["cartpole"][view] = {
            str(alpha): cartpole_figures(rewards, frames)
            for alpha, rewards in _rewards(base, upright, frames.images).items()
        }
        frames = draw_frames(robots, side, seed + 2 * number + 1, workers)
        result["humanoid"][view] = {
            str(alpha): humanoid_figures(rewards, frames)
            for alpha, rewards in _rewards(base, kneeling, frames.images).items()
        }
    return result | evaluate_flat(base, side, count, seed + 10, workers)


def evaluate_flat(
    base: VLMReward, side: int, count: int, seed: int, workers: int = 1
) -> dict[str, Any]:
    """Score held-out pictures of the tasks that draw themselves with the tasks' prompts.

    Args:
        base: the model, with any prompts.
        side: side of the frames [pixels].
        count: frames a view, rounded up to whole blocks.
        seed: of the frames.
        workers: processes that draw.

    Returns:
        {environment id: {view: {alpha: figures}}}, all plain numbers.
    """
    result: dict[str, Any] = {}
    blocks = -(-count // FRAMES_PER_BLOCK)
    for name, views in FLAT_VIEWS.items():
        task: Any = get_task(name)
        figures = gym_cartpole_figures if name == "cartpole" else mountaincar_figures
        result[task.env_id] = {}
        for number, (view, (scene, look)) in enumerate(views.items()):
            frames = draw_frames([BlockSpec(scene, look)] * blocks, side, seed + number, workers)
            result[task.env_id][view] = {
                str(alpha): figures(rewards, frames)
                for alpha, rewards in _rewards(base, task, frames.images).items()
            }
    return result


def gym_cartpole_figures(rewards: np.ndarray, frames: Frames) -> dict[str, Any]:
    """As `cartpole_figures`, for carts in CartPole-v1's picture; those out of sight are left out.

    Args:
        rewards: (N,) float32.
        frames: the N frames.

    Returns:
        The figures.
    """
    seen = np.abs(frames.offsets) <= POSITION_BOUND
    some = Frames(
        frames.images[seen],
        frames.degrees[seen],
        frames.groups[seen],
        frames.angles[seen],
        # `cartpole_figures` sorts the carts into five places within 0.6 of the middle.
        frames.offsets[seen] * (0.6 / POSITION_BOUND),
    )
    return cartpole_figures(rewards[seen], some)


def mountaincar_figures(rewards: np.ndarray, frames: Frames) -> dict[str, Any]:
    """Compare rewards with where the cars are.

    Args:
        rewards: (N,) float32.
        frames: the N frames of cars.

    Returns:
        auc of being at the flag, against all others and against the slope below it (0.15 and
        beyond), spearman with the degree to which the goal prompt is true, and mean and standard
        deviation of the reward by bin of the position.
    """
    place = frames.offsets
    there, below = place >= GOAL, (place >= 0.15) & (place < GOAL)
    task: Any = get_task("mountaincar")
    degree = truth([Caption(task.goal, PAPER_PROMPTS[task.goal])], frames.degrees)[:, 0]
    bins = [(low <= place) & (place < high) for low, high in pairwise(POSITION_EDGES)]
    bins[-1] |= place >= POSITION_EDGES[-1]
    return {
        "frames": len(rewards),
        "auc_flag": auc(rewards[there], rewards[~there]),
        "auc_below_flag": auc(rewards[there], rewards[below]),
        "spearman_degree": spearman(rewards, degree),
        "position_edges": list(POSITION_EDGES),
        "reward_mean": [_mean(rewards[b]) for b in bins],
        "reward_std": [_mean((rewards[b] - rewards[b].mean()) ** 2) ** 0.5 for b in bins],
    }


def cartpole_figures(rewards: np.ndarray, frames: Frames) -> dict[str, Any]:
    """Compare rewards with how upright the poles are.

    Args:
        rewards: (N,) float32.
        frames: the N cart-pole frames.

    Returns:
        auc of upright, spearman with -|angle| (over all, and within 0.35 rad), mean and standard
        deviation of the reward by bin of |angle|, and position: the spread of the mean reward of
        upright poles over five places of the cart, relative to the drop to 0.2-0.35 rad.
    """
    size = np.abs(frames.angles)
    near = size < ANGLE_EDGES[4]
    bins = [(low <= size) & (size < high) for low, high in pairwise(ANGLE_EDGES)]
    means = [_mean(rewards[inside]) for inside in bins]
    upright = size < UPRIGHT
    place = np.clip(np.floor((frames.offsets + 0.6) / 0.24), 0, 4)
    places = [
        rewards[upright & (place == k)].mean() for k in range(5) if (place[upright] == k).any()
    ]
    drop = rewards[upright].mean() - rewards[bins[3]].mean()
    return {
        "frames": len(rewards),
        "auc_upright": auc(rewards[upright], rewards[~upright]),
        "spearman": spearman(rewards, -size),
        "spearman_within_0.35": spearman(rewards[near], -size[near]),
        "angle_edges": [round(float(edge), 3) for edge in ANGLE_EDGES],
        "reward_mean": means,
        "reward_std": [_mean((rewards[b] - rewards[b].mean()) ** 2) ** 0.5 for b in bins],
        "position_spread": float((max(places) - min(places)) / drop),
    }


def humanoid_figures(rewards: np.ndarray, frames: Frames) -> dict[str, Any]:
    """Compare rewards of kneeling robots with those of others.

    Args:
        rewards: (N,) float32.
        frames: the N humanoid frames, with poses of `KNEELING` and `OTHERS`.

    Returns:
        auc and mean reward by group that occurs, and spearman with the degree of kneeling. Random
        states that kneel by geometry (degree of one half or more) are left out of their group.
    """
    degree = frames.degrees[:, INDEX["kneeling"]]
    kneels = np.isin(frames.groups, KNEELING)
    figures: dict[str, Any] = {
        "frames": len(rewards),
        "auc": {},
        "reward_mean": {"kneeling": _mean(rewards[kneels])},
        "spearman_degree": spearman(rewards, degree),
    }
    for group, names in OTHERS.items():
        members = np.isin(frames.groups, names) & (degree < 0.5)
        if not members.any():
            continue
        figures["auc"][group] = auc(rewards[kneels], rewards[members])
        figures["reward_mean"][group] = _mean(rewards[members])
    return figures


def table_lines(figures: dict[str, Any]) -> list[str]:
    """Return the held-out figures as Markdown tables, one a scene.

    Args:
        figures: what `evaluate` returned.

    Returns:
        The lines.
    """
    lines = _pole_lines(figures["cartpole"])
    lines += ["", *_row(["view", "alpha", *OTHERS], rule=True)]
    for view, by_alpha in figures["humanoid"].items():
        for alpha, row in by_alpha.items():
            lines += _row([view, alpha, *(f"{row['auc'][group]:.3f}" for group in OTHERS)])
    lines += ["", *_pole_lines(figures["CartPole-v1"])]
    keys = ("auc_flag", "auc_below_flag", "spearman_degree")
    heads = ["picture", "alpha", "AUC at the flag", "against below it", "Spearman"]
    edges = pairwise(f"{edge:.2f}" for edge in POSITION_EDGES)
    lines += ["", *_row([*heads, *(f"{low} to {high}" for low, high in edges)], rule=True)]
    for view, by_alpha in figures["MountainCarContinuous-v0"].items():
        for alpha, row in by_alpha.items():
            numbers = [f"{row[key]:.3f}" for key in keys]
            numbers += [f"{mean:.2f}" for mean in row["reward_mean"]]
            lines += _row([view, alpha, *numbers])
    return lines


def _pole_lines(views: dict[str, Any]) -> list[str]:
    """Return the table of cart-pole figures by view and alpha."""
    edges = [f"{edge:.2f}" for edge in ANGLE_EDGES]
    heads = ["view", "alpha", "AUC upright", "Spearman", "within 0.35 rad"]
    lines = _row([*heads, *(f"{low}-{high}" for low, high in pairwise(edges))], rule=True)
    keys = ("auc_upright", "spearman", "spearman_within_0.35")
    for view, by_alpha in views.items():
        for alpha, row in by_alpha.items():
            numbers = [f"{row[key]:.3f}" for key in keys]
            numbers += [f"{mean:.2f}" for mean in row["reward_mean"]]
            lines += _row([view, alpha, *numbers])
    return lines


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the chance that a positive's score exceeds a negative's, ties counted half.

    Args:
        positive: (N,) scores.
        negative: (M,) scores.

    Returns:
        The area under the ROC curve, in [0, 1].
    """
    ranks = _ranks(np.concatenate([positive, negative]))[: len(positive)]
    pairs = len(positive) * len(negative)
    return float((ranks.sum() - len(positive) * (len(positive) - 1) / 2) / pairs)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation of two samples.

    Args:
        a: (N,) values.
        b: (N,) values.

    Returns:
        The correlation, in [-1, 1].
    """
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _rewards(base: VLMReward, task: Any, images: np.ndarray) -> dict[float, np.ndarray]:
    """Return the rewards (N,) of the frames under a task's prompts, by alpha."""
    heads = {alpha: base.with_prompts(task.goal, task.baseline, alpha) for alpha in ALPHAS}
    return {alpha: head.score(images) for alpha, head in heads.items()}


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return (N,) float64 ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2.0)[inverse]


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean as a plain number, rounded to five digits."""
    return round(float(np.mean(values)), 5) if len(values) else float("nan")


def _row(cells: Sequence[str], rule: bool = False) -> list[str]:
    """Return a line of a Markdown table, with the rule below it if it is the head."""
    lines = [f"| {' | '.join(cells)} |"]
    return [*lines, "|" + " --- |" * len(cells)] if rule else lines
