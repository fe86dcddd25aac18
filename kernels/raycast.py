"""The PyTorch twin of the visibility kernel: rays against spheres, capsules, boxes and planes."""

from __future__ import annotations

from typing import NamedTuple

import torch

SPHERE, CAPSULE, BOX, PLANE = 2, 3, 6, 0  # mjtGeom


class Shapes(NamedTuple):
    """What N worlds show: G shapes each, posed in the camera's frame (x right, y up, looks at -z).

    Attributes:
        kind: (G,) int32: SPHERE, CAPSULE, BOX or PLANE.
        size: (G, 3) float32 as MuJoCo's geoms have them [m]; a plane's x or y of 0 is endless.
        position: (N, G, 3) float32, centres [m].
        rotation: (N, G, 3, 3) float32, from a shape's frame to the camera's.
    """

    kind: torch.Tensor
    size: torch.Tensor
    position: torch.Tensor
    rotation: torch.Tensor


def visibility(
    shapes: Shapes, height: int, width: int, half_height: float, near: float = 0.0,
    far: float = torch.inf,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Find what each pixel's centre shows first: ray casting with the eye outside every shape.

    Args:
        shapes: of N worlds.
        height: of a picture [pixels].
        width: of a picture [pixels].
        half_height: tangent of half the vertical field of view.
        near: least depth that is shown [m].
        far: largest depth that is shown [m].

    Returns:
        (N, H, W) float32 depths along the camera's axis [m], inf where nothing is, and (N, H, W)
        int32 rows of the shapes, -1 where nothing is.
    """
    device = shapes.position.device
    x = (2 * torch.arange(width, device=device) + 1 - width) * (half_height / height)
    y = (height - 1 - 2 * torch.arange(height, device=device)) * (half_height / height)
    rays = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
    rays = torch.cat([rays, -torch.ones(height, width, 1, device=device)], -1)

    # In each shape's own frame, (N, G, H, W) a component.
    d = torch.einsum("hwj,ngjk->knghw", rays, shapes.rotation)
    o = -torch.einsum("ngj,ngjk->kng", shapes.position, shapes.rotation)[..., None, None]
    size = shapes.size.T[:, None, :, None, None]
    ways = {SPHERE: _cast_sphere, CAPSULE: _cast_capsule, BOX: _cast_box, PLANE: _cast_plane}
    depth = torch.full_like(d[0], torch.inf)
    for kind, cast in ways.items():
        hit = cast(o, d, size)
        is_kind = (shapes.kind == kind)[:, None, None]
        depth = torch.where(is_kind & (hit >= near) & (hit <= far) & (hit > 0), hit, depth)
    nearest, index = depth.min(1)
    return nearest, torch.where(nearest.isinf(), -1, index).int()


def _cast_quadric(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return the smaller root t of a t^2 + 2 b t + c, NaN where there is none."""
    return (-b - (b * b - a * c).sqrt()) / a


def _cast_sphere(o: torch.Tensor, d: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    return _cast_quadric((d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - size[0] ** 2)


def _cast_capsule(o: torch.Tensor, d: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    a, b = (d[:2] * d[:2]).sum(0), (o[:2] * d[:2]).sum(0)
    side = _cast_quadric(a, b, (o[:2] * o[:2]).sum(0) - size[0] ** 2)
    hits = [torch.where((o[2] + side * d[2]).abs() <= size[1], side, torch.inf)]
    for end in (-1, 1):
        cap = torch.stack([o[0], o[1], o[2] + end * size[1][0]])
        hits.append(_cast_sphere(cap, d, size))
    return torch.stack([torch.where(hit.isnan(), torch.inf, hit) for hit in hits]).amin(0)


def _cast_box(o: torch.Tensor, d: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    d = torch.where(d == 0, 1e-20, d)
    first, second = (-size - o) / d, (size - o) / d
    enter, leave = torch.minimum(first, second).amax(0), torch.maximum(first, second).amin(0)
    return torch.where(enter <= leave, enter, torch.inf)


def _cast_plane(o: torch.Tensor, d: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    hit = -o[2] / d[2]
    inside = (o[2] > 0) & (d[2] < 0)
    for k in (0, 1):
        inside = inside & ((size[k] <= 0) | ((o[k] + hit * d[k]).abs() <= size[k]))
    return torch.where(inside, hit, torch.inf)
