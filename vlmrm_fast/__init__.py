"""Vision-language-model rewards for reinforcement learning, at simulator speed.

Names load on first use, so that `import vlmrm_fast` pulls in neither torch nor MuJoCo.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmrm_fast.envs import RewardOptions, VLMRewardWrapper, make_vec_env
    from vlmrm_fast.rendering import Camera, Renderer, Scene
    from vlmrm_fast.reward import VLMReward
    from vlmrm_fast.sb3.vec_env import VLMRewardVecEnv
    from vlmrm_fast.tasks import get_task, task_names

__version__ = "0.1.0"

_HOMES = {
    "Camera": "vlmrm_fast.rendering",
    "Renderer": "vlmrm_fast.rendering",
    "RewardOptions": "vlmrm_fast.envs",
    "Scene": "vlmrm_fast.rendering",
    "VLMReward": "vlmrm_fast.reward",
    "VLMRewardVecEnv": "vlmrm_fast.sb3.vec_env",
    "VLMRewardWrapper": "vlmrm_fast.envs",
    "get_task": "vlmrm_fast.tasks",
    "make_vec_env": "vlmrm_fast.envs",
    "task_names": "vlmrm_fast.tasks",
}

__all__ = [
    "Camera",
    "Renderer",
    "RewardOptions",
    "Scene",
    "VLMReward",
    "VLMRewardVecEnv",
    "VLMRewardWrapper",
    "__version__",
    "get_task",
    "make_vec_env",
    "task_names",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home module on first use.

    Args:
        name: one of `__all__`.

    Returns:
        The class or function.

    Raises:
        AttributeError: if the package has no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'vlmrm_fast' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
