"""Where everything is in N worlds, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import mujoco
import mujoco.batch
import numpy as np

from vlmrm_fast.errors import ArgumentError


@dataclass
class Poses:
    """Where everything is in N worlds; drawn as it stands, never recomputed.

    After `mj_step` these arrays lag one substep behind qpos, and gymnasium draws them so.

    Attributes:
        geom_xpos: (N, ngeom, 3) float64.
        geom_xmat: (N, ngeom, 9) float64.
        site_xpos: (N, nsite, 3) float64.
        site_xmat: (N, nsite, 9) float64.
        cam_xpos: (N, ncam, 3) float64.
        cam_xmat: (N, ncam, 9) float64.
        light_xpos: (N, nlight, 3) float64.
        light_xdir: (N, nlight, 3) float64.
        xpos: (N, nbody, 3) float64.
        subtree_com: (N, nbody, 3) float64.
    """

    geom_xpos: np.ndarray
    geom_xmat: np.ndarray
    site_xpos: np.ndarray
    site_xmat: np.ndarray
    cam_xpos: np.ndarray
    cam_xmat: np.ndarray
    light_xpos: np.ndarray
    light_xdir: np.ndarray
    xpos: np.ndarray
    subtree_com: np.ndarray

    @classmethod
    def from_data(cls, data: mujoco.MjData | Sequence[mujoco.MjData]) -> Poses:
        """Copy the poses of one or several MjData.

        Args:
            data: one MjData (N = 1) or a sequence of N.

        Returns:
            Arrays with a leading dimension N.

        Raises:
            ArgumentError: the data are of models of different sizes.
        """
        worlds = [data] if isinstance(data, mujoco.MjData) else list(data)
        arrays = {}
        for f in fields(cls):
            rows = [getattr(d, f.name) for d in worlds]
            if len({row.shape for row in rows}) > 1:
                shapes = sorted({row.shape for row in rows})
                raise ArgumentError(
                    f"`data` must be of one model, got {f.name} of shapes {shapes}. "
                    "Use one Scene and Renderer per model."
                )
            arrays[f.name] = np.array(rows)
        return cls(**arrays)

    @classmethod
    def from_batch(cls, batch: mujoco.batch.Batch) -> Poses:
        """Bind the poses of a batch; they are filled by its next call and stay live as it steps.

        Args:
            batch: the batch, whose arrays are bound once.

        Returns:
            Views of the batch's memory.
        """
        empty = {"site": batch.model.nsite, "cam": batch.model.ncam, "light": batch.model.nlight}
        arrays = {}
        for f in fields(cls):
            prefix = f.name.split("_")[0]
            if empty.get(prefix, 1) == 0:
                width = 9 if f.name.endswith("xmat") else 3
                arrays[f.name] = np.zeros((batch.nsim, 0, width))
            else:
                arrays[f.name] = batch.bind(f.name)
        return cls(**arrays)

    @classmethod
    def empty(cls, model: mujoco.MjModel) -> Poses:
        """Return the poses of no world.

        Args:
            model: gives the sizes.

        Returns:
            Arrays of N = 0.
        """
        m = model
        rows = (m.ngeom, m.ngeom, m.nsite, m.nsite, m.ncam, m.ncam, m.nlight, m.nlight)
        return cls(*(np.zeros((0, k, 3)) for k in (*rows, m.nbody, m.nbody)))

    @property
    def num_worlds(self) -> int:
        """N."""
        return len(self.geom_xpos)


POSE_FIELDS = tuple(f.name for f in fields(Poses))


class BatchPoses:
    """The poses of a batch, with copies in place of what its next call will fill."""

    def __init__(self, batch: mujoco.batch.Batch, extra: Sequence[str] = ()) -> None:
        """Bind the fields.

        Args:
            batch: the batch.
            extra: further `MjData` fields, each of at least one number.
        """
        self.batch = batch
        self._live = dict(vars(Poses.from_batch(batch)))
        self._live |= {name: batch.bind(name) for name in extra}
        self._waiting = list(self._live)

    def current(self) -> Poses:
        """Return the batch's poses as they stand; rows never filled come from its state."""
        arrays = self.arrays()
        return Poses(**{name: arrays[name] for name in POSE_FIELDS})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all fields by name, the further ones too."""
        if not self._waiting:
            return self._live
        empty = {name: ~_filled(self._live[name]) for name in self._waiting}
        worlds = np.flatnonzero(np.any(list(empty.values()), axis=0))
        if worlds.size == 0:
            self._waiting = []
            return self._live
        # Computed aside, for a call of the batch would overwrite arrays that others watch.
        copies = [self._copy(int(i)) for i in worlds]
        arrays, waiting = dict(self._live), []
        for name in self._waiting:
            fresh = np.array([getattr(data, name) for data in copies])
            unfilled = empty[name][worlds]
            arrays[name] = arrays[name].copy()
            arrays[name][worlds[unfilled]] = fresh[unfilled]
            # What is zero in truth too has nothing to wait for.
            if (unfilled & _filled(fresh)).any():
                waiting.append(name)
        self._waiting = waiting
        return arrays

    def _copy(self, sim: int) -> mujoco.MjData:
        model, data = self.batch.get_model(sim), self.batch.get_data(sim)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        mujoco.mj_flex(model, data)
        mujoco.mj_tendon(model, data)
        return data


def _filled(rows: np.ndarray) -> np.ndarray:
    """Say which rows hold anything but zeros, (N,) bool."""
    return np.asarray(rows.reshape(len(rows), -1).any(axis=1))
