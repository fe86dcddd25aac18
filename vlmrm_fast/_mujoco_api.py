"""The functions and struct layouts of the loaded libmujoco, for the native side.

Nothing is built against MuJoCo's headers: sizes and offsets come from `mujoco.introspect`, which
describes the very version that is installed, and are checked against live objects before use.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mujoco
from mujoco.introspect import structs

from vlmrm_fast import _core
from vlmrm_fast.errors import RendererError

_STRUCTS = (
    "mjvScene",
    "mjvGeom",
    "mjvLight",
    "mjvOption",
    "mjvCamera",
    "mjvGLCamera",
    "mjrContext",
)
_SCALARS: dict[str, Any] = {
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "char": ctypes.c_char,
    "mjtByte": ctypes.c_ubyte,
    "mjtBool": ctypes.c_ubyte,
    "mjtNum": ctypes.c_double,
}
_FIX = "Use backend='ray', or install a released version of mujoco."


@functools.cache
def load() -> _core.MujocoApi:
    """Return libmujoco's functions and its checked layout; made once a process.

    Returns:
        The native table.

    Raises:
        RendererError: libmujoco is not where `mujoco` is, lacks a function, or lays out its structs
            in another way than `mujoco.introspect` says.
    """
    folder = Path(mujoco.__file__).parent
    found = sorted([*folder.glob("libmujoco.so*"), *folder.glob("libmujoco*.dylib")])
    if not found:
        raise RendererError(f"libmujoco must lie in {folder}, got no such file. {_FIX}")
    layout = read_layout()
    check_layout(layout)
    return native(found[0], layout)


def native(path: Path, layout: Mapping[str, int]) -> _core.MujocoApi:
    """Return the native table of a library, checked there once more.

    Args:
        path: the shared library.
        layout: as `read_layout` returns it.

    Returns:
        The table.

    Raises:
        RendererError: the library cannot be used.
    """
    try:
        return _core.MujocoApi(str(path), dict(layout))
    except RuntimeError as error:
        raise RendererError(f"{error} {_FIX}") from error


def read_layout() -> dict[str, int]:
    """Return sizes ("mjvGeom") and offsets ("mjvGeom.pos") of MuJoCo's visual structs.

    Returns:
        Bytes by name; and the numbers of some enums by theirs.

    Raises:
        RendererError: `mujoco.introspect` holds a type that is not known here.
    """
    layout: dict[str, int] = {}
    for name in _STRUCTS:
        made = _struct(name)
        layout[name] = ctypes.sizeof(made)
        for field in structs.STRUCTS[name].fields:
            layout[f"{name}.{field.name}"] = getattr(made, field.name).offset
    for name in ("mjRND_SEGMENT", "mjRND_IDCOLOR"):
        layout[name] = int(getattr(mujoco.mjtRndFlag, name))
    return layout


@functools.cache
def _struct(name: str) -> Any:
    fields = [(f.name, _c_type(f.type)) for f in structs.STRUCTS[name].fields]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def _c_type(kind: Any) -> Any:
    """Return the ctypes twin of a type of `mujoco.introspect.ast_nodes`."""
    extents = getattr(kind, "extents", None)
    if extents is not None:
        made = _c_type(kind.inner_type)
        for extent in reversed(extents):
            made *= extent
        return made
    if hasattr(kind, "inner_type"):
        return ctypes.c_void_p
    if kind.name in _SCALARS:
        return _SCALARS[kind.name]
    if kind.name in structs.STRUCTS:
        return _struct(kind.name)
    raise RendererError(f"MuJoCo's structs must be of known types, got {kind.name!r}. {_FIX}")


def address(item: Any, kind: str, array: str, layout: Mapping[str, int]) -> int:
    """Return where a Python struct lies in memory.

    Args:
        item: the struct.
        kind: its C name.
        array: one of its array fields.
        layout: as `read_layout` returns it.

    Returns:
        The address of its first byte.
    """
    return int(getattr(item, array).ctypes.data) - layout[f"{kind}.{array}"]


def option_bytes(option: mujoco.MjvOption | None) -> bytes:
    """Return a copy of an `mjvOption`; None is the default one."""
    return _bytes(option or mujoco.MjvOption(), "mjvOption", "geomgroup")


def camera_bytes(camera: mujoco.MjvCamera) -> bytes:
    """Return a copy of an `mjvCamera`."""
    return _bytes(camera, "mjvCamera", "lookat")


def _bytes(item: Any, kind: str, array: str) -> bytes:
    layout = read_layout()
    return ctypes.string_at(address(item, kind, array, layout), layout[kind])


def check_layout(layout: Mapping[str, int]) -> None:
    """Compare a layout with where live objects hold their fields.

    Args:
        layout: as `read_layout` returns it.

    Raises:
        RendererError: a field lies elsewhere; it is named.
    """
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    scene = mujoco.MjvScene(model, maxgeom=4)
    _check_scene(scene, layout)
    geom = scene.geoms[1]
    step = geom.pos.ctypes.data - scene.geoms[0].pos.ctypes.data
    _expect("mjvGeom", step, layout["mjvGeom"])
    light = scene.lights[1]
    step = light.pos.ctypes.data - scene.lights[0].pos.ctypes.data
    _expect("mjvLight", step, layout["mjvLight"])
    eye = scene.camera[1]
    step = eye.pos.ctypes.data - scene.camera[0].pos.ctypes.data
    _expect("mjvGLCamera", step, layout["mjvGLCamera"])
    for item, kind, array in (
        (geom, "mjvGeom", "pos"),
        (light, "mjvLight", "pos"),
        (eye, "mjvGLCamera", "pos"),
        (mujoco.MjvOption(), "mjvOption", "geomgroup"),
        (mujoco.MjvCamera(), "mjvCamera", "lookat"),
    ):
        _check_fields(item, kind, address(item, kind, array, layout), layout)


def _check_scene(scene: mujoco.MjvScene, layout: Mapping[str, int]) -> None:
    base = address(scene, "mjvScene", "translate", layout)
    for name, kind in (("lights", "mjvLight"), ("camera", "mjvGLCamera")):
        found = getattr(scene, name)[0].pos.ctypes.data - base
        _expect(f"mjvScene.{name}", found - layout[f"{kind}.pos"], layout[f"mjvScene.{name}"])
    first = scene.geoms[0].pos.ctypes.data - layout["mjvGeom.pos"]
    held = _read(base, layout["mjvScene.geoms"], ctypes.c_void_p) or 0
    _expect("mjvScene.geoms", layout["mjvScene.geoms"] + first - held, layout["mjvScene.geoms"])
    _check_fields(scene, "mjvScene", base, layout)


def _check_fields(item: Any, kind: str, base: int, layout: Mapping[str, int]) -> None:
    """Check the fields of a struct: arrays by address, numbers by writing and reading back."""
    for field in structs.STRUCTS[kind].fields:
        if (kind, field.name) == ("mjvGeom", "label"):  # bytes that Python may refuse to read
            continue
        value: Any = getattr(item, field.name, None)
        key = f"{kind}.{field.name}"
        if isinstance(value, (int, float)):
            _check_scalar(item, kind, field.name, base, layout)
        elif hasattr(value, "ctypes") and hasattr(field.type, "extents"):
            _expect(key, value.ctypes.data - base, layout[key])
        elif hasattr(value, "ctypes") and value.size:
            held = _read(base, layout[key], ctypes.c_void_p) or 0
            _expect(key, layout[key] + value.ctypes.data - held, layout[key])


def _check_scalar(item: Any, kind: str, name: str, base: int, layout: Mapping[str, int]) -> None:
    """Write two values through Python and look for them at the offset."""
    made: Any = getattr(_struct(kind), name)
    c_type = dict(_struct(kind)._fields_)[name]
    old = getattr(item, name)
    probes: tuple[Any, ...] = (1, 0) if made.size == 1 else (3, 5)
    for probe in probes:
        setattr(item, name, probe)
        found = _read(base, layout[f"{kind}.{name}"], c_type)
        if found != probe:
            setattr(item, name, old)
            _expect(f"{kind}.{name}", f"{found} for {probe}", layout[f"{kind}.{name}"])
    setattr(item, name, old)


def _read(base: int, offset: int, c_type: Callable[..., Any]) -> Any:
    return c_type.from_address(base + offset).value  # type: ignore[attr-defined]


def _expect(name: str, found: object, expected: int) -> None:
    if found != expected:
        raise RendererError(
            f"MuJoCo's structs must be laid out as mujoco.introspect says, got {name} at {found}, "
            f"expected {expected}. {_FIX}"
        )
