"""Rewards that come later are the rewards: the same weights, statistics and checkpoints."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from labeling_cases import CASES, OFF, N, Shades, assert_same, task_env, train, wrapped_env
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from vlmrm_fast import VLMReward
from vlmrm_fast.sb3.buffers import MaskedReplayBuffer, MaskedRolloutBuffer
from vlmrm_fast.sb3.labeling import DeferredLabels, choose_labels

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def shades() -> Shades:
    return Shades()


@pytest.fixture(scope="module")
def reward(untrained_folder: str) -> VLMReward:
    goal = "pole vertically upright on top of the cart"
    return VLMReward(untrained_folder, goal=goal, device="cpu")


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
