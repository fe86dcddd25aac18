"""The points and directions of the humanoid that decide what it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True)
class HumanoidGeometry:
    """The points of N humanoids that decide what they do; heights are above the floor [m].

    Attributes:
        up: (N, 3) unit vector from the torso's centre to the head.
        forward: (N, 3) unit vector that the chest faces.
        left: (N, 3) unit vector to the torso's left.
        torso, head, pelvis: (N, 3) positions.
        hips, knees, feet, elbows, hands: (N, 2, 3) positions, right then left. Feet and hands are
            the centres of spheres of 0.075 and 0.04.
    """

    up: np.ndarray
    forward: np.ndarray
    left: np.ndarray
    torso: np.ndarray
    head: np.ndarray
    pelvis: np.ndarray
    hips: np.ndarray
    knees: np.ndarray
    feet: np.ndarray
    elbows: np.ndarray
    hands: np.ndarray


def humanoid_geometry(
    model: mujoco.MjModel, xpos: np.ndarray, geom_xpos: np.ndarray
) -> HumanoidGeometry:
    """Read the deciding points of N humanoids from their positions.

    Args:
        model: a model with the bodies and geoms of gymnasium's humanoid.
        xpos: (N, nbody, 3) float64 body positions.
        geom_xpos: (N, ngeom, 3) float64 geom centres.

    Returns:
        Their geometry.
    """

    def bodies(part: str) -> np.ndarray:
        return np.stack([xpos[:, model.body(f"{s}_{part}").id] for s in ("right", "left")], axis=1)

    def geoms(part: str) -> np.ndarray:
        ids = [model.geom(f"{side}_{part}").id for side in ("right", "left")]
        return np.stack([geom_xpos[:, i] for i in ids], axis=1)

    torso, head = xpos[:, model.body("torso").id], geom_xpos[:, model.geom("head").id]
    shoulders = bodies("upper_arm")
    up, left = unit(head - torso), unit(shoulders[:, 1] - shoulders[:, 0])
    return HumanoidGeometry(
        up=up,
        forward=np.cross(left, up),
        left=left,
        torso=torso,
        head=head,
        pelvis=geom_xpos[:, model.geom("butt").id],
        hips=bodies("thigh"),
        knees=bodies("shin"),
        feet=geoms("foot"),
        elbows=bodies("lower_arm"),
        hands=geoms("hand"),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors of the last axis scaled to length one.

    Args:
        vectors: (..., 3).

    Returns:
        Same shape.
    """
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
