from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from vlmrm_fast import make_vec_env
from vlmrm_fast.errors import UnknownNameError
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.tasks import (
    fields_from_data,
    fields_from_states,
    get_task,
    native_task_names,
    task_names,
)
from vlmrm_fast.tasks.cartpole import ANGLE_BOUND, POSITION_BOUND

CARTPOLE, KNEELING = get_task("cartpole-upright"), get_task("humanoid-kneeling")

HUMANOIDS = {
    "humanoid-kneeling": "a humanoid robot kneeling",
    "humanoid-lotus": "a humanoid robot seated down, meditating in the lotus position",
    "humanoid-standing": "a humanoid robot standing up",
    "humanoid-arms-raised": "a humanoid robot standing up, with both arms raised",
    "humanoid-splits": "a humanoid robot practicing gymnastics, doing the side splits",
    "humanoid-hands-on-hips": "a humanoid robot standing up with hands on hips",
    "humanoid-arms-crossed": "a humanoid robot standing up, with its arms crossed",
    "humanoid-one-leg": "a humanoid robot standing up on one leg",
}


def test_the_registry_lists_its_tasks() -> None:
    assert {"cartpole-upright", *HUMANOIDS} <= set(native_task_names()) <= set(task_names())
    assert task_names() == sorted(task_names())
    for name in task_names():
        task = get_task(name)
        assert task.name == name
        assert task.description.endswith(".")
        assert task.success_steps <= task.horizon


def test_every_task_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text()
    for name in task_names():
        assert f"`{name}`" in page
        assert f"│ {name} " in page


def test_an_unknown_task_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cartpole-upright'"):
        get_task("cartpole-uprigth")


def test_prompts_are_the_papers() -> None:
    assert CARTPOLE.goal == "pole vertically upright on top of the cart"
    assert CARTPOLE.baseline == "pole and cart"
    for name, goal in HUMANOIDS.items():
        assert get_task(name).goal == goal
        assert get_task(name).baseline == "a humanoid robot"


def test_importing_tasks_loads_neither_mujoco_nor_torch() -> None:
    code = (
        "import sys, vlmrm_fast.tasks; "
        "assert not {'mujoco', 'torch', 'gymnasium'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def cartpole_fields(x: float, angle: float) -> dict[str, np.ndarray]:
    return {"qpos": np.array([[x, angle]]), "qvel": np.zeros((1, 2))}


@pytest.mark.parametrize(
    ("x", "angle", "balanced"),
    [
        (0, 0, True),
        (0, 0.99 * ANGLE_BOUND, True),
        (0, -1.01 * ANGLE_BOUND, False),
        (0, 2 * np.pi, True),
        (0, -4 * np.pi + 0.1, True),
        (0, np.pi, False),
        (0.99 * POSITION_BOUND, 0, True),
        (-1.01 * POSITION_BOUND, 0, False),
    ],
)
def test_balancing_is_judged_by_angle_and_position(x: float, angle: float, balanced: bool) -> None:
    reward, success = CARTPOLE.ground_truth(None, cartpole_fields(x, angle))
    assert success.tolist() == [balanced]
    assert reward.tolist() == [float(balanced)]


def test_the_cartpole_observation_does_not_jump_when_the_pole_turns_over() -> None:
    before = CARTPOLE.observation(None, cartpole_fields(0.1, np.pi - 1e-9))
    after = CARTPOLE.observation(None, cartpole_fields(0.1, np.pi + 1e-9))
    np.testing.assert_allclose(before, after, atol=1e-8)


def test_rail_and_pole_stay_in_the_picture_at_every_state() -> None:
    model = CARTPOLE.load_model()
    data = mujoco.MjData(model)
    camera = model.camera("side").id
    half = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    pole, radius = model.geom("pole").id, model.geom("pole").size[0]
    for x in np.linspace(*model.joint("slider").range, 7):
        for angle in np.linspace(-np.pi, np.pi, 73):
            data.qpos[:] = x, angle
            mujoco.mj_forward(model, data)
            axis = data.geom_xmat[pole].reshape(3, 3)[:, 2] * model.geom_size[pole, 1]
            points = [data.geom_xpos[pole] + axis, data.geom_xpos[pole] - axis]
            points += [data.geom("left_stop").xpos, data.geom("right_stop").xpos]
            seen = (np.array(points) - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
            # A margin of the capsule's radius, at the depth of each point.
            assert (np.abs(seen[:, :2]) + radius < half * -seen[:, 2:]).all(), (x, angle)


GYMNASIUM = {
    "humanoid-kneeling": ("Humanoid-v5", "locomotion_reward"),
    "ant": ("Ant-v5", "locomotion_reward"),
    "half-cheetah": ("HalfCheetah-v5", "locomotion_reward"),
    "hopper": ("Hopper-v5", "locomotion_reward"),
    "walker2d": ("Walker2d-v5", "locomotion_reward"),
    "reacher": ("Reacher-v5", "reaching_reward"),
}


def gymnasium_env(name: str) -> Any:
    return gymnasium.make(GYMNASIUM[name][0]).unwrapped


@pytest.mark.parametrize("name", GYMNASIUM)
def test_observation_and_own_reward_equal_gymnasiums(name: str) -> None:
    env, task = gymnasium_env(name), get_task(name)
    simulation = Simulation(task.load_model(), 2, 2, task.fields)
    for seed in range(2):
        expected, _ = env.reset(seed=seed)
        simulation.reset(np.arange(2), np.stack([env.data.qpos] * 2), np.stack([env.data.qvel] * 2))
        actual = task.observation(simulation.model, simulation.fields)
        np.testing.assert_array_equal(actual, np.stack([expected] * 2))
        env.action_space.seed(seed)
        for _ in range(60):
            action = env.action_space.sample().astype(float)
            before = {field: simulation.fields[field].copy() for field in task.measure_fields}
            simulation.step(np.stack([action] * 2), task.frame_skip)
            expected, reward, *_ = env.step(action)
            actual = task.observation(simulation.model, simulation.fields)
            np.testing.assert_array_equal(actual, np.stack([expected] * 2))
            own = task.measures(simulation.model, simulation.fields, before)
            np.testing.assert_allclose(own[GYMNASIUM[name][1]], reward, rtol=1e-9, atol=1e-12)
    env.close()


@pytest.mark.parametrize("name", GYMNASIUM)
def test_the_start_is_gymnasiums(name: str) -> None:
    env, task = gymnasium_env(name), get_task(name)
    qpos, qvel = task.initial_state(task.load_model(), np.random.default_rng(3))
    env.reset(seed=0)
    env.np_random = np.random.default_rng(3)
    env.reset_model()
    np.testing.assert_array_equal(env.data.qpos, qpos)
    np.testing.assert_array_equal(env.data.qvel, qvel)
    env.close()


@pytest.mark.parametrize("name", [name for name in GYMNASIUM if name not in HUMANOIDS])
def test_a_start_of_gymnasiums_robots_is_judged(name: str) -> None:
    task = get_task(name)
    model, rng = task.load_model(), np.random.default_rng(0)
    qpos = np.stack([task.initial_state(model, rng)[0] for _ in range(50)])
    _, success = task.ground_truth(model, fields_from_states(model, qpos, task.fields))
    # Hopper and walker start upright and have to stay so; the others have a way to go, the ant a
    # short one: it starts in the air with its legs stretched out.
    assert success.all() if name in {"hopper", "walker2d"} else success.mean() <= 0.05


@pytest.mark.parametrize("name", ["ant", "half-cheetah", "hopper", "walker2d"])
def test_a_goal_pose_in_the_air_fails(name: str) -> None:
    task = get_task(name)
    model = task.load_model()
    posed_states = task.posed_states(model, np.random.default_rng(1), 60)
    goal = posed_states.qpos[np.isin(posed_states.names, task.goal_poses)]
    goal[:, 2 if name == "ant" else 1] += 0.4
    _, success = task.ground_truth(model, fields_from_states(model, goal, task.fields))
    assert not success.any()


class Flat:
    """Scores every frame alike."""

    image_size = 32

    def score(self, frames: np.ndarray) -> np.ndarray:
        return np.ones(len(frames), np.float32)


@pytest.mark.parametrize("name", ["ant", "half-cheetah", "hopper", "walker2d", "reacher"])
def test_gymnasiums_robots_step_and_are_drawn(name: str) -> None:
    env = make_vec_env(name, 2, reward=Flat(), seed=0)
    env.reset()
    actions = np.stack([env.action_space.sample() for _ in range(2)])
    observation, reward, _, infos = env.step(actions)
    assert observation.shape == (2, *gymnasium_env(name).observation_space.shape)
    assert reward.tolist() == [1.0, 1.0]
    assert GYMNASIUM[name][1] in infos[0]
    assert env.worlds.last_frames.std() > 5
    env.close()


def posed(**joints: float) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """Return the humanoid in a pose, put down so that it just touches the floor."""
    model = KNEELING.load_model()
    data = mujoco.MjData(model)
    tilt = joints.pop("tilt", 0.0)
    data.qpos[3:7] = [np.cos(tilt / 2), 0, np.sin(tilt / 2), 0]
    for name in ("left_knee", "right_knee"):
        data.joint(name).qpos = np.deg2rad(-2)
    for name, degrees in joints.items():
        data.joint(name).qpos = np.deg2rad(degrees)
    mujoco.mj_forward(model, data)
    floor = model.geom("floor").id
    lowest = min(
        data.geom_xpos[g, 2]
        - model.geom_size[g, 0]
        - abs(data.geom_xmat[g, 8]) * (model.geom_size[g, 1] if model.geom_type[g] == 3 else 0)
        for g in range(model.ngeom)
        if g != floor
    )
    data.qpos[2] -= lowest
    mujoco.mj_forward(model, data)
    return model, data


POSES = {
    "kneeling, thighs upright": ({"left_knee": -95, "right_knee": -95}, True),
    "kneeling, sitting on the heels": (
        {"left_knee": -150, "right_knee": -150, "left_hip_y": -60, "right_hip_y": -60},
        True,
    ),
    "standing": ({}, False),
    "squatting": (
        {"left_knee": -110, "right_knee": -110, "left_hip_y": -80, "right_hip_y": -80},
        False,
    ),
    "sitting, legs forward": ({"left_hip_y": -95, "right_hip_y": -95}, False),
    "kneeling on one knee": ({"left_knee": -95, "right_knee": -90, "right_hip_y": -90}, False),
    "lying on the back": ({"tilt": -np.pi / 2}, False),
    "lying on the face": ({"tilt": np.pi / 2}, False),
    "sitting, raised on straight legs": (
        {"left_hip_y": -78, "right_hip_y": -78, "left_hip_x": -20, "right_hip_x": -20},
        False,
    ),
    "on all fours": (
        {
            "tilt": np.pi / 2,
            "left_hip_y": -90,
            "right_hip_y": -90,
            "left_knee": -90,
            "right_knee": -90,
        },
        False,
    ),
    "on the head": ({"tilt": np.pi}, False),
}


@pytest.mark.parametrize("name", POSES)
def test_kneeling_is_told_from_other_poses(name: str) -> None:
    joints, expected = POSES[name]
    model, data = posed(**joints)
    reward, success = KNEELING.ground_truth(model, fields_from_data(data, ("xpos", "xmat")))
    assert success.tolist() == [expected]
    assert reward.tolist() == [float(expected)]


def test_ground_truth_judges_each_world_alone() -> None:
    worlds = [posed(**dict(joints)) for joints, _ in POSES.values()]
    fields = fields_from_data([data for _, data in worlds], ("xpos", "xmat"))
    _, success = KNEELING.ground_truth(worlds[0][0], fields)
    assert success.tolist() == [expected for _, expected in POSES.values()]


@pytest.mark.parametrize("name", native_task_names())
def test_posed_states_show_what_their_names_say(name: str) -> None:
    task = get_task(name)
    model = task.load_model()
    posed_states = task.posed_states(model, np.random.default_rng(0), 300)
    assert posed_states.qpos.shape == (len(posed_states), model.nq) == (300, model.nq)
    fields = fields_from_states(model, posed_states.qpos, task.fields)
    _, success = task.ground_truth(model, fields)
    goal = np.isin(posed_states.names, task.goal_poses)
    near = np.isin(posed_states.names, task.near_misses)
    assert goal.sum() == near.sum() == 100
    assert success[goal].mean() >= 0.95
    assert success[near].mean() <= 0.05


def test_fields_of_states_are_those_of_data_in_them() -> None:
    model, data = CARTPOLE.load_model(), []
    qpos = CARTPOLE.posed_states(model, np.random.default_rng(2), 5).qpos
    for state in qpos:
        data.append(mujoco.MjData(model))
        data[-1].qpos[:] = state
        mujoco.mj_forward(model, data[-1])
    fields, expected = fields_from_states(model, qpos, ("xpos",)), fields_from_data(data, ("xpos",))
    assert fields.keys() == expected.keys()
    for name, field in expected.items():
        np.testing.assert_array_equal(fields[name], field)
    assert fields_from_states(model, qpos[:0], ("xpos",))["xpos"].shape == (0, model.nbody, 3)


def test_posed_states_come_from_the_generator_alone() -> None:
    model = CARTPOLE.load_model()
    first, second = (CARTPOLE.posed_states(model, np.random.default_rng(1), 5) for _ in range(2))
    np.testing.assert_array_equal(first.qpos, second.qpos)
    np.testing.assert_array_equal(first.names, second.names)
    assert len(CARTPOLE.posed_states(model, np.random.default_rng(1), 0)) == 0
