"""Tests of the pretraining: poses, concepts, captions, frames and a tiny training run."""

from __future__ import annotations

import json
import re

import mujoco
import numpy as np
import pytest
import torch

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.pretrain import PretrainConfig, captions, concepts, data, fit, flat, pretrain
from vlmrm_fast.pretrain.evaluate import auc, spearman
from vlmrm_fast.pretrain.fit import pair_loss
from vlmrm_fast.pretrain.looks import vary_looks
from vlmrm_fast.tasks import get_task, poses
from vlmrm_fast.tasks.geometry import humanoid_geometry

# The concept that each named pose must show by geometry; random states claim nothing.
CLAIMS = {
    "standing": "standing",
    "standing_arms_raised": "arms_raised",
    "standing_hands_on_hips": "hands_on_hips",
    "standing_arms_crossed": "arms_crossed",
    "standing_arms_out": "arms_out",
    "standing_one_leg": "one_leg",
    "standing_legs_apart": "standing",
    "walking": "standing",
    "kneeling": "kneeling",
    "kneeling_on_heels": "kneeling",
    "kneeling_arms_raised": "kneeling",
    "kneeling_one_knee": "kneeling_one",
    "crouching": "crouching",
    "bending_forward": "bending",
    "sitting": "sitting",
    "sitting_knees_bent": "sitting",
    "sitting_lotus": "lotus",
    "splits": "splits",
    "all_fours": "all_fours",
    "lying_back": "lying_back",
    "lying_front": "lying_front",
    "lying_side": "lying_side",
    "falling_forward": "falling",
    "falling_backward": "falling",
    "falling_sideways": "falling",
}


@pytest.fixture(scope="module")
def humanoid():
    return get_task("humanoid-kneeling").load_model()


def degrees_of(model, name, count, seed=0):
    rng, world = np.random.default_rng(seed), mujoco.MjData(model)
    xpos, geom_xpos, lowest = [], [], []
    for _ in range(count):
        poses.sample_pose(model, world, name, rng)
        xpos.append(world.xpos.copy())
        geom_xpos.append(world.geom_xpos.copy())
        lowest.append(poses.lowest_point(model, world.geom_xpos, world.geom_xmat))
    geometry = humanoid_geometry(model, np.array(xpos), np.array(geom_xpos))
    view = np.tile([1.0, 0.0, 0.0], (count, 1))
    return concepts.humanoid_degrees(geometry, view, np.full(count, 3.5)), np.array(lowest)


def test_every_named_pose_has_a_claim():
    assert set(CLAIMS) | {"random"} == set(poses.POSES)


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_pose_shows_what_its_name_says(humanoid, name):
    degrees, lowest = degrees_of(humanoid, name, 60)
    assert (degrees[:, concepts.INDEX[CLAIMS[name]]] >= 0.5).mean() >= 0.8
    low, high = poses.POSES[name].lift
    assert (lowest > low - 1e-9).all()
    assert (lowest < high + 1e-9).all()


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_only_kneeling_poses_kneel(humanoid, name):
    degrees, _ = degrees_of(humanoid, name, 30, seed=1)
    kneels = degrees[:, concepts.INDEX["kneeling"]]
    if CLAIMS[name] == "kneeling":
        assert np.median(kneels) > 0.7
    else:
        assert (kneels < 0.5).all()


def test_joint_angles_stay_in_their_ranges(humanoid):
    rng = np.random.default_rng(0)
    hinges = [i for i in range(humanoid.njnt) if humanoid.jnt_type[i] == 3]
    for name in poses.POSES:
        qpos = poses.sample_qpos(humanoid, name, rng)[humanoid.jnt_qposadr[hinges]]
        assert (qpos >= humanoid.jnt_range[hinges, 0] - 1e-9).all()
        assert (qpos <= humanoid.jnt_range[hinges, 1] + 1e-9).all()


def cartpole_row(angle, offset=0.0, distance=4.3, mirrored=False):
    return concepts.cartpole_degrees(
        np.array([angle]), np.array([offset]), np.array([distance]), np.array([mirrored])
    )[0]


def test_upright_degree_falls_strictly_with_the_angle():
    angles = np.linspace(0.0, np.pi, 100)
    zero = np.zeros(100)
    rows = concepts.cartpole_degrees(angles, zero, zero + 4.3, zero > 1)
    upright = rows[:, concepts.INDEX["upright"]]
    assert upright[0] == 1.0
    assert (np.diff(upright) < 0).all()
    assert upright[angles < 0.1].min() > 0.5 > upright[angles > 0.1].max()


def test_left_and_right_swap_when_seen_from_behind():
    front, back = cartpole_row(0.5), cartpole_row(0.5, mirrored=True)
    left, right = concepts.INDEX["leaning_left"], concepts.INDEX["leaning_right"]
    assert front[right] == back[left] > 0.9
    assert front[left] == back[right] < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_drawn_captions_are_true_of_their_state(humanoid, seed):
    rng = np.random.default_rng(seed)
    rows = [cartpole_row(rng.uniform(-3, 3), rng.uniform(-1, 1), rng.uniform(2, 8))]
    rows += list(concepts.mountaincar_degrees(rng.uniform(-1.2, 0.6, 3)))
    rows += list(degrees_of(humanoid, poses.draw_pose_names(1, rng)[0], 3, seed)[0])
    for row in rows:
        for _ in range(20):
            caption = captions.describe(row, rng)
            assert all(row[concepts.INDEX[name]] >= 0.5 for name in caption.concepts)
            assert captions.truth([caption], row[None])[0, 0] >= 0.24


def test_truth_is_the_product_of_the_claims():
    rng = np.random.default_rng(0)
    degrees = rng.uniform(0.0, 1.0, (7, len(concepts.CONCEPTS))).astype(np.float32)
    drawn = [captions.random_caption(rng) for _ in range(50)]
    expected = [
        [np.prod([row[concepts.INDEX[name]] for name in caption.concepts]) for caption in drawn]
        for row in degrees
    ]
    np.testing.assert_allclose(captions.truth(drawn, degrees), expected, rtol=1e-4)


def test_prompts_of_the_paper_are_drawn_verbatim():
    rng = np.random.default_rng(0)
    drawn = {captions.random_caption(rng).text for _ in range(2000)}
    assert set(captions.PAPER_PROMPTS) <= drawn


def test_what_shows_nothing_makes_no_caption_true():
    rows = np.stack([cartpole_row(0.0), cartpole_row(2.0)])
    caption = captions.Caption("a dog on a sofa", ("nothing",))
    assert captions.truth([caption], rows).max() < 1e-6
    # A picture that the cart has left is no error: captions are drawn at random for it.
    drawn = captions.describe(
        np.zeros(len(concepts.CONCEPTS), np.float32), np.random.default_rng(0)
    )
    assert drawn.text


def paper_truth(text, rows):
    return captions.truth([captions.Caption(text, captions.PAPER_PROMPTS[text])], rows)[:, 0]


def test_car_at_the_flag_grows_truer_from_the_valley_up():
    places = np.linspace(-0.5, 0.45, 40)
    goal = "a car at the peak of the mountain, next to the yellow flag"
    truth = paper_truth(goal, concepts.mountaincar_degrees(places))
    assert (np.diff(truth) > 0).all()
    assert truth[-1] > 0.95 > 0.5 > truth[places < 0.25].max()
    # So does it towards the left, from where the car gathers speed.
    left = paper_truth(goal, concepts.mountaincar_degrees(np.array([-0.5, -1.2])))
    assert left[1] > left[0]


def test_each_scene_is_true_of_its_own_pictures_only():
    car, pole = concepts.mountaincar_degrees(np.array([0.5])), cartpole_row(0.0)[None]
    for text, yes, no in (("a car in the mountain", car, pole), ("pole and cart", pole, car)):
        assert paper_truth(text, yes)[0] == 1.0
        assert paper_truth(text, no)[0] < 1e-6


def test_concepts_keep_their_places():
    # Degrees of older data sets have 51 columns and still mean the same.
    assert concepts.CONCEPTS[50] == "nothing"
    assert concepts.CONCEPTS[0] == "cartpole"
    assert all("car_" in name or name == "mountaincar" for name in concepts.CONCEPTS[51:])


def test_looks_change_but_shapes_and_the_original_do_not(humanoid):
    before = humanoid.geom_rgba.copy(), humanoid.tex_data.copy()
    varied = vary_looks(humanoid, np.random.default_rng(0))
    np.testing.assert_array_equal(humanoid.geom_rgba, before[0])
    np.testing.assert_array_equal(humanoid.tex_data, before[1])
    assert (varied.geom_rgba != before[0]).any()
    assert (varied.tex_data != before[1]).mean() > 0.5
    np.testing.assert_array_equal(varied.geom_size, humanoid.geom_size)


@pytest.mark.parametrize("scene", sorted(data.SCENE_SHARES))
def test_blocks_repeat_from_their_seed(scene):
    spec = data.BlockSpec(scene, task_look=False, task_camera=False)
    first = data.draw_block(spec, 32, np.random.default_rng(5))
    again = data.draw_block(spec, 32, np.random.default_rng(5))
    other = data.draw_block(spec, 32, np.random.default_rng(6))
    assert first.images.shape == (data.FRAMES_PER_BLOCK, 32, 32, 3)
    assert first.images.dtype == np.uint8
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.degrees, again.degrees)
    assert (first.images != other.images).any()
    assert np.isfinite(first.degrees).all()
    assert first.images.std(axis=(1, 2, 3)).min() > 2


@pytest.mark.parametrize(("scene", "look"), list(flat.FLAT_SHARES))
def test_flat_blocks_repeat_from_their_seed(scene, look):
    pytest.importorskip("pygame")
    spec = data.BlockSpec(scene, look)
    first = flat.draw_flat_block(spec, 32, np.random.default_rng(5))
    again = flat.draw_flat_block(spec, 32, np.random.default_rng(5))
    other = flat.draw_flat_block(spec, 32, np.random.default_rng(6))
    assert first.images.shape == (data.FRAMES_PER_BLOCK, 32, 32, 3)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.degrees, again.degrees)
    assert (first.images != other.images).any()
    assert np.isnan(first.angles).all() == scene.startswith("mountaincar")
    assert (first.groups == scene).all()


def test_flat_cartpoles_lean_the_way_that_their_captions_say():
    pytest.importorskip("pygame")
    for look in (True, False):
        frames = flat.draw_flat_block(
            data.BlockSpec("gym-cartpole", look), 192, np.random.default_rng(0)
        )
        # Against an upright twin at the same place, ink moves to the side that the pole leans to.
        right = frames.degrees[:, concepts.INDEX["leaning_right"]] > 0.5
        left = frames.degrees[:, concepts.INDEX["leaning_left"]] > 0.5
        np.testing.assert_array_equal(right, right & (frames.angles > 0))
        columns = np.arange(192)[None]
        plain = np.median(frames.images, axis=0).astype(int)
        ink = (np.abs(frames.images - plain).sum(3) > 60)[:, :140].sum(1)
        centre = (ink * columns).sum(1) / np.maximum(ink.sum(1), 1)
        cart = 96 * (1 + frames.offsets / flat.POSITION_BOUND)
        seen = np.abs(frames.offsets) < 0.8 * flat.POSITION_BOUND
        assert (centre > cart)[right & seen].all()
        assert (centre < cart)[left & seen].all()


def test_batches_without_flat_frames_are_as_ever():
    rng = np.random.default_rng(0)
    angles = np.where(np.arange(40) % 2, np.nan, 0.1).astype(np.float32)
    degrees = np.stack([cartpole_row(0.1)] * 40)
    groups = np.array(["cartpole"] * 40)
    images = rng.integers(0, 255, (40, 2, 2, 3), dtype=np.uint8)
    frames = data.Frames(images, degrees, groups, angles, angles)
    cars = data.Frames(
        np.zeros((4, 2, 2, 3), np.uint8),
        concepts.mountaincar_degrees(np.zeros(4)),
        np.array(["mountaincar"] * 4),
        np.full(4, np.nan, np.float32),
        np.zeros(4, np.float32),
    )

    def batch(some, **settings):
        config = PretrainConfig(batch_size=20, random_captions=0, **settings)
        return fit._Batches(some, lambda texts: torch.zeros(1, 4), config).draw()[0]

    plain = batch(frames)
    assert torch.equal(plain, batch(data.join([frames, cars]), flat_share=0.0))
    mixed = batch(data.join([frames, cars]), flat_share=0.5)
    assert (mixed.amax((1, 2, 3)) == 0).sum() == 10


def test_frames_drawn_large_resemble_frames_drawn_small():
    small = data.draw_block(data.BlockSpec("cartpole"), 96, np.random.default_rng(1))
    large = data.draw_block(
        data.BlockSpec("cartpole", drawn_side=224), 96, np.random.default_rng(1)
    )
    assert large.images.shape == small.images.shape
    assert np.abs(large.images.astype(float) - small.images).mean() < 4


def test_frames_come_back_from_disk(tmp_path):
    frames = data.draw_frames([data.BlockSpec("cartpole")], 16, seed=3)
    data.save_frames(frames, tmp_path)
    loaded = data.load_frames(tmp_path)
    np.testing.assert_array_equal(loaded.images, frames.images)
    np.testing.assert_array_equal(loaded.angles, frames.angles)
    assert list(loaded.groups) == list(frames.groups)


def test_pair_loss_is_zero_at_the_targets_and_positive_elsewhere():
    targets = torch.tensor([[0.5, 0.1], [0.9, 0.02]])
    scale, bias = torch.tensor(8.0), torch.tensor(-2.0)
    cosines = (torch.logit(targets) - bias) / scale
    assert pair_loss(cosines, targets, scale, bias).abs() < 1e-6
    assert pair_loss(cosines + 0.1, targets, scale, bias) > 1e-3


def test_auc_counts_ties_half_and_spearman_ranks():
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert auc(np.array([0.0]), np.array([1.0, 2.0])) == 0.0
    assert spearman(np.array([1.0, 2.0, 9.0]), np.array([1.0, 4.0, 5.0])) == pytest.approx(1.0)


@pytest.mark.slow
def test_tiny_run_lowers_the_loss_and_writes_a_folder_that_loads(tmp_path):
    from vlmrm_fast import VLMReward

    lines = []
    config = PretrainConfig(
        out=str(tmp_path / "model"),
        data=str(tmp_path / "frames"),
        frames=192,
        flat_frames=48,
        steps=24,
        batch_size=32,
        random_captions=16,
        workers=1,
        eval_frames=48,
    )
    result = pretrain(config, lines.append)
    assert result["losses"][-1] < result["losses"][0]
    written = json.loads((tmp_path / "model" / "evaluation.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert set(written["held_out"]["cartpole"]) == {"task", "varied"}
    assert set(written["held_out"]["CartPole-v1"]) == {"own", "varied"}
    reward = VLMReward(str(tmp_path / "model"), goal="pole upright")
    assert reward.score(np.zeros((3, 96, 96, 3), np.uint8)).shape == (3,)
    assert any(line.startswith("step 24/24") for line in lines)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"frames": 0}, "frames must be at least 1, got 0."),
        ({"steps": -1}, "steps must be at least 1, got -1."),
        ({"eval_frames": -1}, "eval_frames must be at least 0, got -1."),
        ({"flat_frames": -1}, "flat_frames must be at least 0, got -1."),
        ({"flat_share": 1.0}, "flat_share must be in [0, 1), got 1.0."),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0."),
        ({"robot_share": 1.0}, "robot_share must be in (0, 1), got 1.0."),
        ({"init": "none"}, "init must be a folder with open_clip_model.safetensors, got 'none'."),
        (
            {"out": "/dev/null/model"},
            "out must be a folder that can be made and written to, got '/dev/null/model'",
        ),
        ({"architecture": "no.json"}, "architecture must be a file, got 'no.json'."),
    ],
)
def test_bad_settings_are_named(change, text):
    with pytest.raises(ArgumentError, match=re.escape(text)):
        pretrain(PretrainConfig(**change))


def test_a_broken_architecture_is_refused_before_any_drawing(tmp_path):
    broken = tmp_path / "open_clip_config.json"
    broken.write_text('{"model_cfg": {}}')
    config = PretrainConfig(out=str(tmp_path / "out"), architecture=str(broken))
    with pytest.raises(ArgumentError, match=r"architecture must be an open_clip_config\.json"):
        pretrain(config)
