"""`vlmrm-fast doctor`: what this installation can do, how fast, and how to fix what it cannot."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# What pip installs, with the oldest version that works.
_PACKAGES = {
    "numpy": "2.0",
    "torch": "2.10",
    # MuJoCo 4 needs Python 3.11.
    "mujoco": "4.0" if sys.version_info >= (3, 11) else "3.17",
    "gymnasium": "1.4",
    "stable-baselines3": "2.8",
    "open_clip_torch": "3.3",
    "safetensors": "0.4",
    "av": "12",
}
_MEASURE_SECONDS = 1.0
_LOW_DISK_GIB = 5

_GL_PROBE = """
import mujoco
from vlmrm_fast._gl import GlDrawer
from vlmrm_fast._outputs import Output
model = mujoco.MjModel.from_xml_string("<mujoco/>")
drawer = GlDrawer(model, mujoco.MjvCamera(), Output.of((64, 64)))
drawer.render(mujoco.MjData(model))
print(drawer.driver.vendor, "|", drawer.driver.renderer, "|", drawer.driver.version)
"""
_TRITON_PROBE = """
import torch, triton, triton.language as tl
@triton.jit
def add_one(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)
x = torch.zeros(8, device="cuda")
add_one[(1,)](x, 8, BLOCK=16)
print(x.sum().item())
"""


@dataclass(frozen=True)
class DoctorConfig:
    """Check this installation and measure its speed."""

    json: bool = False
    """Print JSON instead of a table."""
    measure: bool = True
    """Measure frames and rewards a second, which takes a few seconds."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: "ok", "note" for what works but may surprise, "problem" for what does not work.
        value: what was found.
        fix: what to do about it; empty where there is nothing to do.
    """

    name: str
    status: Literal["ok", "note", "problem"]
    value: str
    fix: str = ""


def run_doctor(config: DoctorConfig) -> int:
    """Check, print, and say whether all is well.

    Args:
        config: how to print.

    Returns:
        The exit code: 0, or 1 where there is a problem.
    """
    findings = examine(measure=config.measure)
    healthy = all(finding.status != "problem" for finding in findings)
    if config.json:
        document = {"healthy": healthy, "findings": [dataclasses.asdict(f) for f in findings]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        from rich.console import Console

        Console().print(_table(findings))
    return 0 if healthy else 1


def examine(*, measure: bool = True) -> list[Finding]:
    """Look at everything; a check that fails becomes a finding.

    Args:
        measure: whether to measure speeds.

    Returns:
        The findings.
    """
    checks: list[Callable[[], Finding]] = [_python]
    checks += [functools.partial(_package, *item) for item in _PACKAGES.items()]
    checks += [_renderer, _cuda, _triton, _opengl, _builtin_model, _hub_cache, _disk]
    if measure:
        checks += [_frames_per_second, _rewards_per_second]
    return [_guarded(check) for check in checks]


def _guarded(check: Callable[[], Finding]) -> Finding:
    """Run a check; whatever it raises is its finding."""
    try:
        return check()
    except Exception as error:
        name = getattr(check, "__name__", "check").strip("_").replace("_", " ")
        text = f"{type(error).__name__}: {error}"
        return Finding(name, "problem", text, "Reinstall: pip install --force-reinstall vlmrm-fast")


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()}, {platform.platform()}")


def _package(name: str, least: str) -> Finding:
    """Check a package's version."""
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "problem", "not installed", f"pip install '{name}>={least}'")
    if _numbers(found) < _numbers(least):
        return Finding(name, "problem", found, f"pip install --upgrade '{name}>={least}'")
    return Finding(name, "ok", found)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    parts = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def _renderer() -> Finding:
    """Check the native renderer and its instruction set."""
    from vlmrm_fast import _core

    level, levels = str(_core.simd_level()), list(_core.simd_levels())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    value = f"ray, {level} (of {', '.join(levels)}), {cores} CPU cores"
    if level != levels[0]:
        fix = f"VLMRM_FAST_SIMD asks for {level}: unset it to draw faster."
        return Finding("renderer", "note", value, fix)
    if level in {"avx2", "avx512", "neon"}:
        return Finding("renderer", "ok", value)
    fix = "It works, several times slower: this CPU, or its virtual machine, offers no AVX2."
    return Finding("renderer", "note", value, fix)


def _cuda() -> Finding:
    """Look for a GPU."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("cuda", "ok", f"{', '.join(names)}, CUDA {torch.version.cuda}")
    built = torch.version.cuda or "none"
    fix = "Not needed for the built-in model. Large models want a GPU: check `nvidia-smi`."
    return Finding("cuda", "note", f"no GPU (torch is built for CUDA {built})", fix)


def _triton() -> Finding:
    """Compile one kernel where there is a GPU."""
    import torch

    try:
        found = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return Finding("triton", "note", "not installed", "Needed on a GPU: pip install triton")
    if not torch.cuda.is_available():
        return Finding("triton", "ok", f"{found}, not tried: no GPU")
    answer = _run_probe(_TRITON_PROBE)
    if answer.startswith("8.0"):
        return Finding("triton", "ok", f"{found}, compiles")
    fix = "Install a C compiler (gcc) and retry."
    return Finding("triton", "problem", f"{found}: {answer}", fix)


def _opengl() -> Finding:
    """Draw with OpenGL in a process of its own, since a broken driver may end it."""
    answer = _run_probe(_GL_PROBE)
    note = "Only the `gl` renderer, and environments that draw themselves, need it"
    if "|" not in answer:
        return Finding("opengl", "note", answer, f"{note}: apt install libegl1, or a GPU driver.")
    if any(word in answer.lower() for word in ("llvmpipe", "softpipe", "swrast")):
        return Finding("opengl", "note", f"{answer} (software)", f"{note}; it is slow here.")
    return Finding("opengl", "ok", answer)


def _run_probe(code: str) -> str:
    """Run code in a new process; return its first line, or how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        # A file, since Triton reads the source of its kernels.
        script = Path(folder) / "probe.py"
        script.write_text(code)
        command = [sys.executable, str(script)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return "no answer within 60 s"
    if done.returncode < 0:
        return f"the process died of {signal.Signals(-done.returncode).name}"
    if done.returncode > 0:
        return (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]
    return (done.stdout.strip().splitlines() or [""])[-1]


def _builtin_model() -> Finding:
    """Check that the built-in model is installed."""
    folder = Path(__file__).parent / "assets" / "builtin"
    weights = folder / "open_clip_model.safetensors"
    if not weights.is_file():
        fix = "Reinstall vlmrm-fast, or train it: vlmrm-fast pretrain"
        return Finding("built-in model", "problem", f"{weights} is missing", fix)
    return Finding("built-in model", "ok", f"{weights.stat().st_size / 2**20:.1f} MiB")


def _hub_cache() -> Finding:
    """Look at where downloaded models go."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    folder = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    place = folder
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        fix = "Set HF_HOME to a folder that you can write."
        return Finding("hub cache", "note", f"{folder} cannot be written", fix)
    count = len(list(folder.glob("models--*"))) if folder.exists() else 0
    return Finding("hub cache", "ok", f"{folder}, {count} models")


def _disk() -> Finding:
    """Look at the room for run folders."""
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    value = f"{free:.1f} GiB free in {Path.cwd()}"
    if free < _LOW_DISK_GIB:
        fix = "Large replay buffers do not fit: name another disk with --run-dir."
        return Finding("disk", "note", value, fix)
    return Finding("disk", "ok", value)


def _frames_per_second() -> Finding:
    """Measure drawing."""
    from vlmrm_fast.rendering import Renderer, Scene
    from vlmrm_fast.simulation import Simulation
    from vlmrm_fast.tasks import get_native_task

    task = get_native_task("cartpole-upright")
    simulation = Simulation(task.load_model(), 16)
    scene = Scene.from_model(simulation.model, task.camera)
    with Renderer(scene, 224, 224) as renderer:
        rate = _rate(lambda: renderer.render(simulation.poses), 16)
    return Finding("drawing", "ok", f"{rate:,.0f} frames/s (cartpole-upright at 224x224)")


def _rewards_per_second() -> Finding:
    """Measure scoring with the built-in model."""
    import numpy as np

    from vlmrm_fast.reward import VLMReward

    reward = VLMReward("builtin", goal="pole vertically upright on top of the cart")
    side = reward.image_size
    frames = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8)
    rate = _rate(lambda: reward.score(frames), 16)
    return Finding("scoring", "ok", f"{rate:,.0f} rewards/s (built-in model, {reward.device})")


def _rate(work: Callable[[], Any], count: int) -> float:
    """Return how often a second something is done that `work` does `count` times."""
    work()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < _MEASURE_SECONDS:
        work()
        done += count
    return done / (time.perf_counter() - start)


def _table(findings: list[Finding]) -> Any:
    """Return the findings as a table."""
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    table = Table(title="vlmrm-fast doctor")
    for heading in ("check", "", "found", "what to do"):
        table.add_column(heading)
    for item in findings:
        status = f"[{colours[item.status]}]{item.status}[/]"
        table.add_row(item.name, status, Text(item.value), Text(item.fix))
    return table
