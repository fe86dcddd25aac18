import csv
from dataclasses import replace

import mujoco
import numpy as np
import pytest
from PIL import Image

from vlmrm_fast import VLMReward, cli
from vlmrm_fast.errors import ArgumentError, UnknownNameError
from vlmrm_fast.evaluation.landscape import LandscapeConfig, make_plan, run_landscape, score_plan
from vlmrm_fast.evaluation.state_sets import draw_states
from vlmrm_fast.evaluation.sweeps import make_sweeps
from vlmrm_fast.tasks import get_task

CARTPOLE, KNEELING = get_task("cartpole-upright"), get_task("humanoid-kneeling")


def test_a_pole_is_swept_once_around_with_the_cart_in_the_middle():
    (sweep,) = make_sweeps(CARTPOLE, points=5)
    assert (sweep.name, sweep.unit) == ("hinge", "rad")
    assert sweep.values == pytest.approx(np.linspace(-np.pi, np.pi, 5))
    assert np.array_equal(sweep.states, np.stack([np.zeros(5), sweep.values], axis=1))
    (slider,) = make_sweeps(CARTPOLE, ("slider",), points=3)
    assert slider.values == pytest.approx([-0.6, 0.0, 0.6])
    assert slider.unit == "m"


def test_a_pair_of_joints_moves_on_both_sides_and_the_robot_stays_on_the_floor():
    model = KNEELING.load_model()
    knee, shoulder = make_sweeps(KNEELING, ("knee", "shoulder1"), points=4)
    address = {name: model.joint(name).qposadr[0] for name in ("right_knee", "left_knee")}
    low, high = model.joint("right_knee").range
    for name in address:
        assert knee.states[:, address[name]] == pytest.approx(np.linspace(low, high, 4))
    right, left = (model.joint(f"{side}_shoulder1").qposadr[0] for side in ("right", "left"))
    assert shoulder.states[:, left] == pytest.approx(-shoulder.states[:, right])
    data = mujoco.MjData(model)
    reach = model.geom_size[:, 0] + np.where(model.geom_type == 3, 1, 0)
    for state in knee.states:
        data.qpos[:] = state
        mujoco.mj_kinematics(model, data)
        ends = np.abs(data.geom_xmat[:, 8]) * model.geom_size[:, 1] * (reach > 1)
        lowest = (data.geom_xpos[:, 2] - model.geom_size[:, 0] - ends)[model.geom_bodyid > 0].min()
        assert lowest == pytest.approx(0, abs=1e-9)
    # All else is as in the goal pose.
    still = np.delete(knee.states, [2, *address.values()], axis=1)
    assert np.array_equal(still, np.tile(still[0], (4, 1)))


def test_a_height_is_swept_upwards_from_the_floor_and_a_place_to_both_sides():
    hopper = get_task("hopper")
    model = hopper.load_model()
    height, place = make_sweeps(hopper, ("rootz", "rootx"), points=5)
    assert (height.unit, place.unit) == ("m", "m")
    index = model.joint("rootz").qposadr[0]
    assert np.array_equal(height.states[:, index], height.values)
    assert height.values - height.values[0] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert place.values - place.values[2] == pytest.approx([-1, -0.5, 0, 0.5, 1])
    # The place does not lift it, and its lowest height is the same as anywhere: on the floor.
    assert place.states[:, index] == pytest.approx(height.values[0])


def test_every_task_has_sweeps_that_can_be_labelled():
    for name in ("hopper", "ant", "reacher", "humanoid-splits"):
        task = get_task(name)
        for sweep in make_sweeps(task, points=3):
            assert np.isfinite(sweep.states).all()
            assert len(np.unique(sweep.states, axis=0)) == 3


@pytest.mark.parametrize(("name", "index"), [("angle", 2), ("position", 0)])
def test_parts_of_a_state_are_swept_over_what_posed_states_reach(name, index):
    task = get_task("cartpole")
    (sweep,) = make_sweeps(task, (name,), points=7)
    assert np.array_equal(sweep.states[:, index], sweep.values)
    assert not np.delete(sweep.states, index, axis=1).any()
    assert sweep.values[0] < -2
    assert sweep.values[-1] > 2


def test_wrong_sweeps_are_refused_with_the_names_that_exist():
    with pytest.raises(UnknownNameError, match="over must be one of hinge, slider, got 'angle'"):
        make_sweeps(CARTPOLE, ("angle",))
    with pytest.raises(UnknownNameError, match=r"over must be one of .*Did you mean 'knee'"):
        make_sweeps(KNEELING, ("knees",))
    with pytest.raises(UnknownNameError, match=r"over must be one of angle, .*got 'hinge'"):
        make_sweeps(get_task("cartpole"), ("hinge",))
    with pytest.raises(UnknownNameError, match=r"pose must be one of .*Did you mean 'sitting"):
        make_sweeps(KNEELING, pose="siting")
    with pytest.raises(ArgumentError, match="points must be at least 2, got 1"):
        make_sweeps(CARTPOLE, points=1)


def test_a_landscape_holds_each_reward_along_the_sweep(untrained_folder):
    config = LandscapeConfig(
        "cartpole-upright", goal=(("a pole", "a cart"),), alpha=(("0,0.5",),), points=9,
        model=untrained_folder,
    )  # fmt: skip
    plan = make_plan(config)
    candidates, (curve,) = plan.candidates, score_plan(plan)
    assert curve.rewards.shape == (9, 4)
    reward = VLMReward(untrained_folder, goal="x")
    frames = np.concatenate(list(draw_states(CARTPOLE, curve.sweep.states, reward.image_size)))
    for column, each in enumerate(candidates):
        alone = reward.with_prompts(each.goal, each.baseline, each.alpha).score(frames)
        assert np.abs(curve.rewards[:, column] - alone).max() <= 1e-6
    assert curve.success.tolist() == [False] * 4 + [True] + [False] * 4
    assert len(curve.frames) == 7


def test_the_builtin_reward_peaks_where_the_pole_stands(tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["landscape", "cartpole-upright", "--points", "41", "--out", str(out)]) == 0
    rows = list(csv.DictReader((out / "landscape.csv").open()))
    assert len(rows) == 3 * 41
    for alpha in ("0", "0.5", "1"):
        best = max((row for row in rows if row["alpha"] == alpha), key=lambda r: float(r["reward"]))
        assert best["success"] == "1"
    picture = np.asarray(Image.open(out / "landscape.png").convert("RGB"))
    assert picture.shape[1] > 1000
    assert picture.std() > 10
    assert "where the reward of builtin is highest" in capsys.readouterr().out


def test_bad_settings_are_refused_before_any_work(tmp_path):
    config = LandscapeConfig("cartpole-upright", out=str(tmp_path / "out"))
    for change, text in (
        ({"task": "cartpole-up"}, "task must be one of"),
        ({"alpha": (("2",),)}, "alpha must be a number"),
        ({"camera": "front"}, "camera must be one of side"),
        ({"baseline": ""}, "baseline must be given where alpha is above 0"),
        ({"baseline": CARTPOLE.goal}, "baseline must differ from goal"),
        ({"textures": "photo"}, "textures"),
        ({"camera": "distance=0"}, r"distance must be finite and above 0, got 0\.0"),
        ({"points": 1}, "points must be at least 2"),
        ({"model": "ViT-B-33/openai"}, "model must be"),
        ({"goal": (("pole " * 100,),)}, "prompt must be at most 32 tokens long"),
    ):
        with pytest.raises(ArgumentError, match=text):
            run_landscape(replace(config, **{"alpha": (("0,1",),), **change}))
    assert not (tmp_path / "out").exists()
