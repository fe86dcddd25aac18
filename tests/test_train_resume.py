"""k + k steps are 2k steps, bit for bit, and a stop in mid-rollout loses no consistency."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast.run_folder import MetricsFiles
from vlmrm_fast.sb3.algorithms import build_algorithm, find_algorithm
from vlmrm_fast.sb3.callbacks import CheckpointCallback, MetricsCallback, StopRequestedError
from vlmrm_fast.sb3.logs import make_logger
from vlmrm_fast.sb3.state import capture, restore
from vlmrm_fast.signals import StopSignals

TINY = {"policy_kwargs": {"net_arch": [16]}}
OFF = {**TINY, "learning_starts": 20, "batch_size": 16, "buffer_size": 200}
CASES = {
    "SAC": {**OFF, "train_freq": 2, "gradient_steps": 2},
    "SAC-updates": {**OFF, "train_freq": 30, "gradient_steps": 500},
    "SAC-wide": {**OFF, "policy_kwargs": {"net_arch": [32]}},
    "SAC-sde": {**OFF, "use_sde": True, "train_freq": 4, "sde_sample_freq": 2},
    "TD3": {**OFF, "action_noise": "ou_0.1", "learning_rate": "linear_1e-3"},
    "PPO": {**TINY, "n_steps": 16, "batch_size": 16, "n_epochs": 2},
    "PPO-sde": {**TINY, "n_steps": 16, "batch_size": 16, "use_sde": True},
    "A2C": {**TINY, "n_steps": 8},
}
DISCRETE = {"DQN": {**OFF, "target_update_interval": 30, "exploration_fraction": 0.9}}


def build(case: str, total: int, make: Callable[[], Any] | None = None) -> Any:
    """Return a tiny algorithm on two short environments."""
    torch.set_num_threads(1)
    env_id = "CartPole-v1" if case in DISCRETE else "Pendulum-v1"
    make = make or (lambda: gymnasium.make(env_id, max_episode_steps=25))
    cls = find_algorithm(case.split("-")[0])
    hyperparameters = (CASES | DISCRETE)[case]
    env = DummyVecEnv([make, make])
    return build_algorithm(
        cls, env, hyperparameters, policy="MlpPolicy", seed=3, device="cpu", steps=total
    )


class KilledError(Exception):
    """Stands for the end of the process."""


def run(
    folder: Path,
    case: str,
    until: int,
    total: int,
    make: Callable[[], Any] | None = None,
    *,
    resume: bool = False,
    stop_in_step: int | None = None,
) -> Any:
    """Train to `until` of `total` steps, as vlmrm_fast.train does, and save."""
    folder.mkdir(exist_ok=True)
    model = build(case, total, make)
    found = checkpoints.load(folder) if resume else None
    files = MetricsFiles(folder, None if found is None else found.step)
    logger = make_logger(folder, files, tensorboard=False, wandb=None)
    model.set_logger(logger)
    signals = StopSignals()

    def tick(step: int, reward: float, row: dict[str, float]) -> None:
        if stop_in_step is not None and step >= stop_in_step:
            signals.received = 15

    metrics = MetricsCallback(20, logger.row, tick)
    state = None
    if found is not None:
        assert restore(model, found) == []
        state = found.state
        metrics.set_state(state["extra"]["metrics"])
    kind = CheckpointCallback if until == total or stop_in_step else DiesAfterSaving
    saver = kind(
        folder / "checkpoints",
        until,
        keep=2,
        config="",
        signals=signals,
        metrics=metrics,
        resumed=state,
    )
    left = total - model.num_timesteps
    with contextlib.suppress(KilledError):
        model.learn(left, [metrics, saver], None, reset_num_timesteps=found is None)
        saver.save("between")
    return model


class DiesAfterSaving(CheckpointCallback):
    """Ends the process right after the first checkpoint, in the middle of a run."""

    def save(self, place: str, *, in_haste: bool = False) -> Path | None:
        """Save and die."""
        super().save(place)
        raise KilledError


def assert_equal(a: Any, b: Any) -> None:
    """Compare two algorithms: networks, optimisers, buffers, counters."""
    for name, values in a.get_parameters().items():
        torch.testing.assert_close(values, b.get_parameters()[name], rtol=0, atol=0)
    for name in a._get_torch_save_params()[1]:
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.num_timesteps == b.num_timesteps
    np.testing.assert_array_equal(a._last_obs, b._last_obs)
    buffer = getattr(a, "replay_buffer", None)
    if buffer is not None:
        assert buffer.pos == b.replay_buffer.pos
        np.testing.assert_array_equal(buffer.rewards, b.replay_buffer.rewards)
        np.testing.assert_array_equal(buffer.observations, b.replay_buffer.observations)


@pytest.mark.parametrize("case", [*sorted(set(CASES) - {"SAC-updates", "SAC-wide"}), *DISCRETE])
def test_half_and_half_is_the_whole(tmp_path: Path, case: str) -> None:
    whole = run(tmp_path / "a", case, 320, 320)
    run(tmp_path / "b", case, 160, 320)
    half = run(tmp_path / "b", case, 320, 320, resume=True)
    assert_equal(whole, half)
    kept = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("a", "b")]
    # All but the columns that hold seconds.
    columns = kept[0][0].split(",")
    exact = [columns.index(name) for name in ("step", "episodes", "vlm_reward_mean", "vlm_return")]
    rows = [[[line.split(",")[i] for i in exact] for line in lines] for lines in kept]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("case", ["SAC", "PPO"])
def test_a_finished_run_goes_on_as_if_it_had_been_longer(tmp_path: Path, case: str) -> None:
    whole = run(tmp_path / "a", case, 320, 320)
    run(tmp_path / "b", case, 160, 160)
    assert_equal(whole, run(tmp_path / "b", case, 320, 320, resume=True))


def test_a_mujoco_environment_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def make() -> Any:
        return gymnasium.make("Hopper-v5", max_episode_steps=25)

    whole = run(tmp_path / "a", "SAC", 160, 160, make)
    run(tmp_path / "b", "SAC", 80, 160, make)
    assert_equal(whole, run(tmp_path / "b", "SAC", 160, 160, make, resume=True))


@pytest.mark.parametrize("case", ["SAC", "PPO", "DQN"])
def test_a_stop_in_mid_rollout_saves_a_consistent_state(tmp_path: Path, case: str) -> None:
    stopped = run(tmp_path, case, 320, 320, stop_in_step=150)
    if case == "PPO":
        # The unfinished rollout is collected again.
        assert stopped.num_timesteps == 128
    else:
        assert stopped.num_timesteps == 150
        assert stopped.replay_buffer.pos == 75
    resumed = run(tmp_path, case, 320, 320, resume=True)
    assert 320 <= resumed.num_timesteps < 330


def test_a_stop_during_an_update_leaves_it_between_two_gradient_steps(tmp_path: Path) -> None:
    signals = StopSignals()
    model = build("SAC-updates", 100)
    model.set_logger(make_logger(tmp_path, MetricsFiles(tmp_path), tensorboard=False, wandb=None))
    metrics = MetricsCallback(50, lambda row: None)
    saver = CheckpointCallback(
        tmp_path, 50, keep=1, config="", signals=signals, metrics=metrics, resumed=None
    )
    sample, calls = model.replay_buffer.sample, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            signals.received = 15
        return sample(*args, **kwargs)

    model.replay_buffer.sample = counted
    with pytest.raises(StopRequestedError):
        model.learn(100, callback=[metrics, saver], log_interval=None)
    assert len(calls) == 7


def test_a_checkpoint_without_its_replay_buffer_says_so(tmp_path: Path) -> None:
    run(tmp_path, "SAC", 100, 200)
    run(tmp_path, "SAC", 200, 200, resume=True)
    older = checkpoints.list_checkpoints(tmp_path / "checkpoints")[0]
    model = build("SAC", 200)
    notes = restore(model, checkpoints.load(older))
    assert notes == ["The replay buffer was dropped from this checkpoint; it fills anew."]


def test_a_save_in_haste_leaves_out_what_takes_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build("SAC", 200)
    metrics = MetricsCallback(50, lambda row: None)
    saver = CheckpointCallback(
        tmp_path, 10**6, keep=2, config="", signals=StopSignals(), metrics=metrics
    )
    model.set_logger(make_logger(tmp_path, MetricsFiles(tmp_path), tensorboard=False, wandb=None))
    model.learn(60, callback=[metrics, saver], log_interval=None)
    whole = saver.save("between", in_haste=True)
    saver._bytes_per_second = 1.0
    hasty = saver.save("between", in_haste=True)
    assert "left out" in capsys.readouterr().err
    assert whole is not None
    assert hasty is not None
    assert checkpoints.load(whole).replay is not None
    assert checkpoints.load(hasty).replay is None


class Counter:
    """Stands for an engine whose state Python cannot read."""

    def __init__(self) -> None:
        self.count = 0


class Opaque(gymnasium.Env[Any, Any]):
    """An environment whose observation is the count that its engine holds."""

    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Start counting."""
        super().reset(seed=seed)
        self.engine = Counter()
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        """Count."""
        self.engine.count += 1
        return np.full(1, self.engine.count, np.float32), 0.0, False, False, {}


def test_an_engine_that_cannot_be_read_starts_its_episodes_anew(tmp_path: Path) -> None:
    def make() -> Any:
        return gymnasium.wrappers.TimeLimit(Opaque(), 25)

    # Eighty steps of each of two environments end five steps into an episode.
    first = run(tmp_path, "SAC", 160, 160, make)
    assert first._last_obs.tolist() == [[5], [5]]
    model = build("SAC", 200, make)
    notes = restore(model, checkpoints.load(tmp_path))
    assert notes == ["The environment's physics cannot be restored; its episodes start anew."]
    model.learn(40, log_interval=None, reset_num_timesteps=False)
    assert model.replay_buffer.observations[80:100, 0, 0].tolist() == list(range(20))
    assert not model.replay_buffer.dones[80:100].any()


@pytest.mark.parametrize("compact", [False, True])
def test_a_full_replay_buffer_is_unrolled_into_a_larger_one(tmp_path: Path, compact: bool) -> None:
    extra = {"optimize_memory_usage": True}
    extra["replay_buffer_kwargs"] = {"handle_timeout_termination": False}  # type: ignore[assignment]
    for name, steps in (("old", 20), ("new", 60)):
        env = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")] * 2)
        settings = {**TINY, "learning_starts": 20, **(extra if compact else {})}
        cls = find_algorithm("SAC")
        model = build_algorithm(
            cls, env, settings, policy="MlpPolicy", seed=0, device="cpu", steps=steps
        )
        if name == "new":
            assert restore(model, checkpoints.load(tmp_path)) == []
            break
        # Ten rows of two environments; thirteen steps end at row 3.
        for step in range(1, 14):
            store(model.replay_buffer, step)
        assert (model.replay_buffer.pos, model.replay_buffer.full) == (3, True)
        checkpoints.save(tmp_path, capture(model, "between", {}))
    buffer = model.replay_buffer
    # Where rows share observations, the oldest one's has been written over.
    kept = list(range(5 if compact else 4, 14))
    assert (buffer.buffer_size, buffer.pos, buffer.full) == (30, len(kept), False)
    store(buffer, 14)
    kept.append(14)
    for values in (buffer.observations, buffer.actions, buffer.rewards):
        assert values[: len(kept)].reshape(len(kept), -1)[:, 0].tolist() == kept
    if not compact:
        assert buffer.next_observations[: len(kept), 0, 0].tolist() == [s + 1 for s in kept]
        assert buffer.masked[: len(kept), 0].tolist() == [step == 12 for step in kept]
    sample = buffer.sample(200)
    assert (sample.next_observations[:, 0] == sample.observations[:, 0] + 1).all()
    assert set(sample.rewards[:, 0].tolist()) <= set(map(float, kept))


def store(buffer: Any, step: int) -> None:
    """Add a step whose every number is the step's own; the twelfth diverged."""
    obs = np.full((2, 3), step, np.float32)
    reward = np.full(2, step, np.float32)
    infos = [{"diverged": step == 12}] * 2
    buffer.add(obs, obs + 1, obs[:, :1], reward, np.zeros(2, bool), infos)


def test_another_network_is_refused(tmp_path: Path) -> None:
    from vlmrm_fast.errors import CheckpointError

    run(tmp_path, "SAC", 100, 100)
    model = build("SAC-wide", 100)
    with pytest.raises(CheckpointError, match="networks must be built as when"):
        restore(model, checkpoints.load(tmp_path))
