"""submit and collect on a GPU: rewards, graphs, streams, memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from vlmrm_fast import VLMReward
from vlmrm_fast.kernels import ops
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing, make_tasks
from vlmrm_fast.lanes import CudaLane
from vlmrm_fast.scorer import Scorer

GOAL = "pole vertically upright on top of the cart"


def pictures(count: int, size: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def collected(scorer: Scorer, steps: Sequence[np.ndarray]) -> np.ndarray:
    return scorer.collect([scorer.submit(frames) for frames in steps])


class Tiny:
    """A small tower between our own kernels: preprocessing, two layers, rewards. No open_clip."""

    def __init__(self, device: str = "cuda", batch_size: int = 16) -> None:
        self.device, self.batch_size = torch.device(device, 0), batch_size
        dtype = torch.float16
        noise = torch.Generator().manual_seed(0)
        self.how = Preprocessing(64, OPENAI_MEAN, OPENAI_STD)
        first = torch.randn(64, 3, 8, 8, generator=noise) / 14
        second = torch.randn(32, 64 * 64, generator=noise) / 64
        self.first, self.second = first.to(self.device, dtype), second.to(self.device, dtype)
        goal, baseline = functional.normalize(torch.randn(2, 1, 32, generator=noise), dim=-1)
        self.tasks = make_tasks(goal, baseline, torch.tensor([0.5])).to(self.device)

    @torch.inference_mode()
    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        pixels = ops.preprocess(frames, self.how, torch.float16)
        hidden = functional.conv2d(pixels, self.first, stride=8).relu()
        return ops.score(functional.linear(hidden.flatten(1), self.second), self.tasks)

    def score(self, frames: np.ndarray) -> np.ndarray:
        """Score eagerly, waiting for everything."""
        return self.encode(torch.from_numpy(frames).to(self.device))[:, 0].cpu().numpy()

    def scorer(self) -> Scorer:
        return Scorer([CudaLane(self.encode, self.device, self.batch_size, 3)], 3)


@pytest.fixture(scope="module")
def on_gpu() -> Tiny:
    return Tiny()


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 3, 8, 16, 21, 40])
def test_gpu_rewards_are_those_of_score_within_rounding(on_gpu: Tiny, count: int) -> None:
    steps = [pictures(count, seed=seed) for seed in range(6)]
    expected = np.array([on_gpu.score(frames) for frames in steps])
    with on_gpu.scorer() as scorer:
        found = collected(scorer, steps)
        assert np.abs(found - expected).max() <= 1e-3
        # Captured graphs and pages of rewards are used again.
        np.testing.assert_array_equal(found, collected(scorer, steps))
        assert collected(scorer, steps * 30).shape == (180, count)


@pytest.mark.gpu
def test_every_batch_size_is_captured_in_a_graph(on_gpu: Tiny) -> None:
    with on_gpu.scorer() as scorer:
        for count in (5, 21, 7):
            collected(scorer, [pictures(count)] * 3)
            graphs = scorer.lanes[0]._graphs  # type: ignore[attr-defined]
            assert all(graph is not None for graph in graphs.values())
        assert sorted(shape[0] for shape in graphs) == [5, 8, 16]


@pytest.mark.gpu
def test_graphs_and_eager_scoring_agree(
    on_gpu: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps = [pictures(6, seed=seed) for seed in range(3)]
    with on_gpu.scorer() as scorer:
        with_graphs = collected(scorer, steps)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    with on_gpu.scorer() as scorer:
        eager = collected(scorer, steps)
    assert "Scoring 6 frames without a CUDA graph: RuntimeError: operation not" in caplog.text
    assert np.abs(with_graphs - eager).max() <= 1e-3


@pytest.mark.gpu
def test_submit_never_waits_for_the_gpu(on_gpu: Tiny) -> None:
    steps = [pictures(8, seed=seed) for seed in range(20)]
    with on_gpu.scorer() as scorer:
        collected(scorer, steps[:3])
        try:
            torch.cuda.set_sync_debug_mode("error")
            tickets = [scorer.submit(frames) for frames in steps]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected = [on_gpu.score(frames) for frames in steps]
        assert np.abs(scorer.collect(tickets) - np.array(expected)).max() <= 1e-3


@pytest.mark.gpu
def test_a_slot_is_rewritten_only_after_its_copy(on_gpu: Tiny) -> None:
    with on_gpu.scorer() as scorer:
        drawn = [np.full((8, 96, 96, 3), value, np.uint8) for value in (0, 60, 120, 180, 240)]
        expected = [on_gpu.score(frames) for frames in drawn]
        collected(scorer, drawn[:1])
        # A long kernel before the copies: the host is far ahead of the device.
        with torch.cuda.stream(scorer.lanes[0]._copying):  # type: ignore[attr-defined]
            torch.cuda._sleep(50_000_000)
        found = collected(scorer, drawn * 4)
    assert np.abs(found - np.array(expected * 4)).max() <= 1e-3


@pytest.mark.gpu
def test_after_a_real_out_of_memory_the_gpu_scorer_still_works() -> None:
    reward, frames = Tiny(batch_size=4096), pictures(1).repeat(4096, axis=0)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    # The ring's frames on the device fit, and little else.
    room = torch.cuda.memory_reserved() + 3 * frames.nbytes + (100 << 20)
    try:
        torch.cuda.set_per_process_memory_fraction(room / total)
        with reward.scorer() as scorer:
            with pytest.warns(UserWarning, match="GPU out of memory: batch_size is now"):
                first = collected(scorer, [frames])
            np.testing.assert_array_equal(first, collected(scorer, [frames]))
            assert scorer.lanes[0].batch_size < 4096  # type: ignore[attr-defined]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_models_gpu_rewards_are_those_of_score_within_rounding(
    untrained_folder: str, count: int
) -> None:
    pytest.importorskip("open_clip")
    reward = VLMReward(untrained_folder, goal=GOAL, device="cuda", batch_size=16)
    steps = [pictures(count, seed=seed) for seed in range(6)]
    with reward.scorer() as scorer:
        found = collected(scorer, steps)
        assert all(graph is not None for graph in scorer.lanes[0]._graphs.values())  # type: ignore[attr-defined]
    expected = np.array([reward.score(frames) for frames in steps])
    assert np.abs(found - expected).max() <= 1e-3
