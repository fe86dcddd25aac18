"""Environments: batched ones of our tasks, and a wrapper for anyone's.

Names load on first use: worker processes import this package only to describe their environment.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmrm_fast.envs.core import TaskWorlds
    from vlmrm_fast.envs.make import make_vec_env
    from vlmrm_fast.envs.step import FrameReward, Mix, StepResult
    from vlmrm_fast.envs.stream import RewardOptions
    from vlmrm_fast.envs.vector import TaskVectorEnv
    from vlmrm_fast.envs.wrapper import VLMRewardWrapper

_HOMES = {
    "FrameReward": "step",
    "Mix": "step",
    "RewardOptions": "stream",
    "StepResult": "step",
    "TaskVectorEnv": "vector",
    "TaskWorlds": "core",
    "VLMRewardWrapper": "wrapper",
    "make_vec_env": "make",
}

__all__ = [
    "FrameReward",
    "Mix",
    "RewardOptions",
    "StepResult",
    "TaskVectorEnv",
    "TaskWorlds",
    "VLMRewardWrapper",
    "make_vec_env",
]


def __getattr__(name: str) -> Any:
    """Import the public name `name` from its home module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vlmrm_fast.envs' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vlmrm_fast.envs.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
