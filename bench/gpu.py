"""Test and measure everything that needs an NVIDIA GPU, in one command; `make gpu` calls it.

    python bench/gpu.py                 tests, then every phase, within eight minutes
    python bench/gpu.py --only score    one phase, without the tests; repeat for more
    python bench/gpu.py --out FILE      figures to FILE instead of bench/results/gpu.json
    python bench/gpu.py --rehearse      every phase on the CPU, tiny, to see that it runs

Any interpreter with torch >= 2.10, triton >= 3.6, numpy and pytest will do: the package need not
be installed, and neither mujoco nor open_clip; parts that need them are skipped by name. Nothing
is fetched. `make gpu VENV= PYTHON=python3 GPU_FLAGS="--out FILE"` takes python3 as it is.

Each phase is a process of its own with a limit: one that fails (a fault in a kernel makes every
later CUDA call of its process fail) costs its own figures only. Figures are written after every
phase; a second run with --only replaces single phases in the same file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
# Name: module, function, arguments, limit [s]. The most telling first: time may run out.
PHASES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "bandwidth": ("gpu_kernels", "bandwidth", {}, 40),
    "preprocess": ("gpu_kernels", "preprocess", {}, 80),
    "score": ("gpu_kernels", "score", {}, 60),
    "add_layernorm": ("gpu_kernels", "add_layernorm", {}, 60),
    "ViT-L-14": ("gpu_towers", "tower", {"name": "ViT-L-14", "batches": (8, 64, 512)}, 70),
    "ViT-B-32": ("gpu_towers", "tower", {"name": "ViT-B-32", "batches": (8, 64, 512)}, 60),
    "loop ViT-L-14": ("gpu_loop", "loop", {"name": "ViT-L-14", "batches": (1, 16, 32, 128)}, 70),
    "tiles": ("gpu_kernels", "tiles", {}, 50),
    "compiled ViT-L-14": ("gpu_towers", "compiled", {"name": "ViT-L-14", "batch": 64}, 120),
    "ViT-bigG-14": ("gpu_towers", "tower", {"name": "ViT-bigG-14", "batches": (8, 64)}, 90),
    "ViT-H-14": ("gpu_towers", "tower", {"name": "ViT-H-14", "batches": (8, 64)}, 70),
    "quantize": ("gpu_kernels", "quantize", {}, 40),
    "reward_head": ("gpu_kernels", "reward_head", {}, 40),
    "attention": ("gpu_kernels", "attention", {}, 30),
    "epilogue": ("gpu_kernels", "epilogue", {}, 30),
    "visibility": ("gpu_kernels", "visibility", {}, 30),
    "compiled ViT-B-32": ("gpu_towers", "compiled", {"name": "ViT-B-32", "batch": 64}, 120),
}
# Their figures choose between ways of doing a thing; the table has no place for them.
SHOWN = ("tiles", "attention", "epilogue")
# One architecture stands for all: a rehearsal's tower is tiny.
REHEARSED = [name for name in PHASES if "ViT" not in name or name.endswith("L-14")]
KERNEL_TESTS = (
    "ops",
    "preprocess",
    "score",
    "add_layernorm",
    "reward_head",
    "quantize",
    "visibility",
)


def environment() -> dict[str, str]:
    """Return the environment of a child: this checkout and the tests' helpers importable."""
    paths = [str(ROOT), str(ROOT / "bench"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    joined = os.pathsep.join(path for path in paths if path)
    return {**os.environ, "PYTHONPATH": joined, "VLMRM_FAST_REQUIRE_GPU": "1"}


def link_kernels() -> None:
    """Make `vlmrm_fast.kernels` importable in a bare checkout, as `make setup` does."""
    link = ROOT / "vlmrm_fast" / "kernels"
    if not link.exists():
        link.symlink_to("../kernels")


def gpu_tests() -> tuple[list[str], dict[str, str]]:
    """Return the files with tests for a GPU, and those that lack a package here, with its name."""
    files, lacking = [f"tests/test_{name}.py" for name in KERNEL_TESTS], {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        name = str(path.relative_to(ROOT))
        if name in files or "mark.gpu" not in path.read_text():
            continue
        command = [sys.executable, "-c", f"import {path.stem}"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
        missing = re.search(r"No module named '([^']+)'\s*$", done.stderr)
        if missing:
            lacking[name] = missing[1]
        else:
            files.append(name)
    return files, lacking


def run_tests(limit: float) -> dict[str, Any]:
    """Run the kernels' tests on the GPU and those marked `gpu`; return the outcome."""
    files, lacking = gpu_tests()
    for name, package in lacking.items():
        print(f"skipped: {name} needs {package}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    # The kernels' tests are all marked where there is a GPU.
    command += ["-m", "gpu", "--durations=5"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(8, os.cpu_count() or 1))]  # compiling is what takes time
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True,
            timeout=limit, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        tail = (late.stdout or b"").decode(errors="replace")[-2000:]
        print(tail)
        return {"status": f"stopped after {limit:.0f} s", "tail": tail}
    print(done.stdout[-6000:], done.stderr[-1000:], flush=True)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return {
        "status": "passed" if done.returncode == 0 else f"failed ({done.returncode})",
        "summary": lines[-1] if lines else "",
        "failed": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
        "skipped": [line for line in lines if line.startswith("SKIPPED")],
        "lacking": lacking,
        "seconds": time.monotonic() - started,
    }


def run_phase(name: str, limit: float) -> dict[str, Any]:
    """Run one phase in a process of its own; return its figures or what went wrong."""
    command = [sys.executable, str(Path(__file__)), "--child", name]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True,
            timeout=limit, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"status": f"stopped after {limit:.0f} s"}
    took = time.monotonic() - started
    if done.returncode:
        return {"status": "failed", "error": done.stderr[-2000:], "seconds": took}
    return {"status": "ok", "seconds": took, **json.loads(done.stdout.splitlines()[-1])}


def measure(name: str, rehearse: bool) -> dict[str, Any]:
    """Run one phase in this process; return the machine and the figures."""
    import torch
    from gpu_kernels import describe
    from gpu_timing import Clock

    torch.manual_seed(0)
    clock = Clock(torch.device("cpu" if rehearse else "cuda"))
    module, function, options, _ = PHASES[name]
    options = {} if rehearse else options
    with torch.inference_mode():
        figures = getattr(importlib.import_module(module), function)(clock, rehearse, **options)
    return {"machine": describe(clock), "figures": figures}


def rehearse_phase(name: str) -> dict[str, Any]:
    """Run one phase here, on the CPU; any error is a fault of the phase."""
    started = time.monotonic()
    figures = measure(name, rehearse=True)
    return {"status": "ok", "seconds": time.monotonic() - started, **figures}


def main() -> int:
    """Run the tests and the phases; print the table.

    Returns:
        0 where everything ran, 1 where a test or a phase failed, 2 without a GPU.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(PHASES), help="one phase")
    parser.add_argument("--seconds", type=float, default=460, help="begin nothing after this")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny")
    parser.add_argument("--out", type=Path, help="where the figures go")
    parser.add_argument("--child", choices=sorted(PHASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    link_kernels()
    if arguments.child:
        print(json.dumps(measure(arguments.child, rehearse=False)))
        return 0
    if arguments.rehearse:
        # Before triton is imported: its kernels are interpreted then.
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
        sys.path[:0] = [str(ROOT), str(ROOT / "bench")]
    else:
        import torch

        if not torch.cuda.is_available():
            print("needs a CUDA device; --rehearse runs the same code, tiny, on the CPU")
            return 2
    out = arguments.out or RESULTS / ("rehearsal.json" if arguments.rehearse else "gpu.json")
    return run_all(arguments, out)


def run_all(arguments: argparse.Namespace, out: Path) -> int:
    """Run what was asked for, writing after every phase; return the exit status."""
    from gpu_table import gpu_table

    end = time.monotonic() + arguments.seconds
    results: dict[str, Any] = {"machine": {}, "phases": {}}
    if arguments.only and out.exists():
        results = json.loads(out.read_text())
    if not arguments.only and not arguments.rehearse:
        results["tests"] = run_tests(min(170, arguments.seconds))
    out.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or (REHEARSED if arguments.rehearse else PHASES):
        left = end - time.monotonic()
        limit = min(PHASES[name][3], left)
        phase: dict[str, Any] = {"status": "no time left"}
        if arguments.rehearse:
            phase = rehearse_phase(name)
        elif limit > 5:
            phase = run_phase(name, limit)
        results["machine"] = phase.pop("machine", results["machine"])
        results["phases"][name] = phase
        print(f"{name}: {phase['status']}, {phase.get('seconds', 0):.0f} s", flush=True)
        if name in SHOWN:
            for key, value in phase.get("figures", {}).items():
                print(f"    {key}: {json.dumps(value)}", flush=True)
        if "error" in phase:
            print(phase["error"], flush=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
    print(gpu_table(results))
    broken = [name for name, phase in results["phases"].items() if phase["status"] != "ok"]
    passed = results.get("tests", {}).get("status", "passed") == "passed"
    return 0 if passed and not broken else 1


if __name__ == "__main__":
    sys.exit(main())
