"""Turn an mjModel into the plain arrays that the native renderer draws from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from vlmrm_fast import _core, _meshes
from vlmrm_fast.errors import UnsupportedSceneError

_TYPES = {
    int(t)
    for t in (
        mujoco.mjtGeom.mjGEOM_PLANE,
        mujoco.mjtGeom.mjGEOM_SPHERE,
        mujoco.mjtGeom.mjGEOM_CAPSULE,
        mujoco.mjtGeom.mjGEOM_ELLIPSOID,
        mujoco.mjtGeom.mjGEOM_CYLINDER,
        mujoco.mjtGeom.mjGEOM_BOX,
        mujoco.mjtGeom.mjGEOM_MESH,
        mujoco.mjtGeom.mjGEOM_SDF,
        mujoco.mjtGeom.mjGEOM_HFIELD,
    )
}
_MESH, _SDF = int(mujoco.mjtGeom.mjGEOM_MESH), int(mujoco.mjtGeom.mjGEOM_SDF)
_HFIELD = int(mujoco.mjtGeom.mjGEOM_HFIELD)
_PLANE, _BOX = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX)
_SPHERE, _ELLIPSOID = int(mujoco.mjtGeom.mjGEOM_SPHERE), int(mujoco.mjtGeom.mjGEOM_ELLIPSOID)
_SITE, _GEOM = int(mujoco.mjtObj.mjOBJ_SITE), int(mujoco.mjtObj.mjOBJ_GEOM)
_MAX_LIGHTS = 32  # kMaxLights of the native renderer
_OPAQUE = 0.995  # mjr_render draws anything below this alpha as transparent


@dataclass
class Frustum:
    """The image plane at unit depth: half sizes and the offset of its centre."""

    half_height: float
    half_width: float = 0.0  # 0: from the aspect ratio of the image
    center_x: float = 0.0
    center_y: float = 0.0


@dataclass
class _Tables:
    """Rows for `_core.Scene`, filled one geom or light at a time."""

    geom_ints: list[list[int]] = field(default_factory=list)
    geom_floats: list[list[float]] = field(default_factory=list)
    light_ints: list[list[int]] = field(default_factory=list)
    light_floats: list[list[float]] = field(default_factory=list)
    textures: list[tuple[bool, np.ndarray, np.ndarray]] = field(default_factory=list)
    texture_ids: dict[int, int] = field(default_factory=dict)
    meshes: list[_meshes.Triangles] = field(default_factory=list)
    mesh_ids: dict[tuple[bool, int], int] = field(default_factory=dict)


def build(model: mujoco.MjModel, frustum: Frustum, fixed: int = -1) -> _core.Scene:
    """Return the native scene of `model`: what `mjv_updateScene` lists with default options.

    Args:
        model: the compiled model.
        frustum: the camera's image plane.
        fixed: id of the model's camera that draws, -1 for a free one.

    Returns:
        The immutable native scene.

    Raises:
        UnsupportedSceneError: the model shows elements that are not drawn; each is named.
    """
    scene = _abstract_scene(model)
    _check_supported(model, scene, fixed)
    tables = _Tables()
    for geom in scene.geoms[: scene.ngeom]:
        _add_geom(model, geom, tables)
    for light in scene.lights[: scene.nlight]:
        _add_light(model, light, tables)
    sky = _sky(model)
    options = {
        "ngeom": model.ngeom,
        "nsite": model.nsite,
        "nlight": model.nlight,
        "sky": _add_texture(model, sky, tables) if sky >= 0 else -1,
        "reflective": _reflective(tables),
        "znear": model.vis.map.znear * model.stat.extent,
        "zfar": model.vis.map.zfar * model.stat.extent,
        "shadow_clip": model.vis.map.shadowclip * model.stat.extent,
        "shadow_size": model.vis.quality.shadowsize,
        "haze": model.vis.map.haze,
        "haze_peak": _haze_peak(model.vis.map.haze),
        "haze_r": model.vis.rgba.haze[0],
        "haze_g": model.vis.rgba.haze[1],
        "haze_b": model.vis.rgba.haze[2],
        "global_ambient": 0.0 if scene.nlight else 0.3,
        **vars(frustum),
    }
    return _core.Scene(
        np.array(tables.geom_ints, np.int32).reshape(-1, 7),
        np.array(tables.geom_floats, np.float32).reshape(-1, 13),
        np.array(tables.light_ints, np.int32).reshape(-1, 3),
        np.array(tables.light_floats, np.float32).reshape(-1, 15),
        tables.textures,
        tables.meshes,
        options,
    )


def _abstract_scene(model: mujoco.MjModel) -> mujoco.MjvScene:
    """Return MuJoCo's own list of what is visible at the default state."""
    data = mujoco.MjData(model)
    mujoco.mj_fwdPosition(model, data)
    maxgeom = 1000
    while True:
        scene = mujoco.MjvScene(model, maxgeom)
        mujoco.mjv_updateScene(
            model,
            data,
            mujoco.MjvOption(),
            mujoco.MjvPerturb(),
            mujoco.MjvCamera(),
            mujoco.mjtCatBit.mjCAT_ALL.value,
            scene,
        )
        if scene.ngeom < maxgeom:
            return scene
        maxgeom *= 4


def _check_supported(model: mujoco.MjModel, scene: mujoco.MjvScene, fixed: int) -> None:
    bad = []
    if fixed < 0 and model.vis.global_.orthographic:
        bad.append("orthographic free camera")
    if fixed >= 0 and model.cam_projection[fixed] == mujoco.mjtProjection.mjPROJ_ORTHOGRAPHIC:
        bad.append(f"orthographic camera {model.camera(fixed).name or fixed!r}")
    for geom in scene.geoms[: scene.ngeom]:
        kind = mujoco.mjtGeom(geom.type).name.removeprefix("mjGEOM_").lower()
        if geom.type not in _TYPES or geom.objtype not in {_SITE, _GEOM}:
            bad.append(f"{kind} {_name(model, geom)}")
        elif geom.type == _PLANE and geom.texid >= 0 and (geom.size[0] > 0) != (geom.size[1] > 0):
            bad.append(f"textured plane {_name(model, geom)}, infinite in one direction only")
    bad += _grey_textures(model, scene)
    if scene.nlight > _MAX_LIGHTS:
        bad.append(f"{scene.nlight} lights, more than {_MAX_LIGHTS}")
    for light in scene.lights[: scene.nlight]:
        if light.type not in {0, 1}:
            name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_LIGHT, light.id)
            kind = mujoco.mjtLightType(light.type).name.removeprefix("mjLIGHT_").lower()
            bad.append(f"{kind} light {name or light.id!r}")
    if bad:
        raise UnsupportedSceneError(
            f"`model` must hold only elements that the ray renderer draws, got {', '.join(bad)}. "
            "Hide them (group 3 or higher, or rgba alpha 0) or use mujoco.Renderer."
        )


def _grey_textures(model: mujoco.MjModel, scene: mujoco.MjvScene) -> list[str]:
    """Name the textures in use that hold fewer than three channels."""
    used = {g.texid for g in scene.geoms[: scene.ngeom] if g.matid >= 0 and g.texid >= 0}
    used.add(_sky(model))
    return [
        f"{model.tex_nchannel[i]}-channel texture {model.tex(i).name or i!r}"
        for i in sorted(used - {-1})
        if model.tex_nchannel[i] < 3
    ]


def _sky(model: mujoco.MjModel) -> int:
    skybox = mujoco.mjtTexture.mjTEXTURE_SKYBOX
    return next((i for i in range(model.ntex) if model.tex_type[i] == skybox), -1)


def _name(model: mujoco.MjModel, geom: Any) -> str:
    kind = mujoco.mju_type2Str(geom.objtype) or "element"
    name = mujoco.mj_id2name(model, geom.objtype, geom.objid) if geom.objid >= 0 else None
    return f"{name!r} ({kind})" if name else f"{geom.objid} ({kind})"


def _add_geom(model: mujoco.MjModel, geom: Any, tables: _Tables) -> None:
    decor = geom.category == mujoco.mjtCatBit.mjCAT_DECOR
    texture = _add_texture(model, geom.texid, tables) if geom.matid >= 0 and geom.texid >= 0 else -1
    mesh = _add_mesh(model, geom, tables)
    tables.geom_ints.append([
        geom.type if mesh < 0 else _MESH,
        int(geom.objtype == _SITE),
        geom.objid,
        texture,
        geom.texuniform,
        # Geoms without the field, before MuJoCo 4, all cast.
        int(getattr(geom, "castshadow", True) and not decor),
        mesh,
    ])
    tables.geom_floats.append([
        *_drawn_size(model, geom),
        *geom.rgba,
        geom.emission,
        geom.specular,
        geom.shininess,
        geom.reflectance,
        *geom.texrepeat,
    ])


def _add_mesh(model: mujoco.MjModel, geom: Any, tables: _Tables) -> int:
    """Append the triangles of a mesh or height field once; return their row, -1 for other geoms."""
    if geom.type not in {_MESH, _SDF, _HFIELD}:
        return -1
    key = (geom.type == _HFIELD, int(geom.dataid))
    if key not in tables.mesh_ids:
        if geom.type == _HFIELD:
            triangles = _meshes.hfield_triangles(model, geom.dataid)
        else:
            # mjv_updateScene numbers meshes by two, for the convex hulls between them.
            triangles = _meshes.mesh_triangles(model, geom.dataid // 2)
        tables.meshes.append(triangles)
        tables.mesh_ids[key] = len(tables.meshes) - 1
    return tables.mesh_ids[key]


def _drawn_size(model: mujoco.MjModel, geom: Any) -> np.ndarray:
    """Return the size of the round shape that covers the area of MuJoCo's polygonal one."""
    size = np.array(geom.size, np.float64)
    if geom.type in {_PLANE, _BOX, _MESH, _SDF, _HFIELD}:
        return size
    around = 2 * np.pi / model.vis.quality.numslices
    along = np.pi / model.vis.quality.numstacks
    size[:2] *= np.sqrt(np.sin(around) / around)
    if geom.type in {_SPHERE, _ELLIPSOID}:
        size[2] *= np.sqrt(np.sin(along) / along)
    return size


def _add_light(model: mujoco.MjModel, light: Any, tables: _Tables) -> None:
    index = -1 if light.headlight else light.id
    # OpenGL accepts a spot cutoff in [0, 90] and an exponent in [0, 128], and keeps its
    # defaults (no cone, no falloff) for other values.
    cone = light.type == 0 and 0 <= light.cutoff <= 90
    exponent = light.exponent if 0 <= light.exponent <= 128 else 0.0
    opening = min(2 * light.cutoff * model.vis.map.shadowscale, 160.0)
    tables.light_ints.append([index, light.type, int(light.castshadow)])
    tables.light_floats.append([
        *light.ambient,
        *light.diffuse,
        *light.specular,
        *light.attenuation,
        float(np.cos(np.radians(light.cutoff))) if cone else -2.0,
        exponent,
        float(np.tan(np.radians(opening / 2))),
    ])


def _haze_peak(width: float) -> float:
    """Return the height of the haze cone at which it is opaque, as mjr_makeContext sets it."""
    alpha = np.arctan2(1.0, width)
    return float(np.sqrt(0.5) * width * np.sin(alpha) / np.sin(0.75 * np.pi - alpha))


def _reflective(tables: _Tables) -> int:
    """Return the one geom that mjr_render lets mirror the scene, or -1."""
    for i, (ints, floats) in enumerate(zip(tables.geom_ints, tables.geom_floats, strict=True)):
        if ints[0] in {_PLANE, _BOX} and floats[10] > 0 and floats[6] >= _OPAQUE:
            return i
    return -1


def _add_texture(model: mujoco.MjModel, tex: int, tables: _Tables) -> int:
    """Append texture `tex` once; return its row."""
    if tex in tables.texture_ids:
        return tables.texture_ids[tex]
    cube = model.tex_type[tex] != 0
    width, height, channels = model.tex_width[tex], model.tex_height[tex], model.tex_nchannel[tex]
    size = width * height * channels
    data = model.tex_data[model.tex_adr[tex] :][:size].reshape(height, width, channels)[:, :, :3]
    if cube:
        # A square image is shown on all six faces.
        faces = np.broadcast_to(data, (6, *data.shape)) if height == width else data
        image = np.ascontiguousarray(faces).reshape(6, width, width, 3)
    else:
        image = data[None]
        if model.tex_colorspace[tex] == mujoco.mjtColorSpace.mjCOLORSPACE_SRGB:
            image = _srgb_to_linear(image)
    tables.textures.append((cube, *_mip_chain(image, cube)))
    tables.texture_ids[tex] = len(tables.textures) - 1
    return tables.texture_ids[tex]


def _srgb_to_linear(image: np.ndarray) -> np.ndarray:
    x = np.arange(256) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return np.rint(linear * 255).astype(np.uint8)[image]


def _mip_chain(image: np.ndarray, cube: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (texels uint32, levels (n, 5) int32) with a border of one texel on every face.

    Each level is the one before, sampled bilinearly at half size and rounded to 8 bits, which is
    what software OpenGL's glGenerateMipmap does.
    """
    blocks, levels, offset = [], [], 0
    while True:
        bordered = (
            _cube_border(image)
            if cube
            else np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
        )
        faces, rows, stride, _ = bordered.shape
        levels.append([image.shape[2], image.shape[1], stride, rows * stride, offset])
        rgb = bordered.astype(np.uint32)
        blocks.append((rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16).ravel())
        offset += faces * rows * stride
        if image.shape[1] == 1 and image.shape[2] == 1:
            return np.concatenate(blocks), np.array(levels, np.int32)
        half = _halve(_halve(image.astype(np.float32), 1), 2)
        image = np.floor(half + 0.5).astype(np.uint8)


def _halve(image: np.ndarray, axis: int) -> np.ndarray:
    """Resample one axis bilinearly to max(1, size // 2) texels."""
    size = image.shape[axis]
    new = max(1, size // 2)
    if new == size:
        return image
    position = (np.arange(new) + 0.5) * (size / new) - 0.5
    low = np.floor(position).astype(int)
    weight = (position - low).astype(np.float32)
    shape = [1] * image.ndim
    shape[axis] = new
    weight = weight.reshape(shape)
    high = np.minimum(low + 1, size - 1)
    return np.take(image, low, axis) * (1 - weight) + np.take(image, high, axis) * weight


def _cube_border(image: np.ndarray) -> np.ndarray:
    """Surround each face with the nearest texels of its neighbours (seamless filtering)."""
    size = image.shape[1]
    center = (np.arange(-1, size + 1) + 0.5) * 2 / size - 1
    t, s = np.meshgrid(center, center, indexing="ij")
    one = np.ones_like(s)
    directions = np.stack([
        np.stack(d, -1)
        for d in (
            (one, -t, -s),
            (-one, -t, s),
            (s, one, t),
            (s, -one, -t),
            (s, -t, one),
            (-s, -t, -one),
        )
    ])
    x, y, z = np.moveaxis(directions, -1, 0)
    ax, ay, az = abs(x), abs(y), abs(z)
    # Outside its own face a texel belongs to the axis that it has just crossed into.
    on_x, on_y = (ax > ay) & (ax > az), (ay >= ax) & (ay > az)
    face = np.where(
        on_x, np.where(x > 0, 0, 1), np.where(on_y, np.where(y > 0, 2, 3), np.where(z > 0, 4, 5))
    )
    major = np.maximum(np.maximum(ax, ay), az)
    u = np.choose(face, [-z, z, x, x, x, -x]) / major
    v = np.choose(face, [-y, -y, z, -z, -y, -y]) / major
    column = np.clip(((u + 1) / 2 * size).astype(int), 0, size - 1)
    row = np.clip(((v + 1) / 2 * size).astype(int), 0, size - 1)
    bordered = image[face, row, column]
    bordered[:, 1:-1, 1:-1] = image
    return bordered
