"""Rewards that come later are the rewards: the same weights, statistics and checkpoints."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from vlmrm_fast import VLMReward, make_vec_env
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.lanes import CpuLane
from vlmrm_fast.sb3.buffers import MaskedReplayBuffer, MaskedRolloutBuffer
from vlmrm_fast.sb3.labeling import DeferredLabels, check_model, choose_labels
from vlmrm_fast.sb3.vec_env import VLMRewardVecEnv
from vlmrm_fast.scorer import Scorer
from vlmrm_fast.tasks import get_task

pytestmark = pytest.mark.usefixtures("one_torch_thread")

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


@pytest.fixture(scope="module")
def shades() -> Shades:
    return Shades()


@pytest.fixture(scope="module")
def reward(untrained_folder: str) -> VLMReward:
    goal = "pole vertically upright on top of the cart"
    return VLMReward(untrained_folder, goal=goal, device="cpu")


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


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_rewards_at_each_step(shades: Shades, case: str) -> None:
    step, seen_step = train(case, task_env(shades), deferred=False)
    late, seen_late = train(case, task_env(shades), deferred=True)
    assert_same(step, late)
    # The infos were filled in after the callback saw them.
    for one, other in zip(seen_step.infos, seen_late.infos, strict=True):
        assert one["vlm_reward"] == other["vlm_reward"]
        assert ("episode" in one) == ("episode" in other)
        if "episode" in one:
            assert one["episode"]["r"] == other["episode"]["r"]
    assert 0 < seen_late.most <= 3
    assert 0 < seen_late.longest <= 65
    assert seen_step.most == 0


@pytest.mark.parametrize("case", ["SAC", "PPO"])
def test_a_models_rewards_are_labelled_alike(reward: VLMReward, case: str) -> None:
    step, _ = train(case, task_env(reward), deferred=False, steps=150)
    late, _ = train(case, task_env(reward), deferred=True, steps=150)
    assert_same(step, late)


@pytest.mark.parametrize("mode", ["replace", "add"])
@pytest.mark.parametrize(("case", "env_id"), [("SAC", "InvertedPendulum-v5"), ("PPO", "Slider")])
def test_wrapped_environments_are_labelled_alike(
    shades: Shades, case: str, env_id: str, mode: str
) -> None:
    # The pendulum falls and the slider hits a wall: terminations as well as truncations.
    options = {"mode": mode, "weight": 0.3}
    step, _ = train(case, wrapped_env(shades, env_id, **options), deferred=False)
    late, seen = train(case, wrapped_env(shades, env_id, **options), deferred=True)
    assert_same(step, late)
    assert {bool(i["TimeLimit.truncated"]) for i in seen.infos if "episode" in i} == {True, False}


def test_discrete_actions_are_labelled_alike(shades: Shades) -> None:
    def run(labels: list[Any]) -> Any:
        env = wrapped_env(shades, "Slider")
        options = {**OFF, "target_update_interval": 30, "exploration_fraction": 0.5}
        net = {"net_arch": [8]}
        model = DQN("MlpPolicy", env, seed=3, device="cpu", policy_kwargs=net, **options)
        return model.learn(420, callback=labels)

    assert_same(run([]), run([DeferredLabels()]))


class Rows(RolloutBuffer):
    """A rollout buffer with an array of its own, as recurrent and maskable ones have."""

    def reset(self) -> None:
        super().reset()
        self.extra = np.zeros((self.buffer_size, self.n_envs), np.float32)

    def add(self, *args: Any, extra: float = 1.0, **kwargs: Any) -> None:
        self.extra[self.pos] = extra
        super().add(*args, **kwargs)


class OtherPPO(PPO):
    """Stands for an algorithm of another package."""


class OtherSAC(SAC):
    """Likewise, and it looks at its buffer's rewards directly."""

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        filled = self.replay_buffer.size()
        self.scale = float(np.abs(self.replay_buffer.rewards[:filled]).mean())
        super().train(gradient_steps, batch_size)


def test_algorithms_of_other_packages_are_labelled_alike(shades: Shades) -> None:
    made: dict[str, list[Any]] = {"PPO": [], "SAC": []}
    for deferred in (False, True):
        labels = [DeferredLabels()] if deferred else []
        options = {"seed": 3, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
        ppo = OtherPPO(
            "MlpPolicy", task_env(shades), n_steps=16, batch_size=24, n_epochs=1,
            rollout_buffer_class=Rows, **options,
        )  # fmt: skip
        made["PPO"].append(ppo.learn(200, callback=labels))
        labels = [DeferredLabels()] if deferred else []
        sac = OtherSAC("MlpPolicy", task_env(shades), **OFF, **options)
        made["SAC"].append(sac.learn(200, callback=labels))
    assert_same(*made["PPO"])
    assert_same(*made["SAC"])
    assert made["PPO"][1].rollout_buffer.extra.all()
    assert made["SAC"][0].scale == made["SAC"][1].scale > 0


def test_observations_may_be_normalised_meanwhile(shades: Shades) -> None:
    def env() -> Any:
        return VecNormalize(task_env(shades), norm_reward=False)

    for case in ("SAC", "PPO"):
        step, _ = train(case, env(), deferred=False, steps=150)
        late, _ = train(case, env(), deferred=True, steps=150)
        assert_same(step, late)


@pytest.mark.parametrize("case", ["SAC", "PPO"])
def test_printed_statistics_hold_the_late_rewards(shades: Shades, case: str) -> None:
    from stable_baselines3.common.logger import KVWriter, Logger

    class Kept(KVWriter):
        def __init__(self) -> None:
            self.rows: list[float] = []

        def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
            self.rows.append(key_values.get("rollout/ep_rew_mean", 0.0))

        def close(self) -> None:
            return

    written = []
    for deferred in (False, True):
        cls, options = CASES[case]
        model = cls("MlpPolicy", task_env(shades), seed=3, device="cpu", **options)
        kept = Kept()
        model.set_logger(Logger(None, [kept]))
        model.learn(200, callback=[DeferredLabels()] if deferred else [], log_interval=1)
        written.append(kept.rows)
    assert len(written[0]) > 3
    assert written[0] == written[1]


@pytest.mark.parametrize("case", ["SAC", "PPO"])
def test_diverged_steps_stay_masked(shades: Shades, case: str) -> None:
    models = []
    for deferred in (False, True):
        env, rng = task_env(shades), np.random.default_rng(0)
        step = env.worlds.simulation.step_and_draw

        def breaking(*args: Any, env: Any = env, rng: Any = rng, step: Any = step) -> np.ndarray:
            env.worlds.simulation.qvel[rng.random(N) < 0.1] = np.nan
            return step(*args)

        env.worlds.simulation.step_and_draw = breaking
        cls, options = CASES[case]
        extra = {"replay_buffer_class": MaskedReplayBuffer}
        if case == "PPO":
            kwargs = {"rollout_buffer_kwargs": {"source": env}}
            extra = {"rollout_buffer_class": MaskedRolloutBuffer, **kwargs}
        model = cls("MlpPolicy", env, seed=3, device="cpu", **options, **extra)
        models.append(model.learn(150, callback=[DeferredLabels()] if deferred else []))
    assert_same(*models)
    buffers = [getattr(m, "replay_buffer", None) or m.rollout_buffer for m in models]
    assert buffers[1].masked.any()
    np.testing.assert_array_equal(buffers[0].masked, buffers[1].masked)


class Stop(BaseCallback):
    """Ends training at a step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        return self.num_timesteps < self.at


@pytest.mark.parametrize("case", ["SAC", "PPO"])
def test_an_early_stop_and_a_second_learn_lose_nothing(shades: Shades, case: str) -> None:
    models = []
    for deferred in (False, True):
        model, _ = train(case, task_env(shades), deferred=deferred, more=[Stop(100)])
        assert model.get_env().deferral is None
        assert type(getattr(model, "replay_buffer", None) or model.rollout_buffer).__module__ in {
            "stable_baselines3.common.buffers"
        }
        labels = [DeferredLabels()] if deferred else []
        models.append(model.learn(200, callback=labels, reset_num_timesteps=False))
    assert_same(*models)


class Fail(BaseCallback):
    """Raises at a step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.at:
            raise RuntimeError("on purpose")
        return True


def test_training_goes_on_after_an_exception(shades: Shades) -> None:
    models = []
    for deferred in (False, True):
        env = task_env(shades)
        model = SAC("MlpPolicy", env, seed=3, device="cpu", **OFF)
        labels = [DeferredLabels()] if deferred else []
        with pytest.raises(RuntimeError, match="on purpose"):
            model.learn(300, callback=[*labels, Fail(90)])
        labels = [DeferredLabels()] if deferred else []
        models.append(model.learn(100, callback=labels, reset_num_timesteps=False))
    assert_same(*models)


def test_a_buffer_is_copied_and_pickled_labelled_and_plain(shades: Shades) -> None:
    copies: list[ReplayBuffer] = []

    class Copies(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 30:
                buffer = self.model.replay_buffer
                assert self.training_env.deferral.pending
                copies.append(pickle.loads(pickle.dumps(buffer)))
                copies.append(copy.deepcopy(buffer))
            return True

    model, _ = train("SAC-never-learns", task_env(shades), deferred=True, more=[Copies()])
    for copied in copies:
        assert type(copied) is ReplayBuffer
        assert copied.pos == 29
        np.testing.assert_array_equal(copied.rewards[:29], model.replay_buffer.rewards[:29])
        assert copied.rewards[:29].all()
        copied.sample(4)
    # The thirtieth step was labelled before it was stored.
    step, _ = train("SAC-never-learns", task_env(shades), deferred=False)
    np.testing.assert_array_equal(model.replay_buffer.rewards, step.replay_buffer.rewards)


def test_a_reset_ends_deferral_and_steps_give_rewards_again(shades: Shades) -> None:
    for env in (task_env(shades), wrapped_env(shades)):
        env.reset()
        env.defer_labels(lambda step, rewards: None)
        actions = np.zeros((N, 1), np.float32)
        _, rewards, _, infos = env.step(actions)
        assert not rewards.any()
        assert np.isnan(infos[0]["vlm_reward"])
        env.reset()
        assert np.isfinite(infos[0]["vlm_reward"])
        _, rewards, _, infos = env.step(actions)
        np.testing.assert_array_equal(rewards, shades.score(env.last_frames))
        assert infos[0]["vlm_reward"] == rewards[0]


def test_last_frames_stay_what_was_scored(shades: Shades) -> None:
    env, found = task_env(shades), []
    env.reset()
    env.defer_labels(lambda step, rewards: found.append(rewards))
    shown = []
    for _ in range(12):
        env.step(np.full((N, 1), 0.5, np.float32))
        shown.append(env.last_frames.copy())
    env.settle_labels(keep=4)
    assert len(env.deferral.pending) == 4
    env.close()
    np.testing.assert_array_equal(found, [shades.score(frames) for frames in shown])


class Brightness:
    """A reward that can only score at once."""

    image_size = 16

    def score(self, frames: np.ndarray) -> np.ndarray:
        return frames.mean(axis=(1, 2, 3), dtype=np.float32)


class Scaled(VecEnvWrapper):
    """A wrapper that changes rewards."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards + 1, dones, infos


class NoBuffer:
    """Stands for an algorithm that keeps no steps."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def get_env(self) -> Any:
        return self.env


def test_what_cannot_be_deferred_says_why(shades: Shades) -> None:
    plain = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")])
    cases = [
        (PPO("MlpPolicy", plain), "an environment that scores no frames, got .* for DummyVecEnv"),
        (PPO("MlpPolicy", VecNormalize(task_env(shades))), "under VecNormalize.*norm_reward=False"),
        (PPO("MlpPolicy", VecMonitor(task_env(shades))), "under VecMonitor, which sums up"),
        (PPO("MlpPolicy", task_env(Brightness())), r"without scorer\(\), got Brightness"),
        (NoBuffer(task_env(shades)), "without a buffer of rewards, got .* for NoBuffer"),
    ]
    for model, text in cases:
        with pytest.raises(ArgumentError, match=f'labels must be "step" .*{text}'):
            check_model(model)
        with pytest.raises(ArgumentError, match='labels must be "step"'):
            choose_labels("deferred", model)
        assert choose_labels("auto", model) == []
        assert choose_labels("step", model) == []


def test_a_wrapper_that_changes_rewards_is_found_at_the_first_step(shades: Shades) -> None:
    for cls in (PPO, SAC):
        model = cls("MlpPolicy", Scaled(task_env(shades)), device="cpu")
        with pytest.raises(ArgumentError, match="where a wrapper of the environment changes rew"):
            model.learn(100, callback=DeferredLabels())


@pytest.mark.parametrize(("cores", "deferred"), [(2, True), (1, False)])
def test_on_a_cpu_auto_defers_where_a_core_is_idle(
    shades: Shades, monkeypatch: pytest.MonkeyPatch, cores: int, deferred: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    model = PPO("MlpPolicy", task_env(shades), device="cpu")
    assert [type(item) for item in choose_labels("auto", model)] == [DeferredLabels] * deferred
    assert [type(item) for item in choose_labels("deferred", model)] == [DeferredLabels]
    assert choose_labels("step", model) == []


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["SAC", "PPO"])
def test_on_a_gpu_deferred_training_follows_step_training(untrained_folder: str, case: str) -> None:
    pytest.importorskip("open_clip")
    goal = "pole vertically upright on top of the cart"
    reward = VLMReward(untrained_folder, goal=goal, device="cuda")
    step, _ = train(case, task_env(reward), deferred=False)
    late, seen = train(case, task_env(reward), deferred=True)
    assert choose_labels("auto", late) != []
    assert 0 < seen.most <= 3
    # The same frames in the same batches through the same graphs.
    assert_same(step, late)
