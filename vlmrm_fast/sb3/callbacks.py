"""Callbacks of a training run: metrics with the share of each stage, and checkpoints."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import snapshot
from vlmrm_fast.errors import CheckpointError, VLMRMError
from vlmrm_fast.sb3.state import capture, restore_exploration
from vlmrm_fast.signals import StopSignals

STAGES = ("simulate", "draw", "encode", "learn", "other")

# Of the five seconds that a signal leaves, two go to finishing the step and to everything else.
_HASTE_SECONDS = 3.0
# A slow disk, until the first large save has shown how fast this one is.
_BYTES_PER_SECOND, _MEASURABLE_BYTES = 200e6, 50e6


class StopRequestedError(VLMRMError):
    """Raised between two gradient steps to leave a long update after a signal."""


class MetricsCallback(BaseCallback):
    """Sums up rewards, episodes and time, and hands out one row every so many steps.

    Attributes:
        seconds: wall-clock seconds of training, those before a resume included.
        stage_seconds: seconds by stage, likewise.
    """

    def __init__(
        self,
        interval: int,
        on_row: Callable[[dict[str, float]], None],
        on_tick: Callable[[int, float, dict[str, float]], None] | None = None,
    ) -> None:
        """Prepare the sums.

        Args:
            interval: environment steps between two rows.
            on_row: called with each row.
            on_tick: called after each step with the steps done, the mean VLM reward of the last
                step and the row before, for progress displays.
        """
        super().__init__()
        self.interval = interval
        self._on_row = on_row
        self._on_tick = on_tick
        self._row: dict[str, float] = {}
        self._best: float | None = None
        self.seconds = 0.0
        self.stage_seconds = dict.fromkeys(STAGES, 0.0)
        self.counts = {"episodes": 0, "diverged": 0}
        self._next = interval
        self._last_step = 0
        self._last_seconds = 0.0
        self._last_stages = dict(self.stage_seconds)
        self._sums = _new_sums()
        self._returns: dict[str, np.ndarray] = {}
        self._clock = 0.0
        self._learn_clock: float | None = None
        self._timings: dict[str, float] = {}
        # Steps whose rewards are deferred, and the mean VLM reward of the last one that was not.
        self._learn_encode = 0.0
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._newest = math.nan

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs; deferred rewards are settled first.

        Returns:
            A tree for `set_state`.
        """
        self.settle()
        state = snapshot.attributes(self)["plain"]
        passing = {"n_calls", "num_timesteps", "verbose", "interval", "parent", "locals", "globals"}
        passing |= {"_clock", "_learn_clock", "_learn_encode", "_newest"}
        return {name: value for name, value in state.items() if name not in passing}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned.

        Args:
            state: the tree.
        """
        for name, value in state.items():
            setattr(self, name, value)
        # The sums of the environment start anew in a new process.
        self._timings = {}

    def is_best(self) -> bool:
        """Say whether the newest row has the greatest mean VLM reward since this was last asked.

        Returns:
            True if so.
        """
        mean = self._row.get("vlm_reward_mean")
        if mean is None or (self._best is not None and mean <= self._best):
            return False
        self._best = mean
        return True

    def _on_training_start(self) -> None:
        count = self.training_env.num_envs
        if not self._returns:
            names = ("vlm", "truth", "length")
            self._returns = {name: np.zeros(count) for name in names}
        self._clock = time.perf_counter()
        self._learn_clock = None
        self._timings = _timings(self.training_env)

    def _on_rollout_start(self) -> None:
        if self._learn_clock is not None:
            # Rewards that came late were waited for in between: that time is "encode".
            waited = _timings(self.training_env).get("encode", 0.0) - self._learn_encode
            self.stage_seconds["learn"] += time.perf_counter() - self._learn_clock - waited
            self._learn_clock = None
        if self.model.num_timesteps >= self._next:
            self._emit()

    def _on_rollout_end(self) -> None:
        self._learn_clock = time.perf_counter()
        self._learn_encode = _timings(self.training_env).get("encode", 0.0)

    def _on_training_end(self) -> None:
        self._on_rollout_start()
        if self.model.num_timesteps > self._last_step:
            self._emit()

    def _on_step(self) -> bool:
        found = self.locals
        self._waiting.append((found["infos"], found["rewards"], found["dones"]))
        self._count()
        if self._on_tick is not None:
            self._on_tick(self.num_timesteps, self._newest, self._row)
        return True

    def settle(self) -> None:
        """Wait for deferred rewards and count the steps that they belong to."""
        if self._waiting:
            self.training_env.settle_labels()  # type: ignore[attr-defined]
            self._count()

    def _count(self) -> None:
        """Count the steps whose rewards are there, in order."""
        while self._waiting and not math.isnan(self._waiting[0][0][0].get("vlm_reward", 0)):
            self._count_step(*self._waiting.popleft())

    def _count_step(self, infos: list[dict[str, Any]], rewards: Any, dones: Any) -> None:
        vlm = np.array([info.get("vlm_reward", r) for info, r in zip(infos, rewards, strict=True)])
        truth = np.array([info.get("env_reward", 0.0) for info in infos])
        sums = self._sums
        sums["steps"] += len(infos)
        sums["vlm"] += float(vlm.sum())
        sums["truth"] += float(truth.sum())
        self._returns["vlm"] += vlm
        self._returns["truth"] += truth
        self._returns["length"] += 1
        for index in np.flatnonzero(dones):
            self._finish_episode(int(index), infos[index])
        self._newest = float(vlm.mean())

    def _finish_episode(self, index: int, info: Mapping[str, Any]) -> None:
        sums, returns = self._sums, self._returns
        self.counts["episodes"] += 1
        self.counts["diverged"] += bool(info.get("diverged", False))
        sums["episodes"] += 1
        for name in ("vlm", "truth", "length"):
            sums[f"{name}_return"] += float(returns[name][index])
            returns[name][index] = 0
        success = info.get("is_success", info.get("success"))
        if success is not None:
            sums["known"] += 1
            sums["successes"] += bool(success)

    def _measure(self) -> None:
        """Bring the clock and the stages up to now."""
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now
        current = _timings(self.training_env)
        for name, value in current.items():
            self.stage_seconds[name] += value - self._timings.get(name, 0.0)
        self._timings = current
        known = sum(value for name, value in self.stage_seconds.items() if name != "other")
        self.stage_seconds["other"] = max(0.0, self.seconds - known)

    def _emit(self) -> None:
        """Hand out a row and start new sums."""
        self.settle()
        self._measure()
        sums, step = self._sums, self.model.num_timesteps
        spent = max(self.seconds - self._last_seconds, 1e-9)
        episodes = max(sums["episodes"], 1)
        row: dict[str, float] = {
            "step": step,
            "seconds": self.seconds,
            "steps_per_second": (step - self._last_step) / spent,
            "episodes": self.counts["episodes"],
            "diverged": self.counts["diverged"],
            "vlm_reward_mean": sums["vlm"] / max(sums["steps"], 1),
            "ground_truth_mean": sums["truth"] / max(sums["steps"], 1),
        }
        if sums["episodes"]:
            row["vlm_return"] = sums["vlm_return"] / episodes
            row["ground_truth_return"] = sums["truth_return"] / episodes
            row["episode_length"] = sums["length_return"] / episodes
        if sums["known"]:
            row["success_rate"] = sums["successes"] / sums["known"]
        for name in STAGES:
            row[f"share_{name}"] = (self.stage_seconds[name] - self._last_stages[name]) / spent
        self._row = row
        self._on_row(row)
        self._sums = _new_sums()
        self._last_step, self._last_seconds = step, self.seconds
        self._last_stages = dict(self.stage_seconds)
        self._next = (step // self.interval + 1) * self.interval


class CheckpointCallback(BaseCallback):
    """Saves between rollouts, and on a signal as soon as the state is consistent."""

    def __init__(
        self,
        folder: str | Path,
        interval: int,
        *,
        keep: int,
        config: str,
        signals: StopSignals,
        metrics: MetricsCallback,
        resumed: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare.

        Args:
            folder: the run's folder of checkpoints.
            interval: environment steps between two checkpoints.
            keep: checkpoints to keep.
            config: the resolved configuration as YAML.
            signals: asked for signals after every step.
            metrics: saved along.
            resumed: the `state` of the checkpoint that training continues from.
        """
        super().__init__()
        self.folder, self.interval, self.keep = Path(folder), interval, keep
        self._config = config
        self._signals = signals
        self._metrics = metrics
        self._resumed = resumed
        self._next = interval
        self._rollout_step = 0
        self._bytes_per_second = _BYTES_PER_SECOND

    def save(self, place: str, *, in_haste: bool = False) -> Path | None:
        """Write a checkpoint; a failure is reported, and training goes on.

        Args:
            place: see `state.capture`.
            in_haste: whether to leave out a replay buffer that takes too long to write.

        Returns:
            The checkpoint's folder, or None where it could not be written.
        """
        self._metrics.settle()
        self._metrics._measure()
        best = self._metrics.is_best()
        extra = {"metrics": self._metrics.state()}
        state = capture(self.model, place, extra, self._config)
        self._next = (self.model.num_timesteps // self.interval + 1) * self.interval
        size = sum(array.nbytes for array in (state.replay or {}).values())
        if in_haste and size > self._bytes_per_second * _HASTE_SECONDS:
            sys.stderr.write(
                "note: the replay buffer is too large to save in time; it is left out\n"
            )
            state.replay = None
        start = time.perf_counter()
        try:
            saved = checkpoints.save(self.folder, state, self.keep, best=best)
        except CheckpointError as error:
            sys.stderr.write(f"warning: {error}\n")
            return None
        if size > _MEASURABLE_BYTES:
            self._bytes_per_second = size / (time.perf_counter() - start)
        return saved

    def _on_training_start(self) -> None:
        self._next = (self.model.num_timesteps // self.interval + 1) * self.interval
        buffer = getattr(self.model, "replay_buffer", None)
        if buffer is not None:
            self._guard(buffer, "sample")
        elif getattr(self.model, "rollout_buffer", None) is not None:
            self._guard_batches(self.model.rollout_buffer)  # type: ignore[attr-defined]

    def _on_rollout_start(self) -> None:
        if self._resumed is not None:
            restore_exploration(self.model, self._resumed)
            self._resumed = None
        self._rollout_step = self.model.num_timesteps
        if self._signals.received is not None:
            raise StopRequestedError("stopped between rollouts")
        if self.model.num_timesteps >= self._next:
            self.save("start")

    def _on_step(self) -> bool:
        if self._signals.received is None:
            return True
        model: Any = self.model
        if getattr(model, "replay_buffer", None) is not None:
            # The rest of this step of collect_rollouts, which a False return leaves out.
            found = self.locals
            model._update_info_buffer(found["infos"], found["dones"])
            names = ("replay_buffer", "buffer_actions", "new_obs", "rewards", "dones", "infos")
            model._store_transition(*(found[name] for name in names))
            model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
            model._on_step()
            model._episode_num += int(np.sum(found["dones"]))
        else:
            # A rollout that was not finished is not learned from: it is collected again.
            model.num_timesteps = self._rollout_step
            model._last_obs = self.locals["new_obs"]
            model._last_episode_starts = self.locals["dones"]
        return False

    def _guard(self, buffer: Any, name: str) -> None:
        """Let an update stop between two gradient steps."""
        sample = getattr(buffer, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._signals.received is not None:
                raise StopRequestedError("stopped between gradient steps")
            return sample(*args, **kwargs)

        setattr(buffer, name, guarded)

    def _guard_batches(self, buffer: Any) -> None:
        """Let an update stop between two minibatches."""
        batches = buffer.get

        def guarded(*args: Any, **kwargs: Any) -> Any:
            for batch in batches(*args, **kwargs):
                if self._signals.received is not None:
                    raise StopRequestedError("stopped between minibatches")
                yield batch

        buffer.get = guarded


def _new_sums() -> dict[str, float]:
    """Return empty sums of one interval."""
    names = ["steps", "vlm", "truth", "episodes", "known", "successes"]
    names += ["vlm_return", "truth_return", "length_return"]
    return dict.fromkeys(names, 0.0)


def _timings(env: Any) -> dict[str, float]:
    """Return the environment's accumulated seconds by stage, as far as it counts them."""
    try:
        timings = env.timings
    except AttributeError:
        return {}
    return {name: float(timings[name]) for name in STAGES if name in timings}
