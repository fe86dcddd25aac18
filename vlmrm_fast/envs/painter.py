"""Pictures of environments that someone else steps: from captured states, or their own."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vlmrm_fast.envs.capture import Capture
from vlmrm_fast.errors import ArgumentError, UnsupportedSceneError
from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene

POSE_FIELDS = tuple(item.name for item in dataclasses.fields(Poses))
"""The `MjData` fields that a picture is drawn from."""

_log = logging.getLogger(__name__)


def as_camera(camera: Any) -> Any:
    """Return a captured camera as `Scene.from_model` takes it.

    Args:
        camera: a dictionary of a free camera's settings, or anything that a scene takes.

    Returns:
        A `Camera` for a dictionary, anything else unchanged.
    """
    return Camera(**camera) if isinstance(camera, dict) else camera


def scene_or_none(model: Any, camera: Any) -> Scene | None:
    """Return the scene of a model, or None, with one log line, where it cannot be drawn natively.

    Args:
        model: the `MjModel`.
        camera: as `Scene.from_model` takes it, or a captured one.

    Returns:
        The scene or None.
    """
    reason: object
    try:
        scene = Scene.from_model(model, as_camera(camera))
        reason = scene.unsupported
        if reason is None and scene.needs:
            reason = f"it shows elements that change shape, drawn from {', '.join(scene.needs)}."
    except UnsupportedSceneError as error:
        reason = error
    if reason is None:
        return scene
    _log.warning("The environment's own render() draws the frames, slower: %s", reason)
    return None


class _Group:
    """Environments of one model: a renderer and the pose arrays that it reads."""

    def __init__(
        self, scene: Scene, ids: list[int], shape: tuple[int, int], threads: int, supersample: int
    ) -> None:
        self.ids = ids
        model = scene.model
        rows = {"geom": model.ngeom, "site": model.nsite, "cam": model.ncam, "light": model.nlight}
        self._arrays: dict[str, np.ndarray] = {}
        for name in POSE_FIELDS:
            width = 9 if name.endswith("xmat") else 3
            count = rows.get(name.split("_")[0], model.nbody)
            self._arrays[name] = np.zeros((len(ids), count, width))
        self._poses = Poses(**self._arrays)
        self._renderer = Renderer(scene, *shape, num_threads=threads, supersample=supersample)
        self._out = np.zeros((len(ids), *shape, 3), np.uint8)

    def draw(self, states: Sequence[np.ndarray], frames: np.ndarray) -> None:
        flat, start = np.stack([states[index] for index in self.ids]), 0
        for array in self._arrays.values():
            size = array[0].size
            array[:] = flat[:, start : start + size].reshape(array.shape)
            start += size
        frames[self.ids] = self._renderer.render(self._poses, out=self._out)

    def close(self) -> None:
        self._renderer.close()


class StatePainter:
    """Draws the captured states of N environments of one or several MuJoCo models."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        members: Sequence[list[int]],
        shape: tuple[int, int],
        num_threads: int = 0,
        supersample: int = 1,
    ) -> None:
        """Build a renderer a scene.

        Args:
            scenes: one a model.
            members: for each scene, the indices of its environments.
            shape: height and width of the frames [pixels].
            num_threads: as `Renderer` takes it.
            supersample: as `Renderer` takes it.
        """
        pairs = zip(scenes, members, strict=True)
        self._groups = [_Group(scene, ids, shape, num_threads, supersample) for scene, ids in pairs]
        self._frames = np.zeros((sum(map(len, members)), *shape, 3), np.uint8)

    def draw(self, states: Sequence[np.ndarray]) -> np.ndarray:
        """Draw one state of each environment.

        Args:
            states: N flat poses from `Capture.state`.

        Returns:
            (N, H, W, 3) uint8, reused by the next call.
        """
        for group in self._groups:
            group.draw(states, self._frames)
        return self._frames

    def close(self) -> None:
        """Release the renderers."""
        for group in self._groups:
            group.close()


class PictureStack:
    """Stands in for `StatePainter` where environments send finished pictures."""

    def draw(self, states: Sequence[np.ndarray]) -> np.ndarray:
        """Stack pictures.

        Args:
            states: N pictures (H, W, 3) uint8 of one size.

        Returns:
            (N, H, W, 3) uint8.

        Raises:
            ArgumentError: if the sizes differ.
        """
        shapes = sorted({state.shape for state in states})
        if len(shapes) > 1:
            raise ArgumentError(
                f"environments must render pictures of one size, got {shapes[0]} and {shapes[1]}."
            )
        return np.stack(states)

    def close(self) -> None:
        """Do nothing: the environments own their renderers."""


def make_painter(
    descriptions: Sequence[dict[str, Any]],
    fetch_model: Callable[[int], Any],
    camera: Any,
    shape: tuple[int, int],
    num_threads: int = 0,
    supersample: int = 1,
) -> StatePainter | None:
    """Build the painter of N captured environments.

    Args:
        descriptions: what `Capture.describe` says of each.
        fetch_model: returns environment i's `MjModel`; called once a different model.
        camera: as `Scene.from_model` takes it; None for the environments' own. Environments of
            one model with a free camera share that of the first.
        shape: height and width of the frames [pixels].
        num_threads: as `Renderer` takes it.
        supersample: as `Renderer` takes it.

    Returns:
        The painter, or None where the environments must draw themselves.
    """
    if not all(description["native"] for description in descriptions):
        return None
    members: dict[Any, list[int]] = {}
    for index, description in enumerate(descriptions):
        # A free camera's default depends on its environment's first state: one serves them all.
        fixed = description["camera"] if isinstance(description["camera"], int) else -1
        members.setdefault((description["signature"], fixed), []).append(index)
    scenes = []
    for ids in members.values():
        view = descriptions[ids[0]]["camera"] if camera is None else camera
        scene = scene_or_none(fetch_model(ids[0]), view)
        if scene is None:
            return None
        scenes.append(scene)
    return StatePainter(scenes, list(members.values()), shape, num_threads, supersample)


def check_render_mode(descriptions: Sequence[dict[str, Any]]) -> None:
    """Check that environments which must draw themselves can.

    Args:
        descriptions: what `Capture.describe` says of each.

    Raises:
        ArgumentError: if a render mode is not "rgb_array".
    """
    for index, description in enumerate(descriptions):
        if description["render_mode"] != "rgb_array":
            raise ArgumentError(
                f"render_mode must be 'rgb_array', got {description['render_mode']!r} for "
                f"environment {index}. It is not drawn natively: make it with "
                "render_mode='rgb_array'."
            )


def capture_of(env: Any) -> Capture:
    """Return a capture of an environment that is stepped right here, not installed.

    Args:
        env: a `gymnasium.Env`.

    Returns:
        The capture.
    """
    return Capture(env, POSE_FIELDS)
