"""Lean towers on a CUDA device: every precision, no waiting, CUDA graphs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing
from vlmrm_fast.precision import usable_precisions
from vlmrm_fast.towers import PixelTower, build_tower

sys.path.append(str(Path(__file__).parent.parent / "bench"))
from plain_vit import Shape, VisionTransformer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

HOW = Preprocessing(56, OPENAI_MEAN, OPENAI_STD)
BOUNDS = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 3e-2, "fp8": 0.1}


@pytest.fixture
def plain() -> VisionTransformer:
    tower = VisionTransformer(Shape(128, 3, 2, 14, 512, 64, 56))
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.5)
    return tower.eval().requires_grad_(False)


def frames(batch: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)


def unit(z: torch.Tensor) -> torch.Tensor:
    z = z.float().cpu()
    return z / z.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("precision", sorted(BOUNDS))
@pytest.mark.parametrize("side", [56, 90])
def test_every_precision_stays_close_to_the_cpu(
    plain: VisionTransformer, precision: str, side: int
) -> None:
    device = torch.device("cuda")
    if precision not in usable_precisions(device):
        pytest.skip(f"this GPU does not run {precision}")
    images = frames(5, side)
    exact = build_tower(plain, torch.device("cpu"), "fp32").encode(images, HOW)
    tower = build_tower(plain, device, precision)
    assert (tower.engine, tower.precision) == ("lean", precision)
    z = tower.encode(images.to(device), HOW)
    # A resized pixel may fall to the other of two neighbouring levels.
    bound = BOUNDS[precision] + (1e-2 if side != HOW.size else 0)
    assert float((unit(z) - unit(exact)).abs().max()) <= bound


@pytest.mark.parametrize("precision", sorted(BOUNDS))
def test_encoding_never_waits_and_a_graph_holds_it(
    plain: VisionTransformer, precision: str
) -> None:
    device = torch.device("cuda")
    if precision not in usable_precisions(device):
        pytest.skip(f"this GPU does not run {precision}")
    tower = build_tower(plain, device, precision)
    inputs = frames(4, 56).to(device)
    # Kernels compile and the mean is folded in the first calls.
    for _ in range(2):
        tower.encode(inputs, HOW)
    torch.cuda.set_sync_debug_mode("error")
    try:
        tower.encode(inputs, HOW)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = tower.encode(inputs, HOW)
    inputs.copy_(frames(4, 56))
    graph.replay()
    right = tower.encode(inputs, HOW)
    assert float((unit(outputs) - unit(right)).abs().max()) <= 1e-3


def test_convolutions_in_float32_are_not_cut_to_tf32() -> None:
    layer = torch.nn.Conv2d(3, 64, 3).requires_grad_(False)
    images = frames(4, 56)
    right = PixelTower(layer, torch.float32, "eager").encode(images, HOW)
    tower = PixelTower(layer.to("cuda"), torch.float32, "eager")
    z = tower.encode(images.to("cuda"), HOW).cpu()
    assert float((z - right).norm() / right.norm()) <= 1e-5  # TF32 is off by some 3e-4

    inputs, graph = images.to("cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = tower.encode(inputs, HOW)
    graph.replay()
    assert float((outputs.cpu() - right).norm() / right.norm()) <= 1e-5
