"""What a policy's evaluation episodes showed: every reward of every state, and telling frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmrm_fast.evaluate import Evaluation

OWN, JUDGE, TRUTH = "own", "judge", "ground truth"
# Frames that wait for the judge: enough for a GPU's batch, 14 MB at 96 x 96.
_JUDGE_BATCH = 512


@dataclass(frozen=True)
class Moment:
    """A frame worth looking at.

    Attributes:
        frame: (H, W, 3) uint8.
        reward: its VLM reward.
        episode: number of its episode.
        step: its step in the episode, from 1.
        success: whether it shows a goal state; None where that is not known.
    """

    frame: np.ndarray
    reward: float
    episode: int
    step: int
    success: bool | None


@dataclass(frozen=True)
class Record:
    """All M states of E episodes, episode by episode, in the order of the steps.

    States in which the physics broke down are left out.

    Attributes:
        episode: (M,) int64, 0 ... E - 1: equal numbers mean equal start states for every policy of
            a run.
        step: (M,) int64, from 1.
        scores: (M,) float64 by name: "own", perhaps "judge", and `SeveralGoals.names`.
        truth: (M,) float64, the environment's own reward.
        success: (M,) bool, whether the state is a goal state; None where that is not known.
        highest: the highest-scored frame of each episode.
        lowest: the lowest-scored frame of each episode.
        wrong: the highest-scored frame of each episode that shows no goal state.
        missed: the lowest-scored frame of each episode that shows a goal state.
        num_episodes: E; None for one more than the last number in `episode`.
    """

    episode: np.ndarray
    step: np.ndarray
    scores: dict[str, np.ndarray]
    truth: np.ndarray
    success: np.ndarray | None
    highest: tuple[Moment, ...]
    lowest: tuple[Moment, ...]
    wrong: tuple[Moment, ...]
    missed: tuple[Moment, ...]
    num_episodes: int | None = None

    @property
    def label(self) -> np.ndarray:
        """What rewards are compared with: goal state or not, else the environment's own reward."""
        return self.truth if self.success is None else self.success.astype(np.float64)

    def returns(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each episode.

        Args:
            values: (M,) numbers, one a state.

        Returns:
            (E,) float64; NaN for an episode without states, which broke down in its first step.
        """
        sums = np.bincount(self.episode, weights=values, minlength=self.num_episodes or 0)
        return np.where(np.bincount(self.episode, minlength=len(sums)) == 0, np.nan, sums)

    def episodes(self) -> list[slice]:
        """Return the rows of each episode that has states."""
        ends = np.flatnonzero(np.diff(self.episode, append=-1)) + 1
        return [slice(a, b) for a, b in itertools.pairwise([0, *ends])]


@dataclass(frozen=True)
class Policy:
    """One policy's evaluation.

    Attributes:
        name: "step 60000", or what else it is.
        step: environment steps that it was trained for; None for one that was not trained.
        evaluation: its episodes.
        record: its states.
    """

    name: str
    step: int | None
    evaluation: Evaluation
    record: Record


class SeveralGoals:
    """A reward that scores further goals by the way: each frame is still encoded once.

    Stands in for the run's reward where environments take one.

    Attributes:
        names: the further goals, each once; a goal that reads as another reward is called, such as
            "own", is in quotation marks.
        newest: (B, number of further goals) float32, of the frames that were scored last.
    """

    def __init__(self, reward: Any, goals: Sequence[str]) -> None:
        """Embed the goals, with baseline and strength of the run.

        Args:
            reward: the run's `VLMReward`, whose rule they share.
            goals: further goals, one prompt each.
        """
        goals = tuple(dict.fromkeys(goals))
        self.names = _names(goals)
        self.newest = np.zeros((0, len(goals)), np.float32)
        self._reward = reward
        own = reward.objective
        options = {"rule": own.rule, "temperature": own.temperature}
        self._others = [
            reward.with_prompts(
                goal, own.baseline or None, own.alpha, negatives=own.negatives or None, **options
            )
            for goal in goals
        ]

    @property
    def image_size(self) -> int:
        """As the reward's own [pixels]."""
        return self._reward.image_size

    def score(self, frames: np.ndarray) -> np.ndarray:
        """Return the run's own rewards, and keep those of the further goals.

        Args:
            frames: (B, H, W, 3) uint8.

        Returns:
            (B,) float32.
        """
        z = self._reward.embed_images(frames)
        self.newest = np.stack([other.score_embeddings(z) for other in self._others], axis=1)
        return self._reward.score_embeddings(z)

    def describe(self) -> dict[str, Any]:
        """As the reward's own.

        Returns:
            Model, weights, prompts.
        """
        return self._reward.describe()


def _names(goals: Sequence[str]) -> tuple[str, ...]:
    """Return names for different goals, none of which another reward or goal has."""
    taken, names = {OWN, JUDGE, TRUTH, *goals}, []
    for goal in goals:
        name = goal
        while name in (OWN, JUDGE, TRUTH) or (name != goal and name in taken):
            name = f'"{name}"'
        taken.add(name)
        names.append(name)
    return tuple(names)


class Recorder:
    """Watches an evaluation, state by state. Use a new one for every policy."""

    def __init__(
        self, judge: Any = None, goals: SeveralGoals | None = None, reduce: str = "mean"
    ) -> None:
        """Prepare.

        Args:
            judge: a second reward that scores the frames too, or None.
            goals: the reward in use, where it scores further goals.
            reduce: how rewards of several cameras become one: "mean", "max" or "min".
        """
        self._judge, self._goals = judge, goals
        reducers: dict[str, Callable[..., np.ndarray]] = {
            "mean": np.mean,
            "max": np.max,
            "min": np.min,
        }
        self._reduce = reducers[reduce]
        self._waiting: list[np.ndarray] = []
        self._judged: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._more: list[np.ndarray] = []
        self._knows_success = True
        self._steps = self._serials = np.zeros(0, np.int64)
        self._moments: dict[str, dict[tuple[int, int], Moment]] = {
            name: {} for name in ("highest", "lowest", "wrong", "missed")
        }

    def __call__(self, env: Any, infos: Any, counted: np.ndarray, ended: np.ndarray) -> None:
        """Take one step of an evaluation; see `evaluate.Watch`.

        Args:
            env: the VecEnv, after the step.
            infos: its N infos.
            counted: (N,) bool, which worlds' steps count.
            ended: (N,) bool, which of these ended an episode.
        """
        if not len(self._steps):
            self._steps, self._serials = np.zeros((2, len(infos)), np.int64)
        self._steps += 1
        kept = np.array([i for i in np.flatnonzero(counted) if not infos[i].get("diverged")], int)
        frames = env.camera_frames
        for i in kept:
            self._add(int(i), infos[i], frames[0, i])
        if self._goals is not None:
            by_camera = self._goals.newest.reshape(len(frames), len(infos), -1)[:, kept]
            self._more.append(self._reduce(by_camera.astype(np.float64), axis=0))
        if self._judge is not None and len(kept):
            self._waiting.append(frames[:, kept])
            if sum(part.shape[1] for part in self._waiting) >= _JUDGE_BATCH:
                self._ask_judge()
        self._serials[ended] += 1
        self._steps[ended] = 0

    def record(self) -> Record:
        """Return what was seen."""
        self._ask_judge()
        rows = np.array(self._rows, np.float64).reshape(-1, 6)
        # World by world: the order of `Evaluation.episodes`, whatever the episodes' lengths.
        order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
        rows = rows[order]
        # Every episode has its number, one without rows too: numbers stand for start states.
        first = np.concatenate([[0], np.cumsum(self._serials)])
        episode = first[rows[:, 0].astype(int)] + rows[:, 1].astype(int)
        scores = {OWN: rows[:, 3]}
        if self._judge is not None:
            scores[JUDGE] = np.concatenate([*self._judged, np.zeros(0)])[order]
        if self._goals is not None:
            more = np.concatenate([*self._more, np.zeros((0, len(self._goals.names)))])[order]
            scores |= {name: more[:, column] for column, name in enumerate(self._goals.names)}
        return Record(
            episode=episode.astype(np.int64),
            step=rows[:, 2].astype(np.int64),
            scores=scores,
            truth=rows[:, 4],
            success=rows[:, 5] == 1 if self._knows_success else None,
            num_episodes=int(first[-1]),
            **{name: self._telling(name, first) for name in self._moments},
        )

    def _add(self, world: int, info: dict[str, Any], frame: np.ndarray) -> None:
        """Keep the numbers of one state, and its frame where it stands out."""
        success = info.get("success")
        self._knows_success &= success is not None
        place = (world, int(self._serials[world]))
        step, reward = int(self._steps[world]), float(info["vlm_reward"])
        truth = float(info.get("env_reward", 0.0))
        self._rows.append(np.array([*place, step, reward, truth, float(bool(success))]))
        for name, sign, wanted in (
            ("highest", 1, True),
            ("lowest", -1, True),
            ("wrong", 1, success is not None and not success),
            ("missed", -1, success is not None and bool(success)),
        ):
            best = self._moments[name].get(place)
            if wanted and (best is None or sign * reward > sign * best.reward):
                known = None if success is None else bool(success)
                self._moments[name][place] = Moment(frame.copy(), reward, 0, step, known)

    def _ask_judge(self) -> None:
        """Score the frames that wait."""
        if self._waiting:
            frames = np.concatenate(self._waiting, axis=1)
            scores = self._judge.score(frames.reshape(-1, *frames.shape[2:]))
            by_camera = np.asarray(scores, np.float64).reshape(len(frames), -1)
            self._judged.append(self._reduce(by_camera, axis=0))
            self._waiting = []

    def _telling(self, name: str, first: np.ndarray) -> tuple[Moment, ...]:
        """Return the frames of one kind, the most telling first, with their episodes' numbers."""
        sign = -1 if name in {"highest", "wrong"} else 1
        found = [
            Moment(m.frame, m.reward, int(first[world]) + serial, m.step, m.success)
            for (world, serial), m in self._moments[name].items()
        ]
        return tuple(sorted(found, key=lambda moment: sign * moment.reward))
