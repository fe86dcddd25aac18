"""What the kernels' tests share: where they run, and how far roundings may be apart."""

from __future__ import annotations

import pytest
import torch

# Without a GPU the launchers take CPU tensors: conftest.py chose Triton's interpreter.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# On a GPU machine these tests are GPU tests: `pytest -m gpu` takes them in.
ON_DEVICE = [pytest.mark.gpu] if DEVICE.type == "cuda" else []
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# A unit in the last place, relative. The interpreter truncates to bfloat16 where GPUs round.
ULP = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def worst(ours: torch.Tensor, exact: torch.Tensor, ulps: float = 1) -> float:
    """Return the largest error beyond `ulps` units in the last place of ours."""
    error = (ours.double() - exact.double()).abs()
    return float((error - ulps * ULP[ours.dtype] * exact.double().abs()).max())
