"""Evaluation, progress and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from PIL import Image
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmrm_fast import progress as progress_module
from vlmrm_fast.evaluate import evaluate
from vlmrm_fast.progress import Progress, describe
from vlmrm_fast.report import plot_run, summary_table

ROW = {
    "step": 200,
    "steps_per_second": 412.3,
    "vlm_reward_mean": 0.5123,
    "success_rate": 0.8,
    "share_simulate": 0.05,
    "share_draw": 0.3,
    "share_encode": 0.4,
    "share_learn": 0.2,
}


def cartpoles(count: int) -> DummyVecEnv:
    return DummyVecEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(count)])


@pytest.mark.parametrize(("count", "episodes"), [(1, 3), (3, 3), (4, 6), (3, 2)])
def test_exactly_as_many_episodes_are_played_as_asked(count: int, episodes: int) -> None:
    def push_left(observation: Any) -> np.ndarray:
        return np.zeros(len(observation), dtype=int)

    result = evaluate(push_left, cartpoles(count), episodes)
    assert len(result.episodes) == episodes
    assert result.success_rate is None
    for episode in result.episodes:
        # Pushing one way drops the pole within eight to eleven steps.
        assert 8 <= episode.length <= 11
        assert episode.vlm_reward_mean == 1
    assert result.vlm_reward_mean == 1


def test_an_evaluation_without_an_end_is_cut_off() -> None:
    env = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1", max_episode_steps=10**6)])
    result = evaluate(lambda observation: np.zeros((1, 1), np.float32), env, 1, max_steps=7)
    assert [episode.length for episode in result.episodes] == [7]


def test_a_row_is_one_short_line() -> None:
    text = "412 steps/s (sim 5% draw 30% encode 40% learn 20%)  VLM 0.512  success 80%"
    assert describe(ROW) == text
    assert describe({}) == ""


def test_plain_progress_is_lines_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "PLAIN_INTERVAL_SECONDS", 0.0)
    with Progress(400, "auto") as progress:
        progress.tick(200, 0.1, {})
        progress.tick(300, 0.1, ROW)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("200/400 (50%), 0:00 left  VLM 0.100")
    assert "draw 30%" in lines[1]


def test_a_bar_shows_and_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(400, "bar", start=100) as progress:
        progress.note("hello [world]")
        progress._last = 0.0
        progress.tick(200, 0.1, ROW)
    text = capsys.readouterr().err
    assert "hello [world]" in text
    assert "200/400" in text


def test_progress_that_is_off_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(400, "off") as progress:
        progress.note("hello")
        progress.tick(200, 0.1, ROW)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize("rows", [[], [ROW], [ROW, {"step": 300, "ground_truth_return": 3.0}]])
def test_plots_take_any_number_of_rows(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    path = plot_run(tmp_path / "a.png", rows, [0.1, 0.2] if rows else [], "a goal")
    assert Image.open(path).size[0] > 1000


def test_the_final_table_tells_the_result() -> None:
    from rich.console import Console

    summary = {
        "task": "cartpole-upright",
        "steps": 60_000,
        "seconds": 100.0,
        "steps_per_second": 600.0,
        "success_rate": 0.9,
        "episodes": 10,
        "vlm_reward_mean": 0.5,
    }
    console = Console(width=100)
    with console.capture() as capture:
        console.print(summary_table(summary))
    for word in ("60,000", "90% (9 of 10 episodes)", "0.500"):
        assert word in capture.get()
