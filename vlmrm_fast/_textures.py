"""Turn a model's textures into the mip chains that the native renderer samples."""

from __future__ import annotations

import mujoco
import numpy as np


def upload(model: mujoco.MjModel, tex: int) -> tuple[bool, np.ndarray, np.ndarray] | None:
    """Return texture `tex` as mjr_uploadTexture gives it to OpenGL.

    Args:
        model: the compiled model.
        tex: id of the texture.

    Returns:
        Whether it is a cube, its texels (uint32, 0xAABBGGRR) and its levels (n, 5) int32: width,
        height, row stride, face stride, offset. None for fewer than three channels, which MuJoCo
        skips: OpenGL draws as if there were no texture.
    """
    width, height, channels = model.tex_width[tex], model.tex_height[tex], model.tex_nchannel[tex]
    if channels < 3:
        return None
    data = model.tex_data[model.tex_adr[tex] :]
    if model.tex_type[tex] == mujoco.mjtTexture.mjTEXTURE_2D:
        image = data[: width * height * channels].reshape(1, height, width, channels)
        if model.tex_colorspace[tex] == mujoco.mjtColorSpace.mjCOLORSPACE_SRGB:
            image = np.concatenate([_srgb_to_linear(image[..., :3]), image[..., 3:]], -1)
        return (False, *_mip_chain(image, cube=False))
    # A square image is shown on all six faces. MuJoCo reads cubes as RGB whatever they hold.
    face = 3 * width * width
    starts = [0] * 6 if width == height else [face * i for i in range(6)]
    faces = np.stack([data[i : i + face].reshape(width, width, 3) for i in starts])
    return (True, *_mip_chain(faces, cube=True))


def white_cube() -> tuple[bool, np.ndarray, np.ndarray]:
    """Return a cube of one white texel a face, in the form of `upload`.

    Returns:
        What OpenGL shows for a sky box without an image.
    """
    return (True, *_mip_chain(np.full((6, 1, 1, 3), 255, np.uint8), cube=True))


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
        texel = bordered.astype(np.uint32)
        shifted = [texel[..., k] << (8 * k) for k in range(texel.shape[-1])]
        blocks.append(np.bitwise_or.reduce(shifted).ravel())
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
    ring = np.zeros((size + 2, size + 2), bool)
    ring[[0, -1]] = ring[:, [0, -1]] = True
    center = (np.arange(-1, size + 1) + 0.5) * 2 / size - 1
    t, s = center[np.nonzero(ring)[0]], center[np.nonzero(ring)[1]]
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
    bordered = np.empty((6, size + 2, size + 2, image.shape[3]), image.dtype)
    bordered[:, ring] = image[face, row, column]
    bordered[:, 1:-1, 1:-1] = image
    return bordered
