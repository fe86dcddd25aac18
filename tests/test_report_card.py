"""The report card of a run: every figure against the run itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_config

from vlmrm_fast import clip
from vlmrm_fast import train as training
from vlmrm_fast.cli import main
from vlmrm_fast.config import (
    AlgorithmConfig,
    CameraConfig,
    EvaluationConfig,
    RewardConfig,
    load_config,
)
from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.evaluate import Episode, Evaluation
from vlmrm_fast.evaluation.card import Card, CardConfig, make_card
from vlmrm_fast.evaluation.policies import RULE, find_hacking, rank_policies, value_order
from vlmrm_fast.evaluation.recording import Policy, Record


@pytest.fixture(scope="module")
def model(tiny_folder: str) -> str:
    return tiny_folder


@pytest.fixture(scope="module")
def run(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run with four checkpoints; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    training.train(tiny_config(model, folder, episode_length=60))
    return folder


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may change."""
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture(scope="module")
def card(run: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Card:
    """Return the run's card, with the run's own model as its judge under another name."""
    twin = shutil.copytree(model, tmp_path_factory.mktemp("judge") / "twin")
    options = {"judge": str(twin), "goal": ("a pole lying down",), "labelled_states": 40}
    return make_card(CardConfig(str(run), **options))  # type: ignore[arg-type]


def test_every_kept_checkpoint_and_chance_are_played(card: Card) -> None:
    rows = card.report["policies"]
    assert [row["step"] for row in rows] == [32, 64, 96, 128, None]
    assert rows[-1]["name"] == "random actions"
    assert card.newest.name == "step 128"
    # The same start states: each policy's episodes can be compared pair by pair.
    for policy in [*card.policies, card.random]:
        assert policy is not None
        assert policy.record.episode.tolist() == np.repeat([0, 1, 2], 60).tolist()
        assert policy.record.step.tolist() == list(range(1, 61)) * 3


def test_the_figures_are_those_of_the_summary(card: Card) -> None:
    summary = json.loads((card.result.run_dir / "summary.json").read_text())
    newest = card.report["newest"]
    assert newest["success"]["mean"] == summary["success_rate"]
    assert newest["ground_truth_return"]["mean"] == pytest.approx(summary["ground_truth_return"])
    assert newest["returns"]["own"]["mean"] == pytest.approx(60 * summary["vlm_reward_mean"])
    assert card.report["steps"] == summary["steps"] == 128


def test_a_record_has_the_sums_of_its_evaluation(card: Card) -> None:
    for policy in card.policies:
        record, episodes = policy.record, policy.evaluation.episodes
        own = [episode.vlm_reward_mean * episode.length for episode in episodes]
        np.testing.assert_allclose(record.returns(record.scores["own"]), own, rtol=1e-6)
        truth = [episode.ground_truth_return for episode in episodes]
        np.testing.assert_allclose(record.returns(record.truth), truth)


def test_a_judge_with_the_same_weights_gives_the_same_rewards(card: Card) -> None:
    for policy in card.policies:
        scores = policy.record.scores
        np.testing.assert_allclose(scores["judge"], scores["own"], rtol=0, atol=2e-6)
        assert not np.allclose(scores["a pole lying down"], scores["own"], atol=1e-3)


def test_epic_over_all_policies_matches_an_independent_computation(card: Card) -> None:
    records = [policy.record for policy in [*card.policies, card.random] if policy is not None]
    reward = np.concatenate([record.scores["own"] for record in records])
    truth = np.concatenate([np.asarray(record.success, float) for record in records])
    row = next(
        row
        for row in card.report["state_measures"]
        if (row["states"], row["reward"]) == ("all policies", "own")
    )
    assert row["count"] == len(reward) == 5 * 180
    assert row["goal_share"] == pytest.approx(truth.mean())
    correlation = np.corrcoef(reward, truth)[0, 1]
    assert row["epic"] == pytest.approx(np.sqrt((1 - correlation) / 2))


def test_telling_frames_are_the_extremes_of_their_episodes(card: Card) -> None:
    record = card.newest.record
    own = record.scores["own"]
    for moment in record.highest:
        rows = record.episode == moment.episode
        assert moment.reward == own[rows].max()
        assert own[rows & (record.step == moment.step)] == moment.reward
        assert moment.frame.shape == (32, 32, 3)
    for moment in record.wrong:
        assert moment.success is False
    assert [m.reward for m in record.lowest] == sorted(m.reward for m in record.lowest)


def test_labelled_states_are_measured_for_each_reward(card: Card) -> None:
    rows = [row for row in card.report["state_measures"] if row["states"] == "labelled states"]
    assert [row["reward"] for row in rows] == ["own", "a pole lying down", "judge"]
    assert all(row["count"] == 40 and 0 <= row["epic"] <= 1 for row in rows)


def test_each_frame_is_encoded_once_however_many_goals(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = clip.LoadedModel.embed_images

    def counting(self: Any, images: Any, *rest: Any) -> Any:
        seen.append(len(images))
        return encode(self, images, *rest)

    monkeypatch.setattr(clip.LoadedModel, "embed_images", counting)
    counts = []
    for goals in ((), ("a pole", "a cart", "a pole lying down")):
        seen.clear()
        options: dict[str, Any] = {"goal": goals, "random_policy": False, "checkpoints": 1}
        made = make_card(CardConfig(str(copied), **options))
        counts.append(sum(seen))
        assert set(made.newest.record.scores) == {"own", *goals}
    assert counts[0] == counts[1] > 0


def test_a_goal_that_reads_like_another_rewards_name_replaces_nothing(copied: Path) -> None:
    options: dict[str, Any] = {"episodes": 1, "checkpoints": 1, "random_policy": False}
    plain = make_card(CardConfig(str(copied), labelled_states=0, **options)).newest.record
    goals = ("own", "a pole", "judge", "ground truth", '"own"', "a pole")
    made = make_card(CardConfig(str(copied), goal=goals, labelled_states=20, **options))
    scores = made.newest.record.scores
    np.testing.assert_allclose(scores["own"], plain.scores["own"], atol=1e-6)
    names = ['""own""', "a pole", '"judge"', '"ground truth"', '"own"']
    assert list(scores) == ["own", *names]
    labelled = [r for r in made.report["state_measures"] if r["states"] == "labelled states"]
    assert [row["reward"] for row in labelled] == ["own", *names]
    assert [row["reward"] for row in made.report["value_order"]][-1] == "ground truth"
    assert made.report["further_goals"] == list(goals[:-1])


def test_the_command_writes_a_whole_page_and_a_table(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(copied), "--episodes", "2", "--checkpoints", "2"]) == 0
    text = capsys.readouterr().out
    for word in ("cartpole-upright: result", "report card", "VLM return", "reward hacking"):
        assert word in text
    report = json.loads((copied / "report.json").read_text())
    assert [row["step"] for row in report["policies"]] == [32, 128, None]
    assert report["ranking"]["own"]["policies"] == 2
    page = (copied / "report.html").read_text()
    assert page.count("data:image/png") > 6
    assert "data:video/mp4" in page
    assert "<script" not in page
    assert report["newest"]["success"]["count"] == 2


def test_a_named_checkpoint_is_what_the_card_is_about(copied: Path) -> None:
    chosen = next((copied / "checkpoints").glob("*-step-64"))
    made = make_card(CardConfig(str(chosen), episodes=1, random_policy=False))
    assert made.newest.name == "step 64"
    assert [policy.step for policy in made.policies] == [32, 64, 96, 128]


def test_a_damaged_checkpoint_and_broken_metrics_cost_their_part_only(copied: Path) -> None:
    damaged = next((copied / "checkpoints").glob("*-step-64"))
    (damaged / "policy.safetensors").write_bytes(b"x")
    (copied / "metrics.csv").write_bytes(b"\xff\xfe\x00step\n")
    made = make_card(CardConfig(str(copied), episodes=1, random_policy=False))
    assert [policy.step for policy in made.policies] == [32, 96, 128]
    notes = " ".join(made.report["notes"])
    assert "Left out: checkpoint file" in notes
    assert "metrics.csv cannot be read" in notes
    assert made.curve == []


def test_a_run_without_checkpoints_is_one_clear_error(copied: Path, tmp_path: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(CheckpointError, match="run must hold a checkpoint, got none under"):
        make_card(CardConfig(str(copied)))
    with pytest.raises(CheckpointError, match=r"which has no config\.yaml"):
        make_card(CardConfig(str(tmp_path / "nothing")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1, got 0."),
        ({"checkpoints": 0}, "checkpoints must be at least 1, got 0."),
        ({"labelled_states": -1}, "labelled_states must be at least 0, got -1."),
        ({"goal": (" ",)}, "goal must be a non-empty prompt"),
        ({"judge": "no/such"}, "no/such"),
    ],
)
def test_options_are_checked_before_any_work(
    run: Path, options: dict[str, Any], message: str
) -> None:
    before = (run / "summary.json").stat().st_mtime_ns
    with pytest.raises(Exception, match=message):
        make_card(CardConfig(str(run), **options))
    assert (run / "summary.json").stat().st_mtime_ns == before


def test_a_folder_that_takes_no_results_is_refused_before_any_work(copied: Path) -> None:
    (copied / ".write-test").mkdir()
    with pytest.raises(ArgumentError, match="run must be a folder that can be written, got"):
        make_card(CardConfig(str(copied)))


def test_the_runs_own_model_cannot_judge_it(run: Path, model: str) -> None:
    with pytest.raises(ArgumentError, match="judge must be another model than the run's own"):
        make_card(CardConfig(str(run), judge=model))


def test_an_environment_without_success_is_measured_by_its_own_reward(
    model: str, tmp_path: Path
) -> None:
    config = tiny_config(
        model,
        tmp_path / "run",
        task=None,
        env="InvertedPendulum-v5",
        steps=64,
        reward=RewardConfig(model=model, goal=("a pole that stands upright",)),
        evaluation=EvaluationConfig(episodes=2, video=False),
    )
    training.train(config)
    made = make_card(CardConfig(str(tmp_path / "run")))
    assert made.report["newest"]["success"] is None
    assert made.newest.record.success is None
    assert "knows no success" in made.report["notes"][0]
    assert made.newest.record.wrong == ()


def test_a_task_that_draws_itself_has_labelled_states_too(model: str, tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    hyper = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 16, "buffer_size": 100}
    evaluation = EvaluationConfig(episodes=1, video=False)
    algorithm = AlgorithmConfig("DQN", hyperparameters=hyper)
    changes = {"task": "cartpole", "steps": 32, "evaluation": evaluation, "algorithm": algorithm}
    training.train(tiny_config(model, tmp_path / "run", **changes))
    made = make_card(CardConfig(str(tmp_path / "run"), labelled_states=20))
    assert made.report["state_measures"][-1]["states"] == "labelled states"
    assert made.report["newest"]["success"]["count"] == 1


def test_judge_and_goals_see_every_camera_as_the_reward_does(model: str, tmp_path: Path) -> None:
    camera = CameraConfig(more_cameras=("azimuth=60,distance=3",), camera_reduce="max")
    changes = {"steps": 32, "camera": camera, "episode_length": 20}
    training.train(tiny_config(model, tmp_path / "run", **changes))
    twin = shutil.copytree(model, tmp_path / "twin")
    goal = load_config(tmp_path / "run" / "config.yaml").reward.goal
    made = make_card(CardConfig(str(tmp_path / "run"), judge=str(twin), goal=goal or ()))
    scores = made.newest.record.scores
    assert len(scores) == 3
    for values in scores.values():
        np.testing.assert_allclose(values, scores["own"], rtol=0, atol=2e-6)


def played(step: int, own: list[float], truth: list[float], judge: list[float] | None) -> Policy:
    """Return a policy with one state an episode; success is a ground truth above 0.5."""
    count = len(own)
    scores = {"own": np.array(own)} | ({} if judge is None else {"judge": np.array(judge)})
    record = Record(
        episode=np.arange(count),
        step=np.ones(count, np.int64),
        scores=scores,
        truth=np.array(truth),
        success=np.array(truth) > 0.5,
        highest=(),
        lowest=(),
        wrong=(),
        missed=(),
    )
    episodes = tuple(
        Episode(1, value, real, real > 0.5, False) for value, real in zip(own, truth, strict=True)
    )
    return Policy(f"step {step}", step, Evaluation(episodes), record)


LOW, MIDDLE, HIGH = [0.1, 0.12, 0.08, 0.1], [0.4, 0.42, 0.38, 0.4], [0.9, 0.92, 0.88, 0.9]


@pytest.mark.parametrize(
    ("story", "judges", "flagged"),
    [
        # (own, truth) of each checkpoint.
        ([(LOW, LOW), (HIGH, HIGH)], None, []),
        ([(LOW, LOW), (HIGH, LOW)], None, [2]),
        ([(LOW, MIDDLE), (HIGH, LOW)], None, [2]),
        # Learning first and gaming the reward later is seen, although the truth rose overall.
        ([(LOW, LOW), (MIDDLE, MIDDLE), (HIGH, LOW)], None, [3]),
        # Noise hides a rise against the best checkpoint, not against the second.
        ([([0.2, 1.0, 0.1, 1.9], HIGH), (LOW, MIDDLE), (HIGH, LOW)], None, [3]),
        # The truth is as high as it can be: a reward that goes on rising is no sign.
        ([(LOW, HIGH), (HIGH, HIGH)], None, []),
        # Everything falls: a failed training, not a gamed reward.
        ([(HIGH, HIGH), (LOW, LOW)], None, []),
        # A judge that rises too speaks for the reward, one that does not speaks against it.
        ([(LOW, LOW), (HIGH, LOW)], [LOW, HIGH], []),
        ([(LOW, LOW), (HIGH, LOW)], [MIDDLE, LOW], [2]),
    ],
)
def test_a_reward_that_rises_alone_is_flagged(
    story: list[tuple[list[float], list[float]]],
    judges: list[list[float]] | None,
    flagged: list[int],
) -> None:
    policies = [
        played(index + 1, own, truth, None if judges is None else judges[index])
        for index, (own, truth) in enumerate(story)
    ]
    flags = find_hacking(policies)
    assert [flag.step for flag in flags] == flagged
    for flag in flags:
        assert flag.vlm_rise > 0
        assert flag.truth_falls == (flag.truth_change < 0)


def test_the_page_about_report_cards_quotes_the_rule() -> None:
    page = Path(__file__).parents[1] / "docs" / "report-card.md"
    assert RULE in " ".join(page.read_text().replace("\n> ", " ").split())


def test_a_rise_within_the_noise_is_not_flagged() -> None:
    before = played(1, [0.1, 0.5, 0.9, 0.3], LOW, None)
    after = played(2, [0.5, 0.2, 0.8, 0.6], LOW, None)
    assert after.record.scores["own"].mean() > before.record.scores["own"].mean()
    assert find_hacking([before, after]) == []


def test_a_truth_that_grew_within_the_noise_clears_the_reward() -> None:
    truth = [0.1, 0.5, 0.9, 0.3]
    better = [value + step for value, step in zip(truth, (0.5, -0.2, 0.1, 0.2), strict=True)]
    assert find_hacking([played(1, LOW, truth, None), played(2, HIGH, better, None)]) == []
    worse = [value - step for value, step in zip(truth, (0.5, -0.2, 0.1, 0.2), strict=True)]
    assert len(find_hacking([played(1, LOW, truth, None), played(2, HIGH, worse, None)])) == 1


def test_the_order_of_policies_tells_what_picking_by_reward_loses() -> None:
    policies = [
        played(1, LOW, MIDDLE, None),
        played(2, HIGH, LOW, None),
        played(3, MIDDLE, HIGH, None),
    ]
    ranking = rank_policies(policies)
    assert (ranking["picked"], ranking["best"]) == (2, 3)
    assert ranking["regret"] == pytest.approx(0.8)
    # Of three pairs, (1, 3) agrees and two do not.
    assert ranking["kendall"] == pytest.approx(-1 / 3)
    same = [played(1, LOW, LOW, None), played(2, HIGH, LOW, None)]
    assert rank_policies(same)["kendall"] is None


def test_value_order_is_one_for_a_reward_that_rises_all_the_way() -> None:
    steps = np.tile(np.arange(1, 6), 2)
    record = Record(
        episode=np.repeat([0, 1], 5),
        step=steps,
        scores={"own": np.concatenate([np.arange(5) ** 2.0, np.zeros(5)])},
        truth=-steps.astype(float),
        success=None,
        highest=(),
        lowest=(),
        wrong=(),
        missed=(),
    )
    own, truth = value_order(record)
    assert own["voc"]["mean"] == pytest.approx(1)
    assert (own["voc"]["count"], own["constant_episodes"]) == (1, 1)
    assert truth["voc"]["mean"] == pytest.approx(-1)
