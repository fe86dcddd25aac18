"""`vlmrm-fast eval`: a run's report card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import run_folder
from vlmrm_fast.config import TrainConfig
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluate import EVALUATION_SEED
from vlmrm_fast.evaluation.card_parts import (
    build_judge,
    labelled_measures,
    other_checkpoints,
    random_actions,
)
from vlmrm_fast.evaluation.policies import (
    RULE,
    find_hacking,
    policy_row,
    pooled,
    rank_policies,
    state_measures,
    value_order,
)
from vlmrm_fast.evaluation.recording import JUDGE, OWN, Policy, Recorder, SeveralGoals
from vlmrm_fast.evaluation.runs import read_curve
from vlmrm_fast.finish import RunResult, deterministic, finish, play
from vlmrm_fast.gl_order import load_triton
from vlmrm_fast.prompts import check_prompts
from vlmrm_fast.train import build_model, run_of

# Below this many policies a rank correlation is mostly luck: of 4 random orders, one in 12 has
# |tau| = 1.
_FEW_POLICIES = 5


@dataclass(frozen=True)
class CardConfig:
    """Which run to evaluate, and how closely.

    Attributes:
        run: run folder, or one of its checkpoints.
        episodes: evaluation episodes of each policy. None: as many as the run's configuration says.
        judge: a second model, which scores the same frames for the same prompts and was not
            trained on; for the check against reward hacking.
        goal: further sentences, measured on the same states; each frame is still encoded once.
        checkpoints: evaluate at most so many, evenly spread, the newest included. None: all kept.
        labelled_states: posed states and states under random actions, with their ground truth, to
            measure the reward on; 0 for none. Tasks without posed states have none.
        random_policy: whether to play random actions too, for comparison.
        device: of policy and models. None: the run's.
    """

    run: tyro.conf.Positional[str]
    episodes: int | None = None
    judge: str | None = None
    goal: tuple[str, ...] = ()
    checkpoints: int | None = None
    labelled_states: int = 200
    random_policy: bool = True
    device: str | None = None


@dataclass(frozen=True)
class Card:
    """A run's report card.

    Attributes:
        result: the evaluation of the newest checkpoint, and the folder.
        report: the content of report.json.
        policies: checkpoints in the order of training.
        random: the policy of random actions, or None.
        config: the run's configuration.
        curve: rows of the metrics.
    """

    result: RunResult
    report: dict[str, Any]
    policies: list[Policy]
    random: Policy | None
    config: TrainConfig
    curve: list[dict[str, float]]

    @property
    def newest(self) -> Policy:
        """The policy that the card is about."""
        return next(p for p in self.policies if p.step == self.report["steps"])


def run_eval(config: CardConfig) -> int:
    """Make a report card, write report.json and report.html, and print the tables.

    Args:
        config: what to evaluate.

    Returns:
        The exit code 0.

    Raises:
        ArgumentError: an option cannot be used.
        CheckpointError: the folder holds no run, or no checkpoint that can be read.
    """
    from rich.console import Console

    from vlmrm_fast.evaluation.card_page import card_table, write_page
    from vlmrm_fast.report import summary_table

    card = make_card(config)
    folder = card.result.run_dir
    run_folder.write_json(folder / "report.json", card.report)
    written = [folder / "report.json"]
    with run_folder.spared("the report page"):
        written.append(write_page(card, folder / "report.html"))
    console = Console()
    console.print(summary_table(card.result.summary))
    console.print(card_table(card.report))
    line = f"Wrote {', '.join(map(str, written))}."
    console.print(line, markup=False, highlight=False)
    return 0


def make_card(config: CardConfig) -> Card:
    """Evaluate a run's checkpoints; film the newest one.

    Writes summary.json, the video and the plots of the run folder anew, and nothing else.

    Args:
        config: what to evaluate.

    Returns:
        The card.

    Raises:
        ArgumentError: an option cannot be used; raised before any work.
        CheckpointError: the folder holds no run, or no checkpoint that can be read.
    """
    load_triton()
    from vlmrm_fast.sb3.building import build_env, build_reward
    from vlmrm_fast.sb3.state import restore_networks

    settings = _settings(config)
    found = checkpoints.load(config.run)
    _check_writeable(run_of(found))
    reward = build_reward(settings)
    judge = build_judge(config.judge, settings, reward.image_size)
    goals = SeveralGoals(reward, config.goal) if config.goal else None
    stage = _Stage(settings, goals or reward, judge)
    changed = run_folder.other_reward(run_of(found), reward.describe())
    notes = [f"{changed} Its rewards here are not those that it learned from."] if changed else []
    env = build_env(settings, reward, num_envs=1)
    try:
        model, metrics = _restore(settings, env, found)
        recorder = stage.recorder()
        result = finish(settings, run_of(found), model, stage.reward, metrics, recorder)
        newest = Policy(f"step {found.step}", found.step, result.evaluation, recorder.record())
        policies = [newest]
        for other in other_checkpoints(found, config.checkpoints, notes):
            restore_networks(model, other)
            predict = deterministic(model)
            policies.append(stage.play(f"step {other.step}", other.step, predict))
        random = None
        if config.random_policy:
            predict = random_actions(model.action_space, EVALUATION_SEED + settings.seed)
            random = stage.play("random actions", None, predict)
    finally:
        env.close()
    policies.sort(key=lambda policy: policy.step or 0)
    labelled = labelled_measures(settings, config.labelled_states, stage.reward, judge)
    curve = read_curve(result.run_dir, notes)
    report = _report(config, settings, result, newest, policies, random, labelled, notes)
    return Card(result, report, policies, random, settings, curve)


def _check_writeable(folder: Path) -> None:
    """Refuse a folder that takes no results, before minutes of work."""
    probe = folder / ".write-test"
    try:
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        raise ArgumentError(
            f"run must be a folder that can be written, got {folder}: {error}. Copy it to where "
            "you may write."
        ) from error


def _restore(settings: TrainConfig, env: Any, found: checkpoints.Checkpoint) -> tuple[Any, Any]:
    """Return the algorithm and the metrics of a checkpoint."""
    from vlmrm_fast.sb3.callbacks import MetricsCallback
    from vlmrm_fast.sb3.state import restore_networks

    model = build_model(settings, env)
    restore_networks(model, found)
    model.num_timesteps = found.step
    metrics = MetricsCallback(1, lambda row: None)
    metrics.set_state(found.state["extra"]["metrics"])
    return model, metrics


@dataclass(frozen=True)
class _Stage:
    """Where one policy after the other plays: the same start states, the same judges."""

    settings: TrainConfig
    reward: Any
    judge: Any

    def recorder(self) -> Recorder:
        goals = self.reward if isinstance(self.reward, SeveralGoals) else None
        return Recorder(self.judge, goals, self.settings.camera.camera_reduce)

    def play(self, name: str, step: int | None, predict: Callable[[Any], np.ndarray]) -> Policy:
        recorder = self.recorder()
        played = play(self.settings, self.reward, predict, recorder)
        return Policy(name, step, played, recorder.record())


def _settings(config: CardConfig) -> TrainConfig:
    """Return the run's resolved configuration with the options of the card, all checked."""
    for name, value, least in (
        ("episodes", config.episodes, 1),
        ("checkpoints", config.checkpoints, 1),
        ("labelled_states", config.labelled_states, 0),
    ):
        if value is not None and value < least:
            raise ArgumentError(f"{name} must be at least {least}, got {value}.")
    if config.goal:
        check_prompts("goal", config.goal)
    given = run_folder.find_config(config.run)
    if config.judge is not None and config.judge == given.reward.model:
        raise ArgumentError(
            f"judge must be another model than the run's own, got {config.judge!r} for both. "
            "A model cannot judge what was trained to please it."
        )
    from vlmrm_fast.sb3.building import resolve

    evaluation = given.evaluation
    if config.episodes is not None:
        evaluation = dataclasses.replace(evaluation, episodes=config.episodes)
    device = config.device or given.device
    return resolve(dataclasses.replace(given, evaluation=evaluation, device=device))


def _report(
    config: CardConfig,
    settings: TrainConfig,
    result: RunResult,
    newest: Policy,
    policies: list[Policy],
    random: Policy | None,
    labelled: list[dict[str, Any]],
    notes: list[str],
) -> dict[str, Any]:
    """Return the content of report.json."""
    every = [*policies, *([random] if random else [])]
    summary = result.summary
    taken = ("task", "goal", "model", "algorithm", "seed", "steps", "episodes", "run_dir")
    measures = state_measures(newest.name, newest.record.scores, newest.record.label)
    if len(every) > 1:
        measures += state_measures("all policies", *pooled(every))
    names = [OWN, *([JUDGE] if config.judge else [])]
    several = len(policies) > 1
    return {
        **{name: summary[name] for name in taken},
        "judge": config.judge,
        "further_goals": list(dict.fromkeys(config.goal)),
        "newest": policy_row(newest),
        "state_measures": measures + labelled,
        "value_order": value_order(newest.record),
        "policies": [policy_row(policy) for policy in every],
        "ranking": {name: rank_policies(policies, name) for name in names} if several else None,
        "hacking": {
            "rule": RULE,
            "judge": config.judge,
            "flags": [vars(flag) for flag in find_hacking(policies)],
        }
        if several
        else None,
        "notes": notes + _cautions(settings, config, newest, policies),
    }


def _cautions(
    settings: TrainConfig, config: CardConfig, newest: Policy, policies: list[Policy]
) -> list[str]:
    """Return what a reader must know about the figures, a sentence each."""
    notes = []
    if not len(newest.record.step):
        notes.append(
            "The physics broke down in the first step of every episode of the newest policy: "
            "there are no states of its to measure."
        )
    elif newest.record.success is None:
        notes.append(
            f"{settings.task or settings.env} knows no success: its own reward stands in for "
            "the ground truth, and may be about something else than the goal."
        )
    elif newest.record.success.all() or not newest.record.success.any():
        kind = "goal states" if newest.record.success.all() else "states that miss the goal"
        notes.append(
            f"The newest policy visits only {kind}: EPIC, correlations and AUC are not defined "
            "over its states alone. See the other rows."
        )
    if len(policies) == 1:
        notes.append(
            "Only one checkpoint is there: policies cannot be ranked, nor reward hacking seen. "
            "Train with --keep 10."
        )
    elif len(policies) < _FEW_POLICIES:
        notes.append(
            f"Rank correlations of {len(policies)} policies are mostly luck. Train with --keep 10."
        )
    if config.judge is None and len(policies) > 1:
        notes.append(
            "No judge: the check against reward hacking compares with the ground truth only. "
            "Name a second model with --judge."
        )
    return notes
