"""The pool that draws: what a call throws reaches the caller, and the pool goes on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
PROGRAM = """
#include <atomic>
#include <cstdio>
#include <stdexcept>
#include "thread_pool.h"

int main() {
  for (int num_threads : {1, 2, 5}) {
    vlmrm::ThreadPool pool(num_threads);
    for (int round = 0; round < 200; ++round) {
      try {
        pool.run(50, [&](int, int i) { if (i % 20 == round % 20) throw std::bad_alloc(); });
        return 1;
      } catch (const std::bad_alloc&) {
      }
      std::atomic<int> sum{0};
      pool.run(50, [&](int, int i) { sum += i; });
      if (sum != 49 * 25) return 2;
    }
  }
  std::puts("thrown here, and drawn after it");
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_what_a_worker_throws_reaches_the_caller(tmp_path: Path) -> None:
    source, program = tmp_path / "pool.cc", tmp_path / "pool"
    source.write_text(PROGRAM)
    files = [str(source), str(CSRC / "thread_pool.cc"), "-o", str(program)]
    subprocess.run(["g++", "-std=c++17", "-pthread", f"-I{CSRC}", *files], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "thrown here, and drawn after it\n")
