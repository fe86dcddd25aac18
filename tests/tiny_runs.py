"""Runs of a second or two on a tiny model with random weights, for tests of stored runs."""

from __future__ import annotations

import json
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


def tiny_model(folder: Path, seed: int = 0) -> str:
    """Write a CLIP of 32 x 32 pixels with random weights; return its folder."""
    import torch

    from vlmrm_fast.clip import build_model, save_model

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16}
            | {"head_width": 8},
            "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2}
            | {"layers": 1},
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    save_model(build_model(folder), folder)
    return str(folder)


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
