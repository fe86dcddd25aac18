"""Small algorithms and environments whose rewards come at each step or later."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmrm_fast import make_vec_env
from vlmrm_fast.lanes import CpuLane
from vlmrm_fast.sb3.labeling import DeferredLabels
from vlmrm_fast.sb3.vec_env import VLMRewardVecEnv
from vlmrm_fast.scorer import Scorer
from vlmrm_fast.tasks import get_task

N = 3
OFF = {"learning_starts": 24, "batch_size": 16, "buffer_size": 600, "train_freq": 7}
NOISE = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "SAC": (SAC, {**OFF, "gradient_steps": 3}),
    "SAC-each-step": (SAC, {**OFF, "train_freq": 1}),
    "SAC-n-steps": (SAC, {**OFF, "n_steps": 3}),
    "SAC-small-buffer": (SAC, {**OFF, "buffer_size": 30}),
    "SAC-never-learns": (SAC, {**OFF, "learning_starts": 10**6}),
    "TD3": (TD3, {**OFF, "gradient_steps": 2, "action_noise": NOISE}),
    "PPO": (PPO, {"n_steps": 16, "batch_size": 24, "n_epochs": 2}),
    "PPO-long": (PPO, {"n_steps": 150, "batch_size": 50, "n_epochs": 1}),
    "PPO-sde": (PPO, {"n_steps": 16, "batch_size": 24, "n_epochs": 1, "use_sde": True}),
    "A2C": (A2C, {"n_steps": 5}),
}


class Shades:
    """A reward that costs little and depends on every pixel; it is scored as a model's is."""

    image_size = 16

    def score(self, frames: np.ndarray) -> np.ndarray:
        return self._rewards(torch.from_numpy(frames))[:, 0].numpy()

    def scorer(self, num_slots: int = 3) -> Scorer:
        return Scorer([CpuLane(self._rewards, background=True)], num_slots)

    @staticmethod
    def _rewards(frames: torch.Tensor) -> torch.Tensor:
        weights = torch.linspace(-1, 1, frames[0].numel()).sin()
        return frames.flatten(1).float() @ weights[:, None] / 1000


class Slider(gymnasium.Env):
    """A bright column that the agent moves; drawn by the environment itself."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(4, 12))
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.place = min(max(self.place + (1 if action else -1), 0), 15)
        return self._see(), float(self.place == 8), self.place in {0, 15}, False, {}

    def _see(self) -> np.ndarray:
        return np.array([self.place / 15], np.float32)

    def render(self) -> Any:
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, self.place] = 255
        return picture


def task_env(reward: Any, horizon: int = 9, **options: Any) -> Any:
    task = dataclasses.replace(get_task("cartpole-upright"), horizon=horizon)
    return make_vec_env(task, N, reward=reward, seed=0, num_threads=1, **options)


def wrapped_env(reward: Any, env_id: str = "InvertedPendulum-v5", **options: Any) -> Any:
    def make() -> Any:
        if env_id == "Slider":
            return gymnasium.wrappers.TimeLimit(Slider(), 9)
        return gymnasium.make(env_id, max_episode_steps=9)

    env = VLMRewardVecEnv(DummyVecEnv([make] * N), reward, num_threads=1, **options)
    env.seed(0)
    return env


class Seen(BaseCallback):
    """Keeps the infos of every step, and the most frames that were under way."""

    def __init__(self) -> None:
        super().__init__()
        self.infos: list[dict[str, Any]] = []
        self.most = self.longest = 0

    def _on_step(self) -> bool:
        self.infos += self.locals["infos"]
        if self.training_env.deferral is not None:
            self.longest = max(self.longest, len(self.training_env.deferral.pending))
            self.most = max(self.most, self.training_env.deferral.scorer.in_flight)
        return True


def train(
    case: str, env: Any, *, deferred: bool, steps: int = 270, more: Any = (), **learn: Any
) -> tuple[Any, Seen]:
    """Train a tiny network; return the algorithm and what a callback saw."""
    cls, options = CASES[case]
    options = copy.deepcopy(options)
    model = cls("MlpPolicy", env, seed=3, device="cpu", policy_kwargs={"net_arch": [8]}, **options)
    seen = Seen()
    labels = [DeferredLabels()] if deferred else []
    model.learn(steps, callback=[*labels, *more, seen], **learn)
    return model, seen


def rewards_of(model: Any) -> np.ndarray:
    buffer = getattr(model, "replay_buffer", None) or model.rollout_buffer
    return buffer.rewards


def assert_same(one: Any, other: Any) -> None:
    """Compare weights, optimisers, stored rewards and episode statistics, bit for bit."""
    for name, values in one.get_parameters().items():
        torch.testing.assert_close(values, other.get_parameters()[name], rtol=0, atol=0)
    np.testing.assert_array_equal(rewards_of(one), rewards_of(other))
    infos = [[{**e, "t": 0} for e in model.ep_info_buffer] for model in (one, other)]
    assert infos[0] == infos[1]
    assert len(infos[0]) > 0
