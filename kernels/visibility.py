"""What each pixel of many worlds shows first, in one kernel: the first stage of a GPU renderer.

Source: `raycast.visibility`. One program draws a tile of pixels of one world; it passes over the
shapes whose bounding sphere misses the tile's cone of rays, and so casts at a few of them only.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from vlmrm_fast.kernels.raycast import BOX, CAPSULE, PLANE, SPHERE, Shapes

_TILE = 16


def visibility(
    shapes: Shapes, height: int, width: int, half_height: float, near: float = 0.0,
    far: float = math.inf,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Launch the kernel; arguments and result are those of `raycast.visibility`."""
    position, rotation = shapes.position.contiguous(), shapes.rotation.contiguous()
    worlds, count = position.shape[:2]
    depth = position.new_empty(worlds, height, width)
    index = torch.empty_like(depth, dtype=torch.int32)
    if depth.numel() == 0:
        return depth, index
    tiles_y, tiles_x = triton.cdiv(height, _TILE), triton.cdiv(width, _TILE)
    with torch.cuda.device_of(position):
        _visibility_kernel[(worlds * tiles_y * tiles_x,)](
            shapes.kind.contiguous(), *_sizes(shapes), position, rotation,
            depth, index, half_height / height, near, far, tiles_y, tiles_x,
            COUNT=count, HEIGHT=height, WIDTH=width, TILE=_TILE,
            SPHERE=SPHERE, CAPSULE=CAPSULE, BOX=BOX, PLANE=PLANE,
            num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return depth, index


def _sizes(shapes: Shapes) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (G, 3) sizes, endless ones infinite, and (G,) radii of bounding spheres [m]."""
    kind, size = shapes.kind, shapes.size
    # Not torch.where with a number: that copies it from the host, which a CUDA graph cannot hold.
    size = size.masked_fill((kind == PLANE)[:, None] & (size <= 0), math.inf).contiguous()
    reach = torch.where(kind == BOX, size.norm(dim=1), size[:, 0])
    reach = torch.where(kind == CAPSULE, size[:, 0] + size[:, 1], reach)
    return size, reach.masked_fill(kind == PLANE, math.inf)


@triton.jit
def _cast_quadric(a, b, c):
    # The smaller root of a t^2 + 2 b t + c; infinite where there is none.
    root = b * b - a * c
    hit = (-b - tl.sqrt(tl.maximum(root, 0.0))) / tl.maximum(a, 1e-30)
    return tl.where((root >= 0.0) & (a > 0.0), hit, float("inf"))


@triton.jit
def _enter(o, d, half):
    # Where a ray is within one pair of a box's faces: from the first to the second.
    d = tl.where(d == 0.0, 1e-20, d)
    first, second = (-half - o) / d, (half - o) / d
    return tl.minimum(first, second), tl.maximum(first, second)


@triton.jit(do_not_specialize=["tiles_y", "tiles_x"])
def _visibility_kernel(
    kinds,
    sizes,
    reaches,
    positions,
    rotations,
    depths,
    indices,
    scale,
    near,
    far,
    tiles_y,
    tiles_x,
    COUNT: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    SPHERE: tl.constexpr,
    CAPSULE: tl.constexpr,
    BOX: tl.constexpr,
    PLANE: tl.constexpr,
):
    # Rays (u, v, -1): a hit's parameter is its depth.
    column0 = (tl.program_id(0) % tiles_x) * TILE
    row0 = ((tl.program_id(0) // tiles_x) % tiles_y) * TILE
    world = (tl.program_id(0) // (tiles_x * tiles_y)).to(tl.int64)
    pixel = tl.arange(0, TILE * TILE)
    row, column = row0 + pixel // TILE, column0 + pixel % TILE
    u = (2 * column + 1 - WIDTH).to(tl.float32) * scale
    v = (HEIGHT - 1 - 2 * row).to(tl.float32) * scale

    # The cone around the tile's rays: axis (u0, v0, -1) / length, sine and cosine of its angle.
    u0 = (2 * column0 + TILE - WIDTH).to(tl.float32) * scale
    v0 = (HEIGHT - 2 * row0 - TILE).to(tl.float32) * scale
    inverse = 1.0 / tl.sqrt(u0 * u0 + v0 * v0 + 1.0)
    # The corners are TILE sqrt(2) steps from the middle, at depth 1: the angle's tangent is less.
    wide = 1.41422 * TILE * scale
    cosine = 1.0 / tl.sqrt(1.0 + wide * wide)
    sine = wide * cosine

    best = tl.full((TILE * TILE,), float("inf"), tl.float32)
    found = tl.full((TILE * TILE,), -1, tl.int32)
    for shape in range(COUNT):
        place = positions + (world * COUNT + shape) * 3
        px, py, pz = tl.load(place), tl.load(place + 1), tl.load(place + 2)
        along = (px * u0 + py * v0 - pz) * inverse
        across = tl.sqrt(tl.maximum(px * px + py * py + pz * pz - along * along, 0.0))
        if across * cosine - along * sine <= tl.load(reaches + shape):
            # The ray in the shape's own frame.
            turn = rotations + (world * COUNT + shape) * 9
            xx, xy, xz = tl.load(turn), tl.load(turn + 1), tl.load(turn + 2)
            yx, yy, yz = tl.load(turn + 3), tl.load(turn + 4), tl.load(turn + 5)
            zx, zy, zz = tl.load(turn + 6), tl.load(turn + 7), tl.load(turn + 8)
            dx = u * xx + v * yx - zx
            dy = u * xy + v * yy - zy
            dz = u * xz + v * yz - zz
            ox = -(px * xx + py * yx + pz * zx)
            oy = -(px * xy + py * yy + pz * zy)
            oz = -(px * xz + py * yz + pz * zz)
            sx = tl.load(sizes + 3 * shape)
            sy = tl.load(sizes + 3 * shape + 1)
            sz = tl.load(sizes + 3 * shape + 2)

            kind = tl.load(kinds + shape)
            hit = tl.full((TILE * TILE,), float("inf"), tl.float32)
            if kind == SPHERE:
                a = dx * dx + dy * dy + dz * dz
                hit = _cast_quadric(
                    a, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - sx * sx
                )
            elif kind == CAPSULE:
                flat, cross = dx * dx + dy * dy, ox * dx + oy * dy
                ring = ox * ox + oy * oy - sx * sx
                side = _cast_quadric(flat, cross, ring)
                z = oz + side * dz
                a, low, high = flat + dz * dz, oz + sy, oz - sy
                hit = tl.where((z >= -sy) & (z <= sy), side, float("inf"))
                hit = tl.minimum(hit, _cast_quadric(a, cross + low * dz, ring + low * low))
                hit = tl.minimum(hit, _cast_quadric(a, cross + high * dz, ring + high * high))
            elif kind == BOX:
                x_in, x_out = _enter(ox, dx, sx)
                y_in, y_out = _enter(oy, dy, sy)
                z_in, z_out = _enter(oz, dz, sz)
                enter = tl.maximum(x_in, tl.maximum(y_in, z_in))
                leave = tl.minimum(x_out, tl.minimum(y_out, z_out))
                hit = tl.where(enter <= leave, enter, float("inf"))
            elif kind == PLANE:
                down = tl.where(dz < 0.0, dz, -1.0)
                hit = -oz / down
                x, y = ox + hit * dx, oy + hit * dy
                # Seen from behind, where oz < 0, hits are negative: dropped below.
                inside = (dz < 0.0) & (tl.abs(x) <= sx) & (tl.abs(y) <= sy)
                hit = tl.where(inside, hit, float("inf"))

            closer = (hit < best) & (hit >= near) & (hit <= far) & (hit > 0.0)
            best = tl.where(closer, hit, best)
            found = tl.where(closer, shape, found)

    mask = (row < HEIGHT) & (column < WIDTH)
    target = world * (HEIGHT * WIDTH) + row * WIDTH + column
    tl.store(depths + target, best, mask=mask)
    tl.store(indices + target, found, mask=mask)
