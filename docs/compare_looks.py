"""What docs/looks.md shows: pictures of both looks, their cost, how the built-in model reads them.

    python docs/compare_looks.py [FOLDER]

Pictures go to FOLDER (docs/images by default), tables in Markdown to standard output.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmrm_fast.evaluation.metrics import auc, epic_distance
from vlmrm_fast.evaluation.state_sets import StateSet, draw_states, make_state_set
from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.reward import VLMReward
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.tasks import get_native_task, native_task_names
from vlmrm_fast.tasks.textures import TEXTURES

FOLDER = Path(__file__).resolve().parent / "images"
OTHERS = ("ant", "half-cheetah", "walker2d", "cartpole-upright")
FIGURES = ("AUC", "AUC of near misses", "EPIC")
SEED, NUM_STATES, ROUNDS = 7, 900, 15


def picture(name: str, textures: str, side: int, qpos: np.ndarray | None = None) -> np.ndarray:
    """Return one frame (side, side, 3) of a task: a state, or the model's default."""
    task = get_native_task(name).with_textures(textures)
    state = task.load_model().qpos0 if qpos is None else qpos
    return next(iter(draw_states(task, state[None], side)))[0]


def save_pictures(folder: Path) -> None:
    """Write the humanoid and the other models, the original look above the photographic one."""
    folder.mkdir(parents=True, exist_ok=True)
    kneeling = get_native_task("humanoid-kneeling")
    posed = make_state_set(kneeling, 60, SEED)
    state = posed.states[posed.success][0]
    pair = [picture("humanoid-kneeling", look, 256, state) for look in TEXTURES]
    Image.fromarray(np.concatenate(pair, 1)).save(folder / "looks-humanoid.png", optimize=True)
    rows = [np.concatenate([picture(n, look, 128) for n in OTHERS], 1) for look in TEXTURES]
    Image.fromarray(np.concatenate(rows)).save(folder / "looks-others.png", optimize=True)


def reading(reward: VLMReward, task: Any, states: StateSet) -> tuple[float, float, float]:
    """Return AUC, AUC against near misses alone, and EPIC distance of the task's own prompts."""
    frames = np.concatenate(list(draw_states(task, states.states, reward.image_size)))
    values = np.concatenate([reward.score(part) for part in np.array_split(frames, 16)])
    close = states.success | (states.groups == "near miss")
    return (
        auc(values, states.success),
        auc(values[close], states.success[close]),
        epic_distance(values, states.success),
    )


def print_readings() -> None:
    """Print how the built-in model reads the humanoid's poses in both looks."""
    titles = [f"{figure}, {look}" for figure in FIGURES for look in TEXTURES]
    print(f"| humanoid | {' | '.join(titles)} |")
    print("|---" * 7 + "|")
    for name in native_task_names():
        if not name.startswith("humanoid-"):
            continue
        task = get_native_task(name)
        reward = VLMReward(goal=task.goal, baseline=task.baseline, alpha=task.alpha)
        states = make_state_set(task, NUM_STATES, SEED)
        both = [reading(reward, task.with_textures(look), states) for look in TEXTURES]
        cells = " | ".join(f"{value:.3f}" for pair in zip(*both, strict=True) for value in pair)
        print(f"| {name.removeprefix('humanoid-')} | {cells} |")


def print_costs(side: int = 224, num_worlds: int = 16) -> None:
    """Print how long drawing takes in both looks, measured in turns."""
    for name in ("humanoid-kneeling", "cartpole-upright"):
        times: dict[str, list[float]] = {look: [] for look in TEXTURES}
        drawn = []
        for look in TEXTURES:
            task = get_native_task(name).with_textures(look)
            simulation = Simulation(task.load_model(), num_worlds, 1, task.fields)
            scene = Scene.from_model(simulation.model, task.camera)
            drawn.append((look, Renderer(scene, side, side, 1), simulation.source(scene)))
        for _ in range(ROUNDS):
            for look, renderer, source in drawn:
                start = time.process_time()
                renderer.render(source)
                times[look].append(time.process_time() - start)
        original, photographic = (np.median(times[look]) for look in TEXTURES)
        print(f"{name}: photographic takes {photographic / original:.2f} of the original's time")


if __name__ == "__main__":
    save_pictures(*map(Path, sys.argv[1:]) or (FOLDER,))
    print_costs()
    print_readings()
