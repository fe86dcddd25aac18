"""Tests of the tasks that gymnasium steps and draws: cart-pole and mountain car."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from vlmrm_fast import train as training
from vlmrm_fast.config import (
    AlgorithmConfig,
    CameraConfig,
    EvaluationConfig,
    LoggingConfig,
    RewardConfig,
    TrainConfig,
)
from vlmrm_fast.envs import make_vec_env
from vlmrm_fast.errors import ArgumentError, UnknownNameError
from vlmrm_fast.state_drawing import draw_states
from vlmrm_fast.tasks import GymTask, get_task, mountain, native_task_names, task_names

pytest.importorskip("pygame")

CARTPOLE, MOUNTAINCAR = get_task("cartpole"), get_task("mountaincar")
BOTH = pytest.mark.parametrize("task", [CARTPOLE, MOUNTAINCAR], ids=lambda task: task.name)


def push_to_goal(env):
    """Drive the car along its own speed until it is at the flag; return the last step."""
    observation, _ = env.reset(seed=0)
    for _ in range(200):
        action = np.array([1.0 if observation[1] >= 0 else -1.0], np.float32)
        result = env.step(action)
        observation = result[0]
        if result[4]["success"]:
            return result
    raise AssertionError("the car did not reach the flag")


@BOTH
def test_registry_lists_it_apart_from_native_tasks(task):
    assert isinstance(task, GymTask)
    assert task.name in task_names()
    assert task.name not in native_task_names()


@BOTH
def test_episodes_end_by_truncation_at_the_horizon_only(task):
    env = task.make()
    env.action_space.seed(0)
    env.reset(seed=0)
    for step in range(1, task.horizon + 1):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        assert not terminated
        assert truncated == (step == task.horizon)
        assert ("is_success" in info) == truncated
    assert info["is_success"] is False


def test_steps_are_those_of_gymnasium_until_it_would_end():
    ours, theirs = CARTPOLE.make(), gymnasium.make("CartPole-v1")
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for step in range(500):
        got, expected = ours.step(step % 2), theirs.step(step % 2)
        np.testing.assert_array_equal(got[0], expected[0])
        assert got[4]["gym_reward"] == expected[1] == 1.0
        assert (got[1] == 1.0) == got[4]["success"] == (not expected[2])
        if expected[2]:
            break
    assert expected[2]
    # The pole falls on, past the horizontal.
    angles = [ours.step(1)[0][2] for _ in range(100)]
    assert np.abs(angles).max() > np.pi / 2


def test_cartpole_that_balances_throughout_succeeds():
    env = CARTPOLE.make()
    observation, _ = env.reset(seed=0)
    done = False
    while not done:
        x, speed, angle, turning = observation
        action = int(angle + 0.3 * turning + 0.05 * x + 0.1 * speed > 0)
        observation, _, _, done, info = env.step(action)
    assert info["is_success"] is True


def test_goal_of_the_mountain_car_is_absorbing():
    env = MOUNTAINCAR.make()
    observation, reward, _, _, _ = push_to_goal(env)
    assert reward == 1.0
    assert observation[0] >= 0.45
    picture = env.render()
    done = False
    while not done:
        later, reward, terminated, done, info = env.step(np.array([-1.0], np.float32))
        np.testing.assert_array_equal(later, [observation[0], 0.0])
        assert (reward, terminated, info["success"]) == (1.0, False, True)
    assert info["is_success"] is True
    np.testing.assert_array_equal(env.render(), picture)


def test_success_of_an_episode_is_forgotten_on_reset():
    env = MOUNTAINCAR.make()
    push_to_goal(env)
    observation, _ = env.reset(seed=1)
    assert -0.6 <= observation[0] <= -0.4
    done = False
    while not done:
        moved, reward, _, done, info = env.step(np.array([0.0], np.float32))
        assert reward == 0.0
    assert info["is_success"] is False
    assert moved[0] != observation[0]


@BOTH
def test_posed_states_are_what_their_names_say(task):
    poses = task.posed_states(np.random.default_rng(0), 200)
    reward, success = task.ground_truth(poses.qpos)
    np.testing.assert_array_equal(reward, success.astype(np.float64))
    np.testing.assert_array_equal(success, np.isin(poses.names, task.goal_poses))
    assert set(task.near_misses) <= set(poses.names)


@pytest.mark.parametrize(
    ("state", "success"),
    [
        ([0, 0, 0, 9], True),
        ([2.39, 0, 0.2, 0], True),
        ([2.41, 0, 0, 0], False),
        ([0, 0, 0.22, 0], False),
        ([0, 0, 2 * np.pi - 0.1, 0], True),
        ([0, 0, np.pi, 0], False),
        ([0, 0, np.nan, 0], False),
    ],
)
def test_cartpole_balances_within_gymnasiums_limits(state, success):
    assert CARTPOLE.ground_truth(np.array([state]))[1][0] == success


@BOTH
def test_drawn_picture_follows_the_state_and_repeats(task):
    env = task.make()
    poses = task.posed_states(np.random.default_rng(1), 3)
    pictures = []
    for state in poses.qpos:
        task.set_state(env, state)
        pictures.append(np.array(env.render()))
        np.testing.assert_array_equal(pictures[-1], env.render())
        assert pictures[-1].shape == (task.height, task.width, 3)
        assert pictures[-1].dtype == np.uint8
    assert (pictures[0] != pictures[1]).any()


def test_original_picture_is_gymnasiums():
    env = MOUNTAINCAR.make(textures="original")
    theirs = gymnasium.make("MountainCarContinuous-v0", render_mode="rgb_array")
    env.reset(seed=0)
    theirs.reset(seed=0)
    np.testing.assert_array_equal(env.render(), theirs.render())


@pytest.mark.parametrize("position", [-1.2, -0.8, -0.5, 0.0, 0.3])
def test_textured_car_and_flag_stand_where_gymnasiums_do(position):
    def middle(mask):
        return np.argwhere(mask).mean(axis=0)

    env = MOUNTAINCAR.make(textures="original")
    MOUNTAINCAR.set_state(env, np.array([position, 0.0]))
    plain = np.array(env.render()).astype(int)
    drawn = mountain.paint(np.array([position, 0.0])).astype(int)
    empty = mountain.background(mountain.PHOTOGRAPHIC).astype(int)
    # Wheels and body, without the curve: what differs from a picture with the car elsewhere.
    MOUNTAINCAR.set_state(env, np.array([0.6 if position < 0 else -1.2, 0.0]))
    other = np.array(env.render()).astype(int)
    theirs = (np.abs(plain - other).sum(2) > 60) & (plain.sum(2) < 500)
    ours = np.abs(drawn - empty).sum(2) > 60
    np.testing.assert_allclose(middle(ours), middle(theirs), atol=6)
    yellow = (drawn[..., 0] > 200) & (drawn[..., 1] > 170) & (drawn[..., 2] < 60)
    assert abs(middle(yellow)[1] - (0.45 + 1.2) / 1.8 * 600) < 20


def test_a_state_that_is_set_is_not_held_by_a_goal_reached_before():
    env = gymnasium.wrappers.RecordEpisodeStatistics(MOUNTAINCAR.make())
    env.reset(seed=0)
    MOUNTAINCAR.set_state(env, np.array([0.44, 0.07]))
    assert env.step(np.ones(1, np.float32))[4]["success"]
    MOUNTAINCAR.set_state(env, np.array([-0.5, 0.03]))
    for _ in range(2):
        observation, _, _, _, info = env.step(np.ones(1, np.float32))
        assert not info["success"]
    assert observation[0] > -0.46


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: MOUNTAINCAR.make(textures="photografic"),
            UnknownNameError,
            "Did you mean 'photographic'?",
        ),
        (
            lambda: CARTPOLE.make(no_such=1),
            ArgumentError,
            "env must be one that can be made, got 'CartPole-v1' with {'no_such': 1}",
        ),
        (
            lambda: CARTPOLE.set_state(CARTPOLE.make(), np.zeros(3)),
            ArgumentError,
            "state must be 4 finite numbers (position [m], speed [m/s], angle [rad], "
            "angular speed [rad/s]), got [0.0, 0.0, 0.0].",
        ),
        (
            lambda: make_vec_env("cartpole", 2),
            ArgumentError,
            "task must be one with a MuJoCo model here, got 'cartpole', which is gymnasium's "
            "CartPole-v1. Choose one of",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()


@BOTH
def test_it_trains_resumes_and_is_filmed(task, untrained_folder, tmp_path, one_torch_thread):
    small = {"learning_starts": 16, "buffer_size": 100, "batch_size": 8, "gradient_steps": 1}
    config = TrainConfig(
        task=task.name,
        steps=32,
        num_envs=2,
        episode_length=8,
        run_dir=str(tmp_path / "run"),
        reward=RewardConfig(model=untrained_folder),
        evaluation=EvaluationConfig(episodes=2, video_size=64),
        logging=LoggingConfig(tensorboard=False, progress="off"),
        algorithm=AlgorithmConfig(hyperparameters=small | {"train_freq": 4}),
    )
    training.train(config)
    config = dataclasses.replace(config, steps=64)
    result = training.train(config, resume=tmp_path / "run")
    assert result.summary["steps"] == 64
    assert [episode.length for episode in result.evaluation.episodes] == [8, 8]
    assert result.summary["success_rate"] is not None
    assert (tmp_path / "run" / "video.mp4").stat().st_size > 0


def test_camera_of_a_task_that_draws_itself_is_refused(untrained_folder):
    config = TrainConfig(task="cartpole", camera=CameraConfig(distance=3.0))
    with pytest.raises(ArgumentError, match=r"camera\.distance must be left out for cartpole"):
        training.train(config)


def test_without_pygame_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ArgumentError, match=r"pip install 'vlmrm-fast\[classic\]'"):
        CARTPOLE.make()


def test_drawing_without_a_screen_says_nothing():
    code = (
        "from vlmrm_fast.config import RewardConfig, TrainConfig\n"
        "from vlmrm_fast.sb3.building import make_gym\n"
        "for chosen in ({'env': 'CartPole-v1'}, {'task': 'cartpole', 'episode_length': 9}):\n"
        "    env = make_gym(TrainConfig(reward=RewardConfig(goal=('a pole',)), **chosen))\n"
        "    env.reset(seed=0)\n"
        "    assert env.render().shape == (400, 600, 3)\n"
    )
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "XDG_RUNTIME_DIR")
    variables = {key: value for key, value in os.environ.items() if key not in screens}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cart_far_outside_is_drawn_as_one_beyond_the_picture():
    env = CARTPOLE.make()
    env.reset(seed=0)
    for _ in range(500):
        env.step(1)
    state = np.array(env.unwrapped.state)
    assert state[0] > 300
    drawn = env.render()
    np.testing.assert_array_equal(env.unwrapped.state, state)
    CARTPOLE.set_state(env, np.array([20.0, 0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(drawn, env.render())


@BOTH
@pytest.mark.parametrize("value", [1e300, -1e300, 1e10, 2.0**31 / 125])
def test_any_finite_state_is_drawn(task, value):
    shown = task.posed_states(np.random.default_rng(0), 1).qpos
    for place in range(shown.shape[1]):
        states = np.repeat(shown, 2, axis=0)
        states[1, place] = value
        for textures in task.looks:
            (frames,) = draw_states(task, states, 96, textures=textures)
            assert frames.shape == (2, task.height, task.width, 3)
