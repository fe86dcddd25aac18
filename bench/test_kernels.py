"""The kernels' benchmarks: scoring on the CPU, every phase of bench/gpu.py where there is a GPU."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vlmrm_fast.kernels import ops, reference

WIDTH = 1024


def paper(z, goal, baseline, alpha):
    """Score one task as the paper does: x - g times a D x D projection."""
    direction = goal - baseline
    outer = torch.outer(direction, direction) / direction.square().sum()
    projection = alpha * outer + (1 - alpha) * torch.eye(len(goal))
    return lambda: 1 - ((z / z.norm(dim=-1, keepdim=True) - goal) @ projection).square().sum(-1) / 2


def seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


@pytest.mark.parametrize("prompts", [1, 16])
@pytest.mark.benchmark(group="score on the CPU")
def test_score(benchmark, prompts):
    z = torch.randn(512, WIDTH)
    goal, baseline = torch.nn.functional.normalize(torch.randn(2, prompts, WIDTH), dim=-1)
    tasks = reference.make_tasks(goal, baseline, torch.full((prompts,), 0.5)).to("cpu")
    theirs = [paper(z, g, b, 0.5) for g, b in zip(goal, baseline, strict=True)]

    def ours():
        return ops.score(z, tasks)

    def plain():
        return torch.stack([call() for call in theirs], 1)

    rewards = benchmark.pedantic(ours, rounds=9 if benchmark.enabled else 1, warmup_rounds=1)
    if benchmark.enabled:
        plain()
        ratios = [seconds(plain) / seconds(lambda: [ours() for _ in range(5)]) for _ in range(9)]
        benchmark.extra_info |= {
            "B": len(z), "D": WIDTH, "P": prompts, "ratio": 5 * statistics.median(ratios),
            "scores_per_second": len(z) * prompts / benchmark.stats.stats.median,
        }  # fmt: skip
    assert (rewards - plain()).abs().max() <= 1e-5


@pytest.mark.parametrize("prompts", [1, 16])
@pytest.mark.benchmark(group="reward_head on the CPU")
def test_reward_head(benchmark, prompts):
    rows, norm = torch.randn(512, 768), torch.randn(2, 768).unbind()
    projection = torch.randn(768, 512) * 768**-0.5
    goal, baseline = torch.nn.functional.normalize(torch.randn(2, prompts, 512), dim=-1)
    tasks = reference.make_tasks(goal, baseline, torch.full((prompts,), 0.5)).to("cpu")

    def ours():
        return ops.reward_head(rows, *norm, 1e-5, projection, tasks)

    def plain():
        # What open_clip's tower does last, and then the paper's projection.
        z = torch.nn.functional.layer_norm(rows, (768,), *norm, 1e-5) @ projection
        return torch.stack([paper(z, g, b, 0.5)() for g, b in zip(goal, baseline, strict=True)], 1)

    rewards = benchmark.pedantic(ours, rounds=9 if benchmark.enabled else 1, warmup_rounds=1)
    if benchmark.enabled:
        plain()
        ratios = [seconds(plain) / seconds(lambda: [ours() for _ in range(5)]) for _ in range(9)]
        benchmark.extra_info |= {
            "B": len(rows), "W": 768, "D": 512, "P": prompts,
            "ratio": 5 * statistics.median(ratios),
            "scores_per_second": len(rows) * prompts / benchmark.stats.stats.median,
        }  # fmt: skip
    assert (rewards - plain()).abs().max() <= 1e-5


def test_the_gpus_benchmarks_run_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(Path(__file__).parent / "gpu.py"), "--rehearse", "--out"]
    done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| score, P=17 B=5 D=64 |" in done.stdout
    assert out.exists()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "phase", ["preprocess", "score", "add_layernorm", "reward_head", "quantize", "visibility"]
)
@pytest.mark.benchmark(group="kernels on a GPU")
def test_kernel(benchmark, phase):
    import gpu_kernels
    from gpu_timing import Clock

    clock = Clock(torch.device("cuda"), budget=0.05)
    measure = getattr(gpu_kernels, phase)
    figures = benchmark.pedantic(measure, (clock, not benchmark.enabled), rounds=1)
    benchmark.extra_info |= figures


def test_the_baselines_tower_is_open_clips():
    transformer = pytest.importorskip("open_clip.transformer")
    import plain_vit

    shape, ours = plain_vit.SHAPES["tiny"], plain_vit.make_tower("tiny")
    theirs = transformer.VisionTransformer(
        image_size=shape.size, patch_size=shape.patch, width=shape.width, layers=shape.layers,
        heads=shape.heads, mlp_ratio=shape.mlp / shape.width, output_dim=shape.embed,
    ).eval()  # fmt: skip
    theirs.load_state_dict(ours.state_dict())
    pixels = torch.randn(3, 3, shape.size, shape.size)
    with torch.inference_mode():
        assert torch.allclose(ours(pixels), theirs(pixels), atol=1e-5)
