"""The visibility kernel against its twin, and against the native renderer's probe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_checks import DEVICE, ON_DEVICE

from vlmrm_fast.kernels import raycast, visibility
from vlmrm_fast.kernels.raycast import BOX, CAPSULE, PLANE, SPHERE, Shapes

pytestmark = ON_DEVICE

SCENE = """
<mujoco><worldbody>
  <geom type="plane" size="0 0 1"/>
  <geom type="plane" size=".4 .3 1" pos="-.2 .9 .3" euler="20 10 0"/>
  <geom type="sphere" size=".3" pos="-1 0 .5"/>
  <geom type="capsule" size=".2 .3" pos="-.3 0 .6" euler="20 30 0"/>
  <geom type="capsule" size=".1 .5" pos=".4 .3 .6" euler="80 20 10"/>
  <geom type="box" size=".25 .2 .3" pos="0 .9 .5" euler="10 20 30"/>
  <geom type="box" size=".1 .3 .2" pos="1 0 .4" euler="0 0 40"/>
</worldbody></mujoco>"""


def on(device: torch.device, shapes: Shapes) -> Shapes:
    return Shapes(*(part.to(device) for part in shapes))


def random_shapes(worlds: int, kinds: list[int]) -> Shapes:
    """Shapes before the camera, some beside the picture; planes are finite."""
    count = len(kinds)
    turn = torch.linalg.qr(torch.randn(worlds, count, 3, 3))[0]
    turn[..., 0] *= torch.linalg.det(turn)[..., None]
    position = torch.randn(worlds, count, 3)
    position[..., 2] -= 6
    size = torch.rand(count, 3) * 0.4 + 0.1
    return Shapes(torch.tensor(kinds, dtype=torch.int32), size, position, turn)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 50), (16, 33)])
@pytest.mark.parametrize("kind", [SPHERE, CAPSULE, BOX, PLANE])
def test_each_kind_is_seen_where_the_twin_sees_it(kind: int, height: int, width: int) -> None:
    shapes = random_shapes(2, [kind] * 5)
    depth, index = visibility.visibility(on(DEVICE, shapes), height, width, 0.4)
    depth_twin, index_twin = raycast.visibility(shapes, height, width, 0.4)
    same = index.cpu() == index_twin
    # Rays that graze an outline: rounding decides whether they hit.
    assert same.double().mean() >= 0.995
    both = same & (index_twin >= 0)
    assert torch.allclose(depth.cpu()[both], depth_twin[both], rtol=1e-3)
    assert (depth.cpu()[same & (index_twin < 0)] == torch.inf).all()


def test_endless_planes_and_the_near_plane_are_seen_as_by_the_twin() -> None:
    shapes = random_shapes(3, [PLANE, SPHERE, PLANE])
    shapes.size[0, :2] = 0
    shapes.size[2, 0] = 0
    index = visibility.visibility(on(DEVICE, shapes), 24, 40, 0.5, near=5.0)[1]
    twin = raycast.visibility(shapes, 24, 40, 0.5, near=5.0)[1]
    assert (index.cpu() == twin).double().mean() >= 0.995
    assert (twin >= 0).any()


def test_no_worlds_and_no_pixels_give_nothing() -> None:
    shapes = on(DEVICE, random_shapes(2, [SPHERE]))
    assert visibility.visibility(shapes, 0, 8, 0.5)[0].shape == (2, 0, 8)
    none = shapes._replace(position=shapes.position[:0], rotation=shapes.rotation[:0])
    assert visibility.visibility(none, 4, 8, 0.5)[1].shape == (0, 4, 8)


def camera_shapes(model, camera) -> tuple[Shapes, torch.Tensor, float]:
    """Return MuJoCo's list of geoms in the camera's frame, their ids, and half the view."""
    mujoco = pytest.importorskip("mujoco")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = mujoco.MjvScene(model, 100)
    everything, option = mujoco.mjtCatBit.mjCAT_ALL.value, mujoco.MjvOption()
    mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)
    view, geoms = scene.camera[0], scene.geoms[: scene.ngeom]
    # Two eyes: a picture for both is drawn from between them.
    eye = (scene.camera[0].pos + scene.camera[1].pos) / 2
    back = -np.array(view.forward)
    axes = np.stack([np.cross(view.up, back), view.up, back])
    shapes = Shapes(
        torch.tensor([geom.type for geom in geoms], dtype=torch.int32),
        torch.tensor(np.stack([geom.size for geom in geoms]), dtype=torch.float32),
        torch.tensor(np.stack([axes @ (geom.pos - eye) for geom in geoms]))[None].float(),
        torch.tensor(np.stack([axes @ geom.mat for geom in geoms]))[None].float(),
    )
    # A capsule's size is (radius, radius, half length) in the list, and (radius, half length) here.
    capsule = shapes.kind == CAPSULE
    shapes.size[capsule, 1] = shapes.size[capsule, 2]
    ids = torch.tensor([geom.objid for geom in geoms])
    return shapes, ids, float(view.frustum_top / view.frustum_near)


def test_pixels_show_what_the_native_renderer_finds() -> None:
    mujoco = pytest.importorskip("mujoco")
    from vlmrm_fast.rendering import Camera, Renderer, Scene

    model = mujoco.MjModel.from_xml_string(SCENE)
    # Enough sides that MuJoCo's polygons are round.
    model.vis.quality.numslices = model.vis.quality.numstacks = 200
    free = mujoco.MjvCamera()
    free.lookat[:], free.distance, free.azimuth, free.elevation = (0, 0, 0.6), 3.6, 70, -10
    camera = Camera(lookat=(0, 0, 0.6), distance=3.6, azimuth=70, elevation=-10)
    shapes, ids, half = camera_shapes(model, free)

    height = width = 96
    renderer = Renderer(Scene.from_model(model, camera=camera), height, width)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    objects = torch.from_numpy(renderer.render_segmentation(data)).view(height, width, 2)[..., 0]
    far = torch.from_numpy(renderer.render_depth(data)).view(height, width)

    planes, extent = model.vis.map, model.stat.extent
    clip = {"near": planes.znear * extent, "far": planes.zfar * extent}
    depth, index = visibility.visibility(on(DEVICE, shapes), height, width, half, **clip)
    depth, index = depth[0].cpu(), index[0].cpu().long()
    shown = torch.where(index < 0, -1, ids[index])
    assert len(shown.unique()) == 8
    same = shown == objects
    assert same.double().mean() >= 0.999
    near = same & (objects >= 0) & (depth < 20)
    assert ((depth - far).abs() / far)[near].max() <= 1e-3
