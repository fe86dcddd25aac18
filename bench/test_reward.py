"""Rewards per second on this machine's CPU: ours against plain open_clip.

Both sides get the same uint8 frames and prompts; equal rewards are asserted after timing. The
weights are random: the work does not depend on them.
"""

from __future__ import annotations

import shutil
import statistics
import time

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from vlmrm_fast import VLMReward, clip

GOAL, BASELINE, ALPHA = "pole vertically upright on top of the cart", "pole and cart", 0.5
PAIRS = {"builtin": 15, "ViT-B-32": 3}
# The built-in model's frames are drawn at its input size; the paper draws at 480 x 480.
SIDES = {"builtin": 96, "ViT-B-32": 480}


class Plain:
    """What users of open_clip write: its transform frame by frame, its tower, the projection."""

    def __init__(self, name, **options):
        self.model, _, self.transform = open_clip.create_model_and_transforms(name, **options)
        self.model.eval()
        with torch.inference_mode():
            tokens = open_clip.get_tokenizer(name)([GOAL, BASELINE])
            self.goal, base = self.model.encode_text(tokens, normalize=True)
        direction = self.goal - base
        outer = torch.outer(direction, direction) / direction.square().sum()
        self.projection = ALPHA * outer + (1 - ALPHA) * torch.eye(len(direction))

    @torch.inference_mode()
    def score(self, frames):
        """Return (B,) rewards of (B, H, W, 3) frames."""
        pixels = torch.stack([self.transform(Image.fromarray(frame)) for frame in frames])
        x = self.model.encode_image(pixels, normalize=True)
        return (1 - ((x - self.goal) @ self.projection).square().sum(-1) / 2).numpy()


@pytest.fixture(scope="module")
def sides(request, tmp_path_factory):
    """Ours and the plain one, on the same random weights."""
    name, folder = request.param, tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    if name == "builtin":
        shutil.copy(clip.BUILTIN_FOLDER / clip.CONFIG_FILE, folder)
        clip.save_model(clip.build_model(folder), folder)
        model = str(folder)
        plain = Plain(f"local-dir:{folder}")
    else:
        clip.save_model(open_clip.create_model(name), folder)
        weights = folder / clip.WEIGHTS_FILE
        model = f"{name}/{weights}"
        plain = Plain(name, pretrained=str(weights))
    ours = VLMReward(model, goal=GOAL, baseline=BASELINE, alpha=ALPHA, device="cpu")
    return name, ours, plain


def timed(side, frames):
    start = time.perf_counter()
    side.score(frames)
    return time.perf_counter() - start


@pytest.mark.parametrize("sides", ["builtin", "ViT-B-32"], indirect=True)
@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.benchmark(group="reward on the CPU")
def test_reward(benchmark, sides, batch):
    name, ours, plain = sides
    side = SIDES[name]
    frames = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    rounds = PAIRS[name] if benchmark.enabled else 1
    rewards = benchmark.pedantic(ours.score, (frames,), rounds=rounds, warmup_rounds=1)
    if benchmark.enabled:
        timed(plain, frames)
        ratios = []
        for pair in range(PAIRS[name]):
            # A-B, then B-A: slow drifts of the machine cancel.
            order = (ours, plain) if pair % 2 else (plain, ours)
            seconds = {each: timed(each, frames) for each in order}
            ratios.append(seconds[plain] / seconds[ours])
        benchmark.extra_info |= {
            "model": name,
            "batch": batch,
            "size": side,
            "threads": torch.get_num_threads(),
            "images_per_second": batch / benchmark.stats.stats.median,
            "ratio_to_open_clip": statistics.median(ratios),
            "ratios": sorted(ratios),
        }
    assert np.abs(rewards - plain.score(frames)).max() <= 1e-3
