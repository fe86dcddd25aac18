"""Stepping and drawing on one core: the same bits as stepping all worlds, then drawing them."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from changing_scenes import TENDONS

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.rendering import Camera, Renderer, Scene
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.tasks import get_task

SIZE = 40


def started(name: str, num_envs: int, num_threads: int = 2) -> Simulation:
    task = get_task(name)
    simulation = Simulation(task.load_model(), num_envs, num_threads, task.fields)
    assert simulation.poses.num_worlds == num_envs
    restart(simulation, name, np.arange(num_envs))
    return simulation


def restart(simulation: Simulation, name: str, ids: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    states = [get_task(name).initial_state(simulation.model, rng) for _ in ids]
    qpos, qvel = (np.stack(part) for part in zip(*states, strict=True))
    simulation.reset(ids, qpos, qvel)


def assert_same(fused: Simulation, plain: Simulation) -> None:
    np.testing.assert_array_equal(fused.batch.state, plain.batch.state)
    np.testing.assert_array_equal(fused.batch.warning, plain.batch.warning)
    for field, array in plain.fields.items():
        np.testing.assert_array_equal(fused.fields[field], array, err_msg=field)
    for field, array in vars(plain.poses).items():
        np.testing.assert_array_equal(getattr(fused.poses, field), array, err_msg=field)


@pytest.mark.parametrize("name", ["cartpole-upright", "humanoid-kneeling"])
@pytest.mark.parametrize(("num_envs", "num_threads"), [(1, 1), (5, 2), (17, 3)])
def test_fused_steps_have_the_bits_of_step_then_draw(
    name: str, num_envs: int, num_threads: int
) -> None:
    fused, plain = (started(name, num_envs, num_threads) for _ in range(2))
    scene = Scene.from_model(fused.model, get_task(name).camera)
    frames, expected = np.zeros((2, num_envs, SIZE, SIZE, 3), np.uint8)
    rng = np.random.default_rng(1)
    with Renderer(scene, SIZE, SIZE, num_threads) as renderer:
        for step in range(24):
            ctrl = rng.uniform(-0.4, 0.4, plain.ctrl.shape)
            if step == 10:
                fused.qvel[-1, 0] = plain.qvel[-1, 0] = np.nan
            diverged = fused.step_and_draw(ctrl, renderer, frames, 5)
            np.testing.assert_array_equal(diverged, plain.step(ctrl, 5))
            assert diverged.tolist() == [False] * (num_envs - 1) + [step == 10]
            np.testing.assert_array_equal(frames, renderer.render(plain.poses, expected))
            assert_same(fused, plain)
            assert 0 < fused.draw_share < 1
            if step in {10, 15}:
                restart(fused, name, np.array([num_envs - 1]))
                restart(plain, name, np.array([num_envs - 1]))
    assert fused._stepper is not None


@pytest.mark.parametrize("camera", ["fixed", "free", "track"])
def test_the_camera_is_where_the_step_has_put_it(camera: str) -> None:
    xml = """<mujoco><worldbody><light pos="0 0 3"/><geom type="plane" size="2 2 .1"/>
    <body name="b" pos="0 0 .5"><joint type="hinge" axis="0 0 1"/><geom size=".3 .1 .1" type="box"/>
    <camera name="c" pos="1 0 .3" xyaxes="0 1 0 0 0 1"/></body></worldbody>
    <actuator><motor joint="" /></actuator></mujoco>""".replace('joint=""', 'joint="j"').replace(
        '<joint type="hinge"', '<joint name="j" type="hinge"'
    )
    model = mujoco.MjModel.from_xml_string(xml)
    views = {
        "fixed": "c",
        "free": Camera(lookat=(0, 0, 0.5), distance=2),
        "track": Camera(track_body="b", distance=2),
    }
    fused, plain = (Simulation(model, 3, 2, ("xpos",)) for _ in range(2))
    assert plain.poses.num_worlds == 3  # bound before the first step
    frames, seen = np.zeros((3, SIZE, SIZE, 3), np.uint8), []
    with Renderer(Scene.from_model(model, views[camera]), SIZE, SIZE, 2) as renderer:
        for _ in range(4):
            ctrl = np.array([[1.0], [-3.0], [9.0]])
            assert not fused.step_and_draw(ctrl, renderer, frames, 20).any()
            plain.step(ctrl, 20)
            np.testing.assert_array_equal(frames, renderer.render(plain.poses))
            seen.append(frames.copy())
    assert (seen[0] != seen[-1]).any()


def test_fused_and_plain_steps_mix() -> None:
    mixed, plain = (started("humanoid-kneeling", 3) for _ in range(2))
    scene = Scene.from_model(plain.model)
    frames = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    rng = np.random.default_rng(2)
    with Renderer(scene, SIZE, SIZE, 2) as renderer:
        for step in range(12):
            ctrl = rng.uniform(-0.4, 0.4, plain.ctrl.shape)
            if step % 3:
                mixed.step(ctrl, 5)
            else:
                mixed.step_and_draw(ctrl, renderer, frames, 5)
            plain.step(ctrl, 5)
            assert_same(mixed, plain)


def test_a_world_in_which_mujoco_raises_keeps_its_state() -> None:
    # The solver finds too little memory and calls mju_error.
    balls = "".join(
        f'<body pos="{x} {y} .1"><freejoint/><geom size=".11"/></body>'
        for x in np.arange(-1, 1, 0.2)
        for y in np.arange(-1, 1, 0.2)
    )
    xml = f"""<mujoco><size memory="600K"/><worldbody><geom type="plane" size="5 5 .1"/>{balls}
    </worldbody></mujoco>"""
    model = mujoco.MjModel.from_xml_string(xml)
    fused, plain = (Simulation(model, 3, 2) for _ in range(2))
    for simulation in (fused, plain):
        simulation.poses  # noqa: B018
        simulation.qpos[1::2, 2::7] += 50 * np.arange(100)  # apart: no contacts
    frames = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    with Renderer(Scene.from_model(model), SIZE, SIZE, 2) as renderer:
        for _ in range(3):
            diverged = fused.step_and_draw(np.zeros((3, 0)), renderer, frames)
            np.testing.assert_array_equal(diverged, plain.step(np.zeros((3, 0))))
            assert diverged.tolist() == [True, False, True]
            np.testing.assert_array_equal(fused.batch.state, plain.batch.state)


def test_what_cannot_be_fused_runs_in_turn() -> None:
    simulation = started("cartpole-upright", 3, 1)
    frames = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    scene = Scene.from_model(simulation.model)
    with Renderer(scene, SIZE, SIZE, 2) as wide, Renderer(scene, SIZE, SIZE, 1) as narrow:
        assert simulation._fused(wide) is None
        assert simulation._fused(narrow) is not None
        simulation.step_and_draw(np.zeros((3, 1)), wide, frames)
        np.testing.assert_array_equal(frames, wide.render(simulation.poses))
        assert 0 < simulation.draw_share < 1
        simulation.batch.expand("body_mass")
        assert simulation._fused(narrow) is None


def test_scenes_that_need_more_than_poses_run_in_turn() -> None:
    model = mujoco.MjModel.from_xml_string(TENDONS)
    fused, plain = (Simulation(model, 3, 2) for _ in range(2))
    for simulation in (fused, plain):
        simulation.qvel[:, 0] = [0.0, 1.0, 2.0]
    frames = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    with Renderer(Scene.from_model(model), SIZE, SIZE, 2) as renderer:
        for simulation in (fused, plain):  # binds what is drawn before the first step
            renderer.render(simulation.batch)
        for _ in range(3):
            fused.step_and_draw(np.zeros((3, 0)), renderer, frames, 5)
            plain.step(np.zeros((3, 0)), 5)
            np.testing.assert_array_equal(frames, renderer.render(plain.batch))
    assert (frames[0] != frames[2]).any()


def test_python_callbacks_are_refused_and_not_called_without_the_interpreter() -> None:
    simulation = started("cartpole-upright", 2)
    frames = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    mujoco.set_mjcb_passive(lambda model, data: None)
    try:
        with (
            Renderer(Scene.from_model(simulation.model), SIZE, SIZE, 2) as renderer,
            pytest.raises(ValueError, match="Python function"),
        ):
            simulation.step_and_draw(np.zeros((2, 1)), renderer, frames)
    finally:
        mujoco.set_mjcb_passive(None)


def test_nothing_moves_for_an_unfit_output() -> None:
    simulation = started("cartpole-upright", 2)
    before = simulation.batch.state.copy()
    frames = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    with Renderer(Scene.from_model(simulation.model), SIZE, SIZE, 2) as renderer:
        with pytest.raises(ArgumentError, match="`out` must be uint8"):
            simulation.step_and_draw(np.ones((2, 1)), renderer, np.zeros((2, SIZE, SIZE, 3)))
        with pytest.raises(ArgumentError, match="actions must be finite"):
            simulation.step_and_draw(np.full((2, 1), np.nan), renderer, frames)
    np.testing.assert_array_equal(simulation.batch.state, before)
