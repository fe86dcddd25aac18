"""`vlmrm-fast lab`: will this sentence train the behaviour? Prompts judged before training."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from vlmrm_fast.errors import ArgumentError, ModelError, VLMRMError, unknown_name
from vlmrm_fast.evaluation.candidates import (
    TASK_CAMERA,
    Candidate,
    Words,
    cross,
    flat,
    parse_alphas,
    parse_camera,
)
from vlmrm_fast.evaluation.figures import compute_figures
from vlmrm_fast.evaluation.subjects import FileSubject, Subject, TaskSubject
from vlmrm_fast.evaluation.verdict import SORTS, Row, find_reasons, rank_rows
from vlmrm_fast.scoring import make_folder

if TYPE_CHECKING:
    from vlmrm_fast.reward import VLMReward

# What a report says of a model, beside its name.
_DETAILS = ("weights_sha256", "image_size", "embed_dim", "device", "precision", "engine", "compat")


@dataclass(frozen=True)
class LabConfig:
    """Which prompts, strengths, models and cameras to compare, on which labelled frames.

    Attributes:
        source: a registered task, or a .npz of your own with "frames" (N, H, W, 3) uint8 and
            "labels" (N,), 1 where the goal shows; also "groups" (N,) str with "near miss" among
            them, and "truth" (N,), a reward to correlate with.
        goal: goals to try, several after one flag or one each after several; the task's own
            prompt is always among them.
        baseline: baselines to try with each of them; the task's if none is given.
        alpha: strengths to try, "0,0.5" or several; 0, 0.25, 0.5, 0.75 and 1 if none is given and
            there is a baseline.
        model: models to try, "A,B" or several: "builtin", "NAME/PRETRAINED" of open_clip, a local
            folder or "hf-hub:ORG/NAME".
        camera: cameras to try: "task", the name or id of one in the task's model, or a free one
            as "distance=4,azimuth=90,elevation=-10,lookat=0/0/1,track_body=torso".
        textures: look of the task's scene: original or photographic; None: the task's.
        reference: whether the task's own prompt is tried too.
        num_states: states to judge by: two thirds posed, one third of a random policy.
        states: a .npz or .npy of further states (M, nq), "qpos" in it, say of a trained policy.
        run: a run of the task: states that its newest checkpoint visits are added, half as many
            as the others.
        seed: of the states.
        sort: rank by epic, pearson, spearman, auc, near_auc, fpr, margin or top.
        out: folder for lab.csv, lab.json and lab.html.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "fp16", "bf16", "int8" or "fp8".
        compat: reproduce the numbers of the paper's authors.
    """

    source: tyro.conf.Positional[str]
    goal: Words = ()
    baseline: Words = ()
    alpha: Words = ()
    model: Words = ()
    camera: Words = ()
    textures: str | None = None
    reference: bool = True
    num_states: int = 1000
    states: str | None = None
    run: str | None = None
    seed: int = 0
    sort: str = "epic"
    out: str = "lab"
    device: str = "auto"
    precision: str = "auto"
    compat: bool = False


@dataclass(frozen=True)
class Plan:
    """A checked configuration: nothing has been scored yet.

    Attributes:
        subject: the labelled frames.
        candidates: prompts and strengths.
        models: as the user wrote them.
        cameras: by the user's words.
        reward: makes the reward of a model for given goals, baseline and strength.
        settings: the configuration, for the record.
    """

    subject: Subject
    candidates: list[Candidate]
    models: tuple[str, ...]
    cameras: dict[str, Any]
    reward: Callable[[str], VLMReward]
    settings: LabConfig


@dataclass(frozen=True)
class Trial:
    """All candidates with one model and one camera.

    Attributes:
        model: as the user wrote it.
        camera: likewise.
        rewards: (N, P) float32.
        rows: P rows, in the order of the candidates.
        seconds: for drawing, encoding and scoring.
        details: of the model: weights, precision, device.
    """

    model: str
    camera: str
    rewards: np.ndarray
    rows: list[Row]
    seconds: float
    details: dict[str, Any]


@dataclass(frozen=True)
class LabResult:
    """What the lab found.

    Attributes:
        plan: what was asked.
        trials: one a model and camera that worked.
        rows: all rows, best first.
        failures: models that did not, with what they said.
    """

    plan: Plan
    trials: list[Trial]
    rows: list[Row]
    failures: dict[str, str]

    def rewards(self, row: Row) -> np.ndarray:
        """Return (N,) float32 rewards of one of the rows."""
        trial = next(t for t in self.trials if (t.model, t.camera) == (row.model, row.camera))
        return trial.rewards[:, trial.rows.index(row)]


def run_lab(config: LabConfig) -> int:
    """Judge every combination, print the table and the verdict, and leave CSV, JSON and HTML.

    Args:
        config: what to compare.

    Returns:
        The exit code: 0 for go, 1 for no go.

    Raises:
        ArgumentError: something cannot be used; nothing was scored then.
        VLMRMError: no model could be used, with what each said.
    """
    from vlmrm_fast.evaluation import lab_report

    plan = make_plan(config)
    out = make_folder(config.out)
    result = score_plan(plan, keep=lambda found: lab_report.write_data(out, found))
    # Once more: a model that failed after the last trial is in the result only.
    lab_report.write_data(out, result)
    lab_report.write_page(out, result)
    lab_report.show(result, out)
    return 0 if any(row.go for row in result.rows) else 1


def make_plan(config: LabConfig) -> Plan:
    """Check everything that can be checked without a model's weights, and pose the states.

    Args:
        config: what to compare.

    Returns:
        The plan.

    Raises:
        ArgumentError: a prompt, strength, camera, number or file cannot be used, or the states
            are all of one class.
        unknown_name: UnknownNameError, no task, figure or camera has that name.
        ModelError: no model's files are there.
    """
    if config.sort not in SORTS:
        raise unknown_name("sort", config.sort, SORTS)
    models = tuple(dict.fromkeys(_split(config.model))) or ("builtin",)
    goals, baselines = flat(config.goal), flat(config.baseline)
    subject: Subject
    reference = None
    task: Any = None
    if config.source.endswith(".npz"):
        given = [name for name in ("camera", "states", "run", "textures") if getattr(config, name)]
        if given:
            raise ArgumentError(f"{given[0]} must be left out where frames are given, got one.")
    else:
        from vlmrm_fast.tasks import get_task

        task = get_task(config.source)
        task = task.with_textures(config.textures or task.textures)
        baselines = baselines or ([task.baseline] if task.baseline else [])
        reference = (task.goal, task.baseline) if config.reference else None
    alphas = parse_alphas(flat(config.alpha), bool(baselines))
    candidates = cross(goals, baselines, alphas, reference)
    texts = flat(config.camera) or [TASK_CAMERA]
    cameras = {text: parse_camera(text, getattr(task, "view", None)) for text in texts}
    _check_models(models)
    subject = FileSubject(config.source) if task is None else _task_subject(task, config, cameras)
    return Plan(subject, candidates, models, cameras, _reward_maker(config, candidates), config)


def _check_models(models: Sequence[str]) -> None:
    """Find every model's files; one without them is left out later, unless it is the only one."""
    from vlmrm_fast.clip import resolve_model

    missing = []
    for model in models:
        try:
            resolve_model(model)
        except ModelError as error:  # noqa: PERF203
            missing.append(error)
    if len(missing) == len(models):
        raise missing[0]


def _task_subject(task: Any, config: LabConfig, cameras: dict[str, Any]) -> TaskSubject:
    """Return the posed states, each camera tried on one of them."""
    from vlmrm_fast.evaluation.state_sets import draw_states, load_states, make_state_set

    further = [load_states(config.states)] if config.states else []
    if config.run is not None:
        from vlmrm_fast.evaluation.visited import visited_states

        further.append(visited_states(config.run, task.name, max(1, config.num_states // 2)))
    if len({rows.shape[1:] for rows in further}) > 1:
        shapes = " and ".join(str(rows.shape) for rows in further)
        raise ArgumentError(f"states must be as wide as those of the run, got {shapes}.")
    trajectory = np.concatenate(further) if further else None
    states = make_state_set(task, config.num_states, config.seed, trajectory=trajectory)
    states.check_classes()
    for camera in cameras.values():
        draw_states(task, states.states[:1], 16, camera)
    return TaskSubject(task, states)


def _reward_maker(config: LabConfig, candidates: Sequence[Candidate]) -> Callable[[str], VLMReward]:
    """Return what loads a model; every prompt is counted in its tokens before its weights load."""
    prompts = [each.goal for each in candidates] + [each.baseline or "" for each in candidates]

    def make(model: str) -> VLMReward:
        from vlmrm_fast.clip import load_tokenizer, resolve_model
        from vlmrm_fast.reward import VLMReward

        load_tokenizer(resolve_model(model)).check(list(dict.fromkeys(prompts)))
        return VLMReward(
            model,
            goal=prompts[0],
            device=config.device,
            precision=config.precision,
            compat=config.compat,
        )

    return make


def score_plan(plan: Plan, keep: Callable[[LabResult], None] | None = None) -> LabResult:
    """Score every candidate with every model and camera; each frame is encoded once for all.

    At most 64 frames are held, and 4 bytes a state and row.

    Args:
        plan: from `make_plan`.
        keep: called with what is there after each model and camera, so that it is not lost.

    Returns:
        The result; models that failed are named in it.

    Raises:
        VLMRMError: every model failed, with what each said.
    """
    from vlmrm_fast.hub import enough_memory

    trials: list[Trial] = []
    failures: dict[str, str] = {}
    first: VLMRMError | None = None
    for model in plan.models:
        try:
            with enough_memory(model, "the model"):
                for trial in _trials_of(model, plan):
                    trials.append(trial)
                    if keep is not None:
                        keep(_result(plan, trials, failures))
        except VLMRMError as error:  # noqa: PERF203
            first = first or error
            _let_go(error)
            failures[model] = str(error)
            if len(plan.models) > 1:
                sys.stderr.write(f"warning: {model} is left out: {error}\n")
    if not trials:
        assert first is not None
        if len(failures) == 1:
            raise first
        said = "\n".join(f"{model}: {text}" for model, text in failures.items())
        raise VLMRMError(f"No model could be used.\n{said}") from first
    return _result(plan, trials, failures)


def _let_go(error: BaseException | None) -> None:
    """Empty the frames that an error leads to: a failed model must leave room for the next."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _trials_of(model: str, plan: Plan) -> Any:
    """Yield a trial for each camera; the model is loaded once and let go afterwards."""
    from tqdm import tqdm

    reward = plan.reward(model)
    prompts = reward.prompt_set(
        [each.goal for each in plan.candidates],
        [each.baseline for each in plan.candidates],
        [each.alpha for each in plan.candidates],
    )
    details = {key: value for key, value in reward.describe().items() if key in _DETAILS}
    for text, camera in plan.cameras.items():
        start = time.perf_counter()
        frames = plan.subject.frames(reward.image_size, camera)
        # A bar where someone watches, nothing in a log.
        label = f"{model}, camera {text}"
        with tqdm(total=len(plan.subject.goal), desc=label, disable=None, leave=False) as bar:
            parts = []
            for chunk in frames:
                parts.append(reward.score_many(chunk, prompts))
                bar.update(len(chunk))
        rewards = np.concatenate(parts)
        rows = make_rows(rewards, plan, model, text)
        yield Trial(model, text, rewards, rows, time.perf_counter() - start, details)


def make_rows(rewards: np.ndarray, plan: Plan, model: str, camera: str) -> list[Row]:
    """Return the figures of each candidate.

    Args:
        rewards: (N, P) finite rewards of the subject's frames.
        plan: with P candidates.
        model: that gave the rewards.
        camera: that gave the frames.

    Returns:
        P rows.
    """
    subject = plan.subject
    figures = vars(compute_figures(rewards, subject.goal, subject.near, subject.truth))
    goals = int(subject.goal.sum())
    rows = []
    for index, each in enumerate(plan.candidates):
        values: dict[str, Any] = {name: float(column[index]) for name, column in figures.items()}
        row = Row(each.goal, each.baseline, each.alpha, model, camera, each.reference, **values)
        reasons = find_reasons(row, goals, len(subject.goal) - goals)
        rows.append(replace(row, reasons=reasons))
    return rows


def _result(plan: Plan, trials: list[Trial], failures: dict[str, str]) -> LabResult:
    rows = rank_rows([row for trial in trials for row in trial.rows], plan.settings.sort)
    return LabResult(plan, list(trials), rows, dict(failures))


def _split(words: Sequence[Sequence[str]]) -> list[str]:
    """As `flat`, with "A,B" taken apart."""
    return [part.strip() for word in flat(words) for part in word.split(",") if part.strip()]
