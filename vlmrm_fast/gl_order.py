"""Keep triton ahead of Mesa: the order in which two copies of LLVM enter the process."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path


def load_triton() -> None:
    """Import triton before any GL context is made, or warn that it is too late.

    Triton binds to the LLVM of Mesa's software renderer if that is loaded first, and the process
    dies; `torch.optim`, which every learner needs, imports triton. Seen with Mesa 22.3 and triton
    3.9; the other order is safe.
    """
    if "triton" in sys.modules:
        return
    if mesa_is_loaded():
        warnings.warn(
            "OpenGL pictures were drawn by Mesa before triton was imported: importing it now, as "
            "torch.optim does, can crash the process. Put `import triton` before the first render.",
            stacklevel=3,
        )
        return
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401


def mesa_is_loaded() -> bool:
    """Say whether Mesa's LLVM is in this process.

    Returns:
        True if a shared libLLVM is mapped; False where that cannot be known.
    """
    try:
        return "libLLVM" in Path("/proc/self/maps").read_text()
    except OSError:
        return False
