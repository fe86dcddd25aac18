"""Pytest plugin and import hook: put another build of the native module in place of the installed.

The sanitizers' builds lie outside of the package; `VLMRM_FAST_TEST_CORE` names their folder.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path


def load(folder: str) -> None:
    """Make `vlmrm_fast._core` the build in `folder`."""
    (path,) = Path(folder).glob("_core*.so")
    spec = importlib.util.spec_from_file_location("vlmrm_fast._core", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vlmrm_fast._core"] = module
    spec.loader.exec_module(module)


if os.environ.get("VLMRM_FAST_TEST_CORE"):
    load(os.environ["VLMRM_FAST_TEST_CORE"])
