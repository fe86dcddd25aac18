"""What a renderer's pictures become on their way out: equal to torch's arithmetic, bit for bit."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from vlmrm_fast import _core
from vlmrm_fast.errors import ArgumentError, UnknownNameError
from vlmrm_fast.rendering import Camera, Renderer, Scene

ASSETS = os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets")
VIEW = Camera(lookat=(0.0, 0.0, 1.0), distance=3.5, azimuth=180.0, elevation=-10.0)
CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
H, W = 37, 53


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(os.path.join(ASSETS, "humanoid.xml"))


@pytest.fixture(scope="module")
def scene(model: mujoco.MjModel) -> Scene:
    return Scene.from_model(model, VIEW)


@pytest.fixture(scope="module")
def worlds(model: mujoco.MjModel) -> list[mujoco.MjData]:
    worlds = [mujoco.MjData(model) for _ in range(3)]
    for i, data in enumerate(worlds):
        data.qpos[7:] += 0.2 * i
        mujoco.mj_forward(model, data)
    return worlds


@pytest.fixture(scope="module")
def pictures(scene: Scene, worlds: list[mujoco.MjData]) -> np.ndarray:
    return Renderer(scene, H, W, 1).render(worlds)


def _expected(pictures: np.ndarray, layout: str, dtype: str, options: dict[str, Any]) -> Any:
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    if dtype != "uint8":
        mean = torch.tensor(options.get("mean", (0, 0, 0)))[:, None, None]
        std = torch.tensor(options.get("std", (1, 1, 1)))[:, None, None]
        x = ((x.float() / 255 - mean) / std).to(getattr(torch, dtype))
    return (x if layout == "nchw" else x.permute(0, 2, 3, 1)).contiguous()


@pytest.mark.parametrize("options", [{}, CLIP, {"mean": (0.5, 0.4, 0.3)}, {"std": (1e-6, 3, 7e4)}])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_numbers_equal_those_of_torch(
    scene: Scene,
    worlds: list[mujoco.MjData],
    pictures: np.ndarray,
    layout: str,
    dtype: str,
    options: dict[str, Any],
) -> None:
    expected = _expected(pictures, layout, dtype, options)
    with Renderer(scene, H, W, 2, layout=layout, dtype=dtype, **options) as renderer:
        out = torch.empty(expected.shape, dtype=expected.dtype)
        assert renderer.render(worlds, out) is out
        assert torch.equal(out, expected)
        array = renderer.render(worlds)
    bits = {4: np.uint32, 2: np.uint16}[array.itemsize]
    stored = expected.view(torch.int16) if dtype == "bfloat16" else expected
    np.testing.assert_array_equal(array.view(bits), stored.numpy().view(bits))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("level", _core.simd_levels())
def test_numbers_do_not_depend_on_the_instruction_set(
    scene: Scene,
    worlds: list[mujoco.MjData],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    level: str,
) -> None:
    monkeypatch.setenv("VLMRM_FAST_SIMD", level)
    options = {} if dtype == "uint8" else CLIP
    pictures = Renderer(scene, H, W, 1).render(worlds)
    out = torch.empty((3, 3, H, W), dtype=getattr(torch, dtype))
    Renderer(scene, H, W, 1, layout="nchw", dtype=dtype, **options).render(worlds, out)
    assert torch.equal(out, _expected(pictures, "nchw", dtype, options))


def test_bytes_leave_channels_first(
    scene: Scene, worlds: list[mujoco.MjData], pictures: np.ndarray
) -> None:
    with Renderer(scene, H, W, 2, layout="nchw") as renderer:
        frames = renderer.render(worlds)
        tensor = renderer.render(worlds, torch.empty((3, 3, H, W), dtype=torch.uint8))
    assert frames.flags.c_contiguous
    np.testing.assert_array_equal(frames, pictures.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(tensor.numpy(), frames)


def test_bfloat16_arrays_hold_the_bits(scene: Scene, worlds: list[mujoco.MjData]) -> None:
    with Renderer(scene, H, W, 1, dtype="bfloat16", **CLIP) as renderer:
        array = renderer.render(worlds)
        tensor = renderer.render(worlds, torch.empty((3, H, W, 3), dtype=torch.bfloat16))
    assert array.dtype == np.uint16
    assert torch.equal(torch.from_numpy(array.view(np.int16)).view(torch.bfloat16), tensor)


def test_every_byte_of_every_channel_is_rounded_as_torch_rounds_it() -> None:
    from vlmrm_fast._outputs import Output

    every = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 1, 256, 3)
    for dtype in ("float32", "float16", "bfloat16"):
        table = Output.of((1, 1), dtype=dtype, **CLIP).table()
        assert table is not None
        expected = _expected(every, "nchw", dtype, CLIP)[0, :, 0]
        bits = expected.view(torch.int32 if dtype == "float32" else torch.int16).numpy()
        np.testing.assert_array_equal(table, bits.view(table.dtype))


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_supersampling_draws_larger_and_averages(
    scene: Scene, worlds: list[mujoco.MjData], factor: int
) -> None:
    large = Renderer(scene, H * factor, W * factor, 1).render(worlds)
    blocks = large.reshape(3, H, factor, W, factor, 3).astype(np.int64).sum((2, 4))
    expected = ((blocks + factor**2 // 2) // factor**2).astype(np.uint8)
    np.testing.assert_array_equal(
        Renderer(scene, H, W, 2, supersample=factor).render(worlds), expected
    )
    planar = Renderer(scene, H, W, 1, supersample=factor, layout="nchw", dtype="float16", **CLIP)
    out = torch.empty((3, 3, H, W), dtype=torch.float16)
    assert torch.equal(planar.render(worlds, out), _expected(expected, "nchw", "float16", CLIP))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layout": "chw"}, "layout must be one of nchw, nhwc, got 'chw'"),
        ({"dtype": "int8"}, "dtype must be one of bfloat16, float16, float32, uint8, got 'int8'"),
    ],
)
def test_unknown_formats_are_named(scene: Scene, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UnknownNameError, match=match):
        Renderer(scene, H, W, 1, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mean": (0, 0, 0)}, "`dtype` must be bfloat16, float16 or float32 where `mean`"),
        ({"dtype": "float32", "mean": (0, 0)}, "`mean` must be three finite numbers"),
        ({"dtype": "float32", "mean": "abc"}, "`mean` must be three finite numbers"),
        ({"dtype": "float32", "std": (1, np.nan, 1)}, "`std` must be three finite numbers"),
        ({"dtype": "float32", "std": (1, 0, 1)}, "`std` must be above 0"),
        ({"supersample": 0}, "`supersample` must be an integer between 1 and 8, got 0"),
        ({"supersample": 1.5}, "`supersample` must be an integer between 1 and 8, got 1.5"),
        ({"width": 9000, "supersample": 2}, "`supersample` must keep the drawn picture within"),
    ],
)
def test_bad_formats_are_refused(scene: Scene, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        Renderer(scene, **{"height": H, "width": W, "num_threads": 1, **options})


@pytest.mark.parametrize(
    ("out", "match"),
    [
        (torch.empty((3, 3, H, W)), "`out` must be float16, got torch.float32. Use torch.empty"),
        (torch.empty((3, H, W, 3), dtype=torch.float16), "`out` must be of shape"),
        (torch.empty((3, 3, W, H), dtype=torch.float16).mT, "`out` must be C-contiguous"),
        (torch.empty((3, 3, H, W), dtype=torch.float16, device="meta"), "`out` must be on the CPU"),
        (
            torch.empty((3, 3, H, W), dtype=torch.float16, requires_grad=True),
            "`out` must not require grad",
        ),
        (np.empty((3, 3, H, W), np.float32), "`out` must be float16, got float32. Use np.empty"),
        (np.empty((3, 3, W, H), np.float16).swapaxes(2, 3), "`out` must be C-contiguous"),
        (np.broadcast_to(np.float16(0), (3, 3, H, W)), "`out` must be C-contiguous"),
        ([0], "`out` must be a numpy array, got list"),
    ],
)
def test_unfit_outputs_are_refused(
    scene: Scene, worlds: list[mujoco.MjData], out: Any, match: str
) -> None:
    with (
        Renderer(scene, H, W, 1, layout="nchw", dtype="float16") as renderer,
        pytest.raises(ArgumentError, match=match),
    ):
        renderer.render(worlds, out)


def test_no_worlds_give_no_pictures_of_the_format(scene: Scene) -> None:
    with Renderer(scene, H, W, 1, layout="nchw", dtype="bfloat16") as renderer:
        assert renderer.render([]).shape == (0, 3, H, W)
