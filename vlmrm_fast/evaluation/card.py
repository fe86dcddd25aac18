"""`vlmrm-fast eval`: a run's report card."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import run_folder
from vlmrm_fast.config import TrainConfig
from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.evaluate import EVALUATION_SEED
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
    with run_folder.spared("the report page"):
        write_page(card, folder / "report.html")
    console = Console()
    console.print(summary_table(card.result.summary))
    console.print(card_table(card.report))
    line = f"Wrote {folder / 'report.html'} and {folder / 'report.json'}."
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
    from vlmrm_fast.sb3.callbacks import MetricsCallback
    from vlmrm_fast.sb3.state import restore_networks

    settings = _settings(config)
    found = checkpoints.load(config.run)
    reward = build_reward(settings)
    judge = _build_judge(config, settings, reward.image_size)
    goals = SeveralGoals(reward, config.goal) if config.goal else None
    env = build_env(settings, reward, num_envs=1)
    try:
        model = build_model(settings, env)
        restore_networks(model, found)
        model.num_timesteps = found.step
        metrics = MetricsCallback(1, lambda row: None)
        metrics.set_state(found.state["extra"]["metrics"])
        recorder = Recorder(judge, goals)
        result = finish(settings, run_of(found), model, goals or reward, metrics, recorder)
        newest = Policy(f"step {found.step}", found.step, result.evaluation, recorder.record())

        def evaluate(name: str, step: int | None, predict: Callable[[Any], np.ndarray]) -> Policy:
            recorder = Recorder(judge, goals)
            played = play(settings, goals or reward, predict, recorder)
            return Policy(name, step, played, recorder.record())

        notes: list[str] = []
        policies = [newest]
        for other in _others(found, config.checkpoints, notes):
            restore_networks(model, other)
            policies.append(evaluate(f"step {other.step}", other.step, deterministic(model)))
        random = None
        if config.random_policy:
            seed = EVALUATION_SEED + settings.seed
            random = evaluate("random actions", None, _at_random(model.action_space, seed))
    finally:
        env.close()
    policies.sort(key=lambda policy: policy.step or 0)
    labelled = _labelled_measures(config, settings, goals or reward, judge)
    curve = read_curve(result.run_dir, notes)
    report = _report(config, settings, result, newest, policies, random, labelled, notes)
    return Card(result, report, policies, random, settings, curve)


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


def _build_judge(config: CardConfig, settings: TrainConfig, image_size: int) -> Any:
    """Return the held-out model with the run's prompts, tried out on one frame; or None."""
    if config.judge is None:
        return None
    from vlmrm_fast.reward import VLMReward

    reward = settings.reward
    assert reward.goal is not None
    judge = VLMReward(
        config.judge,
        goal=reward.goal,
        baseline=reward.baseline,
        alpha=reward.alpha or 0.0,
        device=settings.device,
    )
    # A judge whose rewards overflow is found here and not after the first checkpoint.
    judge.score(np.zeros((1, image_size, image_size, 3), np.uint8))
    return judge


def _others(
    found: checkpoints.Checkpoint, most: int | None, notes: list[str]
) -> Iterator[checkpoints.Checkpoint]:
    """Yield the run's other checkpoints, one a step; damaged ones become a note."""
    by_step = {}
    for path in checkpoints.list_checkpoints(run_of(found) / "checkpoints"):
        # A resumed run reaches a step twice: the later checkpoint is the one that led on.
        by_step[int(path.name.rpartition("-")[2])] = path
    by_step.pop(found.step, None)
    paths = [by_step[step] for step in sorted(by_step)]
    if most is not None and most <= len(paths):
        chosen = np.linspace(0, len(paths), most).astype(int)[:-1]
        paths = [paths[index] for index in chosen]
    for path in paths:
        try:
            other = checkpoints.load(path)
        except CheckpointError as error:
            notes.append(f"Left out: {error}")
            continue
        yield other


def _at_random(space: Any, seed: int) -> Callable[[Any], np.ndarray]:
    """Return a policy of uniformly random actions."""
    space = copy.deepcopy(space)
    space.seed(seed % 2**31)

    def predict(observation: Any) -> np.ndarray:
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation
        return np.stack([space.sample() for _ in range(len(first))])

    return predict


def _labelled_measures(
    config: CardConfig, settings: TrainConfig, reward: Any, judge: Any
) -> list[dict[str, Any]]:
    """Return how well rewards tell the task's labelled states apart; empty where it has none."""
    from vlmrm_fast.evaluation.state_sets import draw_states, make_state_set
    from vlmrm_fast.sb3.building import build_task
    from vlmrm_fast.tasks import Task, get_task

    if settings.task is None or not config.labelled_states:
        return []
    task: Any = get_task(settings.task)
    if getattr(task, "posed_states", None) is None:
        return []
    camera = None
    if isinstance(task, Task):
        task = build_task(settings)
        camera = task.camera
    states = make_state_set(task, config.labelled_states, settings.seed)
    size = settings.camera.render_size or reward.image_size
    scores: dict[str, list[np.ndarray]] = {}
    for frames in draw_states(task, states.states, size, camera):
        parts = {OWN: reward.score(frames)}
        if isinstance(reward, SeveralGoals):
            parts |= {name: reward.newest[:, i] for i, name in enumerate(reward.names)}
        if judge is not None:
            parts[JUDGE] = judge.score(frames)
        for name, values in parts.items():
            scores.setdefault(name, []).append(np.asarray(values, np.float64))
    joined = {name: np.concatenate(values) for name, values in scores.items()}
    return state_measures("labelled states", joined, states.success.astype(np.float64))


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
        "further_goals": list(config.goal),
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
    if newest.record.success is None:
        notes.append(
            f"{settings.task or settings.env} knows no success: its own reward stands in for "
            "the ground truth, and may be about something else than the goal."
        )
    elif newest.record.success.all() or not newest.record.success.any():
        kind = "goal states" if newest.record.success.all() else "states that miss the goal"
        notes.append(
            f"The newest policy visits only {kind}: EPIC, correlations and AUC are not defined "
            "over its states alone. See those of all policies."
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
