"""The batched environment itself: step, draw, score, and only then reset.

`TaskWorlds` holds all logic; the gymnasium and Stable-Baselines3 faces only repack its results.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium import spaces

from vlmrm_fast.errors import ArgumentError, CheckpointError, unknown_name
from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.simulation import Simulation

if TYPE_CHECKING:
    from vlmrm_fast.tasks import Task


class Scorer(Protocol):
    """What an environment needs of a reward: `VLMReward`, or anything with these two."""

    @property
    def image_size(self) -> int:
        """Side of the pictures that are scored without resizing [pixels]."""

    def score(self, frames: np.ndarray) -> np.ndarray:
        """Return the rewards (B,) float32 of frames (B, H, W, 3) uint8."""


@dataclass(frozen=True)
class Mix:
    """How the model's reward and the environment's own become one.

    Attributes:
        mode: "replace" for weight * VLM reward, "add" for own reward + weight * VLM reward.
        weight: factor on the VLM reward, finite.
    """

    mode: str = "replace"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in {"replace", "add"}:
            raise unknown_name("mode", self.mode, ("replace", "add"))
        if not np.isfinite(self.weight):
            raise ArgumentError(f"weight must be finite, got {self.weight}.")

    def __call__(self, vlm_reward: np.ndarray, env_reward: np.ndarray) -> np.ndarray:
        """Return the reward to learn from.

        Args:
            vlm_reward: (N,) rewards of the vision-language model.
            env_reward: (N,) rewards of the environment itself.

        Returns:
            (N,) float32.
        """
        total = self.weight * vlm_reward
        if self.mode == "add":
            total = total + env_reward
        return np.asarray(total, dtype=np.float32)


@dataclass
class StepResult:
    """What one step of N worlds gave. Arrays are fresh, safe to keep.

    Attributes:
        observation: (N, d) float32, of the new episode where one has just ended.
        final_observation: (N, d) float32, of the state that was drawn and scored; where a world
            diverged, its last finite one.
        reward: (N,) float32, what the agent is to learn from; finite.
        vlm_reward: (N,) float32, of the vision-language model.
        env_reward: (N,) float64, the task's ground truth.
        success: (N,) bool, the state is a goal state.
        done: (N,) bool, the episode ended; always by truncation.
        diverged: (N,) bool, it ended because the physics broke down.
        episode_success: (N,) bool, meaningful where done.
        episode_return: (N,) float64, sum of `reward` over the episode so far.
        episode_env_return: (N,) float64, sum of `env_reward` likewise.
        episode_length: (N,) int64 [steps].
        episode_seconds: (N,) float64, wall-clock time since the episode's start.
        measures: the task's further numbers by name, each (N,).
    """

    observation: np.ndarray
    final_observation: np.ndarray
    reward: np.ndarray
    vlm_reward: np.ndarray
    env_reward: np.ndarray
    success: np.ndarray
    done: np.ndarray
    diverged: np.ndarray
    episode_success: np.ndarray
    episode_return: np.ndarray
    episode_env_return: np.ndarray
    episode_length: np.ndarray
    episode_seconds: np.ndarray
    measures: dict[str, np.ndarray]


def render_shape(size: int | tuple[int, int] | None, default: int) -> tuple[int, int]:
    """Return (height, width) for a `render_size` argument.

    Args:
        size: a side, (height, width), or None for the default [pixels].
        default: the side to use for None.

    Returns:
        The picture's height and width [pixels].

    Raises:
        ArgumentError: if a side is not a positive whole number.
    """
    given: Any = default if size is None else size
    sides = given if isinstance(given, (tuple, list)) else (given, given)
    whole = all(isinstance(side, (int, np.integer)) and side > 0 for side in sides)
    if len(sides) != 2 or not whole:
        raise ArgumentError(f"render_size must be a positive int or (height, width), got {size!r}.")
    return int(sides[0]), int(sides[1])


class TaskWorlds:
    """N worlds of a task with their frames and rewards. Not for use from several threads.

    Attributes:
        task: the task.
        simulation: the physics.
        reward: the scorer.
        last_frames: (N, H, W, 3) uint8, what the last step's rewards were given for: terminal
            frames of ended episodes included. Reused: copy to keep.
        diverged: (N,) bool, live: the worlds that diverged in the last step.
        timings: seconds spent so far in "simulate", "draw" and "encode".
    """

    def __init__(
        self,
        task: Task,
        num_envs: int,
        reward: Scorer,
        *,
        seed: int | None = None,
        num_threads: int = 0,
        render_size: int | tuple[int, int] | None = None,
        supersample: int = 1,
        renderer: str = "auto",
        camera: Any = None,
        mix: Mix | None = None,
    ) -> None:
        """Build the worlds and reset them.

        Args:
            task: what to simulate.
            num_envs: N, at least 1.
            reward: what scores the frames.
            seed: seed of world i's generator together with i; None draws one.
            num_threads: threads for physics and drawing each, 0 for one a CPU.
            render_size: side or (height, width) of the frames [pixels]; the default is the
                reward's input size, so that frames are drawn straight at the size that is scored.
                Others are resized by the model's preprocessing.
            supersample: as `Renderer` takes it.
            renderer: "ray", "gl" or "auto", as `Renderer` takes its backend.
            camera: as `Scene.from_model` takes it; None for the task's.
            mix: how rewards combine; the model's reward alone by default.
        """
        self.task, self.reward, self.num_envs = task, reward, num_envs
        self._mix = mix or Mix()
        self.simulation = Simulation(task.load_model(), num_envs, num_threads, task.fields)
        self.model = self.simulation.model
        self.height, self.width = render_shape(render_size, reward.image_size)
        scene = Scene.from_model(self.model, task.camera if camera is None else camera)
        self._source = self.simulation.source(scene)
        self._renderer = Renderer(
            scene, self.height, self.width, num_threads, renderer, supersample=supersample
        )
        self.last_frames = np.zeros((num_envs, self.height, self.width, 3), np.uint8)
        self.diverged = np.zeros(num_envs, bool)
        self.timings = {"simulate": 0.0, "draw": 0.0, "encode": 0.0}
        self._length = np.zeros(num_envs, np.int64)
        self._streak = np.zeros(num_envs, np.int64)
        self._return, self._env_return = np.zeros(num_envs), np.zeros(num_envs)
        self._start = np.zeros(num_envs)
        self.seed(seed)
        self._remember()
        self._started = False
        self.action_space = spaces.Box(*self._action_bounds(), dtype=np.float32)
        shape = self._observation.shape[1:]
        self.observation_space = spaces.Box(-np.inf, np.inf, shape, dtype=np.float32)

    def _action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        limited = self.model.actuator_ctrllimited.astype(bool)
        bounds = np.where(limited[:, None], self.model.actuator_ctrlrange, [-1.0, 1.0])
        return bounds[:, 0].astype(np.float32), bounds[:, 1].astype(np.float32)

    def seed(self, seed: int | None) -> None:
        """Give every world a new generator, from `seed` and its index only.

        Args:
            seed: at least 0, or None to draw one.

        Raises:
            ArgumentError: if `seed` is not a whole number or below 0.
        """
        if seed is not None and not (isinstance(seed, (int, np.integer)) and seed >= 0):
            raise ArgumentError(f"seed must be None or a whole number from 0, got {seed!r}.")
        entropy = np.random.SeedSequence(seed).entropy
        self._rngs = [
            np.random.Generator(
                np.random.PCG64(np.random.SeedSequence(entropy, spawn_key=(index,)))
            )
            for index in range(self.num_envs)
        ]

    def reset(self) -> np.ndarray:
        """Start a new episode in every world and draw it.

        Returns:
            (N, d) float32 observations.
        """
        self.diverged[:], self._started = False, True
        self._reset_worlds(np.arange(self.num_envs))
        self._renderer.render(self._source, out=self.last_frames)
        self._remember()
        return self._observation.copy()

    def step(self, actions: np.ndarray) -> StepResult:
        """Advance every world by one control step; draw, score, then reset the ended ones.

        Args:
            actions: (N, nu), finite.

        Returns:
            The step's results.

        Raises:
            ArgumentError: if the worlds were never reset, or `actions` has another shape or a
                non-finite value; the text names the environment.
        """
        if not self._started:
            raise ArgumentError("reset must be called before the first step, got a step.")
        clock = time.perf_counter()
        self.diverged[:] = self.simulation.step_and_draw(
            actions, self._renderer, self.last_frames, self.task.frame_skip
        )
        clock = self._lap("simulate", clock, {"draw": self.simulation.draw_share})
        vlm_reward = np.array(self.reward.score(self.last_frames), dtype=np.float32)
        clock = self._lap("encode", clock)
        result = self._observe(vlm_reward)
        self._reset_worlds(np.flatnonzero(result.done))
        self._remember()
        result.observation[result.done] = self._observation[result.done]
        self._lap("simulate", clock)
        return result

    def _lap(self, stage: str, start: float, shares: Mapping[str, float] | None = None) -> float:
        """Book the time since `start` to a stage, but for the shares of others."""
        now = time.perf_counter()
        rest = 1.0
        for other, share in (shares or {}).items():
            self.timings[other] += share * (now - start)
            rest -= share
        self.timings[stage] += rest * (now - start)
        return now

    def _observe(self, vlm_reward: np.ndarray) -> StepResult:
        """Read out the state that was drawn, before any reset."""
        fields, ok = self.simulation.fields, ~self.diverged
        # A diverged world stands at MuJoCo's default state: nothing of it is measured.
        with np.errstate(all="ignore"):
            final = self.task.observation(self.model, fields).astype(np.float32)
            env_reward, success = self.task.ground_truth(self.model, fields)
            measures = self.task.measures(self.model, fields, self._before)
        final[self.diverged] = self._observation[self.diverged]
        env_reward, success = np.where(ok, env_reward, 0.0), success & ok
        reward = self._mix(vlm_reward, env_reward)
        measures = {name: np.where(ok, values, 0.0) for name, values in measures.items()}
        self._length += 1
        self._streak = np.where(success, self._streak + 1, 0)
        self._return += reward
        self._env_return += env_reward
        return StepResult(
            observation=final.copy(),
            final_observation=final,
            reward=reward,
            vlm_reward=vlm_reward,
            env_reward=env_reward,
            success=success,
            done=self.diverged | (self._length >= self.task.horizon),
            diverged=self.diverged.copy(),
            episode_success=self._streak >= self.task.success_steps,
            episode_return=self._return.copy(),
            episode_env_return=self._env_return.copy(),
            episode_length=self._length.copy(),
            episode_seconds=time.perf_counter() - self._start,
            measures=measures,
        )

    def _reset_worlds(self, ids: np.ndarray) -> None:
        if not len(ids):
            return
        states = [self.task.initial_state(self.model, self._rngs[index]) for index in ids]
        qpos, qvel = (np.stack(part) for part in zip(*states, strict=True))
        self.simulation.reset(ids, qpos, qvel)
        for counter in (self._length, self._streak, self._return, self._env_return):
            counter[ids] = 0
        self._start[ids] = time.perf_counter()

    def _remember(self) -> None:
        """Keep what the next step compares with: the observation and the measured fields."""
        fields = self.simulation.fields
        self._observation = self.task.observation(self.model, fields).astype(np.float32)
        self._before = {name: fields[name].copy() for name in self.task.measure_fields}

    def get_state(self) -> dict[str, Any]:
        """Return everything that the next steps depend on, for an exact resume.

        Returns:
            Arrays, and the generators' states as nested dictionaries of numbers and strings.
        """
        return {
            "simulation": self.simulation.get_state(),
            "rngs": [rng.bit_generator.state for rng in self._rngs],
            "before": {name: array.copy() for name, array in self._before.items()},
            "observation": self._observation.copy(),
            "length": self._length.copy(),
            "streak": self._streak.copy(),
            "return": self._return.copy(),
            "env_return": self._env_return.copy(),
        }

    def set_state(self, state: Mapping[str, Any]) -> np.ndarray:
        """Continue from what `get_state` returned: the next steps are bit-equal.

        Args:
            state: the value of `get_state` of an environment with the same task and N.

        Returns:
            (N, d) float32, the observations of the restored states.

        Raises:
            CheckpointError: if a part is missing or belongs to another N.
        """
        if len(state.get("rngs", ())) != self.num_envs:
            raise CheckpointError(
                f"environment state must hold {self.num_envs} generators, got "
                f"{len(state.get('rngs', ()))}. Resume with the num_envs of the saved run."
            )
        try:
            self.simulation.set_state(state["simulation"])
            for rng, saved in zip(self._rngs, state["rngs"], strict=True):
                rng.bit_generator.state = saved
            self._before = {name: np.array(a) for name, a in state["before"].items()}
            self._observation = np.array(state["observation"], np.float32)
            self._length[:], self._streak[:] = state["length"], state["streak"]
            self._return[:], self._env_return[:] = state["return"], state["env_return"]
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"environment state must be complete, got {error!r}.") from error
        self._start[:] = time.perf_counter()
        self._started = True
        return self._observation.copy()

    def close(self) -> None:
        """Release the renderer."""
        self._renderer.close()
