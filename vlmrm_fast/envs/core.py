"""The batched environment itself: step, draw, score, and only then reset.

`TaskWorlds` holds all logic; the gymnasium and Stable-Baselines3 faces only repack its results.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from vlmrm_fast.envs.cameras import WorldCameras, camera_list
from vlmrm_fast.envs.labels import Deferring, Labels
from vlmrm_fast.envs.step import FrameReward, Mix, StepResult, render_shape
from vlmrm_fast.envs.stream import RewardOptions, RewardStream
from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.simulation import Simulation

if TYPE_CHECKING:
    from vlmrm_fast.tasks import Task


class TaskWorlds(Deferring):
    """N worlds of a task with their frames and rewards. Not for use from several threads.

    Attributes:
        task: the task.
        simulation: the physics.
        labels: what scores the frames.
        camera_frames: (C, N, H, W, 3) uint8, what the last step's rewards were given for: terminal
            frames of ended episodes included, and older ones where a step was not scored. Reused:
            copy to keep.
        diverged: (N,) bool, live: the worlds that diverged in the last step.
        timings: seconds spent so far in "simulate", "draw" and "encode".
    """

    def __init__(
        self,
        task: Task,
        num_envs: int,
        reward: FrameReward,
        *,
        seed: int | None = None,
        num_threads: int = 0,
        render_size: int | tuple[int, int] | None = None,
        supersample: int = 1,
        renderer: str = "auto",
        camera: Any = None,
        mix: Mix | None = None,
        options: RewardOptions | None = None,
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
            camera: as `Scene.from_model` takes it, or a list of such; None for the task's.
            mix: how rewards combine; the model's reward alone by default.
            options: what happens to the model's rewards before.
        """
        self.task, self.num_envs = task, num_envs
        self.simulation = Simulation(task.load_model(), num_envs, num_threads, task.fields)
        self.model = self.simulation.model
        self.height, self.width = render_shape(render_size, reward.image_size)
        views = [task.camera if view is None else view for view in camera_list(camera)]
        self._cameras = WorldCameras(
            self.simulation, views, self.height, self.width, num_threads, renderer, supersample
        )
        self._frames = np.zeros(self._cameras.shape, np.uint8)
        self._show(self._frames)
        self.diverged = np.zeros(num_envs, bool)
        self.timings = {"simulate": 0.0, "draw": 0.0, "encode": 0.0}
        stream = RewardStream(num_envs, mix or Mix(), options)
        self.labels = Labels(reward, stream, num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self._streak = np.zeros(num_envs, np.int64)
        self._env_return, self._start = np.zeros(num_envs), np.zeros(num_envs)
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
        """Start a new episode in every world and draw it; rewards are deferred no longer.

        Returns:
            (N, d) float32 observations.
        """
        self.labels.reset()
        self.diverged[:], self._started = False, True
        self._reset_worlds(np.arange(self.num_envs))
        self._cameras.draw(self._frames)
        self._show(self._frames)
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
        due = self.labels.stream.due(self._length, self._length + 1 >= self.task.horizon)
        frames = self._advance(actions, due)
        clock = time.perf_counter()
        result = self._observe()
        clock = self._lap("simulate", clock)
        result.vlm_reward, result.reward, result.episode_return = self.labels.step(
            frames, result.env_reward, result.done, result.diverged, due
        )
        clock = self._lap("encode", clock)
        self._reset_worlds(np.flatnonzero(result.done))
        self._remember()
        result.observation[result.done] = self._observation[result.done]
        self._lap("simulate", clock)
        return result

    def _advance(self, actions: np.ndarray, due: np.ndarray | None) -> np.ndarray:
        """Step, draw the worlds that are due, and return the frames (C * N, H, W, 3)."""
        scorer, frames = self.labels.scorer, self._frames
        clock = time.perf_counter()
        if due is None and scorer is not None:
            # Memory of the scorer's own: drawn into, then copied by the GPU.
            frames = scorer.acquire(self._cameras.shape)
            clock = self._lap("encode", clock)
        substeps = self.task.frame_skip
        if due is None:
            self.diverged[:] = self._cameras.step_and_draw(actions, frames, substeps)
        else:
            self.diverged[:] = self._cameras.step_and_draw_some(actions, frames, substeps, due)
        self._lap("simulate", clock, {"draw": self._cameras.draw_share})
        self._show(frames)
        return frames

    def _show(self, frames: np.ndarray) -> None:
        """Let `camera_frames` be views of frames (C * N, H, W, 3)."""
        self.camera_frames = frames.reshape(-1, self.num_envs, *frames.shape[1:])

    @property
    def last_frames(self) -> np.ndarray:
        """The first camera's `camera_frames`: (N, H, W, 3) uint8."""
        return self.camera_frames[0]

    @property
    def reward(self) -> FrameReward:
        """What scores the frames."""
        return self.labels.reward

    @property
    def renderer(self) -> str:
        """What draws: "ray" or "gl"."""
        return self._cameras.backend

    def _lap(self, stage: str, start: float, shares: Mapping[str, float] | None = None) -> float:
        """Book the time since `start` to a stage, but for the shares of others."""
        now = time.perf_counter()
        rest = 1.0
        for other, share in (shares or {}).items():
            self.timings[other] += share * (now - start)
            rest -= share
        self.timings[stage] += rest * (now - start)
        return now

    def _observe(self) -> StepResult:
        """Read out the state that was drawn, before any reset; rewards are left out."""
        fields, ok = self.simulation.fields, ~self.diverged
        # A diverged world stands at MuJoCo's default state: nothing of it is measured.
        with np.errstate(all="ignore"):
            final = self.task.observation(self.model, fields).astype(np.float32)
            env_reward, success = self.task.ground_truth(self.model, fields)
            measures = self.task.measures(self.model, fields, self._before)
        final[self.diverged] = self._observation[self.diverged]
        env_reward, success = np.where(ok, env_reward, 0.0), success & ok
        measures = {name: np.where(ok, values, 0.0) for name, values in measures.items()}
        self._length += 1
        self._streak = np.where(success, self._streak + 1, 0)
        self._env_return += env_reward
        return StepResult(
            observation=final.copy(),
            final_observation=final,
            env_reward=env_reward,
            success=success,
            done=self.diverged | (self._length >= self.task.horizon),
            diverged=self.diverged.copy(),
            episode_success=self._streak >= self.task.success_steps,
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
        for counter in (self._length, self._streak, self._env_return):
            counter[ids] = 0
        self._start[ids] = time.perf_counter()

    def _remember(self) -> None:
        """Keep what the next step compares with: the observation and the measured fields."""
        fields = self.simulation.fields
        self._observation = self.task.observation(self.model, fields).astype(np.float32)
        self._before = {name: fields[name].copy() for name in self.task.measure_fields}

    def get_state(self) -> dict[str, Any]:
        """Return everything that the next steps depend on, for an exact resume.

        Deferred rewards are settled first.

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
            "labels": self.labels.get_state(),
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
            self._env_return[:] = state["env_return"]
            self.labels.set_state(state["labels"])
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"environment state must be complete, got {error!r}.") from error
        self._start[:] = time.perf_counter()
        self._started = True
        return self._observation.copy()

    def close(self) -> None:
        """Release the renderer and the scorer; deferred rewards are settled."""
        self.labels.close()
        self._cameras.close()
