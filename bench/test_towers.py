"""Image towers, preprocessing and many prompts on this machine's CPU, against plain open_clip.

Both sides get the same weights and frames in interleaved pairs; equal embeddings are asserted
after timing. The weights are random: the work does not depend on them.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn.functional import cosine_similarity

from vlmrm_fast import VLMReward, clip
from vlmrm_fast.fidelity import FidelityConfig, measure_fidelity
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing, preprocess
from vlmrm_fast.pixels import prepare
from vlmrm_fast.precision import usable_precisions
from vlmrm_fast.towers import build_tower

CPU = torch.device("cpu")
MODEL = "ViT-B-32"
PAIRS = 7
# Least cosine with open_clip in float32.
COSINES = {"fp32": 0.999999, "int8": 0.9995, "bf16": 0.9995}


def measure(benchmark, ours, plain, rounds=PAIRS):
    """Time `ours` for the record, then both in pairs; return the ratios plain / ours, sorted."""
    benchmark.pedantic(ours, rounds=rounds if benchmark.enabled else 1, warmup_rounds=1)
    ratios = []
    if benchmark.enabled:
        plain()
        for pair in range(rounds):
            seconds = {}
            # A-B, then B-A: slow drifts of the machine cancel.
            for side in (ours, plain) if pair % 2 else (plain, ours):
                start = time.perf_counter()
                side()
                seconds[side] = time.perf_counter() - start
            ratios.append(seconds[plain] / seconds[ours])
        benchmark.extra_info |= {
            "ratio": statistics.median(ratios),
            "ratios": sorted(ratios),
            "threads": torch.get_num_threads(),
        }


@pytest.fixture(scope="module")
def plain_tower():
    torch.manual_seed(0)
    return open_clip.create_model(MODEL).visual.eval().requires_grad_(False)


@pytest.mark.parametrize("precision", sorted(COSINES))
@pytest.mark.parametrize("batch", [1, 8, 16])
@pytest.mark.benchmark(group="ViT-B-32 on the CPU")
def test_tower(benchmark, plain_tower, precision, batch):
    if precision not in usable_precisions(CPU):
        pytest.skip(f"this CPU does not run {precision}")
    tower = build_tower(plain_tower, CPU, precision)
    how = Preprocessing(224, OPENAI_MEAN, OPENAI_STD)
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8)
    # The plain side starts from pixels that are ready, ours from bytes.
    pixels = preprocess(frames, how)

    @torch.inference_mode()
    def plain():
        return plain_tower(pixels)

    measure(benchmark, lambda: tower.encode(frames, how), plain)
    cosine = float(cosine_similarity(tower.encode(frames, how).float(), plain()).min())
    benchmark.extra_info |= {
        "model": MODEL, "batch": batch, "precision": precision, "engine": tower.engine,
        "cosine": cosine, "images_per_second": rate(benchmark, batch),
    }  # fmt: skip
    assert cosine >= COSINES[precision]


def rate(benchmark, count):
    """Return items a second, or None where nothing was timed."""
    return count / benchmark.stats.stats.median if benchmark.enabled else None


@pytest.mark.parametrize("side", [480, 224])
@pytest.mark.benchmark(group="preprocessing on the CPU")
def test_cpu_preprocess(benchmark, side):
    how = Preprocessing(224, OPENAI_MEAN, OPENAI_STD)
    config = PreprocessCfg(224, "RGB", how.mean, how.std, "bicubic", "squash", 0)
    transform = image_transform_v2(config, is_train=False)
    frames = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8)

    def plain():
        return torch.stack([transform(Image.fromarray(frame)) for frame in frames])

    def ours():
        return prepare(torch.from_numpy(frames), how, torch.float32)

    measure(benchmark, ours, plain)
    levels = float(((ours() - plain()).abs() * torch.tensor(how.std).view(3, 1, 1)).max()) * 255
    benchmark.extra_info |= {
        "batch": len(frames), "H": side, "W": side, "levels": levels,
        "images_per_second": rate(benchmark, len(frames)),
    }  # fmt: skip
    assert levels <= 1.01


@pytest.mark.benchmark(group="many prompts")
def test_many_prompts(benchmark, tmp_path):
    torch.manual_seed(0)
    clip.save_model(open_clip.create_model(MODEL), tmp_path)
    reward = VLMReward(f"{MODEL}/{tmp_path / clip.WEIGHTS_FILE}", goal="a robot", device="cpu")
    words = ("kneels", "stands", "lies", "sits", "jumps", "falls", "runs", "waves")
    goals = [f"a robot that {word} {place}" for word in words for place in words]
    many = reward.prompt_set(goals, "a robot", 0.5)
    frames = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    measure(benchmark, lambda: reward.score_many(frames, many), lambda: reward.score(frames))
    if benchmark.enabled:
        benchmark.extra_info["time_over_one"] = 1 / benchmark.extra_info["ratio"]
    benchmark.extra_info |= {"model": MODEL, "batch": 8, "prompts": len(many)}
    alone = reward.with_prompts(goals[5], "a robot", 0.5).score(frames)
    assert np.abs(reward.score_many(frames, many)[:, 5] - alone).max() <= 1e-6


# The built-in model is convolutional: int8 is refused.
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("task", ["cartpole-upright", "humanoid-kneeling"])
@pytest.mark.benchmark(group="fidelity of the built-in model")
def test_fidelity(benchmark, task, precision):
    if precision not in usable_precisions(CPU):
        pytest.skip(f"this CPU does not run {precision}")
    count = 200 if benchmark.enabled else 8
    config = FidelityConfig(task, precision=precision, num_states=count, device="cpu")
    found = benchmark.pedantic(measure_fidelity, (config,), rounds=1)
    benchmark.extra_info |= vars(found) | {"passed": found.passed}
    assert found.spearman >= 0.99
