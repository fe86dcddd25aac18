"""What an evaluation's recorder keeps where physics break down."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_config

from vlmrm_fast import train as training
from vlmrm_fast.cli import main
from vlmrm_fast.config import EvaluationConfig, RewardConfig
from vlmrm_fast.evaluate import Episode, Evaluation
from vlmrm_fast.evaluation.policies import find_hacking, policy_row, rank_policies, value_order
from vlmrm_fast.evaluation.recording import Policy, Recorder


def recorded(step: int, own: list[float], truth: list[float], broken: set[int]) -> Policy:
    """Return a policy with two-step episodes of one world each; `broken` ones have no states."""
    recorder = Recorder()
    count = len(own)
    env = SimpleNamespace(camera_frames=np.zeros((1, count, 2, 2, 3), np.uint8))
    playing = np.ones(count, bool)
    for last in (False, True):
        infos = [
            {
                "vlm_reward": own[i] / 2,
                "env_reward": truth[i] / 2,
                "success": False,
                "diverged": i in broken,
            }
            for i in range(count)
        ]
        ended = np.array([last != (i in broken) for i in range(count)])
        recorder(env, infos, playing, ended & playing)
        playing = playing & ~ended
    episodes = tuple(
        Episode(2, own[i] / 2, truth[i], success=False, diverged=i in broken) for i in range(count)
    )
    return Policy(f"step {step}", step, Evaluation(episodes), recorder.record())


def test_an_episode_that_breaks_down_at_once_keeps_its_number() -> None:
    policy = recorded(1, [1, 2, 3], [4, 5, 6], {1})
    assert policy.record.episode.tolist() == [0, 0, 2, 2]
    assert policy.record.num_episodes == 3
    np.testing.assert_array_equal(policy.record.returns(policy.record.truth), [4, np.nan, 6])
    assert [moment.episode for moment in policy.record.highest] == [2, 0]
    row = policy_row(policy)
    assert (row["ground_truth_return"]["mean"], row["ground_truth_return"]["count"]) == (5, 2)
    assert row["diverged"] == 1


def test_returns_are_paired_by_start_state_where_an_episode_has_no_states() -> None:
    # Start states differ by far more than the policies do: only pairs show the rise.
    before = recorded(1, [0, 10, 20, 30], [30, 20, 10, 0], {0})
    after = recorded(2, [1, 11, 21, 31], [29, 19, 9, -1], set())
    flag = find_hacking([before, after])[0]
    assert (flag.vlm_rise, flag.truth_change) == (pytest.approx(1), pytest.approx(-1))


def test_a_policy_without_any_states_is_left_out() -> None:
    nothing, some = recorded(1, [1, 2], [1, 2], {0, 1}), recorded(2, [1, 2], [1, 2], set())
    assert policy_row(nothing)["returns"] == {"own": None}
    assert policy_row(nothing)["ground_truth_return"] is None
    assert rank_policies([nothing, some])["policies"] == 1
    assert rank_policies([nothing])["picked"] is None
    assert find_hacking([nothing, some]) == []
    assert find_hacking([some, nothing, some]) == []
    assert value_order(nothing.record)[0]["voc"] is None


def test_a_run_whose_every_episode_breaks_down_gets_its_report_card(
    tiny_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = {"steps": 64, "evaluation": EvaluationConfig(2, video=False)}
    reward = RewardConfig(tiny_folder)
    run = tmp_path / "run"
    training.train(tiny_config(tiny_folder, run, reward=reward, **changes))
    call = Recorder.__call__

    def diverging(self: Any, env: Any, infos: Any, *rest: Any) -> None:
        call(self, env, [{**info, "diverged": True} for info in infos], *rest)

    monkeypatch.setattr(Recorder, "__call__", diverging)
    goals = ["--goal", "a pole", "--labelled-states", "20"]
    assert main(["eval", str(run), *goals]) == 0
    assert "cannot be made" not in capsys.readouterr().err
    report = json.loads((run / "report.json").read_text())
    assert "there are no states of its to measure" in report["notes"][0]
    assert report["newest"]["returns"] == {"own": None, "a pole": None}
    assert (run / "report.html").is_file()
