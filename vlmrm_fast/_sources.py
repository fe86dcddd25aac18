"""Worlds as MuJoCo's own functions take them: one mjData each, real or filled from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import mujoco.batch
import numpy as np

from vlmrm_fast import _core
from vlmrm_fast._poses import POSE_FIELDS, BatchPoses, Poses
from vlmrm_fast.errors import ArgumentError

_TENDON = ("ten_wrapadr", "ten_wrapnum", "ten_length", "wrap_obj", "wrap_xpos")
_DECOR = (
    "xquat",
    "xmat",
    "xipos",
    "ximat",
    "xanchor",
    "xaxis",
    "qpos",
    "ctrl",
    "act",
    "ten_length",
)
_CONTACT = "contact"
# What these show lies in lists that only an MjData holds.
_CONTACT_FLAGS = ("mjVIS_CONTACTPOINT", "mjVIS_CONTACTFORCE", "mjVIS_CONTACTSPLIT", "mjVIS_ISLAND")
_SIZES = ("qpos", "xpos", "geom_xpos", "site_xpos", "cam_xpos", "light_xpos", "ten_length", "ctrl")


def extra_fields(model: mujoco.MjModel, option: mujoco.MjvOption | None) -> tuple[str, ...]:
    """Name the `MjData` fields, beyond those of `Poses`, that mjv_updateScene draws from.

    Args:
        model: the model.
        option: what is shown; None for MuJoCo's defaults.

    Returns:
        Names that hold at least one number for this model, and "contact" where contacts or islands
        are shown.
    """
    names: list[str] = []
    if model.nskin:
        names += ["xquat"]
    # Those that run along joints only are not drawn.
    if (model.wrap_type != mujoco.mjtWrap.mjWRAP_JOINT).any():
        names += _TENDON
    if (model.sensor_type == mujoco.mjtSensor.mjSENS_RANGEFINDER).any():
        names += ["sensordata"]
    if model.nflex:
        names += ["flexvert_xpos"]
    default = mujoco.MjvOption()
    if option is not None and not np.array_equal(option.flags, default.flags):
        names += _DECOR
    data = mujoco.MjData(model)
    found = [name for name in dict.fromkeys(names) if getattr(data, name).size]
    flags = (getattr(mujoco.mjtVisFlag, name) for name in _CONTACT_FLAGS)
    if option is not None and any(option.flags[int(flag)] for flag in flags):
        found.append(_CONTACT)
    return tuple(found)


class SourceReader:
    """Turns what `Renderer.render` takes into `_core.Sources`, one scratch MjData a worker."""

    def __init__(
        self, model: mujoco.MjModel, option: mujoco.MjvOption | None, num_threads: int
    ) -> None:
        """Make the reader; scratch data is made when it is first needed.

        Args:
            model: the scene's model.
            option: what the scene shows.
            num_threads: workers that draw.
        """
        self._model, self._num_threads = model, num_threads
        self._needs = extra_fields(model, option)
        self._scratch: list[mujoco.MjData] = []
        self._batch: BatchPoses | None = None
        self._shapes = [getattr(mujoco.MjData(model), name).shape for name in _SIZES]

    def read(self, source: Any) -> tuple[_core.Sources, int, object]:
        """Read N worlds.

        Args:
            source: as `Renderer.render` takes it.

        Returns:
            The sources, N, and what must stay alive while they are used.

        Raises:
            ArgumentError: `source` is of another type or another model, or does not hold all that
                the scene shows.
        """
        if isinstance(source, mujoco.MjData):
            source = [source]
        if isinstance(source, Poses):
            return self._from_arrays(self._of_poses(source), source.num_worlds)
        if isinstance(source, mujoco.batch.Batch):
            return self._from_arrays(self._of_batch(source), source.nsim)
        if isinstance(source, Sequence) and all(isinstance(d, mujoco.MjData) for d in source):
            return self._from_data(source)
        raise ArgumentError(
            "`source` must be an MjData, a sequence of MjData, a mujoco.batch.Batch or Poses, "
            f"got {type(source).__name__}."
        )

    def _from_data(
        self, worlds: Sequence[mujoco.MjData]
    ) -> tuple[_core.Sources, int, Sequence[mujoco.MjData]]:
        for data in worlds:
            if [getattr(data, name).shape for name in _SIZES] != self._shapes:
                raise ArgumentError(
                    "`source` must be of the scene's model, got an MjData of another one. "
                    "Use one Scene per model."
                )
        addresses = [data._address for data in worlds]
        if len(set(addresses)) < len(addresses):
            # Two workers on one MjData would fight over its stack.
            worlds = [_copy(self._model, data) for data in worlds]
            addresses = [data._address for data in worlds]
        return _core.Sources(len(addresses), addresses, [], [], []), len(addresses), worlds

    def _of_poses(self, poses: Poses) -> dict[str, np.ndarray]:
        if self._needs:
            raise ArgumentError(
                f"`source` must hold {', '.join(self._needs)} for this scene, got Poses. "
                "Draw from MjData, or from a mujoco.batch.Batch if no contacts are shown."
            )
        return {name: getattr(poses, name) for name in POSE_FIELDS}

    def _of_batch(self, batch: mujoco.batch.Batch) -> dict[str, np.ndarray]:
        if _CONTACT in self._needs:
            raise ArgumentError(
                "`source` must hold contacts for this scene, got a Batch. Draw from MjData."
            )
        if self._batch is None or self._batch.batch is not batch:
            self._batch = BatchPoses(batch, self._needs)
        return self._batch.arrays()

    def _from_arrays(
        self, arrays: dict[str, np.ndarray], n: int
    ) -> tuple[_core.Sources, int, object]:
        if not self._scratch:
            self._scratch = [_default(self._model) for _ in range(self._num_threads)]
        fields, places = [], [[] for _ in self._scratch]  # type: list[np.ndarray], list[list[int]]
        for name, array in arrays.items():
            home = getattr(self._scratch[0], name)
            if array.size != n * home.size:
                raise ArgumentError(
                    f"`source` must be of the scene's model, got {name} of shape {array.shape}. "
                    "Poses must come from the scene's model."
                )
            if home.size == 0:
                continue
            fields.append(np.ascontiguousarray(array, home.dtype).reshape(n, home.size))
            for row, data in zip(places, self._scratch, strict=True):
                row.append(getattr(data, name).ctypes.data)
        scratch = [data._address for data in self._scratch]
        return _core.Sources(n, [], fields, scratch, places), n, fields


def _copy(model: mujoco.MjModel, data: mujoco.MjData) -> mujoco.MjData:
    copy = mujoco.MjData(model)
    mujoco.mj_copyData(copy, model, data)
    return copy


def _default(model: mujoco.MjModel) -> mujoco.MjData:
    """Return data at the default state, with no contacts."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)
    mujoco.mj_flex(model, data)
    mujoco.mj_tendon(model, data)
    return data
