import mujoco
import numpy as np
import pytest

from vlmrm_fast.errors import ArgumentError, UnknownNameError
from vlmrm_fast.evaluation.state_sets import (
    GROUPS,
    draw_states,
    join_sets,
    label_states,
    make_state_set,
)
from vlmrm_fast.rendering import Camera, Renderer, Scene
from vlmrm_fast.tasks import get_task

CARTPOLE, KNEELING = get_task("cartpole-upright"), get_task("humanoid-kneeling")


def drawn_one_by_one(task, states, size, camera=None):
    """Each state in an MjData of its own."""
    model = task.load_model()
    scene = Scene.from_model(model, task.camera if camera is None else camera)
    worlds = []
    for state in states:
        data = mujoco.MjData(model)
        data.qpos[:] = state
        mujoco.mj_forward(model, data)
        worlds.append(data)
    with Renderer(scene, size, size, 1) as renderer:
        return renderer.render(worlds)


@pytest.fixture(scope="module")
def poles():
    return make_state_set(CARTPOLE, 123, seed=5)


@pytest.mark.parametrize("task", [CARTPOLE, KNEELING], ids=lambda task: task.name)
@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_states_are_drawn_as_one_by_one_whatever_the_chunk(task, chunk):
    states = make_state_set(task, 12).states
    chunks = list(draw_states(task, states, 40, chunk=chunk))
    assert [len(c) for c in chunks] == [min(chunk, 12 - s) for s in range(0, 12, chunk)]
    assert np.array_equal(np.concatenate(chunks), drawn_one_by_one(task, states, 40))


def test_states_are_drawn_from_the_given_camera_at_the_given_size(poles):
    camera = Camera(distance=2.0, elevation=-60.0)
    (frames,) = draw_states(CARTPOLE, poles.states[:3], (24, 32), camera)
    assert frames.shape == (3, 24, 32, 3)
    square = drawn_one_by_one(CARTPOLE, poles.states[:3], 32, camera)
    (ours,) = draw_states(CARTPOLE, poles.states[:3], 32, camera)
    assert np.array_equal(ours, square)


def test_states_are_drawn_in_the_look_asked_for(poles):
    (plain,) = draw_states(CARTPOLE, poles.states[:3], 24)
    (photo,) = draw_states(CARTPOLE, poles.states[:3], 24, textures="photographic")
    other = CARTPOLE.with_textures("photographic")
    assert np.array_equal(photo, drawn_one_by_one(other, poles.states[:3], 24))
    assert not np.array_equal(photo, plain)
    with pytest.raises(UnknownNameError, match="textures must be one of original, photographic"):
        draw_states(CARTPOLE, poles.states, 24, textures="photo")


def test_tasks_that_draw_themselves_keep_their_pictures():
    pytest.importorskip("pygame")
    task = get_task("cartpole")
    states = task.posed_states(np.random.default_rng(0), 5).qpos
    chunks = list(draw_states(task, states, 16, chunk=2))
    assert [chunk.shape for chunk in chunks] == [(n, 400, 600, 3) for n in (2, 2, 1)]
    env = task.make()
    env.reset(seed=1)
    task.set_state(env, states[3])
    assert np.array_equal(chunks[1][1], env.render())
    env.close()
    with pytest.raises(ArgumentError, match="camera must be left out for 'cartpole', which draws"):
        draw_states(task, states, 16, "side")
    with pytest.raises(UnknownNameError, match="textures of cartpole must be one of orig"):
        draw_states(task, states, 16, textures="photographic")
    with pytest.raises(ArgumentError, match=r"states must be \(N, 4\) numbers"):
        draw_states(task, states[:, :2], 16)


@pytest.mark.parametrize("name", ["cartpole", "mountaincar"])
def test_sets_of_tasks_that_draw_themselves_hold_all_groups(name):
    pytest.importorskip("pygame")
    task = get_task(name)
    found, again = (make_state_set(task, 90, seed=3) for _ in range(2))
    assert set(found.counts()) == set(GROUPS[:4])
    assert found.success[found.groups == "goal pose"].all()
    assert not found.success[found.groups == "near miss"].any()
    assert np.array_equal(found.states, again.states)
    random = found.states[found.groups == "random policy"]
    assert len(np.unique(random, axis=0)) == len(random) == 30


def test_no_states_give_no_frames():
    assert list(draw_states(CARTPOLE, np.zeros((0, 2)), 16)) == []


def test_states_that_cannot_be_drawn_are_refused_at_once(poles):
    broken = poles.states.copy()
    broken[7, 1] = np.nan
    with pytest.raises(
        ArgumentError, match=r"states must be finite, got \[.*nan\] for state 7 \(1"
    ):
        draw_states(CARTPOLE, broken, 16)
    with pytest.raises(ArgumentError, match=r"states must be \(N, 2\) numbers, got \(123, 1\)"):
        draw_states(CARTPOLE, poles.states[:, :1], 16)
    with pytest.raises(ArgumentError, match="chunk must be at least 1, got 0"):
        draw_states(CARTPOLE, poles.states, 16, chunk=0)
    with pytest.raises(UnknownNameError, match="camera must be one of"):
        draw_states(CARTPOLE, poles.states, 16, "front")


def test_a_set_holds_goals_near_misses_and_random_states(poles):
    counts = poles.counts()
    assert set(counts) == set(GROUPS[:4])
    assert sum(counts.values()) == len(poles) == 123
    assert abs(counts["goal pose"] - counts["near miss"]) <= 1
    assert poles.success[poles.groups == "goal pose"].mean() >= 0.95
    assert poles.success[poles.groups == "near miss"].mean() <= 0.05
    poles.check_classes()


def test_the_same_seed_gives_the_same_set(poles):
    again, other = make_state_set(CARTPOLE, 123, seed=5), make_state_set(CARTPOLE, 123, seed=6)
    assert np.array_equal(again.states, poles.states)
    assert np.array_equal(again.names, poles.names)
    assert not np.array_equal(other.states, poles.states)


def test_random_states_are_spread_over_the_horizon_and_start_anew_after_it():
    found = make_state_set(CARTPOLE, 30, seed=0)
    random = found.names[found.groups == "random policy"]
    steps = [int(name.split()[-1]) for name in random]
    assert len(random) == 10
    assert set(steps) == {CARTPOLE.horizon}
    many = make_state_set(CARTPOLE, 3 * 16 * (CARTPOLE.horizon + 3), seed=0)
    steps = [int(n.split()[-1]) for n in many.names[many.groups == "random policy"]]
    assert max(steps) > CARTPOLE.horizon
    # A new episode starts upright again.
    first_of_second = [n.endswith(f"step {CARTPOLE.horizon + 1}") for n in many.names]
    assert many.success[first_of_second].all()


def test_trajectory_states_come_on_top_with_their_own_truth():
    trajectory = np.array([[0.0, 0.0], [0.0, 3.0]])
    found = make_state_set(CARTPOLE, 12, trajectory=trajectory)
    assert len(found) == 14
    assert found.counts()["trajectory"] == 2
    assert found.success[-2:].tolist() == [True, False]
    assert found.reward[-2:].tolist() == [1.0, 0.0]


def test_labels_do_not_depend_on_how_many_are_labelled_at_once():
    states = make_state_set(KNEELING, 150, seed=2)
    half = [
        label_states(KNEELING, states.states[part], states.groups[part], states.names[part])
        for part in (slice(0, 20), slice(20, None))
    ]
    joined = join_sets(half)
    assert np.array_equal(joined.success, states.success)
    assert np.array_equal(joined.names, states.names)


def test_sets_without_one_of_the_classes_are_refused():
    down = np.full((3, 2), np.pi)
    with pytest.raises(ArgumentError, match="got 3 states with no goal states"):
        label_states(CARTPOLE, down, "trajectory", ["a", "b", "c"]).check_classes()
    with pytest.raises(ArgumentError, match="got 3 states with goal states only"):
        label_states(CARTPOLE, 0 * down, "trajectory", ["a", "b", "c"]).check_classes()
    with pytest.raises(ArgumentError, match="at least one, got none"):
        label_states(CARTPOLE, down[:0], "trajectory", []).check_classes()


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ArgumentError, match="num_states must be at least 1, got 0"):
        make_state_set(CARTPOLE, 0)
    with pytest.raises(ArgumentError, match="seed must be at least 0, got -1"):
        make_state_set(CARTPOLE, 3, -1)
    with pytest.raises(ArgumentError, match="states must be finite"):
        make_state_set(CARTPOLE, 3, trajectory=[[0.0, np.inf]])
