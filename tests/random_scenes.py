"""Random MJCF, cameras and poses, sane and absurd, each from one seed."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from vlmrm_fast.rendering import Camera, Poses

_GEOMS = ("plane", "sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh", "hfield")
_SIZES = (1e-12, 1e-9, 1e-4, 0.01, 0.1, 0.3, 0.3, 1.0, 1.0, 30.0, 1e4, 1e10)
_BAD = (np.nan, np.inf, -np.inf, 0.0, 1e30, -1e300, 1e-300, 1e9)


class SceneMaker:
    """Draws every choice of one case from one generator, so that its seed repeats it."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.sites = 0
        self.calm = self.rng.random() < 0.5  # half of the cases keep to ordinary numbers

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def number(self, low: float, high: float) -> float:
        if not self.calm and self.chance(0.03):
            return float(self.pick(0.0, 1e-9, 1e4, -1e6, 1e10))
        return float(self.rng.uniform(low, high))

    def numbers(self, count: int, low: float, high: float) -> str:
        return " ".join(f"{self.number(low, high):.6g}" for _ in range(count))

    def size(self) -> str:
        choices = (0.05, 0.2, 0.5, 1.0) if self.calm else _SIZES
        return " ".join(f"{self.pick(*choices):g}" for _ in range(3))

    def xml(self) -> str:
        """Return a whole MJCF file."""
        return (
            f'<mujoco><compiler autolimits="true" boundmass="1e-6" boundinertia="1e-12"/>'
            f"{self._visual()}<asset>{self._assets()}</asset><worldbody>"
            + "".join(self._light() for _ in range(self.rng.integers(0, 5)))
            + "".join(self._geom() for _ in range(self.rng.integers(0, 8)))
            + "".join(self._body(0) for _ in range(self.rng.integers(0, 5)))
            + "".join(self._camera() for _ in range(self.rng.integers(0, 3)))
            + f"</worldbody>{self._tendon()}</mujoco>"
        )

    def _visual(self) -> str:
        if self.chance(0.3):
            return ""
        near = self.pick(0.01, 0.001, 0.5) if self.calm else self.pick(0.01, 1e-7, 3.0, 1e-3)
        extent = self.pick(1, 2, 0.1) if self.calm else self.pick(1e-6, 2, 1e9)
        return (
            f'<statistic extent="{extent}"/>'
            f'<visual><map znear="{near}" zfar="{self.pick(50, 5, 1000)}" '
            f'shadowclip="{self.pick(1, 0.2, 3)}" haze="{self.pick(0.3, 0, 1)}" '
            f'fogstart="{self.pick(3, 0)}" fogend="{self.pick(10, 0, 1)}"/>'
            f'<quality shadowsize="{self.pick(4096, 64, 1, 0)}" numslices="{self.pick(28, 3)}"/>'
            f'<global fovy="{self.pick(45, 1, 120, 179)}"/>'
            f'<headlight active="{self.pick(1, 0)}" ambient="{self.numbers(3, 0, 1)}"/></visual>'
        )

    def _assets(self) -> str:
        side = self.pick(1, 1, 2, 3, 8, 17)
        kind = self.pick("checker", "gradient", "flat")
        sky = (
            f'<texture type="skybox" builtin="{kind}" width="{side}" '
            f'height="{self.pick(1, 6) * side}"/>'
        )
        two = (
            f'<texture name="t0" type="2d" builtin="{kind}" mark="{self.pick("edge", "none")}" '
            f'width="{self.pick(1, 2, 9, 64)}" height="{side}" rgb1="{self.numbers(3, 0, 1)}" '
            f'colorspace="{self.pick("auto", "linear", "sRGB")}"/>'
        )
        cube = f'<texture name="t1" type="cube" builtin="{kind}" width="{side}" height="{side}"/>'
        textures = ('texture="t0"', 'texture="t1"')
        materials = "".join(
            f'<material name="m{i}" {self.pick("", *textures)} '
            f'texuniform="{self.pick("true", "false")}" texrepeat="{self.numbers(2, 0.1, 9)}" '
            f'rgba="{self.numbers(3, 0, 1)} {self.pick(1, 1, 0.5, 0)}" '
            f'specular="{self.number(0, 1)}" shininess="{self.number(0, 1)}" '
            f'emission="{self.number(0, 1)}" reflectance="{self.pick(0, 0, 0.5, 1)}"/>'
            for i in range(3)
        )
        return (sky if self.chance(0.6) else "") + two + cube + materials + self._shapes()

    def _shapes(self) -> str:
        count = int(self.pick(4, 5, 12, 40))
        points = self.rng.normal(size=(count, 3)) * self.pick(0.3, 0.01, 2.0)
        flat = "" if self.chance(0.8) else "inertia='shell'"
        vertices = " ".join(f"{v:.5g}" for v in points.ravel())
        faces = self.rng.integers(0, count, (int(self.pick(4, 9, 40)), 3))
        if self.chance(0.3):
            faces[0] = faces[0, 0]  # a point
        triangles = " ".join(str(v) for v in faces.ravel())
        size = int(self.pick(2, 3, 7, 20))
        heights = " ".join(f"{v:.3g}" for v in self.rng.random(size * size))
        return (
            f'<mesh name="hull" vertex="{vertices}" {flat}/>'
            f'<mesh name="soup" vertex="{vertices}" face="{triangles}" inertia="shell" '
            f'smoothnormal="{self.pick("true", "false")}"/>'
            f'<hfield name="hills" nrow="{size}" ncol="{size}" elevation="{heights}" '
            f'size="{self.pick(1, 5, 1e-3)} 2 {self.pick(0.5, 1e-6)} .1"/>'
        )

    def _light(self) -> str:
        kind = self.pick("directional", "spot", "spot", "point")
        return (
            f'<light type="{kind}" castshadow="{self.pick("true", "false")}" '
            f'pos="{self.numbers(3, -3, 3)}" dir="{self.numbers(3, -1, 1)}" '
            f'cutoff="{self.pick(45, 5, 0, 90, 120)}" exponent="{self.pick(10, 0, 300)}" '
            f'attenuation="{self.pick("1 0 0", "0 0 0", "0 1 .2")}" '
            f'diffuse="{self.numbers(3, 0, 1)}" ambient="{self.pick(0, 0.3)} 0 0"/>'
        )

    def _geom(self, inside: bool = False) -> str:
        kind = self.pick(*(_GEOMS[1:7] if inside else _GEOMS))
        asset = {"mesh": f'mesh="{self.pick("hull", "soup")}"', "hfield": 'hfield="hills"'}
        size = asset.get(kind, f'size="{self.size()}"')
        if kind == "plane" and self.chance(0.5):
            size = f'size="{self.pick("0 0 1", "0 2 1", "5 5 .1")}"'
        look = f'material="m{self.rng.integers(3)}"' if self.chance(0.6) else ""
        if self.chance(0.3):
            look += f' rgba="{self.numbers(3, 0, 1)} {self.pick(1, 0.3, 0)}"'
        return (
            f'<geom type="{kind}" {size} {look} group="{self.pick(0, 1, 2, 3)}" '
            f'contype="0" pos="{self.numbers(3, -1, 1)}" euler="{self.numbers(3, -180, 180)}"/>'
        )

    def _body(self, depth: int) -> str:
        joint = self.pick("<freejoint/>" if depth == 0 else "", "<joint/>", "<joint type='ball'/>")
        inner = "".join(self._geom(inside=True) for _ in range(self.rng.integers(1, 3)))
        if depth < 2 and self.chance(0.5):
            inner += self._body(depth + 1)
        self.sites += 1
        return (
            f'<body pos="{self.numbers(3, -1, 1)}"><inertial pos="0 0 0" mass="1" '
            f'diaginertia="1 1 1"/>{joint}{inner}'
            f'<site name="s{self.sites}" type="{self.pick(*_GEOMS[1:6])}" '
            f'size="{self.size()}" rgba="{self.numbers(4, 0, 1)}"/></body>'
        )

    def _camera(self) -> str:
        view = self.pick(
            f'fovy="{self.pick(45, 0.01, 1, 120, 179)}"',
            'projection="orthographic" fovy="2"',
            'sensorsize=".01 .01" resolution="10 10" focal=".01 .012"',
        )
        return (
            f'<camera pos="{self.numbers(3, -2, 2)}" euler="{self.numbers(3, -180, 180)}" {view} '
            f'mode="{self.pick("fixed", "track", "trackcom")}"/>'
        )

    def _tendon(self) -> str:
        if self.sites < 2 or self.chance(0.7):
            return ""
        path = "".join(f'<site site="s{i}"/>' for i in range(1, min(self.sites, 4) + 1))
        return f'<tendon><spatial width="{self.pick(0.01, 0.1, 0)}">{path}</spatial></tendon>'

    def camera(self, model: mujoco.MjModel) -> Any:
        """Return a camera as `Scene.from_model` takes it."""
        if self.chance(0.2):
            return None
        if model.ncam and self.chance(0.5):
            return int(self.rng.integers(model.ncam))
        track = int(self.rng.integers(model.nbody)) if self.chance(0.3) else None
        distances = (0.3, 1.0, 3.0) if self.calm else (1e-9, 0.3, 3.0, 1e6, 0.0)
        return Camera(
            tuple(self.number(-1, 1) for _ in range(3)),
            float(self.pick(*distances)),
            self.number(-180, 180),
            self.number(-90, 90),
            track,
        )

    def poses(self, model: mujoco.MjModel, count: int) -> Poses:
        """Return the poses of `count` worlds, some of them spoilt."""
        data = mujoco.MjData(model)
        worlds = []
        for _ in range(min(count, 3)):
            data.qpos[:] = model.qpos0 + self.rng.normal(size=model.nq) * self.pick(0, 0.3, 2)
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_camlight(model, data)
            worlds.append(Poses.from_data(data))
        if not worlds:
            return Poses.from_data([])
        arrays = {
            name: np.resize(
                np.concatenate([getattr(w, name) for w in worlds]),
                (count, *getattr(worlds[0], name).shape[1:]),
            )
            for name in vars(worlds[0])
        }
        if not self.calm:
            for array in arrays.values():
                spoilt = self.rng.random(array.shape) < self.pick(0, 0, 0.02, 0.5)
                array[spoilt] = self.rng.choice(_BAD, int(spoilt.sum()))
        return Poses(**arrays)
