"""Frames of simulated states, drawn by the `ray` renderer, with the degrees of all concepts.

Frames come in blocks that share one look. A block is a function of (seed, index) alone, so a data
set is the same at any number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.pretrain import concepts
from vlmrm_fast.pretrain.looks import vary_looks
from vlmrm_fast.tasks import get_native_task, poses
from vlmrm_fast.tasks.geometry import humanoid_geometry

if TYPE_CHECKING:
    import mujoco

# 48 frames share a look: enough to spread the cost of building a scene, few enough for variety.
FRAMES_PER_BLOCK = 48
# The cameras of the models and of the tasks all have this vertical field of view [degrees].
FIELD_OF_VIEW = 45.0
# Frames drawn at this side are resized like a user's frames, so that the model knows both.
LARGE_SIDE = 224
# gymnasium's own cart-pole takes a share, so that the model is not tied to one geometry.
SCENE_SHARES = {"cartpole": 0.42, "pendulum": 0.08, "humanoid": 0.5}


@dataclass(frozen=True)
class BlockSpec:
    """What one block shows.

    Attributes:
        scene: a key of `SCENE_SHARES`, or of `flat.FLAT_SCENES` for `draw_frames`.
        task_look: colours, textures and lights of the task, not random ones.
        task_camera: the task's camera, not a random one for each frame.
        drawn_side: side of the drawn frames; they are resized to the data set's side [pixels].
        pose_names: poses to draw from, "rollout" among them; () is the training mixture.
    """

    scene: str
    task_look: bool = True
    task_camera: bool = True
    drawn_side: int | None = None
    pose_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frames:
    """N frames and what is true of them.

    Attributes:
        images: (N, S, S, 3) uint8.
        degrees: (N, len(CONCEPTS)) float32 in [0, 1].
        groups: (N,) str, the pose's name, "rollout", or the scene's name for cart-poles and cars.
        angles: (N,) float32, the pole's angle from upright [rad], NaN for robots and cars.
        offsets: (N,) float32, the cart's or car's position [m], NaN for robots.
    """

    images: np.ndarray
    degrees: np.ndarray
    groups: np.ndarray
    angles: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def training_spec(rng: np.random.Generator) -> BlockSpec:
    """Draw what a training block shows: half of them look exactly as the tasks do.

    Args:
        rng: the source of randomness, advanced by this call.

    Returns:
        The block's description.
    """
    scene = str(rng.choice(list(SCENE_SHARES), p=list(SCENE_SHARES.values())))
    task_look = bool(rng.random() < 0.5)
    task_camera = bool(rng.random() < (0.6 if task_look else 0.3))
    return BlockSpec(scene, task_look, task_camera, LARGE_SIDE if rng.random() < 0.15 else None)


def draw_frames(
    specs: Sequence[BlockSpec | None], side: int, seed: int, workers: int = 1
) -> Frames:
    """Draw one block for each description, in parallel.

    Args:
        specs: what each block shows; None draws it from `training_spec`.
        side: side of the frames [pixels].
        seed: blocks of the same seed and index are equal.
        workers: processes; 1 draws in this one.

    Returns:
        The frames of all blocks, in order.
    """
    jobs = [(spec, side, seed, index) for index, spec in enumerate(specs)]
    if workers == 1:
        return join([_draw_block(job) for job in jobs])
    # A forked child would inherit locked thread pools, so each worker starts afresh.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return join(list(pool.map(_draw_block, jobs, chunksize=8)))


def draw_block(spec: BlockSpec, side: int, rng: np.random.Generator) -> Frames:
    """Draw the frames of one block.

    Args:
        spec: what the block shows.
        side: side of the frames [pixels].
        rng: the source of randomness, advanced by this call.

    Returns:
        `FRAMES_PER_BLOCK` frames.
    """
    import mujoco

    from vlmrm_fast.rendering import Renderer, Scene

    base = _load_scene(spec.scene)
    model = base if spec.task_look else vary_looks(base, rng)
    worlds = [mujoco.MjData(model) for _ in range(FRAMES_PER_BLOCK)]
    if spec.scene == "humanoid":
        groups = _pose_humanoids(model, worlds, spec, rng)
    else:
        groups = _pose_cartpoles(model, worlds, spec, rng)
    rig = _place_cameras(worlds, spec, rng)
    drawn = spec.drawn_side or side
    with Renderer(Scene.from_model(model, camera=0), drawn, drawn, num_threads=1) as renderer:
        images = renderer.render(worlds)
    if drawn != side:
        images = resize(images, side)
    angles = np.full(len(worlds), np.nan, np.float32)
    offsets = angles.copy()
    if spec.scene == "humanoid":
        degrees = _humanoid_degrees(model, worlds, rig)
    else:
        angles = np.array([_wrap(world.qpos[1]) for world in worlds], np.float32)
        offsets = np.array([world.qpos[0] for world in worlds], np.float32)
        degrees = _cartpole_degrees(worlds, angles, rig)
    return Frames(np.array(images), degrees, np.array(groups), angles, offsets)


def resize(images: Sequence[np.ndarray] | np.ndarray, side: int) -> np.ndarray:
    """Resize pictures as open_clip's transform does.

    Args:
        images: N pictures (H, W, 3) uint8.
        side: side of the result [pixels]; other shapes than squares are squashed.

    Returns:
        (N, side, side, 3) uint8.
    """
    from PIL import Image

    sides = (side, side)
    resized = [Image.fromarray(i).resize(sides, Image.Resampling.BICUBIC) for i in images]
    return np.stack([np.asarray(image) for image in resized])


def join(parts: Sequence[Frames]) -> Frames:
    """Return the frames of all parts as one.

    Args:
        parts: one or more.

    Returns:
        Their frames in order.
    """
    if len(parts) == 1:
        return parts[0]
    names = ("images", "degrees", "groups", "angles", "offsets")
    return Frames(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def save_frames(frames: Frames, folder: Path) -> None:
    """Write frames into a folder, the pictures as one uint8 .npy file.

    Args:
        frames: what to write.
        folder: made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", frames.images)
    np.savez(
        folder / "states.npz",
        degrees=frames.degrees,
        groups=frames.groups,
        angles=frames.angles,
        offsets=frames.offsets,
    )


def load_frames(folder: Path) -> Frames:
    """Read frames that `save_frames` wrote; the pictures stay on disk until they are read.

    Args:
        folder: where they lie.

    Returns:
        The frames, `images` memory-mapped.
    """
    with np.load(folder / "states.npz") as states:
        return Frames(np.load(folder / "images.npy", mmap_mode="r"), **dict(states))


@dataclass(frozen=True)
class _Rig:
    """The cameras of N worlds: eye (N, 3), axes right (N, 3) and forward (N, 3), distance (N,)."""

    eye: np.ndarray
    right: np.ndarray
    forward: np.ndarray
    distance: np.ndarray


@lru_cache(maxsize=4)
def _load_scene(scene: str) -> mujoco.MjModel:
    """Return a scene's model; each has a camera 0, which the block moves about."""
    if scene == "pendulum":
        import gymnasium
        import mujoco

        folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
        spec = mujoco.MjSpec.from_file(str(folder / "inverted_pendulum.xml"))
        spec.worldbody.add_camera(name="view", fovy=FIELD_OF_VIEW)
        return spec.compile()
    return get_native_task(
        {"cartpole": "cartpole-upright", "humanoid": "humanoid-kneeling"}[scene]
    ).load_model()


def _draw_block(job: tuple[BlockSpec | None, int, int, int]) -> Frames:
    """Draw block `index` of a data set; runs in a worker process."""
    spec, side, seed, index = job
    rng = np.random.default_rng((seed, index))
    if spec is not None and spec.scene not in SCENE_SHARES:
        from vlmrm_fast.pretrain.flat import draw_flat_block

        return draw_flat_block(spec, side, rng)
    return draw_block(spec or training_spec(rng), side, rng)


def _pose_cartpoles(
    model: mujoco.MjModel, worlds: list[Any], spec: BlockSpec, rng: np.random.Generator
) -> list[str]:
    """Set each world's cart and pole: near upright, around it, or anywhere."""
    import mujoco

    for world in worlds:
        spread = rng.choice((0.12, 0.4, np.inf), p=(0.4, 0.25, 0.35))
        angle = rng.uniform(-np.pi, np.pi) if np.isinf(spread) else rng.normal(0.0, spread)
        world.qpos[:] = rng.uniform(-0.6, 0.6), angle
        mujoco.mj_forward(model, world)
    return [spec.scene] * len(worlds)


def _pose_humanoids(
    model: mujoco.MjModel, worlds: list[Any], spec: BlockSpec, rng: np.random.Generator
) -> list[str]:
    """Set each world's robot: a named pose, perhaps settled, or a moment of a random rollout."""
    import mujoco

    if spec.pose_names:
        groups = [str(name) for name in rng.choice(spec.pose_names, len(worlds))]
    else:
        rollouts = len(worlds) * 3 // 8
        groups = ["rollout"] * rollouts + poses.draw_pose_names(len(worlds) - rollouts, rng)
    moments = poses.rollout_states(model, groups.count("rollout"), rng)
    for world, group in zip(worlds, groups, strict=True):
        if group == "rollout":
            world.qpos[:] = moments.pop()
        else:
            poses.sample_pose(model, world, group, rng)
            # Some settle for a moment, so that contacts and limits are as physics has them.
            if group != "random" and not group.startswith("falling") and rng.random() < 0.2:
                mujoco.mj_step(model, world, int(rng.integers(1, 20)))
        mujoco.mj_forward(model, world)
    return groups


def _place_cameras(worlds: list[Any], spec: BlockSpec, rng: np.random.Generator) -> _Rig:
    """Put camera 0 of every world at the task's place or around it; changes the worlds."""
    humanoid = spec.scene == "humanoid"
    rows = []
    for world in worlds:
        if humanoid:
            lookat, distance, azimuth, elevation = np.array([0.0, 0.0, 1.0]), 3.5, 180.0, -10.0
        else:
            lookat, distance, azimuth, elevation = np.array([0.0, -0.15, 0.0]), 4.2, 90.0, -4.0
        if spec.scene == "pendulum":
            lookat, distance = np.array([0.0, 0.0, 0.15]), rng.uniform(1.9, 3.5)
            azimuth, elevation = 90.0 + rng.uniform(-25.0, 25.0), rng.uniform(-45.0, 2.0)
        elif not spec.task_camera and humanoid:
            lookat = np.array([*world.xpos[1, :2], rng.uniform(0.5, 1.1)])
            lookat += rng.normal(0.0, (0.15, 0.15, 0.05))
            distance, azimuth = rng.uniform(2.2, 5.5), rng.uniform(0.0, 360.0)
            elevation = rng.uniform(-35.0, 3.0)
        elif not spec.task_camera:
            lookat = lookat + rng.normal(0.0, 0.15, 3)
            distance, elevation = rng.uniform(2.8, 7.0), rng.uniform(-25.0, 4.0)
            azimuth = rng.choice((90.0, 270.0), p=(0.85, 0.15)) + rng.uniform(-30.0, 30.0)
        rows.append((lookat, distance, *_camera_axes(azimuth, elevation)))
    if spec.task_camera and spec.scene == "cartpole":
        # The task's camera is a fixed one of its model, already placed by mj_forward.
        axes = np.array([world.cam_xmat[0].reshape(3, 3) for world in worlds])
        eyes = np.array([world.cam_xpos[0] for world in worlds])
        return _Rig(eyes, axes[..., 0], -axes[..., 2], np.linalg.norm(eyes, axis=1))
    lookats, distances, rights, forwards = (np.array(column) for column in zip(*rows, strict=True))
    eyes = lookats - distances[:, None] * forwards
    for world, eye, right, forward in zip(worlds, eyes, rights, forwards, strict=True):
        world.cam_xpos[0] = eye
        world.cam_xmat[0] = np.stack([right, np.cross(right, forward), -forward], axis=1).ravel()
    return _Rig(eyes, rights, forwards, distances)


def _camera_axes(azimuth: float, elevation: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a free camera's axes right (3,) and forward (3,) from its angles [degrees].

    Source:
        MuJoCo's `mjv_updateCamera` for free cameras.
    """
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    return np.array([np.sin(a), -np.cos(a), 0.0]), forward


def _humanoid_degrees(model: mujoco.MjModel, worlds: list[Any], rig: _Rig) -> np.ndarray:
    """Return the (N, len(CONCEPTS)) degrees of posed robots."""
    xpos = np.array([world.xpos for world in worlds])
    geom_xpos = np.array([world.geom_xpos for world in worlds])
    geometry = humanoid_geometry(model, xpos, geom_xpos)
    # Above or below does not change which side is seen: compare in the plane.
    view = (rig.eye - geometry.torso) * (1.0, 1.0, 0.0)
    view /= np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-9)
    return concepts.humanoid_degrees(geometry, view, rig.distance)


def _cartpole_degrees(worlds: list[Any], angles: np.ndarray, rig: _Rig) -> np.ndarray:
    """Return the (N, len(CONCEPTS)) degrees of posed cart-poles."""
    carts = np.array([world.xpos[1] for world in worlds]) - rig.eye
    depth = (carts * rig.forward).sum(1) * np.tan(np.deg2rad(FIELD_OF_VIEW / 2))
    offset = (carts * rig.right).sum(1) / depth
    return concepts.cartpole_degrees(angles, offset, rig.distance, rig.right[:, 0] < 0)


def _wrap(angle: float) -> float:
    """Return the angle in [-pi, pi) [rad]."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)
