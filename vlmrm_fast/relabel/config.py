"""What to relabel, with which prompts, and where to leave the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.prompts import check_prompts
from vlmrm_fast.relabel.drawing import make_drawer
from vlmrm_fast.relabel.source import Source


@dataclass(frozen=True)
class RelabelConfig:
    """What to relabel, with which prompts, and where to leave the results.

    Attributes:
        source: a Minari dataset (folder, or id in the local cache), a LeRobot dataset (folder with
            meta/info.json), a video or a folder of videos, or .npz/.npy files of frames or, with
            --task, of states (a file or a folder).
        goal: one or more goals; each is scored on its own and gets a column.
        baseline: the scene without the goal; needed where alpha is above 0.
        alpha: strength of the goal-baseline regularisation, 0 ... 1; 0 if neither this nor a
            task is given.
        model: "builtin", "NAME/PRETRAINED" of open_clip, a local folder or "hf-hub:ORG/NAME".
        rule: "goal-baseline", "cosine", "difference" or "softmax".
        negatives: of the rule "softmax": what is seen where the goal is not reached.
        temperature: of the rule "softmax".
        task: draws stored states; goal, baseline and alpha that are not given are the task's.
        textures: the look of drawn states, "original" or "photographic"; by default the task's.
        key: the camera, observation or array to read where the source has several.
        out: folder for the results, new or empty, or an unfinished one with --resume.
        resume: go on where an interrupted call stopped.
        skip_broken: go on after a broken episode (a video that ends early, a state that is not
            finite); its good frames keep their rewards. Without, such an episode ends the call.
        minari_id: of a Minari dataset: also write a copy under this id, its rewards replaced by
            those of the first goal.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32", "fp16", "bf16", "int8" or "fp8".
        batch_size: frames encoded at once; by default 16 on a CPU and 512 on a GPU.
        compat: reproduce the numbers of the paper's authors.
        progress: "auto", "plain" for a line every ten seconds, or "off".
    """

    source: tyro.conf.Positional[str]
    goal: tuple[str, ...] = ()
    baseline: str | None = None
    alpha: float | None = None
    model: str = "builtin"
    rule: str = "goal-baseline"
    negatives: tuple[str, ...] = ()
    temperature: float | None = None
    task: str | None = None
    textures: str | None = None
    key: str | None = None
    out: str = "relabelled"
    resume: bool = False
    skip_broken: bool = False
    minari_id: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    compat: bool = False
    progress: str = "auto"


@dataclass(frozen=True)
class Wanted:
    """Prompts after defaults.

    Attributes:
        goals: P goals.
        baseline: prompts or ().
        alpha: strength.
        rule: of all rewards.
        negatives: prompts or ().
        temperature: or None.
    """

    goals: tuple[str, ...]
    baseline: tuple[str, ...]
    alpha: float
    rule: str
    negatives: tuple[str, ...]
    temperature: float | None

    @property
    def contest(self) -> dict[str, Any]:
        """What goes with the rule, as `VLMReward` takes it."""
        return {"negatives": self.negatives or None, "temperature": self.temperature}


def open_source(config: RelabelConfig) -> Source:
    """Find out what the source is, and open it.

    Args:
        config: `source`, `task`, `key` and `minari_id` are read.

    Returns:
        The source; close it.

    Raises:
        ArgumentError: it is none of the known kinds, or cannot be read.
    """
    from vlmrm_fast.relabel.arrays import ARRAYS, ArrayFiles
    from vlmrm_fast.relabel.lerobot import LeRobot, is_lerobot
    from vlmrm_fast.relabel.minari_data import Minari, minari_folder
    from vlmrm_fast.relabel.source import listed
    from vlmrm_fast.relabel.videos import VIDEOS, VideoFolder

    drawer = make_drawer(config.task, config.textures)
    path = Path(config.source).expanduser()
    folder = minari_folder(config.source)
    if folder is not None:
        return Minari(folder, drawer, config.key, config.textures)
    if config.minari_id is not None:
        raise ArgumentError(
            f"minari_id must go with a Minari dataset, got source {config.source!r}."
        )
    if not path.exists():
        raise ArgumentError(
            "source must be an existing file or folder, or the id of a Minari dataset in the local "
            f"cache, got {config.source!r}."
        )
    if path.suffix.lower() in ARRAYS or (path.is_dir() and listed(path, ARRAYS)):
        return ArrayFiles(path, drawer, config.key)
    if drawer is not None:
        raise ArgumentError(
            f"task must go with stored states, got {config.task!r} for {config.source!r}. Its "
            "prompts can be given by --goal and --baseline."
        )
    if path.is_dir() and is_lerobot(path):
        return LeRobot(path, config.key)
    if path.is_file() and path.suffix.lower() not in VIDEOS:
        known = ", ".join(sorted((*ARRAYS, *VIDEOS)))
        raise ArgumentError(f"source must be one of {known}, or a folder, got {config.source!r}.")
    return VideoFolder(path)


def choose_prompts(config: RelabelConfig, task: Any) -> Wanted:
    """Return prompts and strength, the task's where they are not given.

    Args:
        config: `goal`, `baseline` and `alpha` are read.
        task: the task that the user named, or None.

    Returns:
        Checked prompts.

    Raises:
        ArgumentError: there is no goal, or a prompt, the strength or the rule cannot be used.
    """
    from vlmrm_fast.prompt_sets import list_objectives

    goals = check_prompts("goal", config.goal or (task.goal if task else None))
    baseline: Any = config.baseline
    if baseline is None and task is not None:
        baseline = task.baseline
    if not goals:
        raise ArgumentError('goal must be given, got none. Add --goal "what the frames may show".')
    # A task's strength belongs to its own rule.
    usual = task.alpha if task and config.rule == "goal-baseline" else 0.0
    alpha = usual if config.alpha is None else config.alpha
    checked = check_prompts("baseline", baseline)
    wanted = Wanted(goals, checked, alpha, config.rule, tuple(config.negatives), config.temperature)
    columns = [[goal] for goal in goals], [checked or None] * len(goals)
    list_objectives(*columns, alpha, config.rule, **wanted.contest)
    return wanted


def check_numbers(config: RelabelConfig) -> None:
    """Check what can be checked without the source.

    Args:
        config: the whole.

    Raises:
        ArgumentError: a number or a choice is out of range.
    """
    if config.batch_size is not None and config.batch_size < 1:
        raise ArgumentError(f"batch_size must be at least 1, got {config.batch_size}.")
    if config.progress not in {"auto", "off", "plain"}:
        raise ArgumentError(f"progress must be one of auto, off, plain, got {config.progress!r}.")
