from __future__ import annotations

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.tasks import get_task

TASKS = ("cartpole-upright", "humanoid-kneeling")


def started(name: str, num_envs: int, num_threads: int = 2, seed: int = 0) -> Simulation:
    task = get_task(name)
    simulation = Simulation(task.load_model(), num_envs, num_threads, task.fields)
    rng = np.random.default_rng(seed)
    states = [task.initial_state(simulation.model, rng) for _ in range(num_envs)]
    qpos, qvel = (np.stack(part) for part in zip(*states, strict=True))
    simulation.reset(np.arange(num_envs), qpos, qvel)
    return simulation


def controls(simulation: Simulation, steps: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.4, 0.4, (steps, *simulation.ctrl.shape))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("num_threads", [2, 5])
def test_states_do_not_depend_on_the_number_of_threads(name: str, num_threads: int) -> None:
    one, many = started(name, 7, 1), started(name, 7, num_threads)
    for ctrl in controls(one, 20):
        one.step(ctrl, 5)
        many.step(ctrl, 5)
        for field, array in one.fields.items():
            np.testing.assert_array_equal(array, many.fields[field], err_msg=field)


@pytest.mark.parametrize("name", TASKS)
def test_a_restored_state_continues_bit_for_bit(name: str) -> None:
    simulation = started(name, 3)
    actions = controls(simulation, 30)
    for ctrl in actions[:10]:
        simulation.step(ctrl, 5)
    saved = simulation.get_state()
    for ctrl in actions[10:]:
        simulation.step(ctrl, 5)
    expected = {field: array.copy() for field, array in simulation.fields.items()}
    other = started(name, 3, seed=9)
    other.set_state(saved)
    for ctrl in actions[10:]:
        other.step(ctrl, 5)
    for field, array in expected.items():
        np.testing.assert_array_equal(array, other.fields[field], err_msg=field)


def test_a_saved_state_of_other_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"shape \(4, .*Resume with the task and num_envs"):
        started("cartpole-upright", 4).set_state(started("cartpole-upright", 3).get_state())
    with pytest.raises(CheckpointError, match="got nothing"):
        started("cartpole-upright", 4).set_state({})


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
@pytest.mark.parametrize("field", ["qpos", "qvel"])
def test_every_injected_divergence_is_flagged(name: str, value: float, field: str) -> None:
    simulation = started(name, 5)
    simulation.fields[field][3, 0] = value
    diverged = simulation.step(np.zeros_like(simulation.ctrl), 5)
    assert diverged.tolist() == [False, False, False, True, False]


def test_a_control_that_blows_up_the_physics_is_flagged() -> None:
    spec = mujoco.MjSpec.from_file(str(get_model_file()))
    spec.actuators[0].ctrllimited = 0
    simulation = Simulation(spec.compile(), 3, 1)
    ctrl = np.zeros((3, 1))
    ctrl[1] = 9e9
    for _ in range(10):
        diverged = simulation.step(ctrl)
        assert not diverged[[0, 2]].any()
        if diverged[1]:
            return
    pytest.fail("9e10 N on the cart was never flagged")


def get_model_file() -> os.PathLike:
    from vlmrm_fast.tasks.cartpole import MODEL_FILE

    return MODEL_FILE


def test_a_reset_world_is_sound_after_divergence() -> None:
    simulation = started("humanoid-kneeling", 2)
    simulation.qvel[0] = np.nan
    assert simulation.step(np.zeros((2, 17)), 5)[0]
    simulation.reset([0], simulation.model.qpos0[None], np.zeros((1, simulation.model.nv)))
    assert not simulation.step(np.zeros((2, 17)), 5).any()
    assert all(np.isfinite(array).all() for array in simulation.fields.values())


def test_non_finite_actions_name_the_environment_and_move_nothing() -> None:
    simulation = started("cartpole-upright", 4)
    before = simulation.qpos.copy()
    ctrl = np.zeros((4, 1))
    ctrl[2] = np.nan
    with pytest.raises(ArgumentError, match=r"actions must be finite, got \[nan\] for environ.* 2"):
        simulation.step(ctrl)
    np.testing.assert_array_equal(before, simulation.qpos)


def test_bad_arguments_are_refused() -> None:
    model = get_task("cartpole-upright").load_model()
    with pytest.raises(ArgumentError, match="num_envs must be at least 1, got 0"):
        Simulation(model, 0)
    with pytest.raises(ArgumentError, match="num_threads must be at least 0, got -1"):
        Simulation(model, 1, -1)
    with pytest.raises(ArgumentError, match="fields must be MjData fields, got 'xposs'"):
        Simulation(model, 1, 1, ("xposs",))
    with pytest.raises(ArgumentError, match=r"actions must have shape \(2, 1\), got \(2,\)"):
        Simulation(model, 2).step(np.zeros(2))


def test_contact_forces_equal_gymnasiums_bit_for_bit() -> None:
    simulation = started("humanoid-kneeling", 3)
    worlds = []
    for index in range(3):
        data = mujoco.MjData(simulation.model)
        data.qpos[:], data.qvel[:] = simulation.qpos[index], simulation.qvel[index]
        mujoco.mj_forward(simulation.model, data)
        worlds.append(data)
    largest = 0.0
    for ctrl in controls(simulation, 80):
        simulation.step(ctrl, 5)
        for index, data in enumerate(worlds):
            data.ctrl[:] = ctrl[index]
            mujoco.mj_step(simulation.model, data, nstep=5)
            mujoco.mj_rnePostConstraint(simulation.model, data)
            np.testing.assert_array_equal(simulation.fields["cfrc_ext"][index], data.cfrc_ext)
            largest = max(largest, float(np.abs(data.cfrc_ext).max()))
    assert largest > 100


def test_divergence_leaves_no_log_file(tmp_path: os.PathLike) -> None:
    code = (
        "import numpy as np; from vlmrm_fast.simulation import Simulation;"
        "from vlmrm_fast.tasks import get_task;"
        "s = Simulation(get_task('cartpole-upright').load_model(), 2, 2);"
        "s.qpos[:] = np.nan; assert s.step(np.zeros((2, 1))).all()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not os.listdir(tmp_path)
    assert done.stdout + done.stderr == ""
