"""Make the runs, outputs and pictures of docs/report-card.md anew: report_card.py FOLDER.

Runs that FOLDER holds already are kept; about 15 minutes of two CPU cores without any.
"""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
# Left out where the folder is there already.
MAKE = {
    "runs/upright-s0": "train cartpole-upright --seed 0 --keep 12 --run-dir runs/upright-s0",
    "runs/upright-s1": "train cartpole-upright --seed 1 --keep 12 --run-dir runs/upright-s1",
    "runs/misled": 'train cartpole-upright --goal "a photo of a pole" --steps 30000 --keep 12 '
    "--run-dir runs/misled",
    "judge": "pretrain --out judge --seed 7 --frames 6000 --steps 220 --batch-size 64 "
    "--random-captions 32 --robot-share 0.05 --workers 1 --eval-frames 0",
}
SHOW = {
    "eval": 'eval runs/upright-s0 --judge judge --goal "a pole lying on its side"',
    "eval-s1": "eval runs/upright-s1",
    "misled": "eval runs/misled",
    "compare": "compare runs/upright-s0 runs/upright-s1 runs/misled",
}
# Name of the picture, page, and how its caption begins.
PICTURES = (
    ("report-card-curve", "runs/upright-s0/report.html", "VLM reward while training"),
    ("report-card-policies", "runs/upright-s0/report.html", "One dot a policy"),
    ("report-card-rewards", "runs/upright-s0/report.html", "VLM rewards of the states"),
    ("report-card-misled", "runs/misled/report.html", "One dot a policy"),
    ("report-card-compare", "comparison/compare.html", "Mean over runs"),
)
FRAMES = "Scored high, yet no goal state"


def main(folder: Path) -> None:
    """Run everything in a folder; leave the outputs there and the pictures in docs/images."""
    folder.mkdir(parents=True, exist_ok=True)
    for made, arguments in MAKE.items():
        if not (folder / made).exists():
            run(folder, arguments)
    for name, arguments in SHOW.items():
        (folder / f"{name}.txt").write_text(run(folder, arguments))
    IMAGES.mkdir(exist_ok=True)
    for name, page, caption in PICTURES:
        text = (folder / page).read_text()
        found = re.search(rf'alt="{caption}[^"]*" src="data:image/png;base64,([^"]*)"', text)
        assert found is not None, caption
        (IMAGES / f"{name}.png").write_bytes(base64.b64decode(found[1]))
    write_frames((folder / "runs/upright-s0/report.html").read_text())


def run(folder: Path, arguments: str) -> str:
    """Run a command as a user does; return what it prints."""
    command = f"{sys.executable} -m vlmrm_fast.cli {arguments}"
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return f"$ vlmrm-fast {arguments}\n{done.stdout}"


def write_frames(page: str) -> None:
    """Write the frames of one section side by side."""
    from PIL import Image

    section = page[page.index(FRAMES) :]
    section = section[: section.index("<h", 10)]
    data = re.findall(r'src="data:image/png;base64,([^"]*)"', section)
    frames = [Image.open(io.BytesIO(base64.b64decode(item))) for item in data]
    side = 2 * frames[0].width
    sheet = Image.new("RGB", (len(frames) * (side + 8) - 8, side), "white")
    for index, frame in enumerate(frames):
        sheet.paste(frame.resize((side, side)), (index * (side + 8), 0))
    sheet.save(IMAGES / "report-card-frames.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "report-card"))
