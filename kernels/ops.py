"""The ops of the reward path: Triton kernels on CUDA devices, their PyTorch twins elsewhere.

Each is registered with torch under the namespace `vlmrm_fast`, with shapes for tracing: they work
under torch.compile(fullgraph=True), torch.export and CUDA graphs. Nothing here has a gradient.
Where triton is not installed, CUDA tensors take the twins too.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vlmrm_fast.kernels import reference
from vlmrm_fast.kernels.reference import Preprocessing, Tasks

LAYOUTS = ("nchw", "tokens")


@functools.cache
def has_triton() -> bool:
    """Tell whether triton is installed; imports nothing."""
    return importlib.util.find_spec("triton") is not None


def preprocess(
    frames: Tensor,
    how: Preprocessing,
    dtype: torch.dtype = torch.float32,
    *,
    layout: str = "nchw",
    patch: int = 0,
    raw: bool = False,
) -> Tensor:
    """Resize and normalise frames; see `reference.preprocess`.

    Returns:
        The pixels, on the device of `frames`.

    Raises:
        ValueError: frames, layout or patch that cannot be used.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames must be (B, H, W, 3) uint8, got {tuple(frames.shape)} {_name(frames.dtype)}."
        )
    if frames.shape[1] < 1 or frames.shape[2] < 1:
        raise ValueError(f"frames must have pixels in them, got {tuple(frames.shape)}.")
    _check_float("dtype", dtype)
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}.")
    if layout == "tokens" and not 1 <= patch <= how.size:
        raise ValueError(f"patch must be in 1 ... {how.size} for tokens, got {patch}.")
    return torch.ops.vlmrm_fast.preprocess(frames, *_plain(how), dtype, layout, patch, raw)


def score(z: Tensor, tasks: Tasks) -> Tensor:
    """Compute P rewards for each embedding; see `reference.score`.

    Returns:
        (B, P) rewards, in the dtype of `tasks`.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    _check_float("z", z.dtype)
    if z.ndim != 2 or z.shape[1] != tasks.goal.shape[1]:
        raise ValueError(f"z must be (B, {tasks.goal.shape[1]}), got {tuple(z.shape)}.")
    _check_device("tasks", tasks.goal, z)
    return torch.ops.vlmrm_fast.score(z, *tasks)


def add_layernorm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Add a residual and normalise rows; see `reference.add_layernorm`.

    Returns:
        The sum (`x` itself without a residual) and the normalised rows.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    _check_norm("x", x, weight, bias)
    if residual is None:
        return x, torch.ops.vlmrm_fast.layernorm(x, weight, bias, eps)
    _check_float("residual", residual.dtype)
    if residual.shape != x.shape:
        raise ValueError(f"residual must be {tuple(x.shape)}, got {tuple(residual.shape)}.")
    _check_device("residual", residual, x)
    return torch.ops.vlmrm_fast.add_layernorm(x, residual, weight, bias, eps)


def quantize(x: Tensor, activation: str = "none") -> tuple[Tensor, Tensor]:
    """Apply an activation and round rows to 8-bit floats; see `reference.quantize`.

    Returns:
        The rows, (M, K) float8_e4m3fn, and their scales, (M, 1) float32.

    Raises:
        ValueError: another dtype or activation, or no columns.
    """
    _check_float("x", x.dtype)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x must be (..., K) with columns, got {tuple(x.shape)}.")
    if activation not in reference.ACTIVATIONS:
        known = ", ".join(sorted(reference.ACTIVATIONS))
        raise ValueError(f"activation must be one of {known}, got {activation!r}.")
    return torch.ops.vlmrm_fast.quantize(x, activation)


def reward_head(
    rows: Tensor, weight: Tensor, bias: Tensor, eps: float, projection: Tensor, tasks: Tasks
) -> Tensor:
    """Score pooled rows of an image tower; see `reference.reward_head`.

    Returns:
        (B, P) rewards, in the dtype of `tasks`.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    if rows.ndim != 2:
        raise ValueError(f"rows must be (B, W), got {tuple(rows.shape)}.")
    _check_norm("rows", rows, weight, bias)
    expected = (rows.shape[1], tasks.goal.shape[1])
    if tuple(projection.shape) != expected or projection.dtype != weight.dtype:
        raise ValueError(
            f"projection must be {expected} {_name(weight.dtype)}, got "
            f"{tuple(projection.shape)} {_name(projection.dtype)}."
        )
    _check_device("projection", projection, rows)
    _check_device("tasks", tasks.goal, rows)
    return torch.ops.vlmrm_fast.reward_head(rows, weight, bias, eps, projection, *tasks)


def _check_norm(name: str, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Refuse rows, factors and offsets of a normalisation that do not fit each other."""
    _check_float(name, x.dtype)
    _check_float("weight", weight.dtype)
    width = (x.shape[-1],) if x.ndim else (1,)
    if weight.shape != width:
        raise ValueError(f"weight must be {width}, got {tuple(weight.shape)}.")
    if bias.shape != width or bias.dtype != weight.dtype:
        raise ValueError(
            f"bias must be {width} {_name(weight.dtype)}, got "
            f"{tuple(bias.shape)} {_name(bias.dtype)}."
        )
    _check_device("weight", weight, x)


def _check_float(name: str, dtype: torch.dtype) -> None:
    """Refuse a dtype that is not one of the floating-point ones."""
    if not dtype.is_floating_point:
        raise ValueError(f"{name} must be floating-point, got {_name(dtype)}.")


def _check_device(name: str, tensor: Tensor, other: Tensor) -> None:
    """Refuse tensors of different devices."""
    if tensor.device != other.device:
        raise ValueError(
            f"{name} must be on {other.device}, got {tensor.device}. "
            f"Move it: {name}.to({str(other.device)!r})."
        )


def _name(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def _plain(how: Preprocessing) -> tuple[Any, ...]:
    """Return a Preprocessing as the numbers and strings that an op's schema knows."""
    return (
        how.size, how.mean, how.std, how.interpolation, how.resize_mode, how.fill, how.antialias,
    )  # fmt: skip


def _how(values: Sequence[Any]) -> Preprocessing:
    """Undo `_plain`; a schema's lists come as lists."""
    size, mean, std, *rest = values
    return Preprocessing(size, tuple(mean), tuple(std), *rest)


_TASKS = "Tensor goal, Tensor line, Tensor offset, Tensor weight, Tensor shift"
_NORM = "Tensor weight, Tensor bias, float eps"
_HOW = "int size, float[] mean, float[] std, str interpolation, str resize_mode, int fill, bool aa"


def _register(
    name: str,
    schema: str,
    make: Callable[[ModuleType], Callable[..., Any]],
    fake: Callable[..., Any],
) -> Any:
    """Register an op: its twin for every device, its kernel for CUDA, shapes for tracing.

    Args:
        name: of the op and of the module with its kernel.
        schema: what torch checks calls against.
        make: the op's function, of the module that it calls: the twin's or the kernel's.
        fake: shapes, dtypes and strides.

    Returns:
        The op.
    """
    twin = make(reference)
    op = torch.library.custom_op(f"vlmrm_fast::{name}", twin, mutates_args=(), schema=schema)
    op.register_fake(fake)

    @functools.cache
    def kernel() -> Callable[..., Any]:
        # Only a CUDA tensor needs triton's compiler.
        home = "add_layernorm" if name == "layernorm" else name
        return make(importlib.import_module(f"vlmrm_fast.kernels.{home}"))

    op.register_kernel("cuda")(lambda *args: (kernel() if has_triton() else twin)(*args))
    return op


def _make_preprocess(home: Any) -> Callable[..., Tensor]:
    def run(frames: Tensor, *values: Any) -> Tensor:
        *how, dtype, layout, patch, raw = values
        return home.preprocess(frames, _how(how), dtype, layout=layout, patch=patch, raw=raw)

    return run


def _fake_preprocess(frames: Tensor, *values: Any) -> Tensor:
    (size, *_), (dtype, layout, patch, _) = values[:-4], values[-4:]
    if layout == "tokens":
        return frames.new_empty(frames.shape[0], (size // patch) ** 2, 3 * patch**2, dtype=dtype)
    shape = (frames.shape[0], size, size, 3)
    return frames.new_empty(shape, dtype=dtype).permute(0, 3, 1, 2)


def _make_score(home: Any) -> Callable[..., Tensor]:
    return lambda z, *tasks: home.score(z, Tasks(*tasks))


def _fake_score(z: Tensor, goal: Tensor, *_: Tensor) -> Tensor:
    return z.new_empty(z.shape[0], goal.shape[0], dtype=goal.dtype)


def _make_layernorm(home: Any) -> Callable[..., Tensor]:
    return lambda x, *norm: home.add_layernorm(x, None, *norm)[1]


def _fake_layernorm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape, dtype=weight.dtype)


def _fake_add_layernorm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, residual.dtype)
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape, dtype=weight.dtype)


def _fake_quantize(x: Tensor, _: str) -> tuple[Tensor, Tensor]:
    rows = x.reshape(-1, x.shape[-1])
    scale = x.new_empty(rows.shape[0], 1, dtype=torch.float32)
    return torch.empty_like(rows, dtype=torch.float8_e4m3fn).contiguous(), scale


def _make_reward_head(home: Any) -> Callable[..., Tensor]:
    return lambda *values: home.reward_head(*values[:5], Tasks(*values[5:]))


def _fake_reward_head(rows: Tensor, *values: Any) -> Tensor:
    return _fake_score(rows, values[4])


_preprocess = _register(
    "preprocess",
    f"(Tensor frames, {_HOW}, ScalarType dtype, str layout, int patch, bool raw) -> Tensor",
    _make_preprocess,
    _fake_preprocess,
)
_score = _register("score", f"(Tensor z, {_TASKS}) -> Tensor", _make_score, _fake_score)
_layernorm = _register(
    "layernorm", f"(Tensor x, {_NORM}) -> Tensor", _make_layernorm, _fake_layernorm
)
_add_layernorm = _register(
    "add_layernorm",
    f"(Tensor x, Tensor residual, {_NORM}) -> (Tensor, Tensor)",
    lambda home: home.add_layernorm,
    _fake_add_layernorm,
)
_quantize = _register(
    "quantize",
    "(Tensor x, str activation) -> (Tensor, Tensor)",
    lambda home: home.quantize,
    _fake_quantize,
)
_reward_head = _register(
    "reward_head",
    # "norm_": a task has a weight too.
    f"(Tensor rows, Tensor norm_weight, Tensor norm_bias, float eps, Tensor projection, {_TASKS})"
    " -> Tensor",
    _make_reward_head,
    _fake_reward_head,
)
