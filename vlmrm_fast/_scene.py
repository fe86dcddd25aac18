"""Turn an mjModel into the plain arrays that the native renderer draws from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from vlmrm_fast import _changing, _core, _meshes, _textures
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
_CAPSULE = int(mujoco.mjtGeom.mjGEOM_CAPSULE)
_PLANE, _BOX = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_BOX)
_SPHERE, _ELLIPSOID = int(mujoco.mjtGeom.mjGEOM_SPHERE), int(mujoco.mjtGeom.mjGEOM_ELLIPSOID)
_SITE, _GEOM = int(mujoco.mjtObj.mjOBJ_SITE), int(mujoco.mjtObj.mjOBJ_GEOM)
_MAX_LIGHTS = 8  # GL_MAX_LIGHTS of every driver; mjr_render's further lights have no effect
_MIN_ZNEAR = 1e-15  # mjMINVAL, below which mjr_render refuses
_OPAQUE = 0.995  # mjr_render draws anything below this alpha as transparent


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


@dataclass(frozen=True)
class Built:
    """What a scene is drawn from.

    Attributes:
        native: the native scene; without geoms and lights where they change.
        objects: (G, 2) int32, the id and the mjtObj type of each geom's object.
        background: the depth that mujoco.Renderer gives where nothing is [m].
        changing: None, or the rest of what `_core.DynamicRenderer` lists a changing scene with.
    """

    native: _core.Scene
    objects: np.ndarray
    background: float
    changing: dict[str, Any] | None = None


def build(
    model: mujoco.MjModel,
    camera: mujoco.MjvCamera,
    option: mujoco.MjvOption,
    flags: Mapping[str, bool],
) -> Built:
    """Return the native scene of `model`: what `mjv_updateScene` lists and `mjr_render` draws.

    Args:
        model: the compiled model.
        camera: the one that draws.
        option: what is shown.
        flags: all render flags, as `_look.resolve_flags` returns them.

    Returns:
        The scene, immutable.

    Raises:
        UnsupportedSceneError: the model shows elements that are not drawn; each is named.
    """
    scene = _abstract_scene(model, camera, option)
    changing = _changing.is_changing(model, option, scene)
    _check_supported(model, option, scene, changing)
    tables = _Tables()
    shadows = flags["shadow"] and model.vis.quality.shadowsize > 0
    rest = _add_assets(model, flags, shadows, tables) if changing else None
    for geom in scene.geoms[: 0 if changing else scene.ngeom]:
        _add_geom(model, geom, tables)
    # Point and image lights are skipped, as mjr_render skips them.
    lights = [light for light in scene.lights[: scene.nlight] if light.type in {0, 1}]
    for light in lights[: 0 if changing else _MAX_LIGHTS]:
        _add_light(model, light, shadows, tables)
    sky = _sky(model) if flags["skybox"] else -1
    options = {
        "ngeom": model.ngeom,
        "nsite": model.nsite,
        "nlight": model.nlight,
        "sky": _add_sky(model, sky, tables) if sky >= 0 else -1,
        "round": _round(model.vis.quality.numslices, 2 * np.pi),
        "round_along": _round(model.vis.quality.numstacks, np.pi),
        "slices": model.vis.quality.numslices,
        "stacks": model.vis.quality.numstacks,
        "cull_face": int(flags["cull_face"]),
        "additive": int(flags["additive"]),
        "reflective": _reflective(tables) if flags["reflection"] else -1,
        "znear": model.vis.map.znear * model.stat.extent,
        "zfar": model.vis.map.zfar * model.stat.extent,
        "shadow_clip": model.vis.map.shadowclip * model.stat.extent,
        "shadow_size": max(model.vis.quality.shadowsize, 3),
        "global_ambient": 0.0 if lights else 0.3,
        **_haze(model, flags["haze"]),
        **_fog(model, flags["fog"]),
        **_frustum(scene.camera[0]),
    }
    native = _core.Scene(
        np.array(tables.geom_ints, np.int32).reshape(-1, 8),
        np.array(tables.geom_floats, np.float32).reshape(-1, 13),
        np.array(tables.light_ints, np.int32).reshape(-1, 3),
        np.array(tables.light_floats, np.float32).reshape(-1, 15),
        tables.textures,
        tables.meshes,
        options,
    )
    shown = scene.geoms[: 0 if changing else scene.ngeom]
    objects = np.array([(g.objid, g.objtype) for g in shown], np.int32).reshape(-1, 2)
    return Built(native, objects, _background_depth(scene.camera[0]), rest)


def _background_depth(camera: Any) -> float:
    """Return what the depth buffer's farthest value becomes, with mujoco.Renderer's rounding."""
    near, far = np.float32(camera.frustum_near), np.float32(camera.frustum_far)
    if camera.orthographic:
        return float(far)
    half = np.float32(0.5)
    scale = half * (np.float32(2) * far * near) / (far - near)
    return float(np.float64(scale) / (half * ((far + near) / (far - near)) - half))


def _add_assets(
    model: mujoco.MjModel, flags: Mapping[str, bool], shadows: bool, tables: _Tables
) -> dict[str, Any]:
    """Append all textures and meshes that geoms may use; return what lists a changing scene."""
    textures = np.full(model.ntex, -1, np.int32)
    meshes, hfields = np.full(2 * model.nmesh, -1, np.int32), np.full(model.nhfield, -1, np.int32)
    used = set(model.mat_texid[:, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)].tolist()) - {-1}
    for tex in sorted(used):
        textures[tex] = _add_texture(model, tex, tables)
    for kind, data in sorted(set(zip(model.geom_type, model.geom_dataid, strict=True))):
        if kind == _HFIELD:
            hfields[data] = _add_triangles(model, True, int(data), tables)
        elif kind in {_MESH, _SDF}:
            # mjv_updateScene numbers meshes by two, for the convex hulls between them.
            for row in (2 * data, 2 * data + 1):
                meshes[row] = _add_triangles(model, False, int(row), tables)
    return {
        **_changing.tables(model),
        "textures": textures,
        "meshes": meshes,
        "hfields": hfields,
        "shadows": bool(shadows),
        "reflection": bool(flags["reflection"]),
        "max_lights": _MAX_LIGHTS,
    }


def _abstract_scene(
    model: mujoco.MjModel, camera: mujoco.MjvCamera, option: mujoco.MjvOption
) -> mujoco.MjvScene:
    """Return MuJoCo's own list of what is visible at the default state."""
    near = model.vis.map.znear * model.stat.extent
    if not near > _MIN_ZNEAR:  # MuJoCo ends the process
        raise UnsupportedSceneError(
            "`model` must have a near plane (vis.map.znear * stat.extent) beyond "
            f"{_MIN_ZNEAR:g} m, got {near:g}. Use the default znear, 0.01."
        )
    data = mujoco.MjData(model)
    mujoco.mj_fwdPosition(model, data)
    every = mujoco.mjtCatBit.mjCAT_ALL.value
    maxgeom = 1000
    while True:
        scene = mujoco.MjvScene(model, maxgeom)
        mujoco.mjv_updateScene(model, data, option, None, camera, every, scene)
        if scene.ngeom < maxgeom:
            return scene
        maxgeom *= 4


def _frustum(camera: Any) -> dict[str, float]:
    """Return the image plane at unit depth (in metres if orthographic), as mjr_render sets it."""
    unit = 1.0 if camera.orthographic else camera.frustum_near
    return {
        "orthographic": int(camera.orthographic),
        "half_height": (camera.frustum_top - camera.frustum_bottom) / 2 / unit,
        "half_width": camera.frustum_width / unit,  # 0: from the aspect ratio of the image
        "center_x": camera.frustum_center / unit,
        "center_y": (camera.frustum_top + camera.frustum_bottom) / 2 / unit,
    }


def _haze(model: mujoco.MjModel, shown: bool) -> dict[str, float]:
    width = model.vis.map.haze
    # The height of the haze cone at which it is opaque, as mjr_makeContext sets it.
    alpha = np.arctan2(1.0, width)
    peak = float(np.sqrt(0.5) * width * np.sin(alpha) / np.sin(0.75 * np.pi - alpha))
    rgb = dict(zip(("haze_r", "haze_g", "haze_b"), model.vis.rgba.haze[:3], strict=True))
    return {"haze": width if shown else 0.0, "haze_peak": peak, **rgb}


def _fog(model: mujoco.MjModel, shown: bool) -> dict[str, float]:
    """Return OpenGL's linear fog: 1 - (depth - start) * rate of the surface is left."""
    start = model.vis.map.fogstart * model.stat.extent
    end = model.vis.map.fogend * model.stat.extent
    rgb = dict(zip(("fog_r", "fog_g", "fog_b"), model.vis.rgba.fog[:3], strict=True))
    rate = 1 / (end - start) if end != start else 1.0
    return {"fog": int(shown), "fog_end": end, "fog_rate": rate, **rgb}


def _check_supported(
    model: mujoco.MjModel, option: mujoco.MjvOption, scene: mujoco.MjvScene, changing: bool
) -> None:
    bad = _changing.not_drawn(option)
    for geom in scene.geoms[: scene.ngeom]:
        kind = mujoco.mjtGeom(geom.type).name.removeprefix("mjGEOM_").lower()
        if not changing and geom.type not in _TYPES:
            bad.append(f"{kind} {_name(model, geom)}")
    if bad:
        raise UnsupportedSceneError(
            f"`model` must hold only elements that the ray renderer draws, got {', '.join(bad)}. "
            "Hide them (group 3 or higher, or rgba alpha 0) or use mujoco.Renderer."
        )


def _sky(model: mujoco.MjModel) -> int:
    skybox = mujoco.mjtTexture.mjTEXTURE_SKYBOX
    return next((i for i in range(model.ntex) if model.tex_type[i] == skybox), -1)


def _name(model: mujoco.MjModel, geom: Any) -> str:
    kind = mujoco.mju_type2Str(geom.objtype) or "element"
    name = mujoco.mj_id2name(model, geom.objtype, geom.objid) if geom.objid >= 0 else None
    return f"{name!r} ({kind})" if name else f"{geom.objid} ({kind})"


def _add_geom(model: mujoco.MjModel, geom: Any, tables: _Tables) -> None:
    decor = geom.category == mujoco.mjtCatBit.mjCAT_DECOR
    mesh = _add_mesh(model, geom, tables)
    textured = geom.matid >= 0 and geom.texid >= 0
    texture = _add_texture(model, geom.texid, tables) if textured else -1
    tables.geom_ints.append([
        geom.type if mesh < 0 else _MESH,
        int(geom.objtype == _SITE),
        geom.objid,
        texture,
        geom.texuniform,
        # Geoms without the field, before MuJoCo 4, all cast.
        int(getattr(geom, "castshadow", True) and not decor),
        mesh,
        int(_is_still(model, geom)),
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


def _is_still(model: mujoco.MjModel, geom: Any) -> bool:
    """Return whether a geom or site is fixed to the world, as far as the model can tell."""
    body = (model.site_bodyid if geom.objtype == _SITE else model.geom_bodyid)[geom.objid]
    return bool(model.body_weldid[body] == 0 and model.body_mocapid[model.body_rootid[body]] < 0)


def _add_mesh(model: mujoco.MjModel, geom: Any, tables: _Tables) -> int:
    """Append the triangles of a mesh or height field once; return their row, -1 for other geoms."""
    if geom.type not in {_MESH, _SDF, _HFIELD}:
        return -1
    return _add_triangles(model, geom.type == _HFIELD, int(geom.dataid), tables)


def _add_triangles(model: mujoco.MjModel, is_hfield: bool, data: int, tables: _Tables) -> int:
    key = (is_hfield, data)
    if key not in tables.mesh_ids:
        triangles: _meshes.Triangles | None
        if is_hfield:
            triangles = _meshes.hfield_triangles(model, data)
        elif data % 2:
            triangles = _meshes.hull_triangles(model, data // 2)
        else:
            # mjv_updateScene numbers meshes by two, for the convex hulls between them.
            triangles = _meshes.mesh_triangles(model, data // 2)
        tables.mesh_ids[key] = len(tables.meshes) if triangles else -1
        tables.meshes += [triangles] if triangles else []
    return tables.mesh_ids[key]


def _drawn_size(model: mujoco.MjModel, geom: Any) -> np.ndarray:
    """Return the size of the round shape that covers the area of MuJoCo's polygonal one."""
    size = np.array(geom.size, np.float64)
    if geom.type in {_PLANE, _MESH, _SDF, _HFIELD}:
        return size
    # OpenGL draws what is flat, but the caps of a capsule without a length come out empty.
    flat = geom.type == _CAPSULE and size[2] == 0
    size = 0 * size if flat else np.where(size > 0, size, 1e-4 * size.max())
    if geom.type == _BOX:
        return size
    size[:2] *= _round(model.vis.quality.numslices, 2 * np.pi)
    if geom.type in {_SPHERE, _ELLIPSOID}:
        size[2] *= _round(model.vis.quality.numstacks, np.pi)
    return size


def _round(sides: int, turn: float) -> float:
    """Return the radius of the circle that has the area of a unit polygon with `sides` a `turn`."""
    angle = turn / sides
    return float(np.sqrt(np.sin(angle) / angle))


def _add_light(model: mujoco.MjModel, light: Any, shadows: bool, tables: _Tables) -> None:
    index = -1 if light.headlight else light.id
    # OpenGL accepts a spot cutoff in [0, 90] and an exponent in [0, 128], and keeps its
    # defaults (no cone, no falloff) for other values.
    cone = light.type == 0 and 0 <= light.cutoff <= 90
    exponent = light.exponent if 0 <= light.exponent <= 128 else 0.0
    opening = min(2 * light.cutoff * model.vis.map.shadowscale, 160.0)
    tables.light_ints.append([index, light.type, int(light.castshadow and shadows)])
    tables.light_floats.append([
        *light.ambient,
        *light.diffuse,
        *light.specular,
        *light.attenuation,
        float(np.cos(np.radians(light.cutoff))) if cone else -2.0,
        exponent,
        float(np.tan(np.radians(opening / 2))),
    ])


def _reflective(tables: _Tables) -> int:
    """Return the one geom that mjr_render lets mirror the scene, or -1."""
    for i, (ints, floats) in enumerate(zip(tables.geom_ints, tables.geom_floats, strict=True)):
        if ints[0] in {_PLANE, _BOX} and floats[10] > 0 and floats[6] >= _OPAQUE:
            return i
    return -1


def _add_texture(model: mujoco.MjModel, tex: int, tables: _Tables) -> int:
    """Append texture `tex` once; return its row, or -1 if MuJoCo draws without it."""
    if tex not in tables.texture_ids:
        texture = _textures.upload(model, tex)
        tables.texture_ids[tex] = len(tables.textures) if texture else -1
        tables.textures += [texture] if texture else []
    return tables.texture_ids[tex]


def _add_sky(model: mujoco.MjModel, tex: int, tables: _Tables) -> int:
    """Append the sky box; one that MuJoCo cannot upload is white."""
    row = _add_texture(model, tex, tables)
    if row >= 0:
        return row
    tables.textures.append(_textures.white_cube())
    return len(tables.textures) - 1
