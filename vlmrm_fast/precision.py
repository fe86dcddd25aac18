"""Number formats of the image tower: what each is, and where it runs."""

from __future__ import annotations

import torch

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.layers import LinearMaker, PackedLinear, PlainLinear, can_pack, cpu_has_bf16
from vlmrm_fast.quantized import Int8Linear, fp8_linear, has_fp8, has_int8

PRECISIONS = ("auto", "bf16", "fp16", "fp32", "fp8", "int8")
# What activations are held in between the matrix products.
DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float32,
    "fp8": torch.bfloat16,  # torch's scaled products with one scale a row give nothing else
}
# These change matrix products alone: convolutions stay as they are.
QUANTISED = ("fp8", "int8")
# The precision whose products keep a dtype as it is.
EXACT = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_REASONS = {
    "fp16": "Towers in fp16 run at a fraction of the speed there.",
    "bf16": "This CPU has no instructions for bf16: it would run at a fraction of the speed.",
    "int8": "int8 runs on x86 CPUs, where torch has oneDNN.",
    "fp8": "fp8 needs a CUDA device of compute capability 9.0 or more.",
}


def usable_precisions(device: torch.device) -> list[str]:
    """Return the precisions that a device runs, sorted."""
    if device.type == "cuda":
        usable = ["fp32", "fp16", "bf16", *(["fp8"] if has_fp8(device) else [])]
    else:
        usable = ["fp32", *(["bf16"] if cpu_has_bf16() else []), *(["int8"] if has_int8() else [])]
    return sorted(usable)


def choose_precision(precision: str, device: torch.device) -> str:
    """Return the precision that a user's word means on a device.

    Args:
        precision: one of `PRECISIONS`; "auto" is fp32 on a CPU and fp16 on a GPU.
        device: where the tower runs.

    Returns:
        A key of `DTYPES`.

    Raises:
        ArgumentError: the word is unknown, or the device lacks the format.
    """
    if precision not in PRECISIONS:
        choices = ", ".join(PRECISIONS)
        raise ArgumentError(f"precision must be one of {choices}, got {precision!r}.")
    if precision == "auto":
        return "fp32" if device.type == "cpu" else "fp16"
    usable = usable_precisions(device)
    if precision not in usable:
        where = "a CPU" if device.type == "cpu" else "this GPU"
        raise ArgumentError(
            f"precision must be one of {', '.join(usable)} on {where}, got {precision!r}. "
            f"{_REASONS[precision]}"
        )
    return precision


def linear_maker(precision: str, device: torch.device) -> LinearMaker:
    """Return what makes the matrix products of a tower's blocks.

    Args:
        precision: a key of `DTYPES`.
        device: where they run.

    Returns:
        (weight, bias, activation) -> the product.
    """
    if precision == "int8":
        return Int8Linear
    if precision == "fp8":
        return fp8_linear
    native = precision == "fp32" or (precision == "bf16" and cpu_has_bf16())
    return PackedLinear if device.type == "cpu" and native and can_pack() else PlainLinear
