"""Relabelling stored trajectories against the encoder alone, on the same frames in memory.

What relabelling adds is decoding or drawing, packing batches and the journal; they run beside the
encoder, so the ratio says how much of its rate is left. Both sides' rewards are compared.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import open_clip
import pytest
import torch
from relabel_data import write_video

from vlmrm_fast import VLMReward, clip
from vlmrm_fast.relabel.config import RelabelConfig, open_source
from vlmrm_fast.relabel.drawing import TaskDrawer
from vlmrm_fast.relabel.journal import Journal
from vlmrm_fast.relabel.source import Clock
from vlmrm_fast.relabel.stream import stream

GOAL, BASELINE, ALPHA = "a humanoid robot kneeling", "a humanoid robot", 0.5
# Model, what is stored, side of stored frames, frames, pairs.
CASES = {
    "builtin-video": ("builtin", "humanoid-kneeling", 224, 1024, 5),
    "builtin-cartpole": ("builtin", "cartpole-upright", 0, 1536, 5),
    "builtin-humanoid": ("builtin", "humanoid-kneeling", 0, 1536, 5),
    "ViT-B-32-video": ("ViT-B-32", "humanoid-kneeling", 224, 64, 3),
}


def load(name, folder):
    """Return a reward; a tower that is not built in has random weights."""
    model = name
    if name != "builtin":
        torch.manual_seed(0)
        clip.save_model(open_clip.create_model(name), folder)
        model = f"{name}/{folder / clip.WEIGHTS_FILE}"
    return VLMReward(model, goal=GOAL, baseline=BASELINE, alpha=ALPHA, device="cpu")


def store(folder, task, side, count):
    """Write states, or videos of them where `side` is not 0; return what opens them."""
    drawer = TaskDrawer(task)
    states = drawer.task.posed_states(drawer.model, np.random.default_rng(0), count).qpos
    if not side:
        np.save(folder / "states.npy", states)
        return RelabelConfig(str(folder / "states.npy"), task=task)
    drawer.size = side
    frames = np.concatenate([drawer.draw(states[at : at + 64]) for at in range(0, count, 64)])
    drawer.close()
    for index, part in enumerate(np.array_split(frames, 4)):
        write_video(folder / "videos" / f"{index}.mp4", part)
    return RelabelConfig(str(folder / "videos"))


class Relabel:
    """All that happens between a file and a whole journal."""

    def __init__(self, reward, config, folder):
        self.reward, self.config, self.folder = reward, config, folder

    def __call__(self):
        """Return (N,) rewards of a whole run."""
        source = open_source(self.config)
        if source.drawer is not None:
            source.drawer.size = self.reward.image_size
        journal = Journal(self.folder, 1)
        journal.start({}, {})
        shape = (self.reward.batch_size, 1)
        with self.reward.scorer(background=False) as scorer:
            for scored in stream(source, scorer, (0, 0), shape, Clock()):
                journal.add(scored)
        journal.commit()
        rewards = np.array(journal.rewards()[:, 0])
        journal.remove()
        source.close()
        return rewards


def frames_of(reward, config):
    """All frames of a source, in memory."""
    source = open_source(config)
    if source.drawer is not None:
        source.drawer.size = reward.image_size
    parts = [part for e in range(len(source.names)) for part in source.read(e, 0, Clock())]
    source.close()
    return np.concatenate(parts)


def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


@pytest.mark.parametrize("case", CASES)
@pytest.mark.benchmark(group="relabel")
def test_relabel(benchmark, case, tmp_path):
    model, task, side, count, pairs = CASES[case]
    if not benchmark.enabled:
        count, pairs = 40, 1
    reward = load(model, tmp_path)
    config = store(tmp_path, task, side, count)
    ours, frames = Relabel(reward, config, tmp_path), frames_of(reward, config)
    rewards = benchmark.pedantic(ours, rounds=1, warmup_rounds=1)

    def alone():
        return reward.score(frames)

    if benchmark.enabled:
        alone()
        walls, cpus, rates = [], [], []
        for pair in range(pairs):
            # A-B, then B-A: slow drifts of the machine cancel.
            order = (ours, alone) if pair % 2 else (alone, ours)
            seconds = {each: timed(each) for each in order}
            walls.append(seconds[alone][0] / seconds[ours][0])
            cpus.append(seconds[alone][1] / seconds[ours][1])
            rates.append(count / seconds[ours][0])
        benchmark.extra_info |= {
            "model": model,
            "stored": f"videos {side}x{side}" if side else f"states of {task}",
            "frames": count,
            "threads": torch.get_num_threads(),
            "frames_per_second": statistics.median(rates),
            "ratio_to_encoder": statistics.median(walls),
            "cpu_ratio_to_encoder": statistics.median(cpus),
            "ratios": sorted(walls),
        }
    assert np.abs(rewards - reward.score(frames)).max() <= 1e-6
