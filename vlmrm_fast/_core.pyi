"""Types of the native renderer."""

import numpy as np

_Format = tuple[int, np.ndarray, tuple[float, ...], tuple[float, ...]]

def simd_level() -> str: ...
def simd_levels() -> list[str]: ...

class Scene:
    def __init__(
        self,
        geom_ints: np.ndarray,
        geom_floats: np.ndarray,
        light_ints: np.ndarray,
        light_floats: np.ndarray,
        textures: list[tuple[bool, np.ndarray, np.ndarray]],
        meshes: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
        options: dict[str, float],
    ) -> None: ...

class Renderer:
    def __init__(
        self,
        scene: Scene,
        height: int,
        width: int,
        num_threads: int,
        number_format: _Format | None = None,
        planar: bool = False,
        supersample: int = 1,
        cache: bool = True,
        facets: int = -1,
    ) -> None: ...
    def cache_counts(self) -> tuple[int, int]: ...
    def probe(
        self,
        depth: np.ndarray,
        geom: np.ndarray,
        background: float,
        arrays: list[np.ndarray],
        cam_offset: tuple[float, ...],
    ) -> None: ...
    def render(
        self,
        out: np.ndarray,
        geom_xpos: np.ndarray,
        geom_xmat: np.ndarray,
        site_xpos: np.ndarray,
        site_xmat: np.ndarray,
        light_xpos: np.ndarray,
        light_xdir: np.ndarray,
        cam_pos: np.ndarray,
        cam_mat: np.ndarray,
        cam_offset: tuple[float, ...] = ...,
        stepper: Stepper | None = None,
        num_substeps: int = 0,
    ) -> float: ...

class Stepper:
    def __init__(
        self,
        library: str,
        model: int,
        data: list[int],
        states: np.ndarray,
        spec: int,
        failed: np.ndarray,
        warnings: tuple[list[int], int, int],
        fields: list[tuple[list[int], int, int]],
        forces: tuple[list[int], int, int],
    ) -> None: ...
    @property
    def num_workers(self) -> int: ...

class MujocoApi:
    def __init__(self, path: str, layout: dict[str, int]) -> None: ...

class Sources:
    def __init__(
        self,
        count: int,
        data: list[int],
        fields: list[np.ndarray],
        scratch: list[int],
        places: list[list[int]],
    ) -> None: ...

class GlDriver:
    vendor: str
    renderer: str
    version: str
    software: bool

def gl_devices() -> list[tuple[int, int, str]]: ...
def choose_gl_devices(
    known: list[tuple[int, int]], device: int, mujoco_device: str, cuda_devices: str
) -> list[int]: ...

class GlRenderer:
    driver: GlDriver
    def __init__(
        self,
        api: MujocoApi,
        model: int,
        option: bytes,
        camera: bytes,
        flags: list[tuple[int, bool]],
        sink: tuple[int, int, _Format | None, bool, int],
        num_threads: int,
        devices: list[int],
    ) -> None: ...
    def render(self, sources: Sources, out: np.ndarray) -> None: ...
    def render_depth(self, sources: Sources, out: np.ndarray, orthographic: np.ndarray) -> None: ...
    def render_segmentation(self, sources: Sources, out: np.ndarray) -> None: ...
    def take_warnings(self) -> list[str]: ...

class DynamicRenderer:
    def __init__(
        self,
        setup: dict[str, object],
        sink: tuple[int, int, _Format | None, bool, int],
        num_threads: int,
    ) -> None: ...
    def render(self, sources: Sources, out: np.ndarray) -> None: ...
    def probe(
        self, sources: Sources, depth: np.ndarray, objects: np.ndarray, background: float
    ) -> None: ...
