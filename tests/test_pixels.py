"""Preprocessing on a CPU against open_clip's transform and the float32 reference."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing, preprocess
from vlmrm_fast.pixels import prepare

HOW = Preprocessing(64, OPENAI_MEAN, OPENAI_STD)


def random_frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(64, 64), (480, 480), (100, 150), (97, 64), (30, 31)])
def test_pixels_are_within_one_level_of_open_clips_transform(
    mode: str, interpolation: str, shape: tuple[int, int]
) -> None:
    how = Preprocessing(64, (0.0,) * 3, (1.0,) * 3, interpolation, mode, fill=9)
    images = random_frames(2, *shape)
    config = PreprocessCfg(64, "RGB", how.mean, how.std, interpolation, mode, 9)
    transform = image_transform_v2(config, is_train=False)
    expected = torch.stack([transform(Image.fromarray(image.numpy())) for image in images])
    error = (prepare(images, how, torch.float32) - expected).abs() * 255
    # Two levels where frames are enlarged; PIL may resample columns of tall frames before rows.
    assert error.max() <= (6 if shape[0] > shape[1] else 2.01 if max(shape) < 64 else 1.01)
    assert error.mean() <= 0.25


@pytest.mark.parametrize("patch", [0, 16, 20])
@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 90, 120), (0, 64, 64), (1, 7, 200)])
def test_both_layouts_are_those_of_the_reference(shape: tuple[int, int, int], patch: int) -> None:
    images = random_frames(*shape)
    layout = "tokens" if patch else "nchw"
    for how in (HOW, HOW.original(), dataclasses.replace(HOW, mean=(0.5,) * 3, std=(0.5,) * 3)):
        for dtype in (torch.float32, torch.float16):
            right = preprocess(images, how, dtype, layout=layout, patch=patch, raw=bool(patch))
            ours = prepare(images, how, dtype, patch)
            assert ours.shape == right.shape
            assert ours.dtype == right.dtype
            assert patch or ours.is_contiguous(memory_format=torch.channels_last)
            # One level of 255, in units of the standard deviation; nothing without a resize.
            resized = shape[1:] != (64, 64) and how.antialias
            level = 1 / 256 if patch else 1 / 255 / min(how.std)
            rounding = 1e-6 if dtype == torch.float32 else 2e-3
            tolerance = rounding + (level if resized else 0)
            if ours.numel():
                assert float((ours.float() - right.float()).abs().max()) <= tolerance


def test_strided_frames_give_the_pixels_of_their_copies() -> None:
    wide = random_frames(4, 128, 128)
    for view in (wide[::2, ::2, ::2], wide[:, 3:101, 5:80], wide.transpose(1, 2)):
        for patch in (0, 16):
            ours = prepare(view, HOW, torch.float32, patch)
            assert torch.equal(ours, prepare(view.contiguous(), HOW, torch.float32, patch))


def test_a_frame_does_not_depend_on_its_batch() -> None:
    images = random_frames(5, 100, 150)
    together = prepare(images, HOW, torch.float32)
    alone = torch.cat([prepare(image[None], HOW, torch.float32) for image in images])
    assert torch.equal(together, alone)
