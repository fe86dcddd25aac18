"""Write out/gallery/index.html: MuJoCo's pictures, ours and their difference, with figures.

Run `make gallery`. Every gymnasium model, task scene and small feature scene is a row; MuJoCo's
pictures are kept in out/gallery/mujoco, so that the second run takes seconds.
"""

from __future__ import annotations

import argparse
import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import parity
import triton
from mesh_scenes import MESH_SCENES
from PIL import Image
from small_scenes import SCENES

from vlmrm_fast.rendering import Renderer, Scene

assert triton.__version__  # imported before any GL context, for both bring an LLVM

ROOT = Path(__file__).parent.parent
FEATURES = SCENES | MESH_SCENES
# Why a picture outside of the bounds is so; those of `FEATURES` stand beside their scenes.
COINCIDENT = "The legs coincide in the default pose, and OpenGL lights coinciding surfaces twice."
REASONS = {"walker2d": COINCIDENT, "walker2d_v5": COINCIDENT}
TASK_REASONS = {
    "reacher": "OpenGL interpolates the glare of the camera's light between the floor's corners.",
    "hopper": "The shadow map leaves dashes on the floor; 49 dB without shadows.",
}
HEAD = """<!doctype html><meta charset="utf-8"><title>vlmrm-fast gallery</title>
<style>body{font:14px sans-serif;margin:1em}td{padding:2px 8px;vertical-align:top}
.miss{color:#b00;font-weight:bold}img{display:block}</style>
<h1>MuJoCo | vlmrm-fast | difference x 4</h1>
"""


@dataclass
class Row:
    """One scene to compare: its worlds become one row each."""

    group: str
    name: str
    model: mujoco.MjModel
    camera: Any
    worlds: list[mujoco.MjData]
    flags: dict[str, bool] | None = None
    reason: str = ""


def rows() -> Iterator[Row]:
    """Yield everything that the gallery shows."""
    for name in parity.gymnasium_models():
        model = parity.load_gymnasium(name)
        worlds = parity.random_worlds(model, 2, default=True)
        for view, camera in parity.gymnasium_views(name, model).items():
            yield Row("gymnasium", f"{name}, {view} view", model, camera, worlds)
    yield from map(task_row, parity.task_scenes())
    yield from map(feature_row, FEATURES)


def task_row(name: str) -> Row:
    """Return a task's scene in three of its posed states."""
    model, worlds, camera = parity.posed_worlds(name, 3)
    return Row("tasks", name, model, camera, worlds, reason=TASK_REASONS.get(name, ""))


def feature_row(name: str) -> Row:
    """Return a small scene of `FEATURES`."""
    scene = FEATURES[name]
    model = mujoco.MjModel.from_xml_string(scene.xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return Row("features", name, model, scene.camera, [data], scene.flags, scene.reason)


def picture(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Return the two pictures and their difference, four times as strong, side by side."""
    difference = np.minimum(np.abs(theirs.astype(int) - ours) * 4, 255).astype(np.uint8)
    return np.concatenate([theirs, ours, difference], axis=1)


def main() -> None:
    """Draw, print a table and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only rows whose name holds one of these")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "gallery")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    page, group, misses, total = [HEAD], "", 0, 0
    with parity.Oracle(args.out / "mujoco") as oracle:
        for row in rows():
            if args.names and not any(name in row.name for name in args.names):
                continue
            if row.group != group:
                group = row.group
                page.append(f"<h2>{group}</h2>")
            theirs = oracle.draw(row.model, row.worlds, row.camera, flags=row.flags)
            scene = Scene.from_model(row.model, row.camera, **flag_arguments(row.flags))
            ours = Renderer(scene, parity.SIZE, parity.SIZE, 1).render(row.worlds)
            for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
                figures = parity.compare(a, b)
                miss = not figures.within(parity.BOUNDS)
                misses, total = misses + miss, total + 1
                text = f"{figures.psnr:.1f} dB, SSIM {figures.ssim:.4f}, {figures.off:.2%} off"
                print(f"{row.name:40s} {i} {text}{'  <--' if miss else ''}", flush=True)
                file = f"{group}_{row.name}_{i}.png".replace(", ", "_").replace(" ", "_")
                Image.fromarray(picture(a, b)).save(args.out / file)
                page.append(
                    f"<p>{html.escape(row.name)} {i}: <span class={'miss' if miss else 'ok'}>{text}"
                    f"</span> {html.escape(row.reason)}<img src='{html.escape(file)}'></p>"
                )
    page.insert(1, f"<p>{total} pictures, {misses} of them outside of the bounds.</p>")
    (args.out / "index.html").write_text("\n".join(page))
    print(f"{total} pictures, {misses} outside of the bounds: {args.out / 'index.html'}")


def flag_arguments(flags: dict[str, bool] | None) -> dict[str, Any]:
    """Return keyword arguments of `Scene.from_model`."""
    return {"flags": flags} if flags else {}


if __name__ == "__main__":
    main()
