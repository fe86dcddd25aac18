"""`vlmrm-fast eval`: a run's report card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import run_folder
from vlmrm_fast.finish import RunResult, finish
from vlmrm_fast.gl_order import load_triton
from vlmrm_fast.train import build_model, run_of


def evaluate_run(run: str | Path, episodes: int | None = None) -> RunResult:
    """Evaluate and film a run's newest checkpoint once more.

    Writes summary.json, the video and the plots of the run folder anew.

    Args:
        run: a run folder or one of its checkpoints.
        episodes: evaluation episodes; None: as many as the run's configuration says.

    Returns:
        The result.
    """
    load_triton()
    from vlmrm_fast.sb3.building import build_env, build_reward, resolve
    from vlmrm_fast.sb3.callbacks import MetricsCallback
    from vlmrm_fast.sb3.state import restore_networks

    config = resolve(run_folder.find_config(run))
    if episodes is not None:
        evaluation = dataclasses.replace(config.evaluation, episodes=episodes)
        config = dataclasses.replace(config, evaluation=evaluation)
    found = checkpoints.load(run)
    reward = build_reward(config)
    env = build_env(config, reward, num_envs=1)
    try:
        model = build_model(config, env)
        restore_networks(model, found)
        model.num_timesteps = found.step
        metrics = MetricsCallback(1, lambda row: None)
        metrics.set_state(found.state["extra"]["metrics"])
        return finish(config, run_of(found), model, reward, metrics)
    finally:
        env.close()
