import csv
import json
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import tiny_config

from vlmrm_fast import VLMReward, cli, clip
from vlmrm_fast.config import EvaluationConfig
from vlmrm_fast.errors import ArgumentError, UnknownNameError, VLMRMError
from vlmrm_fast.evaluation import lab_report
from vlmrm_fast.evaluation.candidates import ALPHAS, cross, parse_alphas, parse_camera
from vlmrm_fast.evaluation.lab import LabConfig, make_plan, run_lab, score_plan
from vlmrm_fast.evaluation.metrics import auc, epic_distance
from vlmrm_fast.evaluation.subjects import FileSubject
from vlmrm_fast.rendering import Camera
from vlmrm_fast.tasks import get_task
from vlmrm_fast.train import train

NONSENSE = ("a bowl of soup", "purple elephants dancing", "xyzzy")
GOAL, BASELINE = "a robot kneeling", "a robot"


@pytest.fixture
def config(tmp_path):
    return LabConfig(
        "cartpole-upright",
        goal=(("a pole", "a cart"), ("soup",)),
        alpha=(("0,0.5",),),
        num_states=60,
        out=str(tmp_path / "lab"),
    )


@pytest.fixture(scope="module")
def tiny_run(untrained_folder, tmp_path_factory):
    """A run whose policy lets the pole fall."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    film = EvaluationConfig(episodes=1, video_size=16)
    train(tiny_config(untrained_folder, folder, episode_length=150, steps=32, evaluation=film))
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Frames of the cart-pole with labels, in a file."""
    plan = make_plan(LabConfig("cartpole-upright", num_states=90))
    path = tmp_path_factory.mktemp("set") / "set.npz"
    frames = np.concatenate(list(plan.subject.frames(48, None)))
    np.savez(path, frames=frames, labels=plan.subject.goal)
    return path


@pytest.mark.parametrize("task", ["cartpole-upright", "humanoid-kneeling"])
def test_the_papers_prompt_ranks_above_nonsense_and_says_go(task):
    found = score_plan(make_plan(LabConfig(task, goal=(NONSENSE,), num_states=150)))
    own = [row for row in found.rows if row.reference]
    others = [row for row in found.rows if not row.reference]
    assert len(own) == len(ALPHAS)
    assert len(others) == len(ALPHAS) * len(NONSENSE)
    assert found.rows[: len(own)] == own
    assert max(row.epic for row in own) < 0.45 < min(row.epic for row in others)
    assert all(row.go for row in own)
    assert not any(row.go for row in others)


def test_figures_are_those_of_each_reward_computed_alone(config, untrained_folder, tmp_path):
    config = replace(config, model=((untrained_folder,),))
    plan = make_plan(config)
    found = score_plan(plan)
    reward = VLMReward(untrained_folder, goal="x")
    frames = np.concatenate(list(plan.subject.frames(reward.image_size, None)))
    assert len(found.rows) == 8
    for row in found.rows:
        rewards = reward.with_prompts(row.goal, row.baseline, row.alpha).score(frames)
        assert np.abs(found.rewards(row) - rewards).max() <= 1e-6
        ours, goal = found.rewards(row), plan.subject.goal
        assert row.epic == pytest.approx(epic_distance(ours, goal), abs=1e-9)
        assert row.auc == pytest.approx(auc(ours, goal), abs=1e-9)


def test_a_run_leaves_a_table_csv_json_and_a_page(config, capsys, tmp_path):
    code = run_lab(replace(config, goal=(("an upright pole",),), num_states=90))
    assert code == 0
    out = capsys.readouterr().out
    assert "task cartpole-upright: 90 states" in out
    assert "\nGO: " in out
    rows = list(csv.DictReader((tmp_path / "lab" / "lab.csv").open()))
    tree = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, 5)]
    assert [row["goal"] for row in rows] == [row["goal"] for row in tree["rows"]]
    epics = [float(row["epic"]) for row in rows]
    assert epics == sorted(epics)
    assert tree["go"] is True
    assert tree["groups"]["near miss"] > 0
    assert tree["settings"]["num_states"] == 90
    assert len(tree["models"]["builtin"]["weights_sha256"]) == 64
    page = (tmp_path / "lab" / "lab.html").read_text()
    assert page.count('src="data:image/png;base64,') == 1 + 2 * (1 + 4 * 6)
    assert "EPIC distance over alpha" in page


def test_no_go_is_an_exit_code_and_a_reason(config, capsys, tmp_path):
    config = replace(config, goal=(NONSENSE[:1],), reference=False, num_states=90)
    assert run_lab(replace(config, alpha=(("0",),))) == 1
    out = capsys.readouterr().out
    assert "NO GO: " in out
    assert "is above 0.45" in out


def test_frames_of_your_own_are_judged_by_their_labels(labelled, tmp_path, capsys):
    arguments = ["lab", str(labelled), "--goal", "an upright pole", "soup", "--alpha", "0"]
    assert cli.main([*arguments, "--out", str(tmp_path / "a")]) == 0
    tree = json.loads((tmp_path / "a" / "lab.json").read_text())
    assert [row["goal"] for row in tree["rows"]] == ["an upright pole", "soup"]
    assert tree["states"] == 90
    assert "labelled frames of set.npz: 90 states" in capsys.readouterr().out


def test_states_of_a_trained_policy_can_be_added(config, tmp_path):
    np.savez(tmp_path / "visited.npz", qpos=np.zeros((2, 5, 2)))
    plan = make_plan(replace(config, states=str(tmp_path / "visited.npz")))
    assert (plan.subject.groups == "trajectory").sum() == 10
    assert plan.subject.goal[-10:].all()


def test_states_that_a_run_visits_can_be_added(config, tiny_run):
    plan = make_plan(replace(config, run=str(tiny_run)))
    visited = plan.subject.groups == "trajectory"
    assert visited.sum() == 30
    # A policy that was hardly trained starts upright and falls.
    assert 0 < plan.subject.goal[visited].mean() < 1
    with pytest.raises(ArgumentError, match="run must be of the task 'humanoid-kneeling', got"):
        make_plan(replace(config, source="humanoid-kneeling", run=str(tiny_run)))
    with pytest.raises(VLMRMError, match=r"has no config\.yaml"):
        make_plan(replace(config, run="missing"))


def broken_folder(untrained_folder, folder):
    """A model whose weights are cut off."""
    shutil.copytree(untrained_folder, folder)
    weights = folder / clip.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:1000])
    return str(folder)


def test_a_model_that_fails_is_named_and_the_others_are_kept(
    config, untrained_folder, tmp_path, capsys
):
    broken = broken_folder(untrained_folder, tmp_path / "broken")
    config = replace(config, goal=(), alpha=(("0",),), model=((f"{broken},{untrained_folder}",),))
    run_lab(config)
    captured = capsys.readouterr()
    assert f"warning: {broken} is left out: " in captured.err
    tree = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert list(tree["failures"]) == [broken]
    assert {row["model"] for row in tree["rows"]} == {untrained_folder}
    assert "could not be used" in (tmp_path / "lab" / "lab.html").read_text()


def test_a_model_that_fails_last_is_in_the_file_too(config, untrained_folder, tmp_path):
    broken = broken_folder(untrained_folder, tmp_path / "broken")
    config = replace(config, goal=(), alpha=(("0",),), model=((untrained_folder, broken),))
    run_lab(config)
    tree = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert list(tree["failures"]) == [broken]
    assert {row["model"] for row in tree["rows"]} == {untrained_folder}


def test_a_folder_that_holds_no_model_is_left_out_of_several(config, untrained_folder, tmp_path):
    empty = str(tmp_path)
    found = score_plan(make_plan(replace(config, model=((empty, untrained_folder),))))
    assert "a folder that holds open_clip_config.json" in found.failures[empty]
    assert {row.model for row in found.rows} == {untrained_folder}
    with pytest.raises(VLMRMError, match=r"a folder that holds open_clip_config\.json"):
        make_plan(replace(config, model=((empty, str(tmp_path / "lab")),)))


def test_a_model_that_fits_into_no_memory_is_left_out_and_let_go(config, untrained_folder):
    plan = make_plan(replace(config, model=((untrained_folder, "builtin"),)))
    held = []

    def reward(model):
        made = VLMReward(untrained_folder, goal="x")
        if model == "builtin":
            return made
        held.append(weakref.ref(made))
        # More than the address space of a process.
        torch.empty(2**50, dtype=torch.uint8)
        return made

    found = score_plan(replace(plan, reward=reward))
    assert "the model of" in found.failures[untrained_folder]
    assert "must fit into memory, got: " in found.failures[untrained_folder]
    assert {row.model for row in found.rows} == {"builtin"}
    assert held[0]() is None


def test_results_so_far_are_kept_when_a_later_model_fails(config, untrained_folder, tmp_path):
    broken = broken_folder(untrained_folder, tmp_path / "broken")
    plan = make_plan(replace(config, model=((untrained_folder, broken),)))
    kept = []
    found = score_plan(plan, keep=kept.append)
    assert [len(each.rows) for each in kept] == [8]
    assert list(found.failures) == [broken]


def test_without_any_model_the_error_says_what_each_said(config, untrained_folder, tmp_path):
    broken = [broken_folder(untrained_folder, tmp_path / name) for name in ("one", "two")]
    with pytest.raises(VLMRMError, match=r"No model could be used\.\n.*one: .*\n.*two: "):
        score_plan(make_plan(replace(config, model=(tuple(broken),))))
    with pytest.raises(VLMRMError, match="cannot be read"):
        score_plan(make_plan(replace(config, model=((broken[0],),))))


def test_rewards_that_are_not_numbers_are_refused_by_name(config, untrained_folder, tmp_path):
    folder = tmp_path / "nan"
    shutil.copytree(untrained_folder, folder)
    model = clip.build_model(folder)
    with torch.no_grad():
        model.visual.conv1.weight[:] = torch.nan
    clip.save_model(model, folder)
    with pytest.raises(VLMRMError, match=r"finite|NaN"):
        score_plan(make_plan(replace(config, model=((str(folder),),))))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"goal": (("",),)}, "goal must be a non-empty prompt"),
        ({"goal": ((BASELINE,),), "baseline": ((BASELINE,),)}, "baseline must differ from goal"),
        ({"alpha": (("0,2",),)}, r"alpha must be a number in \[0, 1\], got '2'"),
        ({"camera": (("front",),)}, "camera must be one of side"),
        ({"camera": (("distance=near",),)}, "camera value distance must be a number"),
        ({"camera": (("distance=-1",),)}, r"distance must be finite and above 0, got -1\.0"),
        ({"camera": (("--5",),)}, "camera must be one of side, got '--5'"),
        ({"camera": (("\u00b2",),)}, "camera must be one of side, got"),
        ({"camera": (("track_body=--1",),)}, "track_body must be one of .*got '--1'"),
        ({"num_states": 0}, "num_states must be at least 1"),
        ({"num_states": 1}, "states must hold goal states and others, got 1 states with"),
        ({"sort": "epci"}, "sort must be one of auc, epic.*Did you mean 'epic'"),
        ({"source": "cartpole-upwards"}, "task must be one of .*Did you mean 'cartpole-upright'"),
        ({"model": (("builtin,ViT-B-33/openai",),)}, "model must be"),
        ({"states": "missing.npz"}, "states must be a NumPy file"),
        ({"source": "missing.npz", "goal": ((GOAL,),), "alpha": ()}, "must be a readable .npz"),
    ],
)
def test_bad_input_is_refused_before_any_work(config, change, text):
    with pytest.raises(ArgumentError, match=text):
        make_plan(replace(config, **change))


@pytest.mark.parametrize(
    ("states", "text"),
    [
        (np.array(3.0), r"states must be \(N, d\) numbers, got \(\) float64"),
        (np.zeros((2, 3, 0)), r"states must be \(N, 2\) numbers, got \(6, 0\)"),
        (np.array([["a", "b"]]), r"states must be \(N, d\) numbers, got \(1, 2\) <U1"),
    ],
)
def test_states_of_a_wrong_shape_are_refused(config, tmp_path, states, text):
    np.savez(tmp_path / "states.npz", qpos=states)
    with pytest.raises(ArgumentError, match=text):
        make_plan(replace(config, states=str(tmp_path / "states.npz")))


def test_states_of_a_file_that_was_cut_off_are_refused(config, tmp_path):
    np.savez(tmp_path / "states.npz", qpos=np.zeros((50, 2)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "states.npz").read_bytes()[:-90])
    with pytest.raises(ArgumentError, match="states must be a NumPy file, got "):
        make_plan(replace(config, states=str(tmp_path / "cut.npz")))


def test_the_page_reads_a_file_of_frames_once(labelled, untrained_folder, tmp_path):
    goals = ("one", "two", "three", "four")
    config = LabConfig(str(labelled), goal=(goals,), model=((untrained_folder,),))
    result, read = score_plan(make_plan(config)), []
    subject = result.plan.subject

    class Counted(FileSubject):
        def frames(self, size, camera):
            read.append(size)
            return subject.frames(size, camera)

    counted = replace(result.plan, subject=Counted(labelled))
    page = lab_report.write_page(tmp_path, replace(result, plan=counted))
    assert page.read_text().count('src="data:image/png;base64,') == 3 * (1 + 4 * 6)
    assert len(read) == 1


def test_strengths_above_zero_need_a_baseline_and_files_need_a_goal(labelled):
    own = LabConfig(str(labelled), goal=((GOAL,),), alpha=(("0.5",),))
    with pytest.raises(ArgumentError, match=r"baseline must be given where alpha is above 0"):
        make_plan(own)
    with pytest.raises(ArgumentError, match=r"goal must be given, got none"):
        make_plan(replace(own, goal=(), alpha=()))
    with pytest.raises(ArgumentError, match="camera must be left out where frames are given"):
        make_plan(replace(own, alpha=(), camera=(("side",),)))


def test_a_prompt_too_long_for_the_model_is_refused_before_its_weights_load(config):
    plan = make_plan(replace(config, goal=(("kneeling " * 100,),)))
    with pytest.raises(ArgumentError, match=r"prompt must be at most 32 tokens long, got 202"):
        plan.reward("builtin")


def test_combinations_come_once_with_the_tasks_own_first():
    found = cross(["a", "own", "a"], ["b", "c"], [0.0, 0.5], ("own", "b"))
    assert [(each.goal, each.baseline, each.alpha) for each in found] == [
        ("own", None, 0.0), ("own", "b", 0.5), ("own", "c", 0.5),
        ("a", None, 0.0), ("a", "b", 0.5), ("a", "c", 0.5),
    ]  # fmt: skip
    assert [each.reference for each in found] == [True] * 3 + [False] * 3
    alone = cross(["a"], [], [0.0], ("own", None))
    assert [(each.goal, each.reference) for each in alone] == [("own", True), ("a", False)]


def test_alphas_are_read_from_lists_and_several_words():
    assert parse_alphas(["0, 0.5", "1", "0.5"], True) == (0.0, 0.5, 1.0)
    assert parse_alphas([], True) == ALPHAS
    assert parse_alphas([], False) == (0.0,)
    with pytest.raises(ArgumentError, match="got 'nan'"):
        parse_alphas(["nan"], True)


def test_cameras_are_read_from_words():
    view = get_task("humanoid-kneeling").view
    assert parse_camera("task") is None
    assert parse_camera("side") == "side"
    assert parse_camera("-1") == -1
    assert parse_camera("azimuth=90, lookat=0/0/0.5", view) == Camera(
        lookat=(0.0, 0.0, 0.5), distance=3.5, azimuth=90.0, elevation=-10.0
    )
    assert parse_camera("track_body=torso").track_body == "torso"
    with pytest.raises(UnknownNameError, match="Did you mean 'azimuth'"):
        parse_camera("azimut=90")
    with pytest.raises(ArgumentError, match="lookat must be three numbers such as 0/0/1, got '1'"):
        parse_camera("lookat=1")


def test_help_lists_the_lab(capsys):
    assert cli.main([]) == 0
    assert "lab TASK" in capsys.readouterr().out
