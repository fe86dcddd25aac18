from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vlmrm_fast.envs import TaskWorlds, make_vec_env
from vlmrm_fast.errors import ArgumentError, CheckpointError, UnknownNameError
from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.tasks import Task, get_task

CARTPOLE, KNEELING = get_task("cartpole-upright"), get_task("humanoid-kneeling")
APIS = ("sb3", "gymnasium")


class Brightness:
    """Scores a frame by its mean, so that a reward says which frame it was given for."""

    image_size = 32

    def score(self, frames: np.ndarray) -> np.ndarray:
        assert frames.dtype == np.uint8
        return frames.mean(axis=(1, 2, 3), dtype=np.float32) / 255


def make(task: Task | str = CARTPOLE, num_envs: int = 4, **options: Any) -> Any:
    horizon = options.pop("horizon", None)
    task = get_task(task) if isinstance(task, str) else task
    task = task if horizon is None else dataclasses.replace(task, horizon=horizon)
    return make_vec_env(task, num_envs, reward=Brightness(), **{"seed": 0} | options)


def step(env: Any, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """Step either face; return observations, rewards, dones and infos."""
    result = env.step(actions)
    if len(result) == 4:
        return result
    observations, rewards, terminations, truncations, infos = result
    assert not terminations.any()
    return observations, rewards, truncations, infos


def actions_of(env: Any, steps: int, seed: int = 0) -> np.ndarray:
    size = env.worlds.action_space.shape
    low, high = env.worlds.action_space.low, env.worlds.action_space.high
    return np.random.default_rng(seed).uniform(low, high, (steps, env.num_envs, *size))


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("task", "num_envs", "steps", "threads"),
    [("cartpole-upright", 256, 60, 2), ("humanoid-kneeling", 16, 12, 2)],
)
def test_every_terminal_frame_shows_the_terminal_state(
    api: str, task: str, num_envs: int, steps: int, threads: int
) -> None:
    env = make(task, num_envs, horizon=3, api=api, num_threads=threads)
    worlds: TaskWorlds = env.worlds
    twin = Simulation(worlds.model, num_envs, threads, worlds.task.fields)
    poses = twin.poses
    scene = Scene.from_model(worlds.model, worlds.task.camera)
    renderer = Renderer(scene, worlds.height, worlds.width)
    env.reset()
    ends = 0
    for actions in actions_of(env, steps):
        # The twin makes the same step from the same states, and never resets.
        twin.set_state(worlds.simulation.get_state())
        twin.step(actions, worlds.task.frame_skip)
        observations, rewards, dones, infos = step(env, actions)
        expected = renderer.render(poses)
        np.testing.assert_array_equal(env.last_frames, expected)
        np.testing.assert_array_equal(rewards.astype(np.float32), Brightness().score(expected))
        terminal = worlds.task.observation(worlds.model, twin.fields).astype(np.float32)
        for index in np.flatnonzero(dones):
            final = infos["final_obs"] if api == "gymnasium" else None
            given = infos[index]["terminal_observation"] if final is None else final[index]
            np.testing.assert_array_equal(given, terminal[index])
            assert not np.array_equal(given, observations[index])
        np.testing.assert_array_equal(observations[~dones], terminal[~dones])
        ends += int(dones.sum())
    assert ends == num_envs * (steps // 3)


@pytest.mark.parametrize("api", APIS)
def test_episodes_end_by_truncation_at_the_horizon(api: str) -> None:
    env = make(horizon=5, api=api)
    env.reset()
    for count in range(1, 16):
        _, _, dones, infos = step(env, np.zeros((4, 1)))
        assert dones.all() == (count % 5 == 0) == dones.any()
        if api == "sb3":
            assert {info["TimeLimit.truncated"] for info in infos} == {bool(dones[0])}


def test_infos_of_both_faces_agree() -> None:
    sb3, vector = make(horizon=4), make(horizon=4, api="gymnasium")
    np.testing.assert_array_equal(sb3.reset(), vector.reset()[0])
    for actions in actions_of(sb3, 9):
        observations, rewards, dones, infos = step(sb3, actions)
        others = step(vector, actions)
        np.testing.assert_array_equal(observations, others[0])
        np.testing.assert_array_equal(rewards, others[1].astype(np.float32))
        np.testing.assert_array_equal(dones, others[2])
        for i, info in enumerate(infos):
            for key in ("vlm_reward", "env_reward", "success"):
                assert info[key] == others[3][key][i]
                assert others[3][f"_{key}"][i]
            if dones[i]:
                final = others[3]["final_info"]
                for key in ("r", "l", "env_r"):
                    assert info["episode"][key] == final["episode"][key][i]
                assert info["is_success"] == final["is_success"][i]
                np.testing.assert_array_equal(
                    info["terminal_observation"], others[3]["final_obs"][i]
                )


def test_episode_returns_add_up() -> None:
    env = make(horizon=6)
    env.reset()
    total, own = np.zeros(4), np.zeros(4)
    for actions in actions_of(env, 6):
        _, rewards, _, infos = step(env, actions)
        total += rewards
        own += [info["env_reward"] for info in infos]
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], total, rtol=1e-6)
    np.testing.assert_allclose([info["episode"]["env_r"] for info in infos], own)
    assert {info["episode"]["l"] for info in infos} == {6}


def test_an_episode_succeeds_only_if_its_last_states_are_goal_states() -> None:
    env = make(dataclasses.replace(CARTPOLE, horizon=40, success_steps=40), num_envs=2)
    env.reset()
    for _ in range(40):
        # World 0 is balanced by feedback, world 1 is pushed to the stop.
        x, cos, sin, v, w = env.worlds._observation[0]
        push = np.clip(20 * np.arctan2(sin, cos) + 4 * w + x + v, -1, 1)
        _, _, _, infos = step(env, np.array([[push], [1.0]]))
    assert [info["is_success"] for info in infos] == [True, False]
    assert infos[0]["episode"]["env_r"] == 40


def test_mode_add_keeps_the_own_reward() -> None:
    replace, add = make(), make(mode="add", weight=0.5)
    replace.reset()
    add.reset()
    for actions in actions_of(add, 5):
        _, vlm, _, infos = step(replace, actions)
        _, rewards, _, _ = step(add, actions)
        own = [info["env_reward"] for info in infos]
        np.testing.assert_allclose(rewards, own + 0.5 * vlm, rtol=1e-6)


@pytest.mark.parametrize("task", ["cartpole-upright", "humanoid-kneeling"])
def test_the_same_seed_gives_the_same_frames_at_any_thread_count(task: str) -> None:
    envs = [make(task, 5, horizon=4, num_threads=threads, seed=7) for threads in (1, 2, 3)]
    first, *others = [env.reset() for env in envs]
    for observations in others:
        np.testing.assert_array_equal(first, observations)
    for actions in actions_of(envs[0], 9):
        results = [step(env, actions)[:3] for env in envs]
        for env, result in zip(envs[1:], results[1:], strict=True):
            np.testing.assert_array_equal(envs[0].last_frames, env.last_frames)
            for one, other in zip(results[0], result, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_world_does_not_depend_on_how_many_others_there_are() -> None:
    many, few = make(num_envs=9, horizon=5, seed=3), make(num_envs=2, horizon=5, seed=3)
    np.testing.assert_array_equal(many.reset()[:2], few.reset())
    for actions in actions_of(many, 12):
        ours, theirs = step(many, actions), step(few, actions[:2])
        np.testing.assert_array_equal(many.last_frames[:2], few.last_frames)
        for one, other in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(one[:2], other)


def test_seeds_differ_and_reseeding_repeats() -> None:
    env = make(api="gymnasium", seed=None)
    first, _ = env.reset(seed=1)
    assert len(np.unique(first[:, 0])) == 4
    assert not np.array_equal(first, env.reset(seed=2)[0])
    np.testing.assert_array_equal(first, env.reset(seed=1)[0])
    assert not np.array_equal(first, env.reset()[0])


@pytest.mark.parametrize("task", ["cartpole-upright", "humanoid-kneeling"])
def test_a_restored_environment_continues_bit_for_bit(task: str) -> None:
    env, other = make(task, 3, horizon=7), make(task, 3, horizon=7, seed=5)
    env.reset()
    actions = actions_of(env, 22)
    for row in actions[:10]:
        step(env, row)
    saved = env.get_state()
    other.reset()
    np.testing.assert_array_equal(other.set_state(saved), env.worlds._observation)
    for row in actions[10:]:
        ours, theirs = step(env, row), step(other, row)
        np.testing.assert_array_equal(env.last_frames, other.last_frames)
        for one, another in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(one, another)
        for mine, yours in zip(ours[3], theirs[3], strict=True):
            for info in (mine, yours):
                info.pop("terminal_observation", None)
                info.get("episode", {}).pop("t", None)
            assert mine == yours


def test_a_state_of_another_size_is_refused() -> None:
    env = make(num_envs=3)
    env.reset()
    with pytest.raises(CheckpointError, match="must hold 4 generators, got 3"):
        make(num_envs=4).set_state(env.get_state())
    with pytest.raises(CheckpointError, match="environment state must be complete"):
        env.set_state({"rngs": env.get_state()["rngs"]})


@pytest.mark.parametrize("api", APIS)
def test_a_diverged_world_ends_truncated_flagged_and_finite(api: str) -> None:
    env = make(KNEELING, api=api, num_threads=1)
    env.reset()
    before = step(env, np.zeros((4, 17)))[0]
    env.worlds.simulation.qvel[2] = np.nan
    observations, rewards, dones, infos = step(env, np.zeros((4, 17)))
    assert dones.tolist() == [False, False, True, False]
    assert env.diverged.tolist() == dones.tolist()
    assert np.isfinite(rewards).all()
    assert np.isfinite(observations).all()
    if api == "sb3":
        assert [info.get("diverged", False) for info in infos] == dones.tolist()
        assert infos[2]["TimeLimit.truncated"]
        assert not infos[2]["success"]
        final = infos[2]["terminal_observation"]
    else:
        assert infos["diverged"].tolist() == dones.tolist()
        final = infos["final_obs"][2]
    np.testing.assert_array_equal(final, before[2])
    assert not step(env, np.zeros((4, 17)))[2].any()
    assert not env.diverged.any()


def test_all_injected_divergences_are_flagged() -> None:
    env = make(num_envs=50, horizon=10_000)
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(40):
        hit = rng.random(50) < 0.1
        field = env.worlds.simulation.qpos if rng.random() < 0.5 else env.worlds.simulation.qvel
        field[hit] = rng.choice([np.nan, np.inf, -1e30], size=(int(hit.sum()), 2))
        observations, rewards, dones, _ = step(env, rng.uniform(-1, 1, (50, 1)))
        np.testing.assert_array_equal(dones, hit)
        np.testing.assert_array_equal(env.diverged, hit)
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()


@pytest.mark.parametrize("api", APIS)
def test_non_finite_actions_name_the_environment(api: str) -> None:
    env = make(api=api)
    env.reset()
    actions = np.zeros((4, 1), np.float32)
    actions[3] = np.inf
    with pytest.raises(ArgumentError, match=r"got \[inf\] for environment 3"):
        env.step(actions)


def test_a_step_before_the_first_reset_is_refused() -> None:
    with pytest.raises(ArgumentError, match="reset must be called before the first step"):
        make().step(np.zeros((4, 1)))


def test_frames_are_drawn_at_the_size_that_is_asked_for() -> None:
    assert make().last_frames.shape == (4, 32, 32, 3)
    assert make(render_size=48).last_frames.shape == (4, 48, 48, 3)
    env = make(render_size=(20, 36))
    env.reset()
    assert env.last_frames.shape == (4, 20, 36, 3)
    assert env.last_frames.std() > 10
    for size in (0, (3,), (4, -1), 2.5):
        with pytest.raises(ArgumentError, match="render_size must be a positive int"):
            make(render_size=size)


def test_supersampled_frames_are_averages_of_larger_ones() -> None:
    env, large = make(supersample=2), make(render_size=64)
    for each in (env, large):
        each.reset()
        each.step(np.full((4, 1), 0.5))
    blocks = large.last_frames.reshape(4, 32, 2, 32, 2, 3).astype(int).sum((2, 4))
    np.testing.assert_array_equal(env.last_frames, (blocks + 2) // 4)
    with pytest.raises(ArgumentError, match="`supersample` must be an integer between 1 and 8"):
        make(supersample=9)


def test_another_camera_shows_another_picture() -> None:
    from vlmrm_fast.rendering import Camera

    usual, other = make(), make(camera=Camera(distance=4, azimuth=30, elevation=-20))
    usual.reset()
    other.reset()
    assert not np.array_equal(usual.last_frames, other.last_frames)
    with pytest.raises(UnknownNameError, match=r"camera must be one of .*side"):
        make(camera="sid")


def test_timings_cover_the_three_stages() -> None:
    env = make()
    env.reset()
    step(env, np.zeros((4, 1)))
    assert set(env.timings) == {"simulate", "draw", "encode"}
    assert all(seconds > 0 for seconds in env.timings.values())


def test_unknown_names_are_answered_with_the_choices() -> None:
    with pytest.raises(UnknownNameError, match="api must be one of gymnasium, sb3, got 'gym'"):
        make(api="gym")
    with pytest.raises(UnknownNameError, match="mode must be one of add, replace"):
        make(mode="sum")
    with pytest.raises(ArgumentError, match="weight must be finite"):
        make(weight=float("nan"))
    with pytest.raises(UnknownNameError, match="Did you mean 'humanoid-kneeling'"):
        make_vec_env("humanoid-kneling", reward=Brightness())
    with pytest.raises(ArgumentError, match="num_envs must be at least 1, got 0"):
        make(num_envs=0)
    for seed in (-1, 0.5):
        with pytest.raises(ArgumentError, match="seed must be None or a whole number"):
            make(seed=seed)
    with pytest.raises(ArgumentError, match="options must be None"):
        make(api="gymnasium").reset(options={"low": 0})


def test_the_gymnasium_face_keeps_the_vector_conventions() -> None:
    env = make(KNEELING, 3, api="gymnasium")
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert env.metadata["render_fps"] == 67
    assert env.single_observation_space.shape == (348,)
    assert env.observation_space.shape == (3, 348)
    assert env.single_action_space == gymnasium.spaces.Box(-0.4, 0.4, (17,), np.float32)
    observations, infos = env.reset(seed=0)
    assert infos == {}
    assert observations in env.observation_space
    observations, rewards, terminations, truncations, infos = env.step(env.action_space.sample())
    assert observations in env.observation_space
    assert rewards.dtype == np.float64
    assert terminations.dtype == truncations.dtype == bool
    assert infos["locomotion_reward"].shape == (3,)
    assert len(env.render()) == 3
    env.close()
    env.close()


def test_gymnasium_vector_wrappers_work_on_the_face() -> None:
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make(horizon=3, api="gymnasium"))
    env.reset(seed=0)
    total = np.zeros(4)
    for _ in range(3):
        _, rewards, _, _, infos = env.step(np.zeros((4, 1), np.float32))
        total += rewards
    np.testing.assert_allclose(infos["episode"]["r"], total, rtol=1e-5)


def test_the_sb3_face_answers_as_a_vec_env() -> None:
    from stable_baselines3.common.monitor import Monitor

    env = make()
    assert env.get_attr("render_mode") == ["rgb_array"] * 4
    assert env.env_is_wrapped(Monitor, [0, 1]) == [True, True]
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 4
    assert not env.has_attr("nothing")
    env.set_attr("tag", 3)
    assert env.get_attr("tag", 0) == [3]
    with pytest.raises(ArgumentError, match="indices must be None"):
        env.set_attr("tag", 3, indices=[1])
    with pytest.raises(ArgumentError, match="env_method must not be used"):
        env.env_method("reset")
    env.reset()
    assert env.render().shape == (64, 64, 3)
    env.close()
