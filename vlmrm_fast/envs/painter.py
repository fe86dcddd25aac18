"""Pictures of environments that someone else steps: from captured states, or their own."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vlmrm_fast.envs.cameras import camera_list
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

    def draw(self, states: Sequence[np.ndarray | None], frames: np.ndarray) -> None:
        given = [(index, states[index]) for index in self.ids if states[index] is not None]
        if not given:
            return
        ids, rows = [index for index, _ in given], len(given)
        flat, start = np.stack([state for _, state in given]), 0  # type: ignore[misc]
        for array in self._arrays.values():
            size = array[0].size
            array[:rows] = flat[:, start : start + size].reshape(rows, *array.shape[1:])
            start += size
        poses = self._poses
        if rows < len(self.ids):
            poses = Poses(**{name: array[:rows] for name, array in self._arrays.items()})
        frames[ids] = self._renderer.render(poses, out=self._out[:rows])

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

    def draw(self, states: Sequence[np.ndarray | None]) -> np.ndarray:
        """Draw one state of each environment.

        Args:
            states: N flat poses from `Capture.state`; of those that are None the picture stays.

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


class CameraPainters:
    """Draws captured states from several cameras, one `StatePainter` each."""

    def __init__(self, painters: Sequence[StatePainter]) -> None:
        """Take the painters over.

        Args:
            painters: C, of the same environments.
        """
        self._painters = list(painters)

    def draw(self, states: Sequence[np.ndarray | None]) -> np.ndarray:
        """Draw one state of each environment from each camera.

        Args:
            states: as `StatePainter.draw` takes them.

        Returns:
            (C * N, H, W, 3) uint8, one camera after the other.
        """
        if len(self._painters) == 1:
            return self._painters[0].draw(states)
        return np.concatenate([painter.draw(states) for painter in self._painters])

    def close(self) -> None:
        """Release the renderers."""
        for painter in self._painters:
            painter.close()


class PictureStack:
    """Stands in for `StatePainter` where environments send finished pictures."""

    def __init__(self) -> None:
        """Begin without pictures."""
        self._frames = np.zeros((0, 0, 0, 3), np.uint8)

    def draw(self, states: Sequence[np.ndarray | None]) -> np.ndarray:
        """Stack pictures.

        Args:
            states: N pictures (H, W, 3) uint8 of one size; one that is None stays as it was.

        Returns:
            (N, H, W, 3) uint8.

        Raises:
            ArgumentError: if the sizes differ.
        """
        ids = [index for index, state in enumerate(states) if state is not None]
        given = self._stack([state for state in states if state is not None])
        if len(ids) == len(states):
            self._frames = given
            return given
        if self._frames.shape != (len(states), *given.shape[1:]):
            self._frames = np.zeros((len(states), *given.shape[1:]), np.uint8)
        self._frames[ids] = given
        return self._frames

    @staticmethod
    def _stack(states: Sequence[np.ndarray]) -> np.ndarray:
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
) -> CameraPainters | None:
    """Build the painter of N captured environments.

    Args:
        descriptions: what `Capture.describe` says of each.
        fetch_model: returns environment i's `MjModel`; called once a different model.
        camera: as `Scene.from_model` takes it, or a list of such; None for the environments' own,
            a dictionary for changes of that. Environments of one model with a free camera share
            that of the first.
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
    models = [fetch_model(ids[0]) for ids in members.values()]
    painters = []
    for view in camera_list(camera):
        scenes = []
        for model, ids in zip(models, members.values(), strict=True):
            scene = scene_or_none(model, _seen_by(view, descriptions[ids[0]]["camera"]))
            if scene is None:
                return None
            scenes.append(scene)
        painters.append(
            StatePainter(scenes, list(members.values()), shape, num_threads, supersample)
        )
    return CameraPainters(painters)


def _seen_by(view: Any, own: Any) -> Any:
    """Return the camera that `view` asks for where an environment's own is `own`."""
    if view is None:
        return own
    return {**own, **view} if isinstance(view, dict) and isinstance(own, dict) else view


def check_single_camera(camera: Any) -> None:
    """Check that no further cameras are asked of environments that draw themselves.

    Args:
        camera: as `make_painter` takes it.

    Raises:
        ArgumentError: there are several.
    """
    if len(camera_list(camera)) > 1:
        raise ArgumentError(
            "camera must be a single one for environments that draw themselves, got "
            f"{len(camera_list(camera))}. Only MuJoCo environments are drawn from several."
        )


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


def capture_of(env: Any, every: int = 1) -> Capture:
    """Return a capture of an environment that is stepped right here, not installed.

    Args:
        env: a `gymnasium.Env`.
        every: as `Capture` takes it.

    Returns:
        The capture.
    """
    return Capture(env, POSE_FIELDS, every)
