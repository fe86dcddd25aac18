"""What a report card sets beside the newest policy: checkpoints, chance, a judge, posed states."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast.config import TrainConfig
from vlmrm_fast.errors import CheckpointError
from vlmrm_fast.evaluation.policies import state_measures
from vlmrm_fast.evaluation.recording import JUDGE, OWN, SeveralGoals
from vlmrm_fast.evaluation.state_sets import draw_states, make_state_set
from vlmrm_fast.train import run_of


def build_judge(model: str | None, settings: TrainConfig, image_size: int) -> Any:
    """Load a second model with a run's prompts, and try it out on one frame.

    Args:
        model: as `RewardConfig.model`; None for no judge.
        settings: the run's resolved configuration.
        image_size: side of the frames that it will score [pixels]; it resizes them itself.

    Returns:
        A `VLMReward`, or None.

    Raises:
        ModelError: the model cannot be loaded.
        VLMRMError: its rewards are not finite.
    """
    if model is None:
        return None
    from vlmrm_fast.sb3.building import build_reward

    reward = dataclasses.replace(settings.reward, model=model, precision="auto")
    judge = build_reward(dataclasses.replace(settings, reward=reward))
    # What overflows is found here and not after the first checkpoint.
    judge.score(np.zeros((1, image_size, image_size, 3), np.uint8))
    return judge


def other_checkpoints(
    found: checkpoints.Checkpoint, most: int | None, notes: list[str]
) -> Iterator[checkpoints.Checkpoint]:
    """Read a run's other checkpoints, one a step, in the order of training.

    Args:
        found: the checkpoint that is at hand already.
        most: read at most so many with `found`, evenly spread; None for all.
        notes: gets a sentence for each that is damaged.

    Yields:
        Those that are whole.
    """
    by_step = {}
    for path in checkpoints.list_checkpoints(run_of(found) / "checkpoints"):
        # A resumed run reaches a step twice: the later checkpoint is the one that led on.
        by_step[int(path.name.rpartition("-")[2])] = path
    by_step.pop(found.step, None)
    paths = [by_step[step] for step in sorted(by_step)]
    if most is not None and most <= len(paths):
        chosen = np.linspace(0, len(paths), most).astype(int) if most > 1 else [len(paths)]
        paths = [paths[index] for index in chosen[:-1]]
    for path in paths:
        try:
            other = checkpoints.load(path)
        except CheckpointError as error:
            notes.append(f"Left out: {error}")
            continue
        yield other


def random_actions(space: Any, seed: int) -> Callable[[Any], np.ndarray]:
    """Return a policy of uniformly random actions.

    Args:
        space: the action space; it is not changed.
        seed: of the actions, at least 0.

    Returns:
        Observations (N, ...) to actions (N, ...).
    """
    space = copy.deepcopy(space)
    space.seed(seed % 2**31)

    def predict(observation: Any) -> np.ndarray:
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation
        return np.stack([space.sample() for _ in range(len(first))])

    return predict


def labelled_measures(
    settings: TrainConfig, count: int, reward: Any, judge: Any
) -> list[dict[str, Any]]:
    """Measure rewards on a task's labelled states; each frame is encoded once by each model.

    Args:
        settings: the run's resolved configuration.
        count: number of states; 0 for none.
        reward: the run's reward, perhaps with further goals.
        judge: a second reward, or None.

    Returns:
        Rows of `state_measures`, none where there is no task or it poses no states.
    """
    from vlmrm_fast.sb3.building import build_task

    if settings.task is None or not count:
        return []
    task = build_task(settings)
    if task.posed_states is None:
        return []
    states = make_state_set(task, count, settings.seed)
    size = settings.camera.render_size or reward.image_size
    columns: dict[str, list[np.ndarray]] = {}
    for frames in draw_states(task, states.states, size):
        scores = {OWN: reward.score(frames)}
        if isinstance(reward, SeveralGoals):
            scores |= {name: reward.newest[:, i] for i, name in enumerate(reward.names)}
        if judge is not None:
            scores[JUDGE] = judge.score(frames)
        for name, values in scores.items():
            columns.setdefault(name, []).append(np.asarray(values, np.float64))
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    return state_measures("labelled states", joined, states.success.astype(np.float64))
