"""Draw the pictures of docs/tasks.md and print its table, when tasks or weights change.

`python bench/task_pictures.py` writes docs/images/tasks-*.png.
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from PIL import Image, ImageDraw

from vlmrm_fast import Renderer, Scene, VLMReward
from vlmrm_fast.evaluation.metrics import auc
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.state_drawing import draw_states
from vlmrm_fast.tasks import Task, fields_from_states, native_task_names
from vlmrm_fast.tasks import get_native_task as get_task

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SIDE = 150
HUMANOIDS = (
    "humanoid-kneeling",
    "humanoid-lotus",
    "humanoid-standing",
    "humanoid-arms-raised",
    "humanoid-splits",
    "humanoid-hands-on-hips",
    "humanoid-arms-crossed",
    "humanoid-one-leg",
)
ROBOTS = ("ant", "half-cheetah", "hopper", "walker2d", "reacher")
SHEETS = {
    "tasks-humanoid-1": HUMANOIDS[:4],
    "tasks-humanoid-2": HUMANOIDS[4:],
    "tasks-robots": ROBOTS,
}


def facing(task: Task, model: mujoco.MjModel, qpos: np.ndarray) -> np.ndarray:
    """Return the states, those of a humanoid that best show the camera their left front first."""
    if not task.name.startswith("humanoid"):
        return qpos
    xmat = fields_from_states(model, qpos, ("xmat",))["xmat"][:, model.body("torso").id]
    # The torso's x axis points ahead; the camera looks along -x.
    ahead = xmat.reshape(-1, 3, 3)[:, :, 0] @ np.array([0.94, 0.34, 0.0])
    return qpos[np.argsort(-ahead)]


def row(name: str, columns: int) -> np.ndarray:
    """Return pictures of a task's goal poses, then its near misses, with their names."""
    task = get_task(name)
    model = task.load_model()
    posed = task.posed_states(model, np.random.default_rng(0), 400)
    goals, misses = list(task.goal_poses), list(task.near_misses)
    names = (goals + misses)[:columns] if len(goals) == 1 else goals[:2] + misses[: columns - 2]
    worlds = []
    for pose in names:
        worlds.append(mujoco.MjData(model))
        worlds[-1].qpos[:] = facing(task, model, posed.qpos[posed.names == pose])[0]
        mujoco.mj_forward(model, worlds[-1])
    with Renderer(Scene.from_model(model, task.camera), SIDE, SIDE, supersample=2) as renderer:
        frames = list(renderer.render(worlds)) if worlds else []
    out = []
    for frame, pose in zip(frames, names, strict=True):
        picture = Image.new("RGB", (SIDE + 4, SIDE + 18), "white")
        picture.paste(Image.fromarray(frame), (2, 2))
        color = (0, 110, 0) if pose in goals else (170, 0, 0)
        ImageDraw.Draw(picture).text((3, SIDE + 4), pose, fill=color)
        out.append(np.asarray(picture))
    blank = np.full((SIDE + 18, SIDE + 4, 3), 255, np.uint8)
    pictures = np.concatenate([*out, *[blank] * (columns - len(out))], axis=1)
    title = Image.new("RGB", (pictures.shape[1], 16), "white")
    ImageDraw.Draw(title).text((3, 3), f"{name}: {task.goal}", fill="black")
    return np.concatenate([np.asarray(title), pictures])


def draw_sheets(columns: int = 4) -> None:
    """Write the pictures, in 256 colours each."""
    IMAGES.mkdir(exist_ok=True)
    for sheet, names in SHEETS.items():
        picture = Image.fromarray(np.concatenate([row(name, columns) for name in names]))
        path = IMAGES / f"{sheet}.png"
        picture.quantize(256, kmeans=2).save(path, optimize=True)
        print(f"{path.name}: {picture.size}, {path.stat().st_size / 1000:.0f} kB")


def random_success(task: Task, episodes: int = 32) -> float:
    """Return the share of a random policy's episodes that succeed."""
    simulation = Simulation(task.load_model(), episodes, fields=task.fields)
    rng, model = np.random.default_rng(0), simulation.model
    qpos, qvel = zip(*(task.initial_state(model, rng) for _ in range(episodes)), strict=True)
    simulation.reset(np.arange(episodes), np.stack(qpos), np.stack(qvel))
    low, high = model.actuator_ctrlrange.T
    streak = np.zeros(episodes)
    for _ in range(task.horizon):
        simulation.step(rng.uniform(low, high, (episodes, model.nu)), task.frame_skip)
        streak = (streak + 1) * task.ground_truth(model, simulation.fields)[1]
    return float((streak >= task.success_steps).mean())


def print_table(count: int = 900) -> None:
    """Print how often each kind of posed state succeeds, and how well the built-in model tells."""
    print("| task | goal poses | near misses | other poses | random policy | AUC, built-in |")
    print("|---|---|---|---|---|---|")
    for name in sorted(native_task_names()):
        task = get_task(name)
        model = task.load_model()
        posed = task.posed_states(model, np.random.default_rng(0), count)
        _, success = task.ground_truth(model, fields_from_states(model, posed.qpos, task.fields))
        goal, near = (np.isin(posed.names, kind) for kind in (task.goal_poses, task.near_misses))
        reward = VLMReward("builtin", goal=task.goal, baseline=task.baseline, alpha=task.alpha)
        frames = draw_states(task, posed.qpos, (reward.image_size, reward.image_size))
        scores = np.concatenate([reward.score(chunk) for chunk in frames])
        rates = [f"{success[kind].mean():.1%}" for kind in (goal, near, ~(goal | near))]
        rates.append(f"{random_success(task):.1%}")
        print(f"| `{name}` | {' | '.join(rates)} | {auc(scores, success):.2f} |", flush=True)


if __name__ == "__main__":
    draw_sheets()
    print_table()
