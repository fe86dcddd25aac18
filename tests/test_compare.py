"""Runs side by side: grouping, curves, intervals, and runs that are not whole."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_config

from vlmrm_fast import train as training
from vlmrm_fast.cli import main
from vlmrm_fast.config import EvaluationConfig, RewardConfig
from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.evaluation.compare import compare_runs
from vlmrm_fast.run_folder import read_metrics


@pytest.fixture(scope="module")
def runs(tiny_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs a0, a1 (two seeds) and b0 (another goal); not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    evaluation = EvaluationConfig(episodes=2, video=False)
    other = RewardConfig(model=tiny_folder, goal=("a pole lying down",))
    for name, seed, reward in (
        ("a0", 0, RewardConfig(model=tiny_folder)),
        ("a1", 1, RewardConfig(model=tiny_folder)),
        ("b0", 0, other),
    ):
        changes = {"seed": seed, "reward": reward, "steps": 96, "evaluation": evaluation}
        training.train(tiny_config(tiny_folder, folder / name, **changes))
    assert main(["eval", str(folder / "a0"), "--episodes", "2", "--labelled-states", "30"]) == 0
    return folder


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    """Return a copy of the runs that a test may change."""
    return Path(shutil.copytree(runs, tmp_path / "runs"))


def test_seeds_of_one_configuration_are_a_group_and_differences_are_named(runs: Path) -> None:
    groups = compare_runs([runs / "a1", runs / "b0", runs / "a0"])
    assert [[run.folder.name for run in group.runs] for group in groups] == [["a0", "a1"], ["b0"]]
    assert [group.settings for group in groups] == [
        {"reward.goal": ["pole vertically upright on top of the cart"]},
        {"reward.goal": ["a pole lying down"]},
    ]
    assert groups[1].label == "B: goal=a pole lying down"


def test_a_field_that_an_older_version_did_not_write_is_no_difference(copied: Path) -> None:
    path = copied / "a0" / "config.yaml"
    text = path.read_text()
    assert "  textures: original\n" in text
    path.write_text(text.replace("  textures: original\n", ""))
    assert len(compare_runs([copied / "a0", copied / "a1"])) == 1


def test_a_curve_is_the_mean_of_the_runs_with_students_interval(runs: Path) -> None:
    group = compare_runs([runs / "a0", runs / "a1"])[0]
    curve = group.curves["vlm_reward_mean"]
    rows = [read_metrics(runs / name / "metrics.csv") for name in ("a0", "a1")]
    assert curve["steps"][0] == rows[0][0]["step"]
    for end in (0, -1):
        values = [row[end]["vlm_reward_mean"] for row in rows]
        assert curve["mean"][end] == pytest.approx(np.mean(values))
        # Of two runs: 12.706 standard errors, which are half of their difference.
        half = 12.7062 * abs(values[0] - values[1]) / 2
        assert curve["high"][end] - curve["mean"][end] == pytest.approx(half, rel=1e-4)
    assert set(curve["runs"]) == {2}


def test_final_figures_come_from_summaries_and_report_cards(runs: Path) -> None:
    group = compare_runs([runs / "a0", runs / "a1"])[0]
    summaries = [json.loads((runs / name / "summary.json").read_text()) for name in ("a0", "a1")]
    found = group.figures["ground_truth_return"]
    assert found is not None
    assert found["mean"] == pytest.approx(np.mean([s["ground_truth_return"] for s in summaries]))
    assert found["count"] == 2
    solved = group.figures["solved"]
    assert solved is not None
    assert solved["count"] == sum(s["episodes"] for s in summaries) == 4
    # Only one of them was evaluated.
    report = json.loads((runs / "a0" / "report.json").read_text())
    epic = next(r["epic"] for r in report["state_measures"] if r["states"] == "all policies")
    assert (group.figures["epic"] or {"mean": None})["mean"] == epic


def test_the_command_writes_page_json_and_csv(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(runs / name) for name in ("a0", "a1", "b0")]
    assert main(["compare", *folders, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "B: goal=a pole" in text
    assert "ground-truth return" in text
    with (tmp_path / "out" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["seed"]) for row in rows] == [("A", "0"), ("A", "1"), ("B", "0")]
    with (tmp_path / "out" / "curves.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    assert {row["group"] for row in points} == {"A", "B"}
    assert {row["low"] for row in points if row["group"] == "B"} == {""}
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert content["groups"][1]["settings"] == {"reward.goal": ["a pole lying down"]}
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "data:image/png" in page
    assert "a pole lying down" in page
    assert "<script" not in page


def test_an_unfinished_run_takes_part_with_what_it_has_and_is_named(copied: Path) -> None:
    run = copied / "a1"
    (run / "summary.json").unlink()
    lines = (run / "metrics.csv").read_text().splitlines()
    (run / "metrics.csv").write_text("\n".join(lines[:3]) + "\n")
    group = compare_runs([copied / "a0", run])[0]
    assert f"A, {run}: The run is not finished: 64 of 96 steps; no final evaluation." in group.notes
    counts = group.curves["vlm_reward_mean"]["runs"]
    assert (counts[0], counts[-1]) == (2, 1)
    assert (group.figures["ground_truth_return"] or {})["count"] == 1


def test_a_run_that_was_evaluated_before_its_end_is_not_called_finished(copied: Path) -> None:
    path = copied / "a1" / "config.yaml"
    path.write_text(path.read_text().replace("steps: 96\n", "steps: 960\n", 1))
    group = compare_runs([copied / "a1"])[0]
    assert not group.runs[0].finished
    assert "96 of 960 steps; its evaluation is of that step." in group.notes[0]
    assert group.figures["ground_truth_return"] is not None


def test_broken_files_cost_their_part_only(copied: Path) -> None:
    (copied / "a1" / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    (copied / "b0" / "summary.json").write_text("{")
    (copied / "a0" / "report.json").write_text("[1]")
    groups = compare_runs([copied / name for name in ("a0", "a1", "b0")])
    notes = " ".join(note for group in groups for note in group.notes)
    assert "metrics.csv cannot be read, so there is no learning curve" in notes
    assert "summary.json cannot be read" in notes
    assert "report.json cannot be read: got list" in notes
    assert set(groups[0].curves["vlm_reward_mean"]["runs"]) == {1}
    assert groups[1].figures["ground_truth_return"] is None


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"vlm_reward_mean": float("nan")}, "damaged, vlm_reward_mean is nan; these are left out."),
        ({"success_rate": "x"}, "damaged, success_rate is 'x'; these are left out."),
        ({"success_rate": 7.0}, "damaged, success_rate is 7.0; these are left out."),
        ({"seconds": 10**400}, "damaged, seconds is 1000"),
        ({"episodes": None}, "damaged, episodes is None; it is left out."),
        ({"steps": float("inf"), "seconds": []}, "damaged, steps is inf, seconds is []; it is"),
    ],
)
def test_figures_of_a_summary_that_are_no_numbers_cost_themselves_only(
    copied: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], note: str
) -> None:
    path = copied / "a1" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    folders = [str(copied / name) for name in ("a0", "a1")]
    group = compare_runs(folders)[0]
    assert any(f"{copied / 'a1'}: summary.json is {note}" in text for text in group.notes)
    counts = {name: (figure or {}).get("count") for name, figure in group.figures.items()}
    whole = 1 if "it is" in note else 2
    assert counts["ground_truth_return"] == whole
    assert counts["seconds"] == (1 if "seconds" in changes else whole)
    assert counts["solved"] == (4 if whole == 2 and "success_rate" not in changes else 2)
    assert main(["compare", *folders, "--out", str(copied / "out")]) == 0
    assert "cannot be made" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"state_measures": None},
        {"state_measures": ["a"]},
        {"ranking": "x"},
        {"ranking": {"own": [1]}},
        {"ranking": {"own": {"kendall": "x"}}},
        {"state_measures": [{"reward": "own", "states": "all policies", "epic": "x", "auc": 1}]},
        {"state_measures": [{"reward": "own", "states": "new", "epic": 1, "auc": float("nan")}]},
    ],
)
def test_a_report_card_with_other_things_than_numbers_costs_these_only(
    copied: Path, changes: dict[str, Any]
) -> None:
    path = copied / "a0" / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    group = compare_runs([copied / "a0", copied / "a1"])[0]
    assert any(f"{copied / 'a0'}: report.json is damaged, " in note for note in group.notes)
    assert (group.figures["ground_truth_return"] or {})["count"] == 2


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        ({0: "nan"}, "damaged rows, left out of the curve: 1."),
        ({0: "inf"}, "damaged rows, left out of the curve: 1."),
        ({0: "abc"}, "damaged rows, left out of the curve: 1."),
        ({3: "0,1,2"}, "damaged rows, left out of the curve: 1."),
        ({5: "nan"}, "numbers that are not finite, left out of the curve: 1."),
        ({5: "-inf", 7: "nan"}, "numbers that are not finite, left out of the curve: 2."),
    ],
)
def test_damaged_rows_of_metrics_cost_themselves_and_are_counted(
    copied: Path, capsys: pytest.CaptureFixture[str], cells: dict[int, str], note: str
) -> None:
    path = copied / "a0" / "metrics.csv"
    lines = path.read_text().splitlines()
    row = lines[2].split(",")
    for column, text in cells.items():
        row[column] = text
    path.write_text("\n".join([*lines[:2], ",".join(row), *lines[3:]]) + "\n")
    group = compare_runs([copied / "a0"])[0]
    text = f"A, {copied / 'a0'}: metrics.csv: {note}"
    assert text in group.notes
    curve = group.curves["vlm_reward_mean"]
    assert (curve["steps"][0], curve["steps"][-1]) == (32, 96)
    assert np.isfinite(curve["mean"]).all()
    assert main(["compare", str(copied / "a0"), "--out", str(copied / "out")]) == 0
    assert "cannot be made" not in capsys.readouterr().err


def test_runs_without_any_rows_are_compared_by_their_results(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "b0" / "metrics.csv").unlink()
    out = str(copied / "out")
    assert main(["compare", str(copied / "b0"), "--out", out]) == 0
    assert "metrics.csv has no rows" in " ".join(capsys.readouterr().out.split())
    assert (copied / "out" / "compare.html").is_file()


def test_runs_of_several_tasks_are_shown_apart_and_said_to_be(copied: Path) -> None:
    path = copied / "b0" / "config.yaml"
    path.write_text(path.read_text().replace("cartpole-upright", "humanoid-kneeling"))
    out = copied / "out"
    assert main(["compare", str(copied / "a0"), str(copied / "b0"), "--out", str(out)]) == 0
    page = (out / "compare.html").read_text()
    assert "Learning curves, cartpole-upright" in page
    assert "Learning curves, humanoid-kneeling" in page
    assert "The runs are of 2 tasks" in page


def test_what_is_no_run_or_given_twice_is_one_clear_error(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run must be a run folder .* no config\.yaml"):
        compare_runs([runs / "a0", tmp_path])
    with pytest.raises(CheckpointError, match="must be a run folder, got a checkpoint"):
        compare_runs([next((runs / "a0" / "checkpoints").glob("*-step-96"))])
    with pytest.raises(ArgumentError, match="runs must differ"):
        compare_runs([runs / "a0", runs / "b0" / ".." / "a0"])
    with pytest.raises(ArgumentError, match="runs must name at least one run folder"):
        compare_runs([])
    (tmp_path / "file").write_text("")
    assert main(["compare", str(runs / "a0"), "--out", str(tmp_path / "file")]) == 2


def test_a_report_card_of_an_earlier_step_is_left_out(copied: Path) -> None:
    path = copied / "a0" / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 64}))
    group = compare_runs([copied / "a0"])[0]
    assert any("report.json is of step 64 and left out" in note for note in group.notes)
    assert group.figures["epic"] is None


def test_a_seed_that_occurs_twice_is_said(copied: Path) -> None:
    shutil.copytree(copied / "a0", copied / "again")
    group = compare_runs([copied / "a0", copied / "again"])[0]
    assert any("seed 0 occurs 2 times" in note for note in group.notes)
