"""Compile every kernel ahead of time, without a GPU, and read off what it uses.

    python tests/kernel_budget.py           print what differs from tests/kernel_budget.json
    python tests/kernel_budget.py --write   accept the present figures

The launchers themselves run, on CPU tensors, with a driver that knows only the target: so what is
compiled is what they would launch, with their specialisations.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from vlmrm_fast.kernels import (
    add_layernorm,
    preprocess,
    quantize,
    raycast,
    reference,
    score,
    visibility,
)
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing

FILE = Path(__file__).with_suffix(".json")
TARGETS = (80, 90, 100)
MATRIX = re.compile(r"\b(wgmma\.mma_async|tcgen05\.mma|mma\.sync)\b")
SPILL = re.compile(r"\b(STL|LDL)\b")


class Target:
    """A driver that only says what to compile for."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)


def cases(arch: int) -> dict[str, Callable[[], Any]]:
    """Launches at the shapes of CLIP's towers, by name."""
    half, size = torch.float16, 224
    how = Preprocessing(size, OPENAI_MEAN, OPENAI_STD)
    drawn, paper = (torch.zeros(2, side, side, 3, dtype=torch.uint8) for side in (size, 480))
    tokens = {"layout": "tokens", "patch": 14, "raw": True}
    rows, width = torch.zeros(64, 50, 1024, dtype=half), 1024
    norm = torch.ones(width, dtype=half), torch.zeros(width, dtype=half), 1e-5

    def tasks(prompts: int) -> reference.Tasks:
        goal = torch.nn.functional.normalize(torch.ones(prompts, width), dim=-1)
        return reference.make_tasks(goal, None, torch.zeros(prompts)).to("cpu")

    shapes = raycast.Shapes(
        torch.zeros(20, dtype=torch.int32), torch.ones(20, 3), torch.zeros(2, 20, 3),
        torch.zeros(2, 20, 3, 3),
    )  # fmt: skip
    return {
        "visibility": lambda: visibility.visibility(shapes, size, size, 0.4),
        "permute nchw": lambda: preprocess.preprocess(drawn, how, half),
        "permute tokens": lambda: preprocess.preprocess(drawn, how, half, **tokens),
        "resize tokens": lambda: preprocess.preprocess(paper, how, half, **tokens),
        "resize compat nchw": lambda: preprocess.preprocess(paper, how.original(), half),
        # 8-bit floats begin with sm_90.
        **({} if arch < 90 else {"quantize gelu": lambda: quantize.quantize(rows, "gelu")}),
        "score 1": lambda: score.score(rows[:, 0], tasks(1)),
        "score 3": lambda: score.score(rows[:, 0], tasks(3)),
        "score 16": lambda: score.score(rows[:, 0], tasks(16)),
        "score 256": lambda: score.score(rows[:, 0], tasks(256)),
        "score 256 many": lambda: score.score(rows.view(-1, width), tasks(256)),
        "layernorm fp16": lambda: add_layernorm.add_layernorm(rows[:, 0], None, *norm),
        "add_layernorm fp16": lambda: add_layernorm.add_layernorm(rows, rows, *norm),
        "add_layernorm fp32 to fp16": lambda: add_layernorm.add_layernorm(
            rows.float(), rows, *norm
        ),
    }


def compile_all(arch: int) -> dict[str, Any]:
    """Return the compiled kernel of every case for one architecture."""
    launch = JITFunction.run
    compiled: list[Any] = []

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled.append(launch(self, *args, grid=grid, warmup=True, **options))

    driver.set_active(Target(arch))
    JITFunction.run = only_compile
    kernels = {}
    try:
        for name, case in cases(arch).items():
            compiled.clear()
            case()
            (kernels[name],) = compiled
    finally:
        JITFunction.run = launch
    return kernels


def resources(kernel: Any) -> dict[str, Any]:
    """Return registers, bytes of shared memory and stack, spills and the matrix instruction."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = dump("--dump-resource-usage", file.name)
        stack = int(re.findall(r"STACK:(\d+)", text)[-1])
        # Spills need a stack; disassembling every kernel to count none would take half a minute.
        spills = len(SPILL.findall(dump("--dump-sass", file.name))) if stack else 0
    return {
        "registers": int(re.findall(r"REG:(\d+)", text)[-1]),
        "shared": kernel.metadata.shared,
        "stack": stack,
        "spills": spills,
        "matrix": (MATRIX.findall(kernel.asm["ptx"]) or [""])[0],
    }


def dump(what: str, file: str) -> str:
    """Return what Triton's own cuobjdump prints about a file."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run([str(tool), what, file], check=True, capture_output=True, text=True)
    return done.stdout


def measure() -> dict[str, dict[str, Any]]:
    """Return the resources of every case and target."""
    return {
        f"sm_{arch} {name}": resources(kernel)
        for arch in TARGETS
        for name, kernel in compile_all(arch).items()
    }


def main() -> int:
    """Compare with the committed budget, or replace it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="accept the present figures")
    write = parser.parse_args().write
    found = measure()
    committed = json.loads(FILE.read_text())
    budget = committed["kernels"]
    # Another compiler allocates otherwise; spills and matrix units must be the same in all.
    same = triton.__version__ == committed["triton"]
    keys = None if same else ("stack", "spills", "matrix")
    different = [
        name
        for name, used in found.items()
        if any(used[key] != budget.get(name, {}).get(key) for key in keys or used)
    ]
    for name in different:
        print(f"{name}: {found[name]}, committed {budget.get(name)}")
    if write:
        lines = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(used)}" for name, used in found.items()
        )
        FILE.write_text(f'{{"triton": "{triton.__version__}", "kernels": {{\n{lines}\n}}}}\n')
        return 0
    return 1 if different or set(budget) != set(found) else 0


if __name__ == "__main__":
    sys.exit(main())
