"""What the `ray` renderer allocates, and how a few worlds share many workers."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap

import gymnasium
import mujoco
import numpy as np
import pytest

from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene

ASSETS = os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets")
HUMANOID = os.path.join(ASSETS, "humanoid.xml")
VIEW = Camera(lookat=(0.0, 0.0, 1.0), distance=3.5, azimuth=180.0, elevation=-10.0)

COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static long calls;
long allocations(void) { return __atomic_load_n(&calls, __ATOMIC_SEQ_CST); }
#define COUNT __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST)
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void *malloc(size_t n) { COUNT; return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { COUNT; return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { COUNT; return __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { COUNT; return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
  COUNT;
  *p = __libc_memalign(a, n);
  return *p ? 0 : 12;
}
"""

MEASURE = """
import ctypes, sys
import mujoco, numpy as np
from vlmrm_fast.rendering import Camera, Poses, Renderer, Scene

library = ctypes.CDLL(sys.argv[1])
library.allocations.restype = ctypes.c_long
model = mujoco.MjModel.from_xml_path(sys.argv[2])
scene = Scene.from_model(model, Camera((0.0, 0.0, 1.0), 3.5, 180.0, -10.0))
worlds = []
for i in range(32):
    data = mujoco.MjData(model)
    data.qpos[2] = 0.7 + 0.02 * i
    mujoco.mj_forward(model, data)
    worlds.append(data)
for threads, cache in ((1, True), (2, True), (2, False), (3, True)):
    renderer = Renderer(scene, 64, 80, threads, cache=cache)
    counts = []
    for n in (2, 2, 2, 32, 32, 32, 2, 32):
        poses = Poses.from_data(worlds[:n])
        out = np.empty((n, 64, 80, 3), np.uint8)
        before = library.allocations()
        for _ in range(10):
            renderer.render(poses, out=out)
        counts.append(library.allocations() - before)
    print(*counts[-2:])
"""


@pytest.mark.skipif(
    sys.platform != "linux" or "LD_PRELOAD" in os.environ or shutil.which("cc") is None,
    reason="counts allocations through LD_PRELOAD",
)
def test_no_frame_allocates_memory(tmp_path) -> None:
    source, library = tmp_path / "counter.c", tmp_path / "counter.so"
    source.write_text(COUNTER)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(library), HUMANOID],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONMALLOC": "pymalloc"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [[int(count) for count in line.split()] for line in result.stdout.splitlines()]
    assert len(lines) == 4
    for few, many in lines:
        # A call makes some Python objects; 30 frames more in each of ten calls make none.
        assert many - few < 10, lines


class _MallInfo(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    # uordblks is the eighth of ten, hblkhd the fifth.
    _fields_ = [(name, ctypes.c_size_t) for name in (*"abcd", "hblkhd", *"fg", "uordblks", *"ij")]


def _allocated() -> int:
    function = ctypes.CDLL(None).mallinfo2
    function.restype = _MallInfo
    info = function()
    return int(info.uordblks + info.hblkhd)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_a_worker_takes_less_than_two_megabytes() -> None:
    scene = Scene.from_model(mujoco.MjModel.from_xml_path(HUMANOID), VIEW)
    before = _allocated()
    one = Renderer(scene, 224, 224, 1)
    between = _allocated()
    many = Renderer(scene, 224, 224, 17)
    per_worker = (_allocated() - between - (between - before)) / 16
    assert one.num_threads == 1
    assert many.num_threads == 17
    assert 0.5e6 < per_worker < 2e6


@pytest.fixture(scope="module")
def worlds() -> list[mujoco.MjData]:
    model = mujoco.MjModel.from_xml_path(HUMANOID)
    worlds = []
    for i in range(3):
        data = mujoco.MjData(model)
        data.qpos[2] = 0.8 + 0.2 * i
        data.qpos[7:] += 0.3 * np.random.default_rng(i).normal(size=model.nq - 7)
        mujoco.mj_forward(model, data)
        worlds.append(data)
    return worlds


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("height", [1, 7, 64, 97])
@pytest.mark.parametrize("num_threads", [4, 5, 16])
def test_bands_of_rows_do_not_change_a_bit(
    worlds: list[mujoco.MjData], num_threads: int, height: int, cache: bool
) -> None:
    scene = Scene.from_model(worlds[0].model, VIEW)
    whole = Renderer(scene, height, 75, 1, cache=False).render(worlds)
    with Renderer(scene, height, 75, num_threads, cache=cache) as renderer:
        for i in (0, 0, 2, 1):
            np.testing.assert_array_equal(renderer.render(worlds[i])[0], whole[i])
        np.testing.assert_array_equal(renderer.render(worlds), whole)
        # More worlds than workers, then fewer again: a worker's buffers hold other rows each time.
        poses = Poses.from_data([*worlds, *worlds[::-1], *worlds * 4])
        np.testing.assert_array_equal(renderer.render(poses)[:3], whole)
        np.testing.assert_array_equal(renderer.render(worlds[2])[0], whole[2])


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"layout": "nchw"}, {"supersample": 2}])
def test_bands_of_rows_do_not_change_a_converted_picture(
    worlds: list[mujoco.MjData], options: dict
) -> None:
    scene = Scene.from_model(worlds[0].model, VIEW)
    whole = Renderer(scene, 40, 56, 1, cache=False, **options).render(worlds)
    with Renderer(scene, 40, 56, 4, **options) as renderer:
        for _ in range(3):
            np.testing.assert_array_equal(renderer.render(worlds), whole)
