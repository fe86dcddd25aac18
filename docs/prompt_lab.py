"""Run the commands of docs/prompt-lab.md again: their output and the pictures, from a real run.

    python docs/prompt_lab.py

Every block that starts with "$ vlmrm-fast" is run in a temporary folder, in order, and what it
printed takes the place of what stands below the command; the table of all tasks is made anew.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "prompt-lab.md"
BLOCK = re.compile(r"```console\n\$ (vlmrm-fast .*?)\n(?:(?!```)[\s\S])*?```")
TABLE = re.compile(r"(<!-- tasks:begin -->\n)[\s\S]*?(<!-- tasks:end -->)")
# Pictures of the page: (file, folder of the run, what of it).
LANDSCAPES = ("cartpole", "mountaincar", "kneeling")
# Colours of a picture in the repository: a third of the bytes of true colour.
COLOURS = 128


def run(command: str, folder: Path) -> str:
    """Return what a command printed; 1 is the exit code of "no go"."""
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "vlmrm_fast.cli", *words],
        cwd=folder,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(lines).strip("\n")


def tasks_table() -> str:
    """Return the best row of every task with its own prompt, as a table."""
    from vlmrm_fast.evaluation.lab import LabConfig, make_plan, score_plan
    from vlmrm_fast.tasks import task_names

    lines = ["| task | alpha | EPIC | AUC | near AUC | FPR | top | verdict |", "|---" * 8 + "|"]
    for name in task_names():
        row = score_plan(make_plan(LabConfig(name, alpha=(("0,0.5,1",),), num_states=400))).rows[0]
        figures = (row.epic, row.auc, row.near_auc, row.fpr, row.top)
        cells = [f"`{name}`", f"{row.alpha:g}", *(f"{figure:.2f}" for figure in figures)]
        lines.append(f"| {' | '.join(cells)} | {'go' if row.go else 'no go'} |")
    return "\n".join(lines)


def page_pictures(html: str, rows: int = 3, width: int = 900) -> Image.Image:
    """Return the first histogram of a page of the lab and the first rows of frames below it."""
    found = [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        for data in re.findall(r"base64,([^\"]+)\"", html)
    ]
    first = next(i for i, image in enumerate(found[1:], 1) if image.width > 300)
    frames = np.stack([np.asarray(image) for image in found[first + 1 : first + 1 + 6 * rows]])
    strips = [np.concatenate(list(frames[6 * row : 6 * row + 6]), axis=1) for row in range(rows)]
    parts = [found[first], *(Image.fromarray(strip) for strip in strips)]
    scaled = [part.resize((width, part.height * width // part.width)) for part in parts]
    whole = Image.new("RGB", (width, sum(part.height for part in scaled)), "white")
    top = 0
    for part in scaled:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def save(picture: Image.Image, name: str) -> None:
    """Write a small PNG."""
    small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(DOCS / "images" / name, optimize=True)


def main() -> None:
    """Run everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def renew(match: re.Match[str]) -> str:
            command = match[1].replace("\\\n", " ")
            return f"```console\n$ {match[1]}\n{run(command, folder)}\n```"

        text = BLOCK.sub(renew, PAGE.read_text())
        PAGE.write_text(TABLE.sub(lambda found: f"{found[1]}{tasks_table()}\n{found[2]}", text))
        save(page_pictures((folder / "kneeling" / "lab.html").read_text()), "lab-kneeling.png")
        for task in LANDSCAPES:
            picture = Image.open(folder / f"along-{task}" / "landscape.png")
            save(picture, f"landscape-{task}.png")


if __name__ == "__main__":
    main()
