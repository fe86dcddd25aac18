"""Scoring rules and goal images against their formulas in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmrm_fast import VLMReward
from vlmrm_fast.errors import ArgumentError, UnknownNameError
from vlmrm_fast.kernels.reference import make_tasks
from vlmrm_fast.rules import Heads, make_heads

GOAL, BASELINE = "a robot that kneels", "a robot"
NEGATIVES = ["a robot that stands", "a robot that lies down", "an empty room"]


@pytest.fixture(scope="module")
def reward(untrained_folder: str) -> VLMReward:
    return VLMReward(untrained_folder, goal=GOAL, device="cpu")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Return pictures of large patches, which even an untrained model tells apart."""
    patches = np.random.default_rng(0).integers(0, 256, (5, 3, 3, 3), dtype=np.uint8)
    return np.ascontiguousarray(patches.repeat(32, 1).repeat(32, 2))


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def by_hand(
    rule: str, x: np.ndarray, g: np.ndarray, b: np.ndarray, n: np.ndarray, alpha: float, tau: float
) -> np.ndarray:
    """Compute a rule as its formula is written."""
    if rule == "cosine":
        return x @ g
    if rule == "difference":
        return x @ g - x @ b
    if rule == "softmax":
        powers = np.exp(np.stack([x @ g, *(x @ row for row in n)]) / tau)
        return powers[0] / powers.sum(0)
    u = (g - b) / np.linalg.norm(g - b)
    projected = b + ((x - b) @ u)[:, None] * u
    return 1 - np.square(alpha * projected + (1 - alpha) * x - g).sum(1) / 2


CASES: dict[str, dict[str, Any]] = {
    "cosine": {},
    "difference": {"baseline": BASELINE},
    "goal-baseline": {"baseline": BASELINE, "alpha": 0.5},
    "softmax": {"negatives": NEGATIVES, "temperature": 0.05},
}


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_is_its_formula_wherever_frames_are_scored(
    reward: VLMReward, frames: np.ndarray, rule: str
) -> None:
    options = CASES[rule]
    ours = reward.with_prompts(GOAL, rule=rule, **options)
    x = unit(reward.embed_images(frames))
    g, b, *n = unit(reward.embed_text([GOAL, BASELINE, *NEGATIVES]))
    expected = by_hand(rule, x, g, b, np.stack(n), 0.5, 0.05)
    assert np.ptp(expected) > 1e-4
    scores = ours.score(frames)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(ours.score_embeddings(ours.embed_images(frames)), scores)
    for background in (False, True):
        with ours.scorer(background=background) as scorer:
            np.testing.assert_array_equal(scorer.collect([scorer.submit(frames)])[0], scores)
    assert ours.describe()["rule"] == rule


def test_rules_are_scored_side_by_side_with_one_encoding(
    reward: VLMReward, frames: np.ndarray
) -> None:
    rules = ["softmax", "cosine", "softmax", "difference", "goal-baseline"]
    goals = [GOAL, GOAL, "a robot that sits", GOAL, GOAL]
    alphas = [0, 0, 0, 0, 0.5]
    prompts = reward.prompt_set(
        goals, BASELINE, alphas, rules=rules, negatives=NEGATIVES, temperature=0.05
    )
    assert prompts.rules == tuple(rules)
    scores = reward.score_many(frames, prompts)
    assert scores.shape == (5, 5)
    for column, (goal, alpha, rule) in enumerate(zip(goals, alphas, rules, strict=True)):
        alone = reward.with_prompts(goal, rule=rule, **{"alpha": alpha, **CASES[rule]})
        np.testing.assert_allclose(scores[:, column], alone.score(frames), rtol=0, atol=1e-6)
    with reward.scorer(prompts=prompts) as scorer:
        np.testing.assert_array_equal(scorer.collect([scorer.submit(frames)])[0], scores)


def test_further_goals_share_a_rewards_rule_and_its_own_stays_as_it_is(
    reward: VLMReward, frames: np.ndarray
) -> None:
    from vlmrm_fast.evaluation.recording import SeveralGoals

    options = {"rule": "softmax", "negatives": NEGATIVES, "temperature": 0.05}
    own = reward.with_prompts(GOAL, goal_images=frames[0], **options)
    several = SeveralGoals(own, ["a robot that sits"])
    np.testing.assert_allclose(several.score(frames), own.score(frames), rtol=0, atol=1e-6)
    other = reward.with_prompts("a robot that sits", **options).score(frames)
    np.testing.assert_allclose(several.newest[:, 0], other, rtol=0, atol=1e-6)


def test_score_takes_a_rule_from_the_command_line(
    reward: VLMReward, frames: np.ndarray, untrained_folder: str, tmp_path: Path
) -> None:
    from vlmrm_fast.scoring import ScoreConfig, run_score, score_frames

    np.save(tmp_path / "frames.npy", frames)
    config = ScoreConfig(
        str(tmp_path / "frames.npy"), goal=(GOAL,), model=untrained_folder, rule="softmax",
        negatives=tuple(NEGATIVES), temperature=0.05, out=str(tmp_path / "out"), device="cpu",
    )  # fmt: skip
    scores = score_frames(config)
    expected = reward.with_prompts(GOAL, rule="softmax", negatives=NEGATIVES, temperature=0.05)
    np.testing.assert_allclose(scores.rewards[:, 0], expected.score(frames), rtol=0, atol=1e-6)
    assert scores.rule == "softmax"
    assert run_score(config) == 0
    with pytest.raises(ArgumentError, match="negatives must be given for rule"):
        score_frames(ScoreConfig(config.source, goal=(GOAL,), rule="softmax", model="no/such"))


def test_without_alpha_the_papers_rule_is_the_cosine(reward: VLMReward, frames: np.ndarray) -> None:
    cosine = reward.with_prompts(GOAL, rule="cosine").score(frames)
    np.testing.assert_allclose(reward.score(frames), cosine, rtol=0, atol=1e-6)


def test_the_softmax_takes_the_models_own_temperature(
    reward: VLMReward, frames: np.ndarray
) -> None:
    # An untrained CLIP's factor is 1 / 0.07.
    options = {"rule": "softmax", "negatives": NEGATIVES}
    own = reward.with_prompts(GOAL, **options)
    told = reward.with_prompts(GOAL, temperature=0.07, **options)
    np.testing.assert_allclose(own.score(frames), told.score(frames), rtol=0, atol=1e-4)
    assert own.describe()["temperature"] == pytest.approx(0.07, rel=1e-3)


def test_a_sharp_softmax_keeps_its_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 64, generator=generator, dtype=torch.float64)
    x, g, n = (part / part.norm(dim=-1, keepdim=True) for part in (rows[:26], rows[26], rows[27:]))
    heads = make_heads(["softmax"], g[None], g[None], torch.zeros(1), [n], [100.0])
    logits = 100 * torch.cat([(x @ g)[:, None], x @ n.T], dim=1)
    expected = logits.softmax(1)[:, :1]
    assert expected.min() < 1e-3 < 0.9 < expected.max()
    ours = heads.to("cpu").score(x.float()).double()
    # fp32 keeps a cosine to 1e-7; the temperature multiplies that by 100.
    np.testing.assert_allclose(ours, expected, rtol=5e-5, atol=0)
    np.testing.assert_allclose(heads.score(x), expected, rtol=1e-12, atol=0)


def test_linear_rules_take_the_constants_of_one_op() -> None:
    goal = torch.eye(4, dtype=torch.float64)[:2]
    heads = make_heads(
        ["goal-baseline", "goal-baseline"],
        goal, goal.flip(0), torch.tensor([0.5, 0.0]), [goal[:0]] * 2, [1.0] * 2,
    )  # fmt: skip
    assert heads.contest is None
    for ours, folded in zip(
        heads.tasks, make_tasks(goal, goal.flip(0), torch.tensor([0.5, 0.0])), strict=True
    ):
        assert torch.equal(ours, folded)


def test_goal_images_replace_the_sentence(reward: VLMReward, frames: np.ndarray) -> None:
    ours = reward.with_prompts(goal_images=frames[2])
    x = unit(reward.embed_images(frames))
    np.testing.assert_allclose(ours.score(frames), x @ x[2], rtol=0, atol=1e-5)
    both = reward.with_prompts(GOAL, goal_images=frames[2], image_weight=1)
    np.testing.assert_array_equal(both.score(frames), ours.score(frames))


@pytest.mark.parametrize("compat", [False, True])
def test_goal_images_are_mixed_into_the_goal(
    untrained_folder: str, frames: np.ndarray, compat: bool
) -> None:
    reward = VLMReward(untrained_folder, goal=GOAL, device="cpu", compat=compat)
    ours = reward.with_prompts(
        GOAL, BASELINE, 0.5, goal_images=[frames[0], frames[3:]], image_weight=0.25
    )
    x = unit(reward.embed_images(frames))
    t, b = unit(reward.embed_text([GOAL, BASELINE]))
    mean = x[[0, 3, 4]].mean(0)
    g = 0.75 * t + 0.25 * (mean if compat else unit(mean))
    g = g if compat else unit(g)
    expected = by_hand("goal-baseline", x, g, b, b[None], 0.5, 1)
    np.testing.assert_allclose(ours.score(frames), expected, rtol=0, atol=1e-5)


def test_goal_images_come_from_files_of_any_size(reward: VLMReward, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    small, large = (rng.integers(0, 256, (s, s, 3), dtype=np.uint8) for s in (40, 130))
    Image.fromarray(small).save(tmp_path / "a.png")
    Image.fromarray(large).save(tmp_path / "b.png")
    frames = rng.integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    expected = reward.with_prompts(goal_images=[small, large]).score(frames)
    for given in (tmp_path, [tmp_path / "a.png", str(tmp_path / "b.png")]):
        ours = reward.with_prompts(goal_images=given)
        np.testing.assert_array_equal(ours.score(frames), expected)
    found = ours.describe()
    assert found["goal_images"] == 2
    assert len(found["goal_images_sha256"]) == 64
    assert found["image_weight"] == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rule": "cosinus"}, "rule must be one of cosine, .* Did you mean 'cosine'"),
        ({"rule": "cosine", "alpha": 0.5, "baseline": "a"}, "alpha must be 0 for rule='cosine'"),
        ({"rule": "difference"}, "baseline must be given for rule=\"difference\""),
        (
            {"rule": "difference", "baseline": "A Robot  that kneels"},
            "baseline must differ from goal for rule=\"difference\"",
        ),
        ({"rule": "softmax"}, "negatives must be given for rule=\"softmax\""),
        (
            {"rule": "softmax", "negatives": ["a cat", GOAL]},
            f"negatives must differ from goal .* got '{GOAL}' for both",
        ),
        (
            {"rule": "softmax", "negatives": NEGATIVES, "temperature": 0.0},
            "temperature must be a finite number above 0, got 0.0",
        ),
        ({"negatives": NEGATIVES}, "negatives must be left out for rule='goal-baseline'"),
        ({"temperature": 1.0}, "temperature must be left out for rule='goal-baseline'"),
        ({"image_weight": 0.5}, "image_weight must be left out without goal_images"),
        ({"goal_images": "/nowhere.png"}, "goal_images: source must be an existing file"),
        ({"goal_images": np.zeros((4, 4, 3))}, "goal_images: frames must be .* got float64"),
        ({"goal_images": []}, "goal_images must hold at least one picture"),
        (
            {"goal_images": np.zeros((4, 4, 3), np.uint8), "image_weight": 0.0},
            "image_weight must lie above 0 and be at most 1, got 0.0",
        ),
        (
            {"goal": None, "goal_images": np.zeros((4, 4, 3), np.uint8), "image_weight": 0.5},
            "goal must be given where image_weight is below 1",
        ),
        ({"goal": None}, "goal must be a prompt or a list of prompts, got None"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_rule_is_refused(
    reward: VLMReward, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ArgumentError, match=text):
        reward.with_prompts(**{"goal": GOAL, **options})


def test_prompts_that_a_model_cannot_tell_apart_are_refused(untrained_folder: str) -> None:
    reward = VLMReward(untrained_folder, goal="a & b", device="cpu")
    # The tokenizer reads both as one.
    for rule, name in (("difference", "baseline"), ("softmax", "negatives")):
        with pytest.raises(ArgumentError, match=f"{name} must differ .* cannot tell from the goal"):
            reward.with_prompts("a & b", rule=rule, **{name: "a &amp; b"})
    with pytest.raises(UnknownNameError, match="rule must be one of"):
        reward.prompt_set(["a"], rules=["soft"])
    with pytest.raises(ArgumentError, match="negatives must be left out for rule='cosine'"):
        reward.prompt_set(["a", "b"], rules="cosine", negatives=NEGATIVES)
    with pytest.raises(ArgumentError, match="rules must be one for all or as many as goals, 2"):
        reward.prompt_set(["a", "b"], rules=["cosine"])


def test_the_softmax_asks_for_no_value_while_it_is_enqueued() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    g, b, n = torch.randn(3, 8), torch.randn(3, 8), torch.randn(2, 8)
    rules = ["softmax", "cosine", "difference"]
    heads = make_heads(rules, g, b, torch.zeros(3), [n, n[:1], n], [2.0, 1.0, 1.0]).to("cpu")
    assert heads.contest is not None
    with FakeTensorMode() as mode:
        # Tensors without values: a wait for one, as a capture would refuse, raises.
        tasks = type(heads.tasks)(*map(mode.from_tensor, heads.tasks))
        contest = type(heads.contest)(*map(mode.from_tensor, heads.contest))
        scores = Heads(tasks, contest).score(mode.from_tensor(torch.randn(4, 8)))
    assert scores.shape == (4, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("rule", CASES)
def test_rules_on_a_gpu_run_inside_the_graph_without_a_wait(
    untrained_folder: str, frames: np.ndarray, rule: str
) -> None:
    options = {"goal": GOAL, "rule": rule, **CASES[rule]}
    expected = VLMReward(untrained_folder, device="cpu", **options).score(frames)
    ours = VLMReward(untrained_folder, device="cuda:0", precision="fp32", **options)
    with ours.scorer() as scorer:
        scorer.collect([scorer.submit(frames)])
        torch.cuda.set_sync_debug_mode("error")
        try:
            ticket = scorer.submit(frames)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        scores = scorer.collect([ticket])[0]
        assert all(graph is not None for graph in scorer.lanes[0]._graphs.values())
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(ours.score(frames), expected, rtol=0, atol=1e-3)
