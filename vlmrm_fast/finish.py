"""What follows training: evaluation, summary, film and plots."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast import run_folder
from vlmrm_fast.config import TrainConfig
from vlmrm_fast.evaluate import EVALUATION_SEED, MAX_ENVS, Evaluation, Watch, evaluate
from vlmrm_fast.film import Film, film_gym, film_task

# Without a time limit of its own, an environment's evaluation ends after this many steps.
_MAX_EPISODE_STEPS = 1000


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Attributes:
        run_dir: the run folder.
        summary: the content of summary.json.
        evaluation: the final evaluation.
    """

    run_dir: Path
    summary: dict[str, Any]
    evaluation: Evaluation


def finish(
    config: TrainConfig,
    folder: Path,
    model: Any,
    reward: Any,
    metrics: Any,
    watch: Watch | None = None,
) -> RunResult:
    """Evaluate, film, plot and write the summary.

    Args:
        config: a resolved configuration.
        folder: the run folder; summary.json, video and plots are written there.
        model: the trained algorithm.
        reward: what scores the frames.
        metrics: the `MetricsCallback` of the training.
        watch: sees each evaluation step; see `evaluate`.

    Returns:
        The result.
    """
    predict = deterministic(model)
    result = play(config, reward, predict, watch)
    # Before the pictures, which may fail: the numbers cost a whole training run.
    summary = _summary(config, folder, model, metrics, result, reward)
    run_folder.write_json(folder / "summary.json", summary)
    film = Film()
    if config.evaluation.video:
        from vlmrm_fast.sb3.building import is_native

        make = film_task if is_native(config) else film_gym
        with run_folder.spared("the film"):
            film = make(config, reward, predict, EVALUATION_SEED + config.seed)
    _leave_pictures(folder, config, film)
    return RunResult(run_dir=folder, summary=summary, evaluation=result)


def deterministic(model: Any) -> Callable[[Any], np.ndarray]:
    """Return a policy without its exploration.

    Args:
        model: a Stable-Baselines3 algorithm; later changes of its weights are followed.

    Returns:
        Observations (N, ...) to actions (N, ...).
    """

    def predict(observation: Any) -> np.ndarray:
        return model.predict(observation, deterministic=True)[0]

    return predict


def play(
    config: TrainConfig,
    reward: Any,
    predict: Callable[[Any], np.ndarray],
    watch: Watch | None = None,
) -> Evaluation:
    """Play a run's evaluation episodes: each policy gets the same start states.

    Args:
        config: a resolved configuration.
        reward: what scores the frames.
        predict: observations to actions.
        watch: see `evaluate`.

    Returns:
        The episodes.
    """
    from vlmrm_fast.sb3.building import build_env

    episodes = config.evaluation.episodes
    count = min(episodes, MAX_ENVS)
    env = build_env(config, reward, num_envs=count, seed=EVALUATION_SEED + config.seed)
    limit = (config.episode_length or _MAX_EPISODE_STEPS) * episodes
    try:
        return evaluate(predict, env, episodes, max_steps=limit, watch=watch)
    finally:
        env.close()


def _leave_pictures(folder: Path, config: TrainConfig, film: Film) -> None:
    """Write video, first and last frame and plots; a failure costs that file, not the run."""
    goal = ", ".join(config.reward.goal or ())
    if film.frames:
        with run_folder.spared("the video"):
            from vlmrm_fast import video

            video.save_png(folder / "first_frame.png", film.frames[0])
            video.save_png(folder / "last_frame.png", film.frames[-1])
            drawn = video.draw_rewards(film.frames, film.rewards, goal)
            video.write_video(folder / "video.mp4", drawn, film.fps)
    with run_folder.spared("the plot"):
        from vlmrm_fast import report

        rows = run_folder.read_metrics(folder / "metrics.csv")
        report.plot_run(folder / "reward.png", rows, film.rewards[1:], title=goal)


def _summary(
    config: TrainConfig,
    folder: Path,
    model: Any,
    metrics: Any,
    result: Evaluation,
    reward: Any,
) -> dict[str, Any]:
    """Return the content of summary.json."""
    seconds = max(metrics.seconds, 1e-9)
    known = {name: value for name, value in metrics.stage_seconds.items() if value > 0}
    return {
        "task": config.task or config.env,
        "goal": ", ".join(config.reward.goal or ()),
        "model": config.reward.model,
        "weights_sha256": reward.describe().get("weights_sha256"),
        "algorithm": config.algorithm.algorithm,
        "seed": config.seed,
        "steps": model.num_timesteps,
        "seconds": metrics.seconds,
        "steps_per_second": model.num_timesteps / seconds,
        "time_shares": {name: value / seconds for name, value in known.items()},
        "vlm_reward_mean": result.vlm_reward_mean,
        "ground_truth_return": result.ground_truth_return,
        "success_rate": result.success_rate,
        "episodes": len(result.episodes),
        "episode_results": [dataclasses.asdict(episode) for episode in result.episodes],
        "training_episodes": metrics.counts["episodes"],
        "diverged_episodes": metrics.counts["diverged"],
        "run_dir": str(folder),
    }
