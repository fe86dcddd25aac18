"""Many rewards of the same frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vlmrm_fast import VLMReward
from vlmrm_fast.errors import ArgumentError

GOALS = ["an upright pole", ["a cart", "a wagon"], "a robot that kneels"]
BASELINES = ["a pole", None, ["a robot", "a scene"]]
ALPHAS = [0.5, 0.0, 1.0]


@pytest.fixture(scope="module")
def reward(untrained_folder: str) -> VLMReward:
    return VLMReward(untrained_folder, goal="a pole", device="cpu")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("compat", [False, True])
def test_every_column_is_the_reward_of_its_prompts(
    untrained_folder: str, frames: np.ndarray, compat: bool
) -> None:
    reward = VLMReward(untrained_folder, goal="a pole", device="cpu", compat=compat)
    prompts = reward.prompt_set(GOALS, BASELINES, ALPHAS)
    assert len(prompts) == 3
    scores = reward.score_many(frames, prompts)
    assert scores.shape == (5, 3)
    assert scores.dtype == np.float32
    for column, (goal, baseline, alpha) in enumerate(zip(GOALS, BASELINES, ALPHAS, strict=True)):
        alone = reward.with_prompts(goal, baseline, alpha).score(frames)
        assert np.abs(scores[:, column] - alone).max() <= 1e-6
    z = reward.embed_images(frames)
    assert np.array_equal(reward.score_many_embeddings(z, prompts), scores)


def test_one_baseline_and_one_alpha_serve_all_goals(reward: VLMReward, frames: np.ndarray) -> None:
    one = reward.prompt_set(["a cart", "a wheel"], "a scene", 0.25)
    all_of_them = reward.prompt_set(["a cart", "a wheel"], ["a scene", "a scene"], [0.25, 0.25])
    assert one.alphas == (0.25, 0.25)
    assert np.array_equal(reward.score_many(frames, one), reward.score_many(frames, all_of_them))


def test_scoring_many_prompts_leaves_the_rewards_own_alone(
    reward: VLMReward, frames: np.ndarray
) -> None:
    before = reward.score(frames)
    reward.score_many(frames, reward.prompt_set(["a cart"]))
    assert np.array_equal(reward.score(frames), before)


def test_no_frames_give_no_rows(reward: VLMReward) -> None:
    none = np.empty((0, 96, 96, 3), np.uint8)
    assert reward.score_many(none, reward.prompt_set(["a cart", "a pole"])).shape == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a cart",), "goals must be a list of goals, got 'a cart'"),
        (([],), "goals must be a list of goals"),
        ((["a cart", ""],), "goal must be a non-empty prompt"),
        ((["a cart"], ["a", "b"]), "baselines must be one for all or as many as goals, 1, got 2"),
        ((["a", "b"], "c", [0.5]), "alphas must be one for all or as many as goals, 2, got 1"),
        ((["a", "b"], None, 0.5), "baseline must be given where alpha is above 0"),
        ((["a", "b"], "b", 0.5), "baseline must differ from goal"),
        ((["x", "a &amp; b"], "a & b", 0.5), "'a & b', which the model cannot tell from the goal"),
        ((["cart " * 40],), "prompt must be at most 32 tokens long"),
    ],
)
def test_wrong_prompts_are_refused(
    reward: VLMReward, arguments: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(ArgumentError, match=text):
        reward.prompt_set(*arguments)
