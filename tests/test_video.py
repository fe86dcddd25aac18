"""Videos: what is written can be read back, and the reward is in the picture."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.video import draw_rewards, read_video, save_png, write_video


def ramp(count: int = 12, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Return frames that brighten."""
    return [np.full((height, width, 3), 20 * index, np.uint8) for index in range(count)]


def test_a_video_is_read_back_within_its_losses(tmp_path: Path) -> None:
    frames = ramp()
    path = write_video(tmp_path / "a.mp4", frames, fps=20)
    back = read_video(path)
    assert back.shape == (12, 64, 96, 3)
    assert back.dtype == np.uint8
    error = np.abs(back.astype(int) - np.stack(frames).astype(int)).mean(axis=(1, 2, 3))
    assert error.max() < 8


def test_odd_sizes_lose_one_row_or_column(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ramp(3, 65, 97))
    assert read_video(path).shape == (3, 64, 96, 3)


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    assert len(read_video(write_video(tmp_path / "a.mp4", ramp(1)))) == 1


def test_the_reward_strip_changes_with_the_reward_and_leaves_the_frame_alone() -> None:
    frames = ramp(5, 200, 300)
    before = [frame.copy() for frame in frames]
    drawn = draw_rewards(frames, [0.0, 0.1, 0.9, float("nan"), -0.5], "a prompt")
    assert all(frame.shape == (240, 300, 3) for frame in drawn)
    for frame, old, new in zip(frames, before, drawn, strict=True):
        np.testing.assert_array_equal(frame, old)
        np.testing.assert_array_equal(new[:200], old)
    strips = [frame[200:] for frame in drawn]
    assert all((a != b).any() for a, b in itertools.pairwise(strips))


def test_a_png_holds_the_frame(tmp_path: Path) -> None:
    from PIL import Image

    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    path = save_png(tmp_path / "a.png", frame)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), frame)


def test_bad_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="at least one frame, got none"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ArgumentError, match="uint8 of one shape, got float64"):
        write_video(tmp_path / "a.mp4", [np.zeros((4, 4, 3))])
    with pytest.raises(ArgumentError, match="uint8 of one shape"):
        write_video(tmp_path / "a.mp4", [*ramp(1), *ramp(1, 32)])
    with pytest.raises(ArgumentError, match="rewards must be 2, one a frame, got 1"):
        draw_rewards(ramp(2), [0.0])


def test_a_file_that_is_no_video_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ArgumentError, match="video must be readable"):
        read_video(tmp_path / "a.mp4")
    with pytest.raises(ArgumentError, match="video must be readable"):
        read_video(tmp_path / "missing.mp4")
