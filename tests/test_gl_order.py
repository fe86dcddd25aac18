"""OpenGL, triton and a learner in one process, in every order that users meet.

Each order runs in a process of its own: the failure that it guards against is a segmentation fault.
"""

import os
import subprocess
import sys

import pytest

CONTEXT = """
import mujoco.egl
context = mujoco.egl.GLContext(8, 8)
context.make_current()
"""
WRAPPER = """
import gymnasium, numpy as np
from vlmrm_fast.envs import VLMRewardWrapper

class Constant:
    image_size = 16
    def score(self, frames):
        return np.ones(len(frames), np.float32)

env = VLMRewardWrapper(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), Constant())
"""
LEARNER = """
from stable_baselines3 import SAC
SAC("MlpPolicy", env, learning_starts=4, batch_size=4).learn(8)
"""


def run(code):
    environment = os.environ | {"MUJOCO_GL": "egl", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def egl():
    if run(f"import triton{CONTEXT}").returncode:
        pytest.skip("no EGL here: no GL context can be made")


def test_a_context_after_the_wrapper_leaves_the_learner_alive(egl):
    done = run(WRAPPER + CONTEXT + LEARNER)
    assert done.returncode == 0, done.stderr


def test_a_context_after_triton_leaves_the_learner_alive(egl):
    done = run("import triton" + CONTEXT + WRAPPER + LEARNER)
    assert done.returncode == 0, done.stderr


def test_a_context_before_triton_is_warned_of_where_mesa_draws(egl):
    probe = "from vlmrm_fast.gl_order import mesa_is_loaded\nprint(mesa_is_loaded())"
    if run(CONTEXT + probe).stdout.strip() != "True":
        pytest.skip("EGL is not Mesa's software renderer here")
    done = run(CONTEXT + WRAPPER + "print('alive')")
    assert done.stdout.strip() == "alive"
    assert "import triton` before the first render" in done.stderr
