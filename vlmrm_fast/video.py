"""Videos of an episode with its reward drawn in, by PyAV; and single frames as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError

_BACKGROUND, _TEXT = (24, 26, 32), (235, 235, 235)
_CURVE, _DONE = (120, 130, 150), (255, 176, 59)


def write_video(path: str | Path, frames: Sequence[np.ndarray], fps: int = 30) -> Path:
    """Write frames as an MP4 file, H.264 where the codec is there and MPEG-4 otherwise.

    Args:
        path: the file to write.
        frames: at least one, each (H, W, 3) uint8 of one shape; odd sizes lose a row or column.
        fps: frames a second.

    Returns:
        The file's path.

    Raises:
        ArgumentError: there are no frames, or their shapes or types differ.
    """
    import av

    path = Path(path)
    _check_frames(frames)
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    codec = _codec(av)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 4_000_000
        for frame in frames:
            cut = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_video(path: str | Path) -> np.ndarray:
    """Read all frames of a video.

    Args:
        path: the file.

    Returns:
        (T, H, W, 3) uint8.

    Raises:
        ArgumentError: the file cannot be read as a video.
    """
    import av

    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (OSError, av.FFmpegError, IndexError) as error:
        raise ArgumentError(f"video must be readable, got {path}: {error}") from error
    if not frames:
        raise ArgumentError(f"video must hold at least one frame, got none in {path}.")
    return np.stack(frames)


def draw_rewards(
    frames: Sequence[np.ndarray], rewards: Sequence[float], caption: str = ""
) -> list[np.ndarray]:
    """Add a strip below each frame: the reward at that frame and its curve so far.

    Args:
        frames: (H, W, 3) uint8 each.
        rewards: one number a frame.
        caption: a line of text, for example the prompt.

    Returns:
        (H + H // 5, W, 3) uint8 each; the frames themselves are not changed.

    Raises:
        ArgumentError: there are not as many rewards as frames.
    """
    if len(frames) != len(rewards):
        raise ArgumentError(f"rewards must be {len(frames)}, one a frame, got {len(rewards)}.")
    _check_frames(frames)
    points = _curve(rewards, frames[0].shape[1], frames[0].shape[0] // 5)
    return [
        np.concatenate([frame, _strip(frame.shape, points, index, float(rewards[index]), caption)])
        for index, frame in enumerate(frames)
    ]


def save_png(path: str | Path, frame: np.ndarray) -> Path:
    """Write one frame as PNG.

    Args:
        path: the file to write.
        frame: (H, W, 3) uint8.

    Returns:
        The file's path.
    """
    from PIL import Image

    Image.fromarray(frame).save(path)
    return Path(path)


def _check_frames(frames: Sequence[np.ndarray]) -> None:
    """Check that frames are there, and alike."""
    if not len(frames):
        raise ArgumentError("frames must hold at least one frame, got none.")
    first = frames[0]
    for frame in frames:
        if frame.dtype != np.uint8 or frame.shape != first.shape or first.shape[2:] != (3,):
            raise ArgumentError(
                f"frames must be (H, W, 3) uint8 of one shape, got {frame.dtype} {frame.shape}."
            )


def _codec(av: Any) -> str:
    """Return the best video encoder of this build of FFmpeg."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _curve(rewards: Sequence[float], width: int, height: int) -> list[tuple[float, float]]:
    """Return the reward curve as points in the lower half of the strip."""
    values = np.nan_to_num(np.asarray(rewards, dtype=np.float64))
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / max(high - low, 1e-9)
    left, right, top, bottom = 8, width - 8, height * 0.48, height - 6
    x = np.linspace(left, right, len(values)) if len(values) > 1 else np.array([left])
    y = bottom - scaled * (bottom - top)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _strip(
    shape: tuple[int, ...],
    points: list[tuple[float, float]],
    index: int,
    reward: float,
    caption: str,
) -> np.ndarray:
    """Return the strip below frame `index`."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = shape[0] // 5, shape[1]
    image = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(8, height // 6))
    line = max(9, height // 5)
    draw.text((8, 2), f"step {index}  VLM reward {reward:+.3f}", fill=_TEXT, font=font)
    # A long prompt is cut at the picture's edge.
    draw.text((8, 2 + line), caption, fill=_CURVE, font=font)
    # The whole curve dim, the part so far bright: the eye sees where the episode goes.
    if len(points) > 1:
        draw.line(points, fill=_CURVE, width=1)
        draw.line(points[: index + 1] or points[:1], fill=_DONE, width=2)
    x, y = points[index]
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_DONE)
    return np.asarray(image)
