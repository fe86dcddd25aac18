"""Runs of a second on the tiny model, for tests of stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmrm_fast.config import (
    AlgorithmConfig,
    CheckpointConfig,
    EvaluationConfig,
    LoggingConfig,
    RewardConfig,
    TrainConfig,
)

PPO = {
    "policy_kwargs": {"net_arch": [8]},
    "n_steps": 16,
    "batch_size": 16,
    "n_epochs": 1,
}


def tiny_config(model: str, folder: Path, **changes: Any) -> TrainConfig:
    """Return a run of 128 steps with a checkpoint every 32, ten-step episodes and a small film."""
    values: dict[str, Any] = {
        "task": "cartpole-upright",
        "steps": 128,
        "num_envs": 2,
        "episode_length": 10,
        "run_dir": str(folder),
        "reward": RewardConfig(model=model),
        "algorithm": AlgorithmConfig("PPO", hyperparameters=PPO),
        "evaluation": EvaluationConfig(episodes=3, video_size=64),
        "logging": LoggingConfig(log_interval=32, progress="off", tensorboard=False),
        "checkpoint": CheckpointConfig(checkpoint_interval=32, keep=10),
    }
    return TrainConfig(**(values | changes))
