"""The preprocessing kernel against its twin."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_checks import DEVICE, DTYPES, ON_DEVICE, worst

from vlmrm_fast.kernels import preprocess as kernel
from vlmrm_fast.kernels import reference
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing
from vlmrm_fast.kernels.resampling import bands

pytestmark = ON_DEVICE

HOW = Preprocessing(32, OPENAI_MEAN, OPENAI_STD, fill=100)
TOKENS = {"layout": "tokens", "patch": 8}


def make_frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)


def check(frames: torch.Tensor, how: Preprocessing, dtype=torch.float32, **options) -> None:
    """Compare resized values of 0 ... 255, not normalised ones, with the twin's."""
    twin = reference.preprocess(frames, how, torch.float32, raw=True, **options)
    ours = kernel.preprocess(frames.to(DEVICE), how, dtype, raw=True, **options).cpu()
    assert ours.shape == twin.shape
    assert ours.dtype == dtype
    assert ours.stride() == twin.stride()
    if ours.numel() == 0:
        return
    off = ((ours.double() - twin.double()) * 256).abs()
    if how.antialias:
        # Sums near n + 1/2 round either way: few of them, and to the neighbouring level. A wrong
        # tap or edge would be seen in whole columns, 3 % of the pixels or more.
        same = off <= 256 * 2.0**-8 * twin.abs() if dtype == torch.bfloat16 else off < 1e-3
        assert same.double().mean() >= 0.995
        assert off.max() <= 2
    else:
        # Values reach 300; the products carry 22 bits.
        assert worst(ours, twin) * 256 <= 1e-3


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("shape", [(1, 70, 120), (2, 123, 45)])
def test_resized_frames_equal_the_twins(shape: tuple, mode: str, antialias: bool) -> None:
    check(make_frames(*shape), replace(HOW, resize_mode=mode, antialias=antialias))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [True, False])
def test_tokens_equal_the_twins(antialias: bool, interpolation: str, dtype: torch.dtype) -> None:
    how = replace(HOW, interpolation=interpolation, antialias=antialias)
    # Not 40 -> 32, whose bilinear weights make every fortieth sum exactly n + 1/2.
    check(make_frames(1, 41, 62), how, dtype, **TOKENS)


@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 5, 123), (3, 17, 5)])
def test_odd_and_small_frames_are_resized(shape: tuple) -> None:
    check(make_frames(*shape), replace(HOW, size=11))
    check(make_frames(*shape), replace(HOW, size=11), layout="tokens", patch=3)


def test_windows_wider_than_one_step_are_added_up() -> None:
    check(make_frames(1, 20, 400), HOW)


def test_a_resize_to_the_papers_shape_equals_the_twins() -> None:
    # One frame of 480 x 480 to a quarter of CLIP's 224 x 224: the same ratio, fewer tiles.
    check(make_frames(1, 120, 480), replace(HOW, size=56))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("patch", [0, 8, 7, 32])
def test_frames_of_the_models_size_are_exact(patch: int, dtype: torch.dtype) -> None:
    options = {"layout": "tokens", "patch": patch} if patch else {}
    frames = make_frames(3, 32, 32)
    twin = reference.preprocess(frames, HOW, dtype, raw=True, **options)
    ours = kernel.preprocess(frames.to(DEVICE), HOW, dtype, raw=True, **options)
    assert torch.equal(ours.cpu(), twin)
    assert ours.stride() == twin.stride()


@pytest.mark.parametrize("size", [32, 24])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_normalised_like_the_twins(size: int, dtype: torch.dtype) -> None:
    frames, how = make_frames(2, 32, 32), replace(HOW, size=size, antialias=False)
    twin = reference.preprocess(frames, how)
    ours = kernel.preprocess(frames.to(DEVICE), how, dtype)
    assert worst(ours.cpu(), twin) <= 3e-6


@pytest.mark.parametrize("size", [32, 20])
def test_strided_frames_are_read_where_they_lie(size: int) -> None:
    frames = make_frames(5, 64, 70)
    views = {
        "every second pixel": frames[:, ::2, 3:67:2],
        "a window": frames[1:4, 3:35, 4:36],
        "channels first": frames[:, :32, :32].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "reversed channels": frames[:, :32, :32].flip(-1),
        "an odd address": frames.flatten()[1 : 1 + 32 * 32 * 3].view(1, 32, 32, 3),
    }
    how = replace(HOW, size=size)
    for view in views.values():
        # A view moved to another device is dense there: slice it where it is.
        check(view, how, layout="tokens", patch=4)


@pytest.mark.parametrize("size", [32, 20])
def test_views_on_the_device_are_read_where_they_lie(size: int) -> None:
    frames = make_frames(5, 64, 70).to(DEVICE)
    how = replace(HOW, size=size)
    for view in (frames[:, ::2, 3:67:2], frames[1:4, 3:35, 4:36], frames[::2, :32, 1:33]):
        dense = kernel.preprocess(view.contiguous(), how, layout="tokens", patch=4)
        assert torch.equal(kernel.preprocess(view, how, layout="tokens", patch=4), dense)


def test_other_tiles_give_the_same_pixels() -> None:
    frames, how = make_frames(1, 40, 90).to(DEVICE), replace(HOW, antialias=False)
    plain = kernel.preprocess(frames, how)
    for tile in (kernel.Tile(16, 16, 16, 64, 1), kernel.Tile(16, 32, 32, 128, 4)):
        assert (kernel.preprocess(frames, how, tile=tile) - plain).abs().max() <= 2e-5


def test_no_frames_give_no_pixels() -> None:
    for how in (HOW, replace(HOW, size=16)):
        assert kernel.preprocess(make_frames(0, 32, 32).to(DEVICE), how).shape[0] == 0
        assert kernel.preprocess(make_frames(0, 32, 32).to(DEVICE), how, **TOKENS).numel() == 0


def test_weights_that_a_graph_may_read_stay_where_they_are() -> None:
    how, sizes = replace(HOW, size=16), range(17, 17 + 80)
    first = [bands(height, 20, how, (16, 16), (16, 16), DEVICE) for height in sizes]
    again = [bands(height, 20, how, (16, 16), (16, 16), DEVICE) for height in sizes]
    assert all(old is new for old, new in zip(first, again, strict=True))
