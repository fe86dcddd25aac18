"""The humanoid tasks' ground truths on posed states, and on the same states moved about."""

from __future__ import annotations

from functools import cache
from typing import Any

import mujoco
import numpy as np
import pytest

from vlmrm_fast.tasks import fields_from_states, get_task, native_task_names, poses

HUMANOIDS = [name for name in native_task_names() if name.startswith("humanoid-")]
# Whoever stands with the arms in some position stands.
STANDING = ("humanoid-arms-raised", "humanoid-hands-on-hips", "humanoid-arms-crossed")
COUNT = 40


@cache
def model() -> Any:
    return get_task("humanoid-kneeling").load_model()


@cache
def states_of(name: str) -> np.ndarray:
    names = np.resize(get_task(name).goal_poses, COUNT)
    return poses.sample_poses(model(), names, np.random.default_rng(0))


def success(name: str, qpos: np.ndarray) -> np.ndarray:
    task = get_task(name)
    reward, success = task.ground_truth(model(), fields_from_states(model(), qpos, task.fields))
    np.testing.assert_array_equal(reward, success.astype(float))
    return success


def turned(qpos: np.ndarray, axis: tuple[float, float, float], angle: float) -> np.ndarray:
    """Return the states turned about a world axis through the robot's torso [rad]."""
    out, turn = qpos.copy(), np.empty(4)
    mujoco.mju_axisAngle2Quat(turn, np.array(axis), angle)
    for state in out:
        mujoco.mju_mulQuat(state[3:7], turn, state[3:7].copy())
    return out


@pytest.mark.parametrize("name", HUMANOIDS)
def test_a_goal_pose_succeeds_in_its_task_alone(name: str) -> None:
    rates = {other: success(other, states_of(name)).mean() for other in HUMANOIDS}
    assert rates.pop(name) >= 0.95
    standing = rates.pop("humanoid-standing", None)
    if standing is not None:
        assert standing == (name in STANDING)
    if name == "humanoid-standing":  # its arms are anywhere
        rates = {other: rate for other, rate in rates.items() if other not in STANDING}
    assert max(rates.values()) == 0.0


@pytest.mark.parametrize("name", HUMANOIDS)
def test_random_states_seldom_succeed(name: str) -> None:
    names = np.resize(["random", "lying_back", "lying_front", "lying_side", "all_fours"], 200)
    qpos = poses.sample_poses(model(), names, np.random.default_rng(1))
    assert success(name, qpos).mean() <= 0.02


@pytest.mark.parametrize("name", HUMANOIDS)
def test_place_and_heading_do_not_matter(name: str) -> None:
    moved = turned(states_of(name), (0, 0, 1), 1.3)
    moved[:, :2] += [5.0, -3.0]
    np.testing.assert_array_equal(success(name, moved), success(name, states_of(name)))


@pytest.mark.parametrize("name", HUMANOIDS)
def test_a_robot_that_lies_in_the_pose_fails(name: str) -> None:
    for axis in ((1, 0, 0), (0, 1, 0)):
        for angle in (-np.pi / 2, np.pi / 2, np.pi):
            assert not success(name, turned(states_of(name), axis, angle)).any()


@pytest.mark.parametrize("name", HUMANOIDS)
def test_a_robot_in_the_air_fails(name: str) -> None:
    lifted = states_of(name) + np.eye(model().nq)[2] * 0.3
    assert not success(name, lifted).any()


@pytest.mark.parametrize("name", HUMANOIDS)
def test_left_and_right_are_alike(name: str) -> None:
    mirrored = states_of(name).copy()
    # Reflected in the plane of x and z: y, and the turns about x and z, change their sign.
    mirrored[:, [1, 4, 6]] *= -1
    for joint, sign in [("abdomen_z", -1), ("abdomen_x", -1)]:
        mirrored[:, model().joint(joint).qposadr[0]] *= sign
    for joint in (*poses.LEGS, *poses.ARMS):
        right, left = (model().joint(f"{s}_{joint}").qposadr[0] for s in ("right", "left"))
        sign = -1 if joint.startswith("shoulder") else 1
        mirrored[:, [right, left]] = sign * mirrored[:, [left, right]]
    np.testing.assert_array_equal(success(name, mirrored), success(name, states_of(name)))


def test_splits_with_the_legs_in_the_air_fail() -> None:
    qpos, data = states_of("humanoid-splits").copy(), mujoco.MjData(model())
    lean = np.array([np.cos(0.3), 0, -np.sin(0.3), 0])  # back by 34 degrees, still seated
    for state in qpos:
        mujoco.mju_mulQuat(state[3:7], state[3:7].copy(), lean)
        for side in ("left", "right"):
            state[model().joint(f"{side}_hip_y").qposadr[0]] = np.deg2rad(-110)
        data.qpos[:] = state
        mujoco.mj_kinematics(model(), data)
        state[2] -= poses.lowest_point(model(), data.geom_xpos, data.geom_xmat)
    assert not success("humanoid-splits", qpos).any()


def test_a_truth_of_no_states_is_empty() -> None:
    task = get_task("humanoid-splits")
    fields = {
        "xpos": np.empty((0, model().nbody, 3)),
        "geom_xpos": np.empty((0, model().ngeom, 3)),
    }
    reward, success = task.ground_truth(model(), fields)
    assert reward.shape == success.shape == (0,)


def test_poses_are_drawn_as_the_built_in_models_training_drew_them() -> None:
    # A new name in the tables of poses or arms would change every later draw.
    rng, data = np.random.default_rng(7), mujoco.MjData(model())
    assert poses.draw_pose_names(3, rng) == ["sitting_knees_bent", "falling_forward", "lying_back"]
    assert poses.draw_pose_names(3, rng) == ["standing_one_leg", "kneeling", "lying_side"]
    for name in poses.POSES:
        poses.sample_pose(model(), data, name, rng)
    assert np.sum(data.qpos * np.arange(model().nq)) == pytest.approx(-69.78281230565, rel=1e-9)
    assert rng.random() == 0.21439613109783007
