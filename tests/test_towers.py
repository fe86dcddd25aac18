"""Lean vision transformers against open_clip's own forward pass."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch.nn import functional

from vlmrm_fast import layers, towers, vit
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.kernels.reference import (
    ACTIVATIONS,
    OPENAI_MEAN,
    OPENAI_STD,
    Preprocessing,
    preprocess,
)
from vlmrm_fast.precision import usable_precisions
from vlmrm_fast.quantized import (
    Fp8Linear,
    Int8Linear,
    fp8_linear,
    has_fp8,
    has_int8,
    sums_exactly,
)

CPU = torch.device("cpu")
CONFIGS = Path(open_clip.__file__).parent / "model_configs"
# Every kind of vision transformer among open_clip's own: widths of heads from 64 to 104, both
# activations, LayerScale, mean pooling without the first normalisation. Two layers
# stand for all: the last differs from the others.
ARCHITECTURES = (
    "ViT-S-16-alt", "ViT-S-32", "ViT-M-16-alt", "ViT-M-32", "ViT-B-16", "ViT-B-32",
    "ViT-B-32-quickgelu", "ViT-B-16-plus-240", "ViT-B-32-256", "ViT-L-14", "ViT-L-14-CLIPA",
    "ViT-L-16-320", "ViT-H-14-quickgelu", "ViT-H-14-CLIPA", "ViT-g-14", "ViT-bigG-14",
    "xlm-roberta-base-ViT-B-32",
)  # fmt: skip


def vision_tower(name: str, num_layers: int = 3, size: int | None = None, **changes: Any) -> Any:
    """An open_clip tower with random weights, fewer layers and perhaps a smaller image."""
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    vision = {**config["vision_cfg"], "layers": num_layers, **changes}
    if size is not None:
        vision["image_size"] = size
    quick = config.get("quick_gelu", False)
    tower = _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**vision), quick)
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.ndim == 1:  # offsets and factors are 0 and 1 in an untrained model
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return tower.eval().requires_grad_(False)


def preprocessing(size: int) -> Preprocessing:
    return Preprocessing(size, OPENAI_MEAN, OPENAI_STD)


def frames(batch: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)


def expected(tower: Any, images: torch.Tensor, how: Preprocessing) -> torch.Tensor:
    with torch.inference_mode():
        return tower(preprocess(images, how))


def error(z: torch.Tensor, right: torch.Tensor) -> float:
    """Largest difference of unit rows."""
    unit = [rows.double() / rows.double().norm(dim=-1, keepdim=True) for rows in (z, right)]
    return float((unit[0] - unit[1]).abs().max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_lean_tower_equals_open_clips_forward(name: str) -> None:
    patch = json.loads((CONFIGS / f"{name}.json").read_text())["vision_cfg"]["patch_size"]
    tower = vision_tower(name, 2, size=3 * patch)
    how, images = preprocessing(3 * patch), frames(3, 3 * patch)
    right = expected(tower, images, how)
    lean = towers.build_tower(tower, CPU, "fp32")
    assert lean.engine == "lean"
    assert error(lean.encode(images, how), right) <= 2e-6


@pytest.mark.parametrize(("name", "size"), [("ViT-S-32", None), ("ViT-L-14", 224)])
def test_a_lean_tower_equals_open_clip_at_the_real_size(name: str, size: int | None) -> None:
    tower = vision_tower(name, 2, size)
    how, images = preprocessing(224), frames(2, 224)
    right = expected(tower, images, how)
    lean = vit.LeanViT(tower, CPU, torch.float32, layers.PlainLinear)
    assert error(lean.encode(images, how), right) <= 2e-6


CHANGES: list[dict[str, Any]] = [
    {"ls_init_value": 0.1},
    {"pool_type": "avg"},
    {"pool_type": "avg", "final_ln_after_pool": True},
    {"final_ln_after_pool": True},
    {"no_ln_pre": True},
    {"patch_dropout": 0.5},
    {"pos_embed_type": "sin_cos_2d"},
    {"act_kwargs": {"approximate": "tanh"}},
    {"norm_kwargs": {"eps": 1e-3}},
    {"mlp_ratio": 2.5},
    {"num_layers": 1},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_variants_of_the_vision_transformer_are_lean_too(changes: dict[str, Any]) -> None:
    tower = vision_tower("ViT-S-16", size=70, **changes)
    how, images = preprocessing(70), frames(5, 70)  # 70 = 4 patches of 16 and a rest
    right = expected(tower, images, how)
    lean = towers.build_tower(tower, CPU, "fp32")
    assert lean.engine == "lean"
    assert error(lean.encode(images, how), right) <= 2e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"attentional_pool": True},
        {"attentional_pool": "parallel"},
        {"qk_norm": True},
        {"scale_attn": True, "scale_fc": True},
        {"block_type": "custom"},
        {"pool_type": "none"},
    ],
    ids=str,
)
def test_other_vision_transformers_take_the_generic_path(changes: dict[str, Any]) -> None:
    tower = vision_tower("ViT-S-16", 2, 64, **changes)
    how, images = preprocessing(64), frames(2, 64)
    right = expected(tower, images, how)
    generic = towers.build_tower(tower, CPU, "fp32")
    assert generic.engine in {"eager", "packed"}
    assert error(generic.encode(images, how), right) <= 2e-6


@pytest.mark.parametrize(
    ("name", "pool", "engine"),
    [
        ("test_vit", "token", "packed"),
        ("test_vit2", "avg", "packed"),
        ("eva02_tiny_patch14_224", "token", "packed"),
        ("test_convnext", "avg", "packed"),
        ("test_efficientnet", "avg", "folded"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_timms_towers_stay_what_they_are(name: str, pool: str, engine: str, precision: str) -> None:
    vision = CLIPVisionCfg(
        timm_model_name=name, timm_model_pretrained=False, timm_pool=pool, timm_proj="linear",
        image_size=224 if "eva" in name else 160 if "vit" in name else 64,
    )  # fmt: skip
    tower = _build_vision_tower(32, vision, False).eval().requires_grad_(False)
    how = preprocessing(vision.image_size)
    images = frames(2, how.size)
    right = expected(tower, images, how)
    if precision == "int8" and not has_int8():
        pytest.skip("this CPU does not run int8")
    if precision == "int8" and engine == "folded":
        with pytest.raises(ArgumentError, match="no matrix products to quantise"):
            towers.build_tower(tower, CPU, precision)
        return
    built = towers.build_tower(tower, CPU, precision)
    if engine == "packed" and (precision == "fp16" or not layers.can_pack()):
        engine = "eager"
    assert built.engine == engine
    bounds = {"fp32": 2e-6, "int8": 2e-2, "fp16": 1e-2}
    assert error(built.encode(images, how), right) <= bounds[precision]


def test_a_coca_tower_gives_its_embedding_without_its_tokens() -> None:
    tower = vision_tower("coca_ViT-B-32", 2, 64)
    how, images = preprocessing(64), frames(2, 64)
    pooled, tokens = expected(tower, images, how)
    assert tokens.ndim == 3
    assert error(towers.build_tower(tower, CPU, "fp32").encode(images, how), pooled) <= 2e-6


def test_the_same_tower_serves_several_means_and_deviations() -> None:
    tower = vision_tower("ViT-S-32", 2, 64)
    images = frames(2, 64)
    first = preprocessing(64)
    second = dataclasses.replace(first, mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.3))
    right = [expected(tower, images, how) for how in (first, second, first)]
    lean = towers.build_tower(tower, CPU, "fp32")
    for how, z in zip((first, second, first), right, strict=True):
        assert error(lean.encode(images, how), z) <= 2e-6


@pytest.mark.parametrize(
    ("precision", "bound"), [("fp16", 2e-3), ("bf16", 1e-2), ("int8", 1e-2), ("fp8", 4e-2)]
)
@pytest.mark.parametrize("name", ["ViT-S-32", "ViT-L-14-CLIPA", "ViT-B-32-quickgelu"])
def test_short_formats_stay_close_to_float32(name: str, precision: str, bound: float) -> None:
    if precision == "int8" and not has_int8():
        pytest.skip("this CPU does not run int8")
    tower = vision_tower(name, 2, 56 if "14" in name else 128)
    how = preprocessing(tower.image_size[0])
    images = frames(4, how.size)
    right = expected(tower, images, how)
    short = towers.build_tower(tower, CPU, precision)
    assert short.precision == precision
    assert error(short.encode(images, how), right) <= bound


@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_products_in_8_bit_floats_stay_close_to_exact_ones(activation: str) -> None:
    weight, bias = torch.randn(48, 64), torch.randn(48)
    x = torch.randn(5, 7, 64).bfloat16()
    run = ACTIVATIONS[activation]
    short = weight.bfloat16(), bias.bfloat16()
    for ours, exact in (
        (Fp8Linear(*short, after=activation), run(functional.linear(x.float(), weight, bias))),
        (Fp8Linear(*short, before=activation), functional.linear(run(x.float()), weight, bias)),
    ):
        y = ours(x).float()
        assert y.shape == (5, 7, 48)
        # 2^-4 a factor at worst, averaged over 64 products.
        assert float((y - exact).norm() / exact.norm()) <= 0.06


def test_shapes_that_tensor_cores_do_not_take_stay_in_bfloat16() -> None:
    weight, x = torch.randn(20, 32).bfloat16(), torch.randn(3, 32).bfloat16()
    assert torch.equal(fp8_linear(weight, None, "none")(x), functional.linear(x, weight))


@pytest.mark.parametrize("levels", [127, 63])
def test_int8_products_stay_close_with_8_and_with_7_bits(
    levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_int8():
        pytest.skip("this CPU does not run int8")
    if levels == 127 and not sums_exactly():
        pytest.skip("this CPU sums products of 8 bits in 16")
    monkeypatch.setattr("vlmrm_fast.quantized.sums_exactly", lambda: levels == 127)
    weight, bias = torch.randn(40, 300), torch.randn(40)
    x = torch.randn(6, 5, 300) * torch.logspace(-3, 3, 5)[:, None]
    x[0, 0] = 0
    linear = Int8Linear(weight, bias, "gelu")
    assert linear.levels == levels
    exact = functional.gelu(functional.linear(x, weight, bias))
    assert torch.allclose(linear(x)[0, 0], exact[0, 0], atol=1e-6)
    # Every token to its own scale: the small ones lose no more than the large.
    error = (linear(x) - exact).norm(dim=-1) / exact.norm(dim=-1).clamp_min(1)
    assert float(error.max()) <= 3 / levels


def test_an_embedding_does_not_depend_on_its_batch() -> None:
    tower = vision_tower("ViT-S-32", 3, 96)
    how, images = preprocessing(96), frames(5, 96)
    for precision in ("fp32", "int8") if has_int8() else ("fp32",):
        built = towers.build_tower(tower, CPU, precision)
        together = built.encode(images, how)
        alone = torch.cat([built.encode(image[None], how) for image in images])
        assert error(together, alone) <= (1e-6 if precision == "fp32" else 5e-3)


def test_a_tower_without_products_to_quantise_is_refused() -> None:
    if not has_int8():
        pytest.skip("this CPU does not run int8")
    tower = vision_tower("RN50", size=64, layers=[1, 1, 1, 1])
    with pytest.raises(ArgumentError, match='precision must be "fp32" for this image tower'):
        towers.build_tower(tower, CPU, "int8")


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_open_clips_own_code_is_not_quantised(precision: str) -> None:
    tower = vision_tower("ViT-S-32", 1, 64)
    with pytest.raises(ArgumentError, match=f"engine must be \"auto\" for precision '{precision}'"):
        towers.build_tower(tower, CPU, precision, "eager")
    assert tower.conv1.weight.dtype == torch.float32  # nothing was cast before


def test_convolutions_are_exact_within_the_block_and_as_before_after_it() -> None:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision

    def fail() -> None:
        with towers.exact_convolutions():
            assert convolutions.fp32_precision == "ieee"
            raise RuntimeError("out of something")

    try:
        for setting in ("tf32", "ieee"):
            convolutions.fp32_precision = setting
            with pytest.raises(RuntimeError, match="out of something"):
                fail()
            assert convolutions.fp32_precision == setting
    finally:
        convolutions.fp32_precision = before


@pytest.mark.parametrize(("pool", "products"), [("tok", 3 * 4 - 2), ("avg", 3 * 4)])
def test_only_products_that_are_used_are_made(pool: str, products: int) -> None:
    made: list[torch.Size] = []

    def make(weight: torch.Tensor, *rest: Any) -> layers.Linear:
        made.append(weight.shape)
        return layers.PlainLinear(weight, *rest)

    tower = vision_tower("ViT-S-32", 3, 64, pool_type=pool)
    how, images = preprocessing(64), frames(2, 64)
    right = expected(tower, images, how)
    lean = vit.LeanViT(tower, CPU, torch.float32, make)
    assert len(made) == products
    assert error(lean.encode(images, how), right) <= 2e-6


@pytest.mark.parametrize("hip", [None, "7.0"])
def test_fp8_is_tried_before_it_is_promised(
    monkeypatch: pytest.MonkeyPatch, hip: str | None
) -> None:
    def missing(*_: object) -> torch.Tensor:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 4))
    monkeypatch.setattr(Fp8Linear, "__call__", missing if hip is None else lambda _, x: x)
    has_fp8.cache_clear()
    try:
        assert not has_fp8(CPU)
    finally:
        has_fp8.cache_clear()


OLD_CPU = """
import torch
from vlmrm_fast.quantized import Int8Linear, sums_exactly
torch.manual_seed(0)
weight = torch.ones(32, 512)
x = torch.cat([torch.ones(3, 512), torch.randn(3, 512)])
linear = Int8Linear(weight, None)
exact = x @ weight.T
print(sums_exactly(), linear.levels, bool(((linear(x) - exact).abs() <= 6).all()))
"""


def test_a_cpu_that_would_saturate_gets_7_bits() -> None:
    if not has_int8():
        pytest.skip("this CPU does not run int8")
    # oneDNN reads the limit when it is loaded.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", OLD_CPU]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "63", "True"]


def test_a_torch_without_the_packed_product_gets_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object) -> torch.Tensor:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(layers.PackedLinear, "__call__", missing)
    for test in (layers.can_pack, has_int8):
        test.cache_clear()
    try:
        assert usable_precisions(CPU) == ["fp32"]
        tower = vision_tower("ViT-S-32", 2, 64)
        images, how = frames(2, 64), preprocessing(64)
        right = expected(tower, images, how)
        assert error(towers.build_tower(tower, CPU, "fp32").encode(images, how), right) <= 2e-6
    finally:
        for test in (layers.can_pack, has_int8):
            test.cache_clear()
