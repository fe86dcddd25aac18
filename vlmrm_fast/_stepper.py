"""Stepping a batch's worlds from native code, so that each can be drawn on the core that did."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import fields as fields_of
from pathlib import Path

import mujoco
import mujoco.batch
import numpy as np

from vlmrm_fast import _core
from vlmrm_fast._poses import Poses

_log = logging.getLogger(__name__)
_CALLBACKS = ("passive", "control", "contactfilter", "sensor", "time", "act_dyn", "act_gain")
_SPEC = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class BatchStepper:
    """Advances the worlds of a `mujoco.batch.Batch` in place, with the same bits as its `step`.

    The batch's state rows, warnings and the given arrays are written; other arrays bound to it
    follow at its own next call.

    Attributes:
        native: for `_core.Renderer.render`; valid as long as this object lives.
        failed: (N,) uint8, set to 1 where MuJoCo raised; such a world keeps its state.
    """

    def __init__(
        self,
        batch: mujoco.batch.Batch,
        arrays: Mapping[str, np.ndarray],
        poses: Poses,
        forces: np.ndarray | None,
    ) -> None:
        """Make one `MjData` a thread of the batch.

        Args:
            batch: the worlds.
            arrays: by field name, outputs bound to the batch.
            poses: of the batch, as `Poses.from_batch` gives them.
            forces: (N, nbody, 6) to fill with `cfrc_ext` after a step, or None.
        """
        self._batch = batch
        # The batch has its own copy too: later changes to the caller's model are not seen.
        self._model = copy.copy(batch.model)
        self._data = [mujoco.MjData(self._model) for _ in range(batch.nthread)]
        outputs = {name: array for name, array in arrays.items() if not array.flags.writeable}
        outputs |= {f.name: getattr(poses, f.name) for f in fields_of(poses)}
        outputs = {name: array for name, array in outputs.items() if array.size}
        # Kept alive: native code holds their addresses.
        self._arrays = [batch.state, batch.warning, forces, *outputs.values()]
        self.failed = np.zeros(batch.nsim, np.uint8)
        self.native = _core.Stepper(
            str(_library()),
            self._model._address,
            [data._address for data in self._data],
            batch.state,
            _SPEC,
            self.failed,
            (
                [data.warning.lastinfo.ctypes.data for data in self._data],
                batch.warning.ctypes.data,
                batch.warning[0].nbytes,
            ),
            [self._field(name, array) for name, array in outputs.items()],
            ([0] * batch.nthread, 0, 0) if forces is None else self._field("cfrc_ext", forces),
        )

    def _field(self, name: str, array: np.ndarray) -> tuple[list[int], int, int]:
        sources = [getattr(data, name) for data in self._data]
        assert array.flags.c_contiguous
        assert all(a.nbytes == array[0].nbytes and a.dtype == array.dtype for a in sources)
        return [a.ctypes.data for a in sources], array.ctypes.data, array[0].nbytes

    def fits(self) -> bool:
        """Whether a step now gives what the batch's own gives."""
        batch = self._batch
        # Python callbacks need the batch's refusal; models a world are the batch's alone.
        return (
            all(getattr(mujoco, f"get_mjcb_{name}")() is None for name in (*_CALLBACKS, "act_bias"))
            and batch.models is None
            and not getattr(batch, "_expanded", True)
        )


def make_stepper(
    batch: mujoco.batch.Batch,
    arrays: Mapping[str, np.ndarray],
    poses: Poses,
    forces: np.ndarray | None,
) -> BatchStepper | None:
    """Make a stepper where the model and the installed MuJoCo allow it.

    Args:
        batch: as `BatchStepper`.
        arrays: as `BatchStepper`.
        poses: as `BatchStepper`.
        forces: as `BatchStepper`.

    Returns:
        The stepper, or None: a world's state is more than its row (sleep, IPC, plugins), or the
        library lacks a function.
    """
    if batch.model.nplugin:
        return None
    try:
        # MuJoCo refuses this for models whose worlds are more than their rows (sleep, IPC).
        mujoco.batch.Batch(batch.model, 1, 1, persistent=False)
        return BatchStepper(batch, arrays, poses, forces)
    except (ValueError, RuntimeError, AttributeError, AssertionError) as error:
        _log.debug("Worlds are stepped before any is drawn: %s", error)
        return None


def _library() -> Path:
    """Return the libmujoco that Python has loaded."""
    folder = Path(mujoco.__file__).parent
    found = sorted([*folder.glob("libmujoco.so*"), *folder.glob("libmujoco*.dylib")])
    return found[0] if found else folder / "libmujoco.so"
