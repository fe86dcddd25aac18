"""Accuracy of the committed built-in model on freshly drawn held-out states."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vlmrm_fast import VLMReward
from vlmrm_fast.pretrain import BUILTIN_FOLDER
from vlmrm_fast.pretrain.data import BlockSpec, draw_frames
from vlmrm_fast.pretrain.evaluate import (
    FLAT_VIEWS,
    KNEELING,
    OTHERS,
    auc,
    cartpole_figures,
    gym_cartpole_figures,
    humanoid_figures,
    mountaincar_figures,
    table_lines,
)
from vlmrm_fast.tasks import get_task

# A third seed: neither the training frames' nor that of the committed evaluation.
SEED = 77_777
VIEWS = {"task": (True, True), "varied": (False, False)}


def reward_of(name, **changes):
    task = get_task(name)
    settings = {"goal": task.goal, "baseline": task.baseline, "alpha": task.alpha, **changes}
    return VLMReward("builtin", **settings)


@pytest.fixture(scope="module")
def cartpoles():
    side = reward_of("cartpole-upright").image_size
    return {
        view: draw_frames([BlockSpec("cartpole", look, camera)] * 8, side, SEED)
        for view, (look, camera) in VIEWS.items()
    }


@pytest.fixture(scope="module")
def humanoids():
    side = reward_of("humanoid-kneeling").image_size
    names = (*KNEELING, *OTHERS["standing"], *OTHERS["lying"], *OTHERS["random"], *OTHERS["random"])
    return {
        view: draw_frames([BlockSpec("humanoid", look, camera, None, names)] * 9, side, SEED + 1)
        for view, (look, camera) in VIEWS.items()
    }


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_upright_poles_rank_above_tilted_ones(cartpoles, view):
    frames = cartpoles[view]
    figures = cartpole_figures(reward_of("cartpole-upright").score(frames.images), frames)
    assert figures["auc_upright"] >= 0.97
    assert figures["spearman"] >= 0.75


def test_reward_falls_in_every_step_away_from_upright(cartpoles):
    frames = cartpoles["task"]
    figures = cartpole_figures(reward_of("cartpole-upright").score(frames.images), frames)
    assert (np.diff(figures["reward_mean"]) < 0).all()
    assert figures["spearman_within_0.35"] >= 0.75
    assert figures["position_spread"] < 0.5


@pytest.mark.parametrize("view", sorted(VIEWS))
@pytest.mark.parametrize("others", ["standing", "lying", "random"])
def test_kneeling_ranks_above_other_states(humanoids, view, others):
    frames = humanoids[view]
    rewards = reward_of("humanoid-kneeling").score(frames.images)
    # Random states from random views are the one figure below 0.95 (0.93 in evaluation.json).
    least = 0.88 if (view, others) == ("varied", "random") else 0.95
    assert humanoid_figures(rewards, frames)["auc"][others] >= least


@pytest.mark.parametrize("view", sorted(FLAT_VIEWS["cartpole"]))
def test_upright_poles_of_gymnasiums_picture_rank_above_tilted_ones(view):
    pytest.importorskip("pygame")
    reward = reward_of("cartpole")
    spec = BlockSpec(*FLAT_VIEWS["cartpole"][view])
    frames = draw_frames([spec] * 4, reward.image_size, SEED + 2)
    figures = gym_cartpole_figures(reward.score(frames.images), frames)
    assert figures["auc_upright"] >= 0.95
    assert figures["spearman_within_0.35"] >= 0.8


@pytest.mark.parametrize("view", sorted(FLAT_VIEWS["mountaincar"]))
def test_cars_at_the_flag_rank_above_others(view):
    pytest.importorskip("pygame")
    reward = reward_of("mountaincar")
    spec = BlockSpec(*FLAT_VIEWS["mountaincar"][view])
    frames = draw_frames([spec] * 3, reward.image_size, SEED + 3)
    figures = mountaincar_figures(reward.score(frames.images), frames)
    assert figures["auc_flag"] >= 0.95
    # Cars in unseen colours are the one figure below 0.9 (0.88 in evaluation.json).
    assert figures["spearman_degree"] >= (0.8 if view == "varied" else 0.9)


@pytest.mark.parametrize("name", ["cartpole", "mountaincar"])
def test_large_pictures_of_goal_states_rank_above_near_misses(name):
    pytest.importorskip("pygame")
    task = get_task(name)
    env, poses = task.make(), task.posed_states(np.random.default_rng(SEED), 60)
    pictures = []
    for state in poses.qpos:
        task.set_state(env, state)
        pictures.append(np.array(env.render()))
    rewards = reward_of(name).score(np.stack(pictures))
    goal, near = (np.isin(poses.names, names) for names in (task.goal_poses, task.near_misses))
    assert auc(rewards[goal], rewards[near]) >= 0.95


@pytest.mark.parametrize(
    "goal",
    ["a robot on its knees", "a robot that is kneeling down", "humanoid kneels on the floor"],
)
def test_paraphrases_of_kneeling_rank_it_above_standing_and_lying(humanoids, goal):
    frames = humanoids["task"]
    rewards = reward_of("humanoid-kneeling", goal=goal).score(frames.images)
    kneels = np.isin(frames.groups, KNEELING)
    for others in ("standing", "lying"):
        assert auc(rewards[kneels], rewards[np.isin(frames.groups, OTHERS[others])]) >= 0.9


def test_builtin_folder_is_small_and_documented():
    files = {path.name: path.stat().st_size for path in BUILTIN_FOLDER.iterdir()}
    assert {"README.md", "open_clip_config.json", "open_clip_model.safetensors"} <= set(files)
    assert files["open_clip_config.json"] + files["open_clip_model.safetensors"] <= 16 * 2**20


def test_readme_shows_the_figures_of_the_committed_evaluation():
    evaluation = json.loads((BUILTIN_FOLDER / "evaluation.json").read_text())
    readme = (BUILTIN_FOLDER / "README.md").read_text()
    for line in table_lines(evaluation["held_out"]):
        assert line in readme
