"""Run the commands of docs/relabel.md again: their output and the picture, from a real run.

    python docs/relabel.py

Every block with a "$ vlmrm-fast" line is run on data that this script makes, in order, and what it
printed takes the place of what stands below the command.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np
from matplotlib.figure import Figure

from vlmrm_fast.relabel import load_results
from vlmrm_fast.simulation import Simulation
from vlmrm_fast.state_drawing import draw_states
from vlmrm_fast.tasks import fields_from_states, get_task
from vlmrm_fast.video import write_video

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "relabel.md"
sys.path.insert(0, str(DOCS.parent / "tests"))

from relabel_data import write_lerobot_v3  # noqa: E402

TASK = get_task("cartpole-upright")
STEPS = 150
# How strongly each episode's controller answers the pole's angle: the last ones drop it.
GAINS = (3.0, 2.0, 1.5, 1.0, 0.3, 0.0)
BLOCK = re.compile(r"```console\n\$ (vlmrm-fast (?:.*\\\n)*.*)\n(?:(?!```)[\s\S])*?```")


def episodes() -> tuple[np.ndarray, np.ndarray]:
    """Return positions and velocities, (E, T + 1, 2) each, of a few controllers."""
    worlds = Simulation(TASK.load_model(), len(GAINS))
    rng = np.random.default_rng(0)
    start = rng.uniform(-0.05, 0.05, (len(GAINS), 4))
    worlds.reset(np.arange(len(GAINS)), start[:, :2], start[:, 2:])
    qpos, qvel = [worlds.qpos.copy()], [worlds.qvel.copy()]
    for _ in range(STEPS):
        cart, angle = worlds.qpos.T
        pull = np.array(GAINS) * (4 * angle + worlds.qvel[:, 1]) + 0.3 * cart
        pull += 0.4 * worlds.qvel[:, 0] + rng.normal(0, 0.1, len(GAINS))
        worlds.step(np.clip(pull, -1, 1)[:, None], TASK.frame_skip)
        qpos.append(worlds.qpos.copy())
        qvel.append(worlds.qvel.copy())
    return np.stack(qpos, axis=1), np.stack(qvel, axis=1)


def write_data(folder: Path) -> None:
    """Write the same episodes in every form that the page shows."""
    qpos, qvel = episodes()
    flat = qpos[:, 1:].reshape(-1, 2), qvel[:, 1:].reshape(-1, 2)
    ends = np.arange(1, len(GAINS) + 1) * STEPS
    np.savez(folder / "carts.npz", qpos=flat[0], qvel=flat[1], episode_ends=ends)
    many = np.tile(flat[0], (10, 1))
    np.savez(folder / "many.npz", qpos=many, episode_ends=np.arange(1, 61) * STEPS)
    clips = []
    for index, states in enumerate(qpos[:, 1:]):
        clips.append(np.concatenate(list(draw_states(TASK, states, 224))))
        write_video(_made(folder / "clips") / f"{index}.mp4", clips[-1])
    _cut_short(folder / "clips" / "3.mp4")
    write_lerobot_v3(_made(folder / "lerobot"), clips, fps=30)
    _write_minari(qpos, qvel)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _cut_short(path: Path) -> None:
    """Write a video once more with its index in front, and cut a third of it away."""
    import av

    copy = path.with_suffix(".part")
    with (
        av.open(str(path)) as read,
        av.open(str(copy), "w", format="mp4", options={"movflags": "faststart"}) as write,
    ):
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                write.mux(packet)
    raw = copy.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3])
    copy.unlink()


def _write_minari(qpos: np.ndarray, qvel: np.ndarray) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = []
    for index in range(len(GAINS)):
        fields = {"qpos": qpos[index], "qvel": qvel[index]}
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=TASK.observation(None, fields),
                actions=np.zeros((STEPS, 1), np.float32),
                rewards=np.zeros(STEPS),
                terminations=np.zeros(STEPS, bool),
                truncations=np.arange(STEPS) == STEPS - 1,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "demo/carts-v0",
            buffers,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float64),
            action_space=gymnasium.spaces.Box(-1, 1, (1,), np.float32),
        )


def plot(folder: Path, path: Path) -> None:
    """Draw rewards of two episodes over time, with frames of both above."""
    found = load_results(folder / "carts")
    with np.load(folder / "carts.npz") as arrays:
        states = arrays["qpos"].reshape(len(GAINS), STEPS, 2)
    shown = [0, 24, 49, 74, 99, 124, 149]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    grid = figure.add_gridspec(3, len(shown), height_ratios=[1, 1, 2.4])
    axes = figure.add_subplot(grid[2, :])
    for row, (index, colour) in enumerate(((0, "C0"), (5, "C3"))):
        frames = np.concatenate(list(draw_states(TASK, states[index], 112)))
        for column, step in enumerate(shown):
            picture = figure.add_subplot(grid[row, column])
            picture.imshow(frames[step])
            picture.set_xticks([])
            picture.set_yticks([])
            for side in picture.spines.values():
                side.set(color=colour, linewidth=2)
        name = found.episodes[index]
        axes.plot(found.episode(index)[:, 0], color=colour, label=f"reward of {name}")
        _, good = TASK.ground_truth(None, fields_from_states(TASK.load_model(), states[index], ()))
        fallen = STEPS if good.all() else int(np.argmin(good))
        if fallen < STEPS:
            axes.axvline(fallen, color=colour, linestyle=":", label="ground truth: fallen")
    axes.set(xlabel="step", ylabel="VLM reward", xlim=(0, STEPS - 1))
    axes.legend()
    figure.savefig(path, dpi=80)


def run(command: str, folder: Path) -> str:
    """Return what a command printed; a part of these end with an error on purpose."""
    words = [sys.executable, "-m", "vlmrm_fast.cli", *shlex.split(command)[1:]]
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=os.environ | {"COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if command.endswith("--out long"):
        # 3,000 of its 9,000 frames.
        while _size(folder / "long" / "journal" / "rewards.f32") < 4 * 3000:
            time.sleep(0.05)
        process.kill()
    output, _ = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return "Killed"
    return "\n".join(line.rstrip() for line in output.splitlines()).strip("\n")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def main() -> None:
    """Run everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MINARI_DATASETS_PATH"] = str(folder / "cache")
        write_data(folder)

        def renew(match: re.Match[str]) -> str:
            output = run(match[1].replace("\\\n", " "), folder)
            return f"```console\n$ {match[1]}\n{output}\n```"

        PAGE.write_text(BLOCK.sub(renew, PAGE.read_text()))
        plot(folder, DOCS / "images" / "relabel.png")


if __name__ == "__main__":
    main()
