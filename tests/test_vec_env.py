from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from vlmrm_fast import snapshot
from vlmrm_fast.envs import make_vec_env
from vlmrm_fast.envs.capture import render_camera
from vlmrm_fast.envs.painter import as_camera
from vlmrm_fast.errors import ArgumentError, UnknownNameError
from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.sb3.vec_env import VLMRewardVecEnv

N, HORIZON = 2, 4


def small(**more: Any) -> dict[str, Any]:
    """Return settings that learn fast; algorithms change what they are given, so a fresh copy."""
    return {"learning_starts": 20, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}} | more


pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Brightness:
    """Scores a frame by its mean, so that a reward says which frame it was given for."""

    image_size = 32

    def score(self, frames: np.ndarray) -> np.ndarray:
        assert frames.dtype == np.uint8
        return frames.mean(axis=(1, 2, 3), dtype=np.float32) / 255


def make_one(env_id: str, **options: Any) -> gymnasium.Env:
    return gymnasium.make(env_id, max_episode_steps=HORIZON, **options)


def constructors(env_id: str, num_envs: int = N, **options: Any) -> list[Callable[[], Any]]:
    return [functools.partial(make_one, env_id, **options)] * num_envs


KINDS = {
    "dummy": lambda env_id, **options: DummyVecEnv(constructors(env_id, **options)),
    "subproc": lambda env_id, **options: SubprocVecEnv(constructors(env_id, **options)),
}


def check_every_step(venv: VLMRewardVecEnv, env_id: str, steps: int, native: bool, **options: Any):
    """Compare each step with environments that are stepped by hand and drawn before a reset."""
    twins = [make_one(env_id, **options) for _ in range(N)]
    venv.seed(5)
    observations = venv.reset()
    first = [twin.reset(seed=5 + i)[0] for i, twin in enumerate(twins)]
    np.testing.assert_array_equal(observations, np.stack(first))
    if native:
        camera = as_camera(render_camera(twins[0]))
        renderer = Renderer(Scene.from_model(twins[0].unwrapped.model, camera), 32, 32)
    venv.action_space.seed(0)
    ends = 0
    for _ in range(steps):
        actions = np.stack([venv.action_space.sample() for _ in range(N)])
        observations, rewards, dones, infos = venv.step(actions)
        for i, twin in enumerate(twins):
            expected, own, terminated, truncated, _ = twin.step(actions[i])
            frame = renderer.render(twin.unwrapped.data)[0] if native else twin.render()
            np.testing.assert_array_equal(venv.last_frames[i], frame)
            assert rewards[i] == infos[i]["vlm_reward"] == Brightness().score(frame[None])[0]
            assert infos[i]["env_reward"] == pytest.approx(own)
            assert dones[i] == (terminated or truncated)
            if dones[i]:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], expected)
                assert infos[i]["TimeLimit.truncated"] == (truncated and not terminated)
                assert infos[i]["episode"]["l"] <= HORIZON
                expected, _ = twin.reset()
                ends += 1
            np.testing.assert_array_equal(observations[i], expected)
    assert ends >= N * (steps // HORIZON)


@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Hopper-v5"])
def test_terminal_frames_of_mujoco_environments_in_this_process(env_id: str) -> None:
    venv = VLMRewardVecEnv(KINDS["dummy"](env_id), Brightness())
    check_every_step(venv, env_id, 80, native=True)
    venv.close()


def test_terminal_frames_of_rendered_environments_in_this_process() -> None:
    options = {"render_mode": "rgb_array"}
    venv = VLMRewardVecEnv(KINDS["dummy"]("CartPole-v1", **options), Brightness())
    check_every_step(venv, "CartPole-v1", 20, native=False, **options)
    venv.close()


def test_terminal_frames_of_mujoco_environments_in_other_processes() -> None:
    venv = VLMRewardVecEnv(KINDS["subproc"]("Hopper-v5"), Brightness())
    check_every_step(venv, "Hopper-v5", 60, native=True)
    venv.close()


def test_terminal_frames_of_rendered_environments_in_other_processes() -> None:
    options = {"render_mode": "rgb_array"}
    venv = VLMRewardVecEnv(KINDS["subproc"]("MountainCarContinuous-v0", **options), Brightness())
    check_every_step(venv, "MountainCarContinuous-v0", 12, native=False, **options)
    venv.close()


def test_only_the_state_crosses_the_pipe() -> None:
    venv = DummyVecEnv(constructors("Humanoid-v5"))
    wrapped = VLMRewardVecEnv(venv, Brightness())
    wrapped.reset()
    state = venv.envs[0].vlmrm_capture.state()
    assert state.dtype == np.float64
    assert len(pickle.dumps(state)) < 4000
    assert 40 * state.nbytes < 240 * 240 * 3


def test_different_models_get_their_own_scenes() -> None:
    def make(color: float) -> gymnasium.Env:
        env = Monitor(gymnasium.make("InvertedPendulum-v5"))
        env.unwrapped.model.geom_rgba[:, :3] = color
        return env

    venv = VLMRewardVecEnv(
        DummyVecEnv([functools.partial(make, c) for c in (0.1, 0.9, 0.1)]), Brightness()
    )
    venv.seed(0)
    venv.reset()
    venv.step(np.zeros((3, 1), np.float32))
    assert venv.last_frames[1].mean() > venv.last_frames[0].mean() + 1
    assert abs(venv.last_frames[2].mean() - venv.last_frames[0].mean()) < 1


def test_mode_add_and_other_wrappers_keep_the_own_reward_and_episode() -> None:
    venv = sb3_make_vec_env("InvertedPendulum-v5", 2, env_kwargs={"max_episode_steps": 3})
    venv = VLMRewardVecEnv(VecNormalize(venv, norm_reward=False), Brightness(), "add", 0.5)
    venv.reset()
    total = np.zeros(2)
    for _ in range(3):
        _, rewards, dones, infos = venv.step(np.zeros((2, 1), np.float32))
        total += rewards
        for reward, info in zip(rewards, infos, strict=True):
            expected = info["env_reward"] + 0.5 * info["vlm_reward"]
            assert reward == pytest.approx(expected, rel=1e-6)
    assert dones.all()
    for index, info in enumerate(infos):
        assert info["episode"]["r"] == pytest.approx(total[index], rel=1e-6)
        assert info["episode"]["env_r"] == info["env_episode"]["r"] == 3


def test_divergence_ends_the_episode_truncated_and_flagged() -> None:
    base = DummyVecEnv([lambda: Monitor(gymnasium.make("Hopper-v5"))] * 2)
    venv = VLMRewardVecEnv(base, Brightness())
    venv.reset()
    before, *_ = venv.step(np.zeros((2, 3), np.float32))
    base.envs[1].unwrapped.data.qpos[2] = np.nan
    observations, rewards, dones, infos = venv.step(np.zeros((2, 3), np.float32))
    assert dones.tolist() == venv.diverged.tolist() == [False, True]
    assert infos[1]["diverged"]
    assert infos[1]["TimeLimit.truncated"]
    assert "diverged" not in infos[0]
    np.testing.assert_array_equal(infos[1]["terminal_observation"], before[1])
    assert np.isfinite(observations).all()
    assert np.isfinite(rewards).all()
    assert not venv.step(np.zeros((2, 3), np.float32))[2].any()
    assert not venv.diverged.any()


def test_non_finite_actions_name_the_environment() -> None:
    venv = VLMRewardVecEnv(KINDS["dummy"]("InvertedPendulum-v5"), Brightness())
    venv.reset()
    actions = np.zeros((N, 1), np.float32)
    actions[1] = np.nan
    with pytest.raises(ArgumentError, match=r"got \[nan\] for environment 1"):
        venv.step(actions)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"got None for environment 0.*render_mode='rgb_array'"):
        VLMRewardVecEnv(KINDS["dummy"]("CartPole-v1"), Brightness())
    with pytest.raises(UnknownNameError, match="mode must be one of add, replace"):
        VLMRewardVecEnv(KINDS["dummy"]("Hopper-v5"), Brightness(), mode="sum")


def make_bare() -> gymnasium.Env:
    return gymnasium.make("Hopper-v5").unwrapped


def test_bare_environments_work_in_this_process_and_are_refused_in_others() -> None:
    venv = VLMRewardVecEnv(DummyVecEnv([make_bare]), Brightness())
    venv.reset()
    assert venv.step(np.zeros((1, 3), np.float32))[3][0]["vlm_reward"] > 0
    others = SubprocVecEnv([make_bare])
    with pytest.raises(ArgumentError, match=r"gymnasium\.Wrapper, got bare ones .*Monitor"):
        VLMRewardVecEnv(others, Brightness())
    others.close()


def test_a_fixed_camera_of_the_environment_is_used() -> None:
    free = VLMRewardVecEnv(KINDS["dummy"]("Hopper-v5"), Brightness())
    fixed = VLMRewardVecEnv(KINDS["dummy"]("Hopper-v5", camera_name="track"), Brightness())
    named = VLMRewardVecEnv(KINDS["dummy"]("Hopper-v5"), Brightness(), camera="track")
    for venv in (free, fixed, named):
        venv.seed(0)
        venv.reset()
        venv.step(np.zeros((N, 3), np.float32))
    np.testing.assert_array_equal(fixed.last_frames, named.last_frames)
    assert not np.array_equal(free.last_frames, fixed.last_frames)


def test_an_environment_that_is_not_drawn_natively_falls_back_with_one_line(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    text = (folder / "inverted_pendulum.xml").read_text()
    sites = '<site name="p" pos="-1 0 .5"/><site name="q" pos="1 0 .5"/></worldbody>'
    path = '<spatial width=".02"><site site="p"/><site site="q"/></spatial>'
    text = text.replace("</worldbody>", f"{sites}<tendon>{path}</tendon>")
    (tmp_path / "rope.xml").write_text(text)
    options = {"xml_file": str(tmp_path / "rope.xml")}
    venv = VLMRewardVecEnv(KINDS["dummy"]("InvertedPendulum-v5", **options), Brightness())
    # Without a render mode nobody can draw it: the error says how.
    with pytest.raises(ArgumentError, match="render_mode must be 'rgb_array', got None"):
        venv.reset()
    lines = [record.message for record in caplog.records if "own render()" in record.message]
    assert len(lines) == 1
    assert "ten_wrapadr" in lines[0]


@pytest.fixture
def pendulums() -> Iterator[VLMRewardVecEnv]:
    venv = VLMRewardVecEnv(sb3_make_vec_env("InvertedPendulum-v5", 2), Brightness())
    yield venv
    venv.close()


def test_an_episode_that_goes_on_from_the_state_of_another_process_has_a_time_of_its_own(
    pendulums: VLMRewardVecEnv,
) -> None:
    pendulums.reset()
    state = snapshot.environment_state(pendulums)
    # There, the clock began twelve days earlier.
    state[0]["attributes"]["plain"]["_start"] += 1e6
    snapshot.set_environment_state(pendulums, state)
    dones = np.zeros(2, bool)
    while not dones.any():
        _, _, dones, infos = pendulums.step(np.full((2, 1), 3, np.float32))
    assert 0 <= infos[int(dones.argmax())]["episode"]["t"] < 1e5


@pytest.mark.parametrize("algorithm", [PPO, SAC, TD3])
def test_algorithms_learn_unmodified_on_wrapped_environments(
    algorithm: Any, pendulums: VLMRewardVecEnv
) -> None:
    options = {"n_steps": 32} if algorithm is PPO else small()
    model = algorithm("MlpPolicy", pendulums, seed=0, device="cpu", **options)
    model.learn(64)
    assert model.num_timesteps >= 64
    returns = [episode["r"] / episode["l"] for episode in model.ep_info_buffer]
    assert returns
    assert all(0 < mean < 1 for mean in returns)


def test_dqn_learns_unmodified_on_rendered_environments() -> None:
    venv = sb3_make_vec_env("CartPole-v1", 2, env_kwargs={"render_mode": "rgb_array"})
    model = DQN("MlpPolicy", VLMRewardVecEnv(venv, Brightness()), device="cpu", **small())
    model.learn(60)
    assert model.num_timesteps >= 60


@pytest.mark.parametrize("algorithm", [PPO, SAC, TD3])
def test_algorithms_learn_unmodified_on_batched_tasks(algorithm: Any) -> None:
    env = make_vec_env("cartpole-upright", 4, reward=Brightness(), seed=0)
    options = {"n_steps": 32} if algorithm is PPO else small(gradient_steps=1)
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **options)
    model.learn(1000)
    assert len(model.ep_info_buffer) == 4
    assert np.isfinite([episode["r"] for episode in model.ep_info_buffer]).all()


def test_learning_is_the_same_for_the_same_seed() -> None:
    weights = []
    for threads in (1, 2):
        env = make_vec_env("cartpole-upright", 4, reward=Brightness(), num_threads=threads)
        model = PPO("MlpPolicy", env, n_steps=32, seed=3, device="cpu")
        model.learn(256)
        weights.append([p.detach().numpy().copy() for p in model.policy.parameters()])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
