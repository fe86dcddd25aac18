from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from vlmrm_fast import VLMReward, clip
from vlmrm_fast.envs import VLMRewardWrapper
from vlmrm_fast.envs.capture import render_camera
from vlmrm_fast.envs.painter import as_camera
from vlmrm_fast.errors import ArgumentError, UnknownNameError
from vlmrm_fast.rendering import Renderer, Scene

MUJOCO_ENVS = (
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Swimmer-v5",
    "Walker2d-v5",
)


class Brightness:
    """Scores a frame by its mean, so that a reward says which frame it was given for."""

    image_size = 48

    def score(self, frames: np.ndarray) -> np.ndarray:
        assert frames.dtype == np.uint8
        return frames.mean(axis=(1, 2, 3), dtype=np.float32) / 255


def make(env_id: str = "InvertedPendulum-v5", horizon: int | None = None, **options: Any) -> Any:
    wrap = {
        name: options.pop(name)
        for name in ("mode", "weight", "render_size", "supersample")
        if name in options
    }
    env = gymnasium.make(env_id, max_episode_steps=horizon, **options)
    return VLMRewardWrapper(env, Brightness(), **wrap)


@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Hopper-v5"])
def test_the_frame_shows_the_state_reached_at_every_step(env_id: str) -> None:
    env, twin = make(env_id, 4), gymnasium.make(env_id, max_episode_steps=4)
    renderer = None
    for episode in range(20):
        env.reset(seed=episode)
        twin.reset(seed=episode)
        if renderer is None:
            camera = as_camera(render_camera(twin))
            renderer = Renderer(Scene.from_model(twin.unwrapped.model, camera), 48, 48)
        ended = False
        env.action_space.seed(episode)
        while not ended:
            action = env.action_space.sample()
            _, reward, terminated, truncated, info = env.step(action)
            _, own, *_ = twin.step(action)
            expected = renderer.render(twin.unwrapped.data)
            np.testing.assert_array_equal(env.last_frames, expected)
            assert reward == info["vlm_reward"] == pytest.approx(expected.mean() / 255, rel=1e-5)
            assert info["env_reward"] == own
            ended = terminated or truncated


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0"])
def test_other_environments_are_drawn_by_their_own_render(env_id: str) -> None:
    env = make(env_id, 3, render_mode="rgb_array")
    twin = gymnasium.make(env_id, max_episode_steps=3, render_mode="rgb_array")
    for seed in range(3):
        env.reset(seed=seed)
        twin.reset(seed=seed)
        env.action_space.seed(seed)
        for _ in range(3):
            action = env.action_space.sample()
            _, reward, *_ = env.step(action)
            twin.step(action)
            np.testing.assert_array_equal(env.last_frames[0], twin.render())
            assert reward == Brightness().score(env.last_frames)[0]


def test_an_environment_that_cannot_be_drawn_says_how_to_make_it() -> None:
    with pytest.raises(ArgumentError, match="render_mode must be 'rgb_array', got None"):
        make("CartPole-v1")


def test_mode_add_keeps_the_own_reward() -> None:
    env = make("CartPole-v1", render_mode="rgb_array", mode="add", weight=2.0)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(1)
    assert info["env_reward"] == 1.0
    assert reward == pytest.approx(1 + 2 * info["vlm_reward"])
    with pytest.raises(UnknownNameError, match="mode must be one of add, replace, got 'both'"):
        make("InvertedPendulum-v5", mode="both")


def test_non_finite_actions_are_refused() -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ArgumentError, match=r"actions must be finite, got .*nan"):
        env.step(np.array([np.nan], np.float32))


def test_a_diverged_world_ends_truncated_with_its_last_finite_observation() -> None:
    env = make("Hopper-v5")
    env.reset(seed=0)
    before, *_ = env.step(np.zeros(3, np.float32))
    env.unwrapped.data.qvel[0] = np.nan
    observation, reward, terminated, truncated, info = env.step(np.zeros(3, np.float32))
    assert (terminated, truncated, info["diverged"]) == (False, True, True)
    np.testing.assert_array_equal(observation, before)
    assert np.isfinite(reward)
    assert np.isfinite(info["env_reward"])
    env.reset()
    assert "diverged" not in env.step(np.zeros(3, np.float32))[4]


def test_the_frame_does_not_depend_on_the_environments_own_size() -> None:
    env = make("Humanoid-v5", render_size=(30, 50))
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.last_frames.shape == (1, 30, 50, 3)


def test_models_that_need_more_than_poses_draw_themselves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from changing_scenes import TENDONS

    from vlmrm_fast.envs.painter import scene_or_none

    assert scene_or_none(mujoco.MjModel.from_xml_string(TENDONS), None) is None
    assert (
        "own render() draws the frames, slower: it shows elements that change shape" in caplog.text
    )


def test_wrapped_environments_can_be_supersampled() -> None:
    env, large = make(supersample=2, render_size=32), make(render_size=64)
    for each in (env, large):
        each.reset(seed=0)
        each.step(np.zeros(1, np.float32))
    blocks = large.last_frames.reshape(1, 32, 2, 32, 2, 3).astype(int).sum((2, 4))
    np.testing.assert_array_equal(env.last_frames, (blocks + 2) // 4)


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("InvertedPendulum-v5", {}),
        ("Humanoid-v5", {}),
        ("CartPole-v1", {"render_mode": "rgb_array"}),
        ("MountainCarContinuous-v0", {"render_mode": "rgb_array"}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_both_environment_checkers_pass(env_id: str, options: dict[str, str]) -> None:
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    env = VLMRewardWrapper(
        gymnasium.make(env_id, disable_env_checker=True, **options), Brightness()
    )
    gymnasium_check_env(env, skip_render_check=True)
    sb3_check_env(env, skip_render_check=True)
    env.close()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_checkers_pass_with_a_real_model(tmp_path: Path) -> None:
    shutil.copy(clip.BUILTIN_FOLDER / clip.CONFIG_FILE, tmp_path)
    clip.save_model(clip.build_model(tmp_path), tmp_path)
    reward = VLMReward(str(tmp_path), goal="a pole")
    env = gymnasium.make("InvertedPendulum-v5", disable_env_checker=True)
    env = VLMRewardWrapper(env, reward)
    gymnasium_check_env(env, skip_render_check=True)
    env.reset(seed=0)
    _, value, _, _, info = env.step(env.action_space.sample())
    assert value == info["vlm_reward"] == reward.score(env.last_frames)[0]


def test_the_stages_are_timed_and_close_releases_the_environment() -> None:
    env = make()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert all(env.timings[stage] > 0 for stage in ("simulate", "draw", "encode"))
    env.close()


PARITY = """
import sys
import triton  # Before any GL context.
import gymnasium, numpy as np
from vlmrm_fast.envs import VLMRewardWrapper

class Zero:
    image_size = 160
    def score(self, frames):
        return np.zeros(len(frames), np.float32)

for env_id in sys.argv[1:]:
    env = gymnasium.make(env_id, render_mode="rgb_array", width=160, height=160)
    env = VLMRewardWrapper(env, Zero())
    env.reset(seed=0)
    env.action_space.seed(0)
    env.render()
    worst = 99.0
    for _ in range(3):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        error = env.last_frames[0].astype(float) - env.render()
        worst = min(worst, 10 * np.log10(255**2 / max((error**2).mean(), 1e-9)))
        if terminated or truncated:
            env.reset()
    print(env_id, worst, flush=True)

# A tendon's path is no part of a captured state: the environment draws itself.
from pathlib import Path
text = (Path(gymnasium.__path__[0]) / "envs/mujoco/assets/inverted_pendulum.xml").read_text()
sites = '<site name="p" pos="-1 0 .5"/><site name="q" pos="1 0 .5"/></worldbody>'
path = '<spatial width=".02"><site site="p"/><site site="q"/></spatial>'
text = text.replace("</worldbody>", f"{sites}<tendon>{path}</tendon>")
Path("rope.xml").write_text(text)
options = {"xml_file": "./rope.xml", "render_mode": "rgb_array", "width": 64, "height": 64}
env = VLMRewardWrapper(gymnasium.make("InvertedPendulum-v5", **options), Zero())
env.reset(seed=0)
env.step(env.action_space.sample())
assert env.last_frames.std() > 0
np.testing.assert_array_equal(env.last_frames[0], env.render())
"""


def has_egl() -> bool:
    code = "import triton, mujoco.egl; mujoco.egl.GLContext(8, 8).make_current()"
    environment = os.environ | {"MUJOCO_GL": "egl"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    return done.returncode == 0


def test_native_frames_match_the_environments_own_render(tmp_path: Path) -> None:
    if not has_egl():
        pytest.skip("no EGL here: gymnasium cannot draw the pictures to compare with")
    done = subprocess.run(
        [sys.executable, "-c", PARITY, *MUJOCO_ENVS],
        env=os.environ | {"MUJOCO_GL": "egl"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    psnr = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}
    assert set(psnr) == set(MUJOCO_ENVS), done.stderr[-2000:]
    # HalfCheetah's floor reaches beyond MuJoCo's shadow map, which leaves dark streaks on its far
    # rows; without shadows both pictures agree at 46 dB.
    streaks = psnr.pop("HalfCheetah-v5")
    assert streaks >= 30
    assert min(psnr.values()) >= 35, psnr
