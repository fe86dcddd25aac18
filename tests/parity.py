"""How alike two pictures are, and MuJoCo's own picture of a world: for tests and the gallery."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from vlmrm_fast.rendering import Camera, Renderer, Scene
from vlmrm_fast.tasks import get_native_task, native_task_names

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
SIZE = 224
OFF = 16  # grey levels by which a pixel may differ unseen

PAPER = Camera(lookat=(0.0, 0.0, 1.0), distance=3.5, azimuth=180.0, elevation=-10.0)
OBLIQUE = dataclasses.replace(PAPER, azimuth=145.0)
NEAR = Camera(lookat=(0.0, 0.0, 0.6), distance=3.0, azimuth=35.0, elevation=-20.0)

# The environment whose camera shows a model; the other models have their default free camera.
ENVIRONMENTS = {
    "ant": "Ant-v5",
    "half_cheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "humanoid": "Humanoid-v5",
    "humanoidstandup": "HumanoidStandup-v5",
    "inverted_double_pendulum": "InvertedDoublePendulum-v5",
    "inverted_pendulum": "InvertedPendulum-v5",
    "pusher_v5": "Pusher-v5",
    "reacher": "Reacher-v5",
    "swimmer": "Swimmer-v5",
    "walker2d": "Walker2d-v5",
    "walker2d_v5": "Walker2d-v5",
}


@dataclass(frozen=True)
class Figures:
    """Likeness of two pictures.

    Attributes:
        psnr: peak signal to noise ratio [dB], 99 for equal pictures.
        ssim: mean structural similarity of the grey pictures, at most 1.
        off: share of pixels with a channel that differs by more than `OFF`, in [0, 1].
    """

    psnr: float
    ssim: float
    off: float

    def within(self, bounds: Figures) -> bool:
        """Whether these figures are as good as `bounds`."""
        return self.psnr >= bounds.psnr and self.ssim >= bounds.ssim and self.off <= bounds.off


BOUNDS = Figures(40.0, 0.995, 0.005)


def compare(theirs: np.ndarray, ours: np.ndarray) -> Figures:
    """Return how alike two (H, W, 3) uint8 pictures are."""
    difference = np.abs(theirs.astype(int) - ours)
    psnr = 10 * np.log10(255**2 / max((difference.astype(float) ** 2).mean(), 1e-6))
    off = (difference.max(-1) > OFF).mean()
    return Figures(min(float(psnr), 99.0), ssim(theirs, ours), float(off))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of the grey pictures over 8 x 8 windows (Wang et al., 2004)."""
    x, y = (
        np.lib.stride_tricks.sliding_window_view(i.mean(-1), (8, 8)).reshape(-1, 64) for i in (a, b)
    )
    mx, my = x.mean(1), y.mean(1)
    cov = (x * y).mean(1) - mx * my
    c1, c2 = 6.5025, 58.5225
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return float((top / ((mx**2 + my**2 + c1) * (x.var(1) + y.var(1) + c2))).mean())


def mjv_camera(model: mujoco.MjModel, camera: Any) -> Any:
    """Return `camera` as `mujoco.Renderer.update_scene` takes it."""
    if not isinstance(camera, Camera):
        return -1 if camera is None else camera
    mjv = mujoco.MjvCamera()
    mjv.lookat[:] = camera.lookat
    mjv.distance, mjv.azimuth, mjv.elevation = camera.distance, camera.azimuth, camera.elevation
    if camera.track_body is not None:
        mjv.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        mjv.trackbodyid = model.body(camera.track_body).id
    return mjv


class Oracle:
    """`mujoco.Renderer`, one context a model; pictures are kept in a folder if one is given."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._renderer: mujoco.Renderer | None = None
        self._key: Any = None

    def draw(
        self,
        model: mujoco.MjModel,
        worlds: Sequence[mujoco.MjData],
        camera: Any = None,
        size: tuple[int, int] = (SIZE, SIZE),
        option: mujoco.MjvOption | None = None,
        flags: Mapping[str, bool] | None = None,
    ) -> np.ndarray:
        """Return MuJoCo's (N, H, W, 3) uint8 pictures.

        Args:
            model: the compiled model.
            worlds: N data, drawn as they stand.
            camera: as `Scene.from_model` takes it.
            size: height and width [pixels].
            option: visual options, MuJoCo's defaults if None.
            flags: `mjtRndFlag` names in lower case, without prefix, that differ from the defaults.
        """
        blob = np.empty(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, blob)
        signature = hashlib.sha256(blob.tobytes())
        if self._folder is None:
            return self._draw(signature.digest(), model, worlds, camera, size, option, flags)
        seen = [repr(camera), repr(size), repr(sorted((flags or {}).items())), mujoco.__version__]
        if isinstance(camera, mujoco.MjvCamera):
            seen[0] = repr([getattr(camera, n) for n in dir(camera) if n[0] != "_"])
        seen.append(repr([getattr(option, n) for n in dir(option) if n[0] != "_"] if option else 0))
        key = hashlib.sha256("".join(seen).encode() + signature.digest())
        for data in worlds:
            for name in ("geom_xpos", "geom_xmat", "cam_xpos", "light_xpos", "qpos", "xpos"):
                key.update(getattr(data, name).tobytes())
        path = self._folder / f"{key.hexdigest()[:24]}.npy"
        if path.exists():
            return np.load(path)
        frames = self._draw(signature.digest(), model, worlds, camera, size, option, flags)
        self._folder.mkdir(parents=True, exist_ok=True)
        np.save(path, frames)
        return frames

    def _draw(
        self,
        signature: bytes,
        model: mujoco.MjModel,
        worlds: Sequence[mujoco.MjData],
        camera: Any,
        size: tuple[int, int],
        option: mujoco.MjvOption | None,
        flags: Mapping[str, bool] | None,
    ) -> np.ndarray:
        # Compiling a context's shaders takes longer than drawing.
        if self._key != (signature, size):
            self.close()
            model.vis.global_.offheight = max(model.vis.global_.offheight, size[0])
            model.vis.global_.offwidth = max(model.vis.global_.offwidth, size[1])
            self._renderer, self._key = mujoco.Renderer(model, *size), (signature, size)
        assert self._renderer is not None
        renderer, frames = self._renderer, []
        before = renderer.scene.flags.copy()
        for data in worlds:
            renderer.update_scene(data, mjv_camera(model, camera), option)
            for name, value in (flags or {}).items():
                renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{name.upper()}")] = value
            frames.append(renderer.render().copy())
        renderer.scene.flags[:] = before
        return np.array(frames).reshape(-1, *size, 3)

    def close(self) -> None:
        """Free the context."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = self._key = None

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def pairs(
    oracle: Oracle, model: mujoco.MjModel, worlds: Sequence[mujoco.MjData], camera: Any = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (MuJoCo's picture, ours) of each world."""
    theirs = oracle.draw(model, worlds, camera)
    with Renderer(Scene.from_model(model, camera), SIZE, SIZE, 1) as renderer:
        yield from zip(theirs, renderer.render(list(worlds)), strict=True)


def random_worlds(model: mujoco.MjModel, count: int, default: bool = False) -> list[mujoco.MjData]:
    """Return `count` worlds with perturbed joints, after the default state if it is wanted."""
    rng = np.random.default_rng(1)
    worlds = []
    for i in range(count + default):
        data = mujoco.MjData(model)
        for j in range(model.njnt if i >= default else 0):
            at = model.jnt_qposadr[j]
            if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE:
                quat = rng.normal(size=4)
                data.qpos[at + 3 : at + 7] = quat / np.linalg.norm(quat)
            else:
                data.qpos[at] += rng.uniform(-0.6, 0.6)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


def gymnasium_models() -> list[str]:
    """Return the names of all model files that gymnasium ships."""
    return sorted(path.stem for path in ASSETS.glob("*.xml"))


def task_scenes() -> list[str]:
    """Names of tasks, one for each pair of a model and a camera."""
    scenes = {}
    for name in native_task_names():
        task = get_native_task(name)
        scenes.setdefault((task.load_model, repr(task.view)), name)
    return list(scenes.values())


def posed_worlds(name: str, count: int) -> tuple[mujoco.MjModel, list[mujoco.MjData], Any]:
    """Return a task's model, worlds in its posed states, and its camera."""
    task = get_native_task(name)
    model = task.load_model()
    assert task.posed_states is not None
    worlds = []
    for qpos in task.posed_states(model, np.random.default_rng(0), count).qpos:
        worlds.append(mujoco.MjData(model))
        worlds[-1].qpos[:] = qpos
        mujoco.mj_forward(model, worlds[-1])
    return model, worlds, task.camera


def load_gymnasium(name: str) -> mujoco.MjModel:
    """Compile one of gymnasium's models."""
    return mujoco.MjModel.from_xml_path(str(ASSETS / f"{name}.xml"))


def gymnasium_camera(name: str) -> Camera | int | None:
    """Return the camera of the environment's own pictures."""
    from vlmrm_fast.envs.capture import render_camera

    if name not in ENVIRONMENTS:
        return None
    env = gymnasium.make(
        ENVIRONMENTS[name], render_mode="rgb_array", xml_file=os.fspath(ASSETS / f"{name}.xml")
    )
    camera = render_camera(env)
    return camera if isinstance(camera, int) else Camera(**camera)


def gymnasium_views(name: str, model: mujoco.MjModel) -> dict[str, Any]:
    """Return the cameras that each of gymnasium's models is looked at from."""
    views: dict[str, Any] = {"own": gymnasium_camera(name), "free": None}
    if model.ncam and views["own"] != 0:
        views["model"] = 0
    return views | {"paper": PAPER, "oblique": OBLIQUE, "near": NEAR}
