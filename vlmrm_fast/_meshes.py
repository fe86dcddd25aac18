"""Turn the meshes and height fields of an mjModel into the triangles that MuJoCo draws."""

from __future__ import annotations

import mujoco
import numpy as np

Triangles = tuple[np.ndarray, np.ndarray, np.ndarray | None]

_MAX_TURN = 0.8  # cosine; a corner's normal farther from its face's gives way to that


def mesh_triangles(model: mujoco.MjModel, mesh: int) -> Triangles:
    """Return what is drawn of a mesh asset, in the frame of its geoms.

    A corner takes its own normal, or, in meshes without texture coordinates, the face's where the
    two differ by much.

    Args:
        model: the compiled model.
        mesh: id of the mesh.

    Returns:
        Corners (T, 3, 3), normals (T, 3, 3) and texture coordinates (T, 3, 2) or None, float32.

    Source: mjr_uploadMesh.
    """
    rows = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    corners = model.mesh_vert[model.mesh_vertadr[mesh] + model.mesh_face[rows]]
    normals = model.mesh_normal[model.mesh_normaladr[mesh] + model.mesh_facenormal[rows]]
    if model.mesh_texcoordadr[mesh] >= 0:
        at = model.mesh_texcoordadr[mesh] + model.mesh_facetexcoord[rows]
        return corners, normals, model.mesh_texcoord[at]
    flat = _face_normals(corners)[:, None]
    turned = (normals * flat).sum(-1, keepdims=True) < _MAX_TURN
    return corners, np.where(turned, flat, normals), None


def hull_triangles(model: mujoco.MjModel, mesh: int) -> Triangles | None:
    """Return the convex hull of a mesh asset, flat, or None if the model holds none.

    Args:
        model: the compiled model.
        mesh: id of the mesh.

    Returns:
        Corners, normals and texture coordinates as `mesh_triangles` gives them.

    Source: mjr_uploadMesh.
    """
    address = model.mesh_graphadr[mesh]
    if address < 0:
        return None
    num_vertices, num_faces = model.mesh_graph[address : address + 2]
    first = address + 2 + 3 * num_vertices + 3 * num_faces
    faces = model.mesh_graph[first : first + 3 * num_faces].reshape(-1, 3)
    corners = model.mesh_vert[model.mesh_vertadr[mesh] + faces]
    normals = np.repeat(_face_normals(corners)[:, None], 3, 1)
    if model.mesh_texcoordadr[mesh] < 0:
        return corners, normals, None
    # The hull's vertex numbers stand for texture coordinates too, which there may be fewer of.
    at = np.minimum(model.mesh_texcoordadr[mesh] + faces, len(model.mesh_texcoord) - 1)
    return corners, normals, model.mesh_texcoord[at]


def hfield_triangles(model: mujoco.MjModel, hfield: int) -> Triangles:
    """Return the surface, sides and bottom of a height field, flat and without texture coordinates.

    Args:
        model: the compiled model.
        hfield: id of the height field.

    Returns:
        Corners, normals and None as `mesh_triangles` gives them.

    Source: mjr_uploadHField.
    """
    nrow, ncol = int(model.hfield_nrow[hfield]), int(model.hfield_ncol[hfield])
    address = model.hfield_adr[hfield]
    height = model.hfield_data[address : address + nrow * ncol].reshape(nrow, ncol)
    sx, sy, sz, base = model.hfield_size[hfield].astype(np.float32)
    x = sx * (np.arange(ncol, dtype=np.float32) / np.float32(0.5 * (ncol - 1)) - 1)
    y = sy * (np.arange(nrow, dtype=np.float32) / np.float32(0.5 * (nrow - 1)) - 1)
    top = np.stack(np.broadcast_arrays(x, y[:, None], height * sz), -1)
    foot = top.copy()
    foot[..., 2] = -base

    def strip(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Triangles of the quads between two rows of points, low to high counter-clockwise."""
        a, b, c, d = low[:-1], low[1:], high[1:], high[:-1]
        return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])

    # Each quad of the surface is cut from its first corner to the one opposite.
    a, b, c, d = top[:-1, :-1], top[:-1, 1:], top[1:, 1:], top[1:, :-1]
    surface = np.stack([np.stack([a, b, c], -2), np.stack([a, c, d], -2)]).reshape(-1, 3, 3)
    sides = [
        strip(foot[::-1, 0], top[::-1, 0]),
        strip(foot[:, -1], top[:, -1]),
        strip(foot[0], top[0]),
        strip(foot[-1, ::-1], top[-1, ::-1]),
    ]
    bottom = _bottom(sx, sy, -base, int(model.vis.quality.numquads))
    corners = np.concatenate([surface, *sides, bottom])
    return corners, np.repeat(_face_normals(corners)[:, None], 3, 1), None


def _bottom(sx: float, sy: float, z: float, cells: int) -> np.ndarray:
    side = np.linspace(-1, 1, cells + 1, dtype=np.float32)
    p = np.stack(np.broadcast_arrays(sx * side, sy * side[:, None], np.float32(z)), -1)
    a, b, c, d = p[:-1, :-1], p[1:, :-1], p[1:, 1:], p[:-1, 1:]
    return np.stack([np.stack([a, b, c], -2), np.stack([a, c, d], -2)]).reshape(-1, 3, 3)


def _face_normals(corners: np.ndarray) -> np.ndarray:
    """Return unit normals (T, 3); zero for triangles without area, which nothing draws."""
    with np.errstate(all="ignore"):
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return np.where(length > 0, normal / length, 0).astype(np.float32)
