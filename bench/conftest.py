"""What every benchmark shares: the machine in words, without names that identify it."""

import importlib.metadata
import os
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

# Before any GL context: both triton and Mesa bring an LLVM, and the other order crashes.
import pytest
import triton  # noqa: F401

# The helper modules here, and the tests' comparison with MuJoCo's pictures.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]


def pytest_benchmark_update_machine_info(config, machine_info):
    """Record versions and cores; drop the host's name."""
    for name in ("node", "release"):
        machine_info.pop(name, None)
    machine_info["cores"] = len(os.sched_getaffinity(0))
    packages = ("torch", "triton", "mujoco", "gymnasium", "open_clip_torch", "stable-baselines3")
    installed = {each.metadata["Name"] for each in importlib.metadata.distributions()}
    machine_info["packages"] = {
        name: importlib.metadata.version(name) for name in packages if name in installed
    }


def pytest_collection_modifyitems(items):
    """Skip GPU benchmarks on machines without CUDA, unless VLMRM_FAST_REQUIRE_GPU demands them."""
    import torch

    if torch.cuda.is_available() or os.environ.get("VLMRM_FAST_REQUIRE_GPU") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
