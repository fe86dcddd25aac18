"""Phases of bench/gpu.py: towers alone, and host frames in, host rewards out."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import torch
from gpu_timing import Clock, error
from plain_vit import SHAPES, PlainReward, make_tower
from torch.nn import functional

from vlmrm_fast.kernels import ops, reference
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing
from vlmrm_fast.quantized import has_fp8

Result = dict[str, Any]
ALPHA = 0.5


def lean(tower: Any, device: torch.device, precision: str) -> Any:
    """Return our form of a tower; its weights are copied."""
    from vlmrm_fast.precision import DTYPES, linear_maker
    from vlmrm_fast.vit import LeanViT

    return LeanViT(tower, device, DTYPES[precision], linear_maker(precision, device))


def make_prompts(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a goal and a baseline of unit length."""
    goal, baseline = functional.normalize(torch.randn(2, width), dim=-1)
    return goal, baseline


class Ours:
    """Host frames to host rewards through our tower and the Scorer.

    Args:
        tower: with `encode`.
        how: preprocessing.
        tasks: one reward.
        device: where it runs.
        batch: frames of one submission.
    """

    def __init__(self, tower: Any, how: Preprocessing, tasks: Any, device: Any, batch: int):
        from vlmrm_fast import lanes
        from vlmrm_fast.scorer import Scorer

        def encode(frames: torch.Tensor) -> torch.Tensor:
            return ops.score(tower.encode(frames, how), tasks)

        if device.type == "cuda":
            lane: Any = lanes.CudaLane(encode, device, batch, 3)
        else:
            lane = lanes.CpuLane(encode, background=False)
        self.scorer = Scorer([lane], 3)

    def run(self, frames: np.ndarray, steps: int) -> np.ndarray:
        """Submit the frames `steps` times, as a renderer would, then collect: (steps, B)."""
        tickets = []
        for _ in range(steps):
            # A renderer draws into this memory: it holds the frames from the first rounds on.
            slot = self.scorer.acquire(frames.shape)
            tickets.append(self.scorer.submit(slot))
        return self.scorer.collect(tickets)

    def fill(self, frames: np.ndarray) -> np.ndarray:
        """Put the frames into every slot of the ring; return their rewards (B,)."""
        for _ in range(4):
            rewards = self.scorer.collect([self.scorer.submit(frames)])
        return rewards[0]


def tower(clock: Clock, small: bool, name: str = "tiny", batches: tuple[int, ...] = (2,)) -> Result:
    """Measure one architecture: towers alone by precision, and end to end, at several batches."""
    device, shape = clock.device, SHAPES[name]
    plain = make_tower(name)
    ours = lean(plain, device, "fp16" if clock.cuda else "fp32")
    eight = lean(plain, device, "fp8") if not clock.cuda or has_fp8(device) else None
    plain = plain.to(device)
    goal, baseline = make_prompts(shape.embed)
    tasks = reference.make_tasks(goal[None], baseline[None], torch.tensor([ALPHA])).to(device)
    path = PlainReward(plain, shape.size, goal, baseline, ALPHA, device)
    how = Preprocessing(shape.size, OPENAI_MEAN, OPENAI_STD)
    results: Result = {"gflop_a_frame": shape.flops / 1e9}
    for batch in batches:
        row = results[f"B={batch}"] = {}
        alone(clock, row, path, ours, how, batch, shape)
        side = 40 if small else 480
        end_to_end(clock, row, path, ours, how, tasks, batch, side)
        if eight is not None:
            # Last: an 8-bit product that the library refuses costs no other figure.
            try:
                eight_bits(clock, row, (ours, eight), how, tasks, random_frames(batch, side))
            except RuntimeError as failure:
                row["fp8_failed"] = str(failure)[:300]
        gc.collect()
    return results


def random_frames(batch: int, side: int) -> torch.Tensor:
    """Return host frames."""
    return torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)


@torch.inference_mode()
def alone(
    clock: Clock, row: Result, path: PlainReward, ours: Any, how: Preprocessing, batch: int,
    shape: Any,
) -> None:  # fmt: skip
    """Time the towers alone, on frames of the model's size that lie on the device."""
    frames = random_frames(batch, shape.size).to(clock.device)
    pixels = reference.preprocess(frames, how)
    row["plain_call_ms"] = clock.calls(lambda _: path.encode(pixels)) * 1e3
    row["lean_call_ms"] = clock.calls(lambda _: ours.encode(frames, how)) * 1e3
    row["lean_ms"] = clock.graph(lambda _: ours.encode(frames, how), 2) * 1e3
    row["lean_frames_s"] = batch / row["lean_ms"] * 1e3
    row["lean_tflop_s"] = row["lean_frames_s"] * shape.flops / 1e12
    row["ratio_alone"] = row["plain_call_ms"] / row["lean_ms"]

    # The matrix products of the blocks without all else: a floor that no rewriting goes below.
    rows = batch * shape.tokens
    width, inner = shape.width, shape.mlp
    products = {}
    for key, (i, o) in {
        "qkv": (width, 3 * width), "out": (width, width), "grow": (width, inner),
        "shrink": (inner, width),
    }.items():  # fmt: skip
        x = torch.randn(rows, i, device=clock.device).to(ours.dtype)
        weight = torch.randn(o, i, device=clock.device).to(ours.dtype)
        products[key] = clock.graph(lambda _, x=x, w=weight: functional.linear(x, w), 4)
    row["products_ms"] = sum(products.values()) * shape.layers * 1e3

    exact = path.tower(pixels).float()
    similar = functional.cosine_similarity(ours.encode(frames, how).float(), exact)
    row["least_cosine"] = float(similar.min())
    assert row["least_cosine"] >= 0.999, row["least_cosine"]


def end_to_end(
    clock: Clock, row: Result, path: PlainReward, ours: Any, how: Preprocessing, tasks: Any,
    batch: int, side: int,
) -> None:  # fmt: skip
    """Time host frames in, host rewards out: the paper's path, ours at its size, ours at S."""
    frames = random_frames(batch, side)
    once = clock.wall(lambda _: path.score(frames), 1)
    repeats = int(min(max(1.5 / once, 3), 50)) if clock.cuda else 1
    row["plain_frames_s"] = batch / clock.wall(lambda _: path.score(frames), repeats)
    exact, steps = path.score(frames).numpy(), max(repeats, 3)
    for label, way, given in (
        ("same_frames", how.original(), frames),
        ("drawn_at_size", how, random_frames(batch, how.size)),
    ):
        engine = Ours(ours, way, tasks, clock.device, batch)
        rewards = engine.fill(given.numpy())
        if label == "same_frames":
            row["reward_error"] = error(torch.from_numpy(rewards), torch.from_numpy(exact))
            assert row["reward_error"] <= 5e-3, row["reward_error"]
        took = clock.wall(lambda _, e=engine, g=given: e.run(g.numpy(), steps), 1) / steps
        row[f"{label}_frames_s"] = batch / took
        row[f"{label}_ratio"] = batch / took / row["plain_frames_s"]
        one = clock.wall(lambda _, e=engine, g=given: e.run(g.numpy(), 1), steps)
        row[f"{label}_latency_ms"] = one * 1e3
        engine.scorer.close()
    row["plain_latency_ms"] = batch / row["plain_frames_s"] * 1e3


@torch.inference_mode()
def eight_bits(
    clock: Clock, row: Result, towers: Any, how: Preprocessing, tasks: Any, frames: torch.Tensor
) -> None:
    """Time the tower in fp8 alone and end to end; say how far its embeddings are off."""
    ours, eight = towers
    drawn = random_frames(len(frames), how.size).to(clock.device)
    row["fp8_ms"] = clock.graph(lambda _: eight.encode(drawn, how), 2) * 1e3
    row["fp8_ratio_to_fp16"] = row["lean_ms"] / row["fp8_ms"]
    pair = eight.encode(drawn, how).float(), ours.encode(drawn, how).float()
    row["fp8_least_cosine"] = float(functional.cosine_similarity(*pair).min())

    engine = Ours(eight, how.original(), tasks, clock.device, len(frames))
    engine.fill(frames.numpy())
    took = clock.wall(lambda _: engine.run(frames.numpy(), 5), 2) / 5
    row["fp8_frames_s"] = len(frames) / took
    row["fp8_ratio"] = row["fp8_frames_s"] / row["plain_frames_s"]
    engine.scorer.close()


def compiled(clock: Clock, small: bool, name: str = "tiny", batch: int = 2) -> Result:
    """Measure the plain tower in fp16, compiled with max-autotune, frames pinned: end to end."""
    device, shape = clock.device, SHAPES[name]
    plain = make_tower(name)
    ours = lean(plain, device, "fp16" if clock.cuda else "fp32")
    half = plain.to(device, torch.float16 if clock.cuda else torch.float32)
    goal, baseline = make_prompts(shape.embed)
    path = PlainReward(half, shape.size, goal, baseline, ALPHA, device)
    side = 40 if small else 480
    frames = random_frames(batch, side)
    pinned = frames.pin_memory() if clock.cuda else frames

    def rewards(values: torch.Tensor) -> torch.Tensor:
        return path.rewards(half(path.pixels(values).to(ours.dtype)))

    fast = torch.compile(rewards, mode="max-autotune") if clock.cuda else rewards
    with torch.inference_mode():
        exact = fast(pinned.to(device)).cpu()
        took = clock.wall(lambda _: fast(pinned.to(device, non_blocking=True)).cpu(), 10)
    tasks = reference.make_tasks(goal[None], baseline[None], torch.tensor([ALPHA])).to(device)
    how = Preprocessing(shape.size, OPENAI_MEAN, OPENAI_STD).original()
    engine = Ours(ours, how, tasks, device, batch)
    mine = engine.fill(frames.numpy())
    one = clock.wall(lambda _: engine.run(frames.numpy(), 10), 2) / 10
    gap = error(torch.from_numpy(mine), exact)
    assert gap <= 5e-3, gap
    return {
        "batch": batch,
        "compiled_frames_s": batch / took,
        "same_frames_frames_s": batch / one,
        "ratio_to_compile": took / one,
        "reward_error": gap,
    }
