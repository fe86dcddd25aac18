"""Stored trajectories to relabel, written by the libraries that users write them with."""

import functools
import json
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmrm_fast import VLMReward

GOALS = ("a robot kneeling", "a robot, standing")
BASELINE, ALPHA = "a robot", 0.5


def make_frames(count, height=40, width=56, seed=0):
    """Smooth pictures that differ: codecs keep them apart."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (count, 2, 2, 3)).astype(np.uint8)
    return colours.repeat(height // 2, axis=1).repeat(width // 2, axis=2)


def expected(model, frames, goals=GOALS):
    """Rewards (N, P) by the plain way: all frames at once, one reward a goal."""
    rewards = [_reward(model, goal).score(frames) for goal in goals]
    return np.stack(rewards, axis=1)


@functools.lru_cache(4)
def _reward(model, goal):
    return VLMReward(model, goal=goal, baseline=BASELINE, alpha=ALPHA)


def write_video(path, frames, fps=10, codec="mpeg4", **options):
    """Write a video; return its frames as a player shows them."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.gop_size, stream.bit_rate = 12, 2_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def write_lerobot_v2(folder, episodes, version="v2.1", fps=10, cameras=("observation.images.top",)):
    """Write a dataset with one video and one table an episode; return the decoded frames."""
    shown = []
    lines = []
    for index, frames in enumerate(episodes):
        for key in cameras:
            path = folder / f"videos/chunk-000/{key}/episode_{index:06d}.mp4"
            decoded = write_video(path, frames, fps)
        shown.append(decoded)
        lines.append({"episode_index": index, "tasks": ["kneel"], "length": len(frames)})
        _write_table(folder / f"data/chunk-000/episode_{index:06d}.parquet", index, len(frames))
    info = {
        "codebase_version": version,
        "fps": fps,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": {key: {"dtype": "video", "shape": [40, 56, 3]} for key in cameras}
        | {"action": {"dtype": "float32", "shape": [2]}},
    }
    _write_meta(folder, info)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "meta/episodes.jsonl").write_text(text)
    return shown


def write_lerobot_v3(folder, episodes, fps=10, key="observation.images.top", codec="mpeg4"):
    """Write a dataset with all episodes in one video and one table; return the decoded frames."""
    frames = np.concatenate(episodes)
    shown = write_video(folder / f"videos/{key}/chunk-000/file-000.mp4", frames, fps, codec)
    ends = np.cumsum([len(episode) for episode in episodes])
    starts = ends - [len(episode) for episode in episodes]
    table = {
        "episode_index": list(range(len(episodes))),
        "length": [len(episode) for episode in episodes],
        "dataset_from_index": starts.tolist(),
        "dataset_to_index": ends.tolist(),
        "data/chunk_index": [0] * len(episodes),
        "data/file_index": [0] * len(episodes),
        f"videos/{key}/chunk_index": [0] * len(episodes),
        f"videos/{key}/file_index": [0] * len(episodes),
        f"videos/{key}/from_timestamp": (starts / fps).tolist(),
        f"videos/{key}/to_timestamp": (ends / fps).tolist(),
        "stats/action/mean": [[0.0]] * len(episodes),
    }
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(table), path)
    info = {
        "codebase_version": "v3.0",
        "fps": fps,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {key: {"dtype": "video", "shape": [40, 56, 3]}},
    }
    _write_meta(folder, info)
    return np.split(shown, ends[:-1])


def write_lerobot_images(folder, episodes, key="observation.image"):
    """Write a v3 dataset whose pictures are PNG files inside the table."""
    import io

    from PIL import Image

    def cell(frame):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    table = {
        "episode_index": [i for i, episode in enumerate(episodes) for _ in episode],
        "frame_index": [t for episode in episodes for t in range(len(episode))],
        key: [cell(frame) for episode in episodes for frame in episode],
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [pa.array(table["episode_index"]), pa.array(table["frame_index"])]
    columns.append(pa.array(table[key], type=kind))
    path = folder / "data/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_arrays(columns, names=list(table)), path)
    rows = {
        "episode_index": list(range(len(episodes))),
        "length": [len(episode) for episode in episodes],
        "data/chunk_index": [0] * len(episodes),
        "data/file_index": [0] * len(episodes),
    }
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(rows), path)
    info = {
        "codebase_version": "v3.0",
        "fps": 10,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": {key: {"dtype": "image", "shape": [40, 56, 3]}},
    }
    _write_meta(folder, info)


def _write_meta(folder, info):
    (folder / "meta").mkdir(exist_ok=True)
    (folder / "meta/info.json").write_text(json.dumps(info))


def _write_table(path, index, length):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"episode_index": [index] * length, "frame_index": list(range(length))}
    pq.write_table(pa.table(table), path)


def command(source, out, model, *more):
    """Return the command line of a relabelling that commits often."""
    prompts = ["--goal", *GOALS, "--baseline", BASELINE, "--alpha", str(ALPHA)]
    call = ["relabel", str(source), *prompts, "--out", str(out), "--model", model]
    code = (
        "import sys; from vlmrm_fast.cli import main; from vlmrm_fast.relabel import journal; "
        "journal.COMMIT_SECONDS = 0.05; raise SystemExit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", code, *call, "--batch-size", "4", *more]
