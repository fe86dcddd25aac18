"""Fixtures of every test: generators restored, GPU tests where there is a GPU, GL after triton."""

import json
import os
import random
import shutil

import numpy as np
import pytest

# MuJoCo's own renderer is the oracle of the parity tests; without a display it draws through EGL.
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Where there is no GPU, Triton's kernels run in its interpreter, chosen when triton is imported.
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A Mesa GL context made before triton is imported crashes the process: both bring an LLVM.
import triton

assert triton.__version__


def pytest_collection_modifyitems(items):
    """Skip GPU tests on machines without CUDA, unless VLMRM_FAST_REQUIRE_GPU demands them."""
    if torch.cuda.is_available() or os.environ.get("VLMRM_FAST_REQUIRE_GPU") == "1":
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def restored_generators():
    """Give every test the same random state and leave the outer one as it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(scope="session")
def untrained_folder(tmp_path_factory):
    """The built-in architecture with random weights, on disk; not to be changed."""
    from vlmrm_fast import clip

    folder = tmp_path_factory.mktemp("untrained")
    shutil.copy(clip.BUILTIN_FOLDER / clip.CONFIG_FILE, folder)
    torch.manual_seed(0)
    clip.save_model(clip.build_model(folder), folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A CLIP for 32 x 32 pixels with random weights, on disk; not to be changed."""
    from vlmrm_fast.clip import build_model, save_model

    folder = tmp_path_factory.mktemp("tiny")
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16}
            | {"head_width": 8},
            "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2}
            | {"layers": 1},
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_model(build_model(folder), folder)
    return str(folder)


@pytest.fixture(scope="module")
def oracle():
    """MuJoCo's renderer; skips where it cannot make an OpenGL context."""
    import mujoco
    from parity import Oracle

    with Oracle() as oracle:
        try:
            oracle.draw(mujoco.MjModel.from_xml_string("<mujoco/>"), [])
        except Exception as error:
            pytest.skip(f"mujoco.Renderer cannot draw here: {error}")
        yield oracle


@pytest.fixture
def one_torch_thread():
    """Tiny networks learn faster on one thread, much faster on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
