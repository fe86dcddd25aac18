"""The package as it is shipped: what the wheel holds, what importing it costs and what it links."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vlmrm_fast

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel of this source tree."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(out), str(ROOT)], check=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_holds_kernels_assets_model_stub_and_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [n for n in names if n.endswith("entry_points.txt")]
        commands = archive.read(entry_points).decode()
    for expected in (
        "vlmrm_fast/kernels/__init__.py",
        "vlmrm_fast/kernels/reference.py",
        "vlmrm_fast/assets/tasks/cartpole_upright.xml",
        "vlmrm_fast/assets/builtin/open_clip_config.json",
        "vlmrm_fast/assets/builtin/open_clip_model.safetensors",
        "vlmrm_fast/py.typed",
        "vlmrm_fast/_core.pyi",
        "vlmrm_fast/cli.py",
    ):
        assert expected in names
    assert any(n.startswith("vlmrm_fast/_core.") and n.endswith(".so") for n in names)
    assert "vlmrm-fast = vlmrm_fast.cli:main" in commands
    assert not [n for n in names if n.startswith(("kernels/", "tests/", "bench/", "csrc/"))]


@pytest.mark.slow
def test_wheel_draws_a_frame_outside_the_source_tree(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import mujoco, vlmrm_fast\n"
        f"assert vlmrm_fast.__file__.startswith({str(site)!r}), vlmrm_fast.__file__\n"
        "model = vlmrm_fast.get_task('cartpole-upright').load_model()\n"
        "data = mujoco.MjData(model); mujoco.mj_forward(model, data)\n"
        "scene = vlmrm_fast.Scene.from_model(model)\n"
        "frame = vlmrm_fast.Renderer(scene, height=48, width=64).render(data)\n"
        "print(frame.shape, frame.std() > 5)\n"
    )
    # -S and an explicit path keep the development install out of the way.
    paths = [p for p in sys.path if p.endswith("site-packages")]
    result = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {paths!r}\n{program}"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(1, 48, 64, 3) True"


def test_import_loads_neither_torch_nor_mujoco_nor_gl():
    program = (
        "import sys, vlmrm_fast, vlmrm_fast.cli, vlmrm_fast.config\n"
        "heavy = {'torch', 'mujoco', 'OpenGL', 'open_clip', 'stable_baselines3', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_public_name_loads_and_unknown_ones_do_not():
    for name in vlmrm_fast.__all__:
        assert getattr(vlmrm_fast, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Rewards'"):
        _ = vlmrm_fast.Rewards


def test_extension_links_neither_torch_nor_cuda_nor_mujoco():
    import vlmrm_fast._core as core

    linked = subprocess.run(
        ["ldd", core.__file__], capture_output=True, text=True, check=True
    ).stdout
    assert "libc.so" in linked
    for library in ("torch", "cuda", "mujoco", "libGL", "libEGL"):
        assert library not in linked
