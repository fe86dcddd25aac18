"""States that a run's trained policy visits, for a labelled set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import run_folder
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.finish import deterministic, play
from vlmrm_fast.gl_order import load_triton
from vlmrm_fast.scoring import Unscored
from vlmrm_fast.train import build_model

# Frames are drawn for nobody: as small as any.
_SIDE = 8


def visited_states(run: str | Path, task_name: str, count: int) -> np.ndarray:
    """Play a run's newest checkpoint and return states of its evaluation episodes.

    Args:
        run: a run folder or one of its checkpoints.
        task_name: the task that the run must be of.
        count: how many states, at least 1, evenly spread over all steps; fewer if there are no
            more.

    Returns:
        (M, nq) or (M, d) float64, M <= count.

    Raises:
        ArgumentError: the run is of another task.
        CheckpointError: there is no such run, or no checkpoint that can be read.
    """
    settings = run_folder.find_config(run)
    if settings.task != task_name:
        raise ArgumentError(
            f"run must be of the task {task_name!r}, got {str(run)!r} of "
            f"{settings.task or settings.env!r}."
        )
    found = checkpoints.load(run)
    load_triton()
    from vlmrm_fast.sb3.building import build_env, resolve
    from vlmrm_fast.sb3.state import restore_networks

    settings, reward = resolve(settings), Unscored(_SIDE)
    env = build_env(settings, reward, num_envs=1)
    states: list[np.ndarray] = []

    def watch(env: Any, infos: Any, counted: np.ndarray, ended: np.ndarray) -> None:
        # Worlds whose episode ended show the next one's start already.
        kept = counted & ~ended & ~np.array([bool(info.get("diverged")) for info in infos])
        states.extend(_states(env)[kept])

    try:
        model = build_model(settings, env)
        restore_networks(model, found)
        play(settings, reward, deterministic(model), watch)
    finally:
        env.close()
    every = np.linspace(0, len(states) - 1, min(count, len(states))).round().astype(int)
    return np.stack([states[index] for index in every])


def _states(env: Any) -> np.ndarray:
    """Return a copy of the N states of a VecEnv of a task."""
    worlds = getattr(env, "worlds", None)
    if worlds is not None:
        return worlds.simulation.qpos.copy()
    return np.array(env.get_attr("state"), np.float64)
