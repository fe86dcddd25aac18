"""N worlds of one MuJoCo model, stepped together on a thread pool.

The physics is `mujoco.batch.Batch`, whose results are bit-identical at any thread count. This
module adds what it leaves open: divergence is reported instead of hidden, non-finite controls are
rejected, contact forces in body frames are there when asked for, and the whole state can be saved.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError

from vlmrm_fast._poses import Poses
from vlmrm_fast._stepper import BatchStepper, make_stepper
from vlmrm_fast.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from vlmrm_fast.rendering import Renderer, Scene

# The warnings after which MuJoCo resets a world on its own.
_FATAL = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC")]
_STATE_FIELDS = ("qpos", "qvel", "ctrl", "time")

_log = logging.getLogger(__name__)


def log_mujoco_warnings() -> None:
    """Send MuJoCo's warnings to `logging` (level DEBUG) unless someone handles them already.

    Without a handler MuJoCo prints them and appends to MUJOCO_LOG.TXT in the working directory.
    """
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda text: _log.debug("MuJoCo: %s", text))


class Simulation:
    """N worlds of one model. Not to be used from several Python threads at once.

    All arrays are live: they show the state after the last call and are never replaced. `qpos`,
    `qvel`, `ctrl` and `time` may be written; derived fields are read-only and lag the state by one
    substep after `step`, as after `mj_step`.

    Attributes:
        model: the shared `MjModel`.
        batch: the `mujoco.batch.Batch`.
        fields: all bound arrays by `MjData` field name, each (N, ...).
        qpos: (N, nq) float64.
        qvel: (N, nv) float64.
        ctrl: (N, nu) float64.
        time: (N,) float64 [s].
        draw_share: of the last `step_and_draw`'s time, what went into drawing, 0 to 1.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        num_threads: int = 0,
        fields: Sequence[str] = (),
    ) -> None:
        """Make `num_envs` worlds at the model's default state.

        Args:
            model: the model; it is copied.
            num_envs: N, at least 1.
            num_threads: worker threads, 0 for one a CPU that this process may use.
            fields: derived `MjData` fields to keep bound, apart from qpos, qvel, ctrl and time.
                `cfrc_ext` costs about a tenth of a humanoid's step: MuJoCo computes it on request
                only, which takes one `MjData` a world.

        Raises:
            ArgumentError: if `num_envs` or `num_threads` is out of range or a field is not one
                that a batch can bind.
        """
        if num_envs < 1:
            raise ArgumentError(f"num_envs must be at least 1, got {num_envs}.")
        if num_threads < 0:
            raise ArgumentError(f"num_threads must be at least 0, got {num_threads}.")
        log_mujoco_warnings()
        self._contact_forces = "cfrc_ext" in fields
        num_threads = num_threads or len(os.sched_getaffinity(0))
        self.batch = Batch(model, num_envs, num_threads, persistent=self._contact_forces)
        self.model = self.batch.model
        self.fields: dict[str, np.ndarray] = {}
        for name in dict.fromkeys((*_STATE_FIELDS, *fields)):
            self._bind(name)
        self.qpos, self.qvel = self.fields["qpos"], self.fields["qvel"]
        self.ctrl, self.time = self.fields["ctrl"], self.fields["time"]
        self._poses: Poses | None = None
        self._stepper: BatchStepper | None = None
        self._cannot_fuse = False
        self.draw_share = 0.0
        self._scratch = mujoco.MjData(self.model) if self._contact_forces else None

    def _bind(self, name: str) -> None:
        if name == "cfrc_ext":
            # The batch's own array would hold zeros: no stage computes this field.
            self.fields[name] = np.zeros((self.batch.nsim, self.batch.model.nbody, 6))
            return
        try:
            self.fields[name] = self.batch.bind(name)
        except (AttributeError, ValueError, TypeError) as error:
            raise ArgumentError(f"fields must be MjData fields, got {name!r}. {error}") from error

    @property
    def num_envs(self) -> int:
        """Number of worlds N."""
        return self.batch.nsim

    @property
    def poses(self) -> Poses:
        """Live arrays for `Renderer.render`, bound on first use, current from the next call."""
        if self._poses is None:
            self._poses = Poses.from_batch(self.batch)
        return self._poses

    def source(self, scene: Scene) -> Poses | Batch:
        """Return what a scene of this model is drawn from: the poses, if they are all it needs.

        Args:
            scene: what is drawn.

        Returns:
            As `Renderer.render` takes it; live.
        """
        return self.batch if scene.needs else self.poses

    def step(self, ctrl: np.ndarray, num_substeps: int = 1) -> np.ndarray:
        """Apply controls and advance every world by `num_substeps` calls of `mj_step`.

        Args:
            ctrl: (N, nu) controls, finite.
            num_substeps: at least 1.

        Returns:
            (N,) bool, True for the worlds that diverged: MuJoCo warned of a bad position, velocity
            or acceleration (and put the world back to its default state), raised, lost time, or
            left a non-finite state. Reset them before the next step.

        Raises:
            ArgumentError: if `ctrl` has another shape or holds a non-finite value; nothing has
                moved then.
        """
        return self._advance(ctrl, num_substeps, lambda: self._step_batch(num_substeps))

    def step_and_draw(
        self, ctrl: np.ndarray, renderer: Renderer, out: np.ndarray, num_substeps: int = 1
    ) -> np.ndarray:
        """As `step`, then draw the state reached: each world on the core that just stepped it.

        The same bits as `step` and `renderer.render(poses, out)`, without waiting in between for
        the slowest world; `draw_share` says how the time was spent. Where this cannot be done
        (Python callbacks, plugins, sleep, another renderer than "ray") the two run in turn.

        Args:
            ctrl: (N, nu) controls, finite.
            renderer: of a scene of this model.
            out: N pictures of the renderer's format, as `Renderer.render` takes them.
            num_substeps: at least 1.

        Returns:
            As `step`.

        Raises:
            ArgumentError: as `step` and `Renderer.render`; nothing has moved then.
        """
        frames, poses = renderer.output.array(out, self.num_envs), self.poses

        def both() -> np.ndarray:
            stepper = self._fused(renderer)
            if stepper is None:
                start = time.perf_counter()
                failed = self._step_batch(num_substeps)
                stepped = time.perf_counter()
                renderer.render(self.source(renderer.scene), out)
                done = time.perf_counter()
                self.draw_share = (done - stepped) / (done - start)
                return failed
            stepper.failed[:] = 0
            self.draw_share = renderer.draw_stepped(poses, frames, stepper.native, num_substeps)
            return stepper.failed.astype(bool)

        return self._advance(ctrl, num_substeps, both)

    def _fused(self, renderer: Renderer) -> BatchStepper | None:
        if self._stepper is None and not self._cannot_fuse:
            forces = self.fields.get("cfrc_ext")
            self._stepper = make_stepper(self.batch, self.fields, self.poses, forces)
            self._cannot_fuse = self._stepper is None
        stepper = self._stepper
        if stepper is None or not renderer.can_draw_stepped(stepper.native) or not stepper.fits():
            return None
        return stepper

    def _advance(
        self, ctrl: np.ndarray, num_substeps: int, run: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Write the controls, run, and return which worlds diverged."""
        self._write_controls(ctrl)
        expected = self.time + num_substeps * self.model.opt.timestep
        warned = self.batch.warning[:, _FATAL].sum(axis=(1, 2))
        diverged = run()
        diverged |= self.batch.warning[:, _FATAL].sum(axis=(1, 2)) != warned
        # Negated, so that NaN counts as lost time.
        diverged |= ~(np.abs(self.time - expected) < 0.1 * self.model.opt.timestep)
        diverged |= ~(np.isfinite(self.qpos).all(axis=1) & np.isfinite(self.qvel).all(axis=1))
        return diverged

    def _step_batch(self, num_substeps: int) -> np.ndarray:
        """Step on the batch's own threads; return in which worlds MuJoCo raised."""
        failed = np.zeros(self.num_envs, bool)
        try:
            self.batch.step(nstep=num_substeps)
        except SimulationError as error:
            failed[error.ids] = True
        if self._contact_forces:
            self._refresh_contact_forces()
        return failed

    def _write_controls(self, ctrl: np.ndarray) -> None:
        ctrl = np.asarray(ctrl, dtype=np.float64)
        if ctrl.shape != self.ctrl.shape:
            raise ArgumentError(f"actions must have shape {self.ctrl.shape}, got {ctrl.shape}.")
        finite = np.isfinite(ctrl).all(axis=1)
        if not finite.all():
            index = int(np.flatnonzero(~finite)[0])
            raise ArgumentError(
                f"actions must be finite, got {ctrl[index].tolist()} for environment {index}. "
                "Check the policy for NaN weights."
            )
        self.ctrl[:] = ctrl

    def _refresh_contact_forces(self) -> None:
        """Fill `cfrc_ext` as gymnasium's MuJoCo environments do, from the end of the step."""
        for index in range(self.num_envs):
            self.batch.get_data(index, self._scratch)
            mujoco.mj_rnePostConstraint(self.model, self._scratch)
            self.fields["cfrc_ext"][index] = self._scratch.cfrc_ext  # type: ignore[union-attr]

    def reset(self, ids: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put worlds `ids` at rest time 0 in the given state and run `mj_forward` on them.

        Args:
            ids: (K,) world indices.
            qpos: (K, nq) positions.
            qvel: (K, nv) velocities.

        Source:
            gymnasium's `MujocoEnv.reset` and `set_state`; `cfrc_ext` is zero after it, as there.
        """
        ids = np.asarray(ids, dtype=np.int32)
        if not len(ids):
            return
        self.batch.reset(ids, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self.qpos[ids], self.qvel[ids] = qpos, qvel
        self.batch.forward(ids)
        if self._contact_forces:
            self.fields["cfrc_ext"][ids] = 0

    def get_state(self) -> dict[str, np.ndarray]:
        """Return all that the next steps depend on.

        Returns:
            "state": a copy, (N, nstate) float64, MuJoCo's `mjSTATE_INTEGRATION`.
        """
        return {"state": self.batch.state.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned: the next steps are bit-equal.

        Derived fields and poses are current again after the next step.

        Args:
            state: the arrays of `get_state`.

        Raises:
            CheckpointError: if the array is missing or has another shape.
        """
        target = self.batch.state
        shape = np.shape(state["state"]) if "state" in state else "nothing"
        if shape != target.shape:
            raise CheckpointError(
                f"simulation state must have shape {target.shape}, got {shape}. "
                "Resume with the task and num_envs of the saved run."
            )
        target[...] = state["state"]
