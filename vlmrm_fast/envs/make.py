"""`make_vec_env`: a task by name, with its reward, behind the interface that you use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vlmrm_fast.envs.core import TaskWorlds
from vlmrm_fast.envs.step import FrameReward, Mix
from vlmrm_fast.envs.vector import TaskVectorEnv
from vlmrm_fast.errors import unknown_name
from vlmrm_fast.tasks import Task, get_native_task

if TYPE_CHECKING:
    from vlmrm_fast.sb3.vec_env import TaskVecEnv


def make_vec_env(
    task: str | Task,
    num_envs: int = 1,
    *,
    reward: FrameReward | None = None,
    api: str = "sb3",
    mode: str = "replace",
    weight: float = 1.0,
    env_weight: float = 1.0,
    model: str = "builtin",
    **settings: Any,
) -> TaskVecEnv | TaskVectorEnv:
    """Build N worlds of a task, rewarded by a vision-language model.

    Args:
        task: a name of `native_task_names()`, or a `Task`.
        num_envs: N, at least 1.
        reward: what scores frames; None for the task's prompts on `model`.
        api: "sb3" for a Stable-Baselines3 `VecEnv`, "gymnasium" for a `VectorEnv`.
        mode: "replace" the environment's own reward (its ground truth) or "add" to it.
        weight: factor on the model's reward.
        env_weight: factor on the environment's own, for mode "add".
        model: as `VLMReward` takes it; not used if `reward` is given.
        settings: `seed` (None: drawn), `num_threads` (0: one a CPU), `render_size` (side or
            (height, width) [pixels]; None: the reward's input size), `supersample` (draw this many
            times as large and average), `renderer` ("auto", "ray" or "gl"), `camera` (None: the
            task's; a list: several, whose rewards become one), `textures` ("original" or
            "photographic"; None: the task's), `options` (`RewardOptions`: score every k-th step,
            normalise, several cameras) and, if `reward` is not given, `device` and `precision` of
            `VLMReward`.

    Returns:
        The environment, not yet reset.

    Raises:
        UnknownNameError: if the task, the api, the mode, a look or a camera has no such name.
        ArgumentError: if a number is out of range, or the task has no MuJoCo model.
        UnsupportedSceneError: if the task's model holds something that cannot be drawn.
        ModelError: if the model cannot be loaded.
    """
    if api not in {"sb3", "gymnasium"}:
        error = unknown_name("api", api, ("sb3", "gymnasium"))
        raise error
    task = get_native_task(task) if isinstance(task, str) else task
    task = task.with_textures(settings.pop("textures", None) or task.textures)
    mix = Mix(mode, weight, env_weight)
    load: dict[str, Any] = {
        name: settings.pop(name) for name in ("device", "precision") if name in settings
    }
    if reward is None:
        reward = _task_reward(task, model, load)
    worlds = TaskWorlds(task, num_envs, reward, mix=mix, **settings)
    if api == "gymnasium":
        return TaskVectorEnv(worlds)
    # By name: the Stable-Baselines3 layer lies above this one and is loaded only if asked for.
    return importlib.import_module("vlmrm_fast.sb3.vec_env").TaskVecEnv(worlds)


def _task_reward(task: Task, model: str, load: dict[str, Any]) -> FrameReward:
    from vlmrm_fast.reward import VLMReward

    return VLMReward(model, goal=task.goal, baseline=task.baseline, alpha=task.alpha, **load)
