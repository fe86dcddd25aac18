from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from vlmrm_fast import clip
from vlmrm_fast.errors import ArgumentError, ModelError, UnknownNameError
from vlmrm_fast.kernels.reference import Preprocessing, preprocess

CONFIG = clip.BUILTIN_FOLDER / clip.CONFIG_FILE
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
SIGLIP_LIKE = {
    "model_cfg": {
        "embed_dim": 24,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8,
            "pool_type": "avg",
        },
        "text_cfg": {**TEXT, "context_length": 16, "no_causal_mask": True, "pool_type": "last"},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic", "resize_mode": "squash",
    },
}  # fmt: skip
TIMM = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "test_resnet", "timm_model_pretrained": False,
            "timm_pool": "avg", "timm_proj": "linear", "image_size": 64,
        },
        "text_cfg": TEXT,
    }
}  # fmt: skip


def untrained(folder: Path, config: dict[str, Any] | None = None) -> Path:
    """Write a model with random weights and non-trivial batch statistics to `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / clip.CONFIG_FILE).write_text(json.dumps(config or json.loads(CONFIG.read_text())))
    torch.manual_seed(0)
    model = clip.build_model(folder)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    clip.save_model(model, folder)
    return folder


def frames(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("config", "engine"), [(None, "lean"), (SIGLIP_LIKE, "lean"), (TIMM, "folded")]
)
@pytest.mark.parametrize("shape", [(3, 0, 0), (2, 120, 90), (1, 30, 45)])
def test_embeddings_equal_open_clips_own_eager_path(
    tmp_path: Path, config: dict[str, Any] | None, engine: str, shape: tuple[int, int, int]
) -> None:
    folder = untrained(tmp_path, config)
    ours = clip.load_model(str(folder))
    size = ours.image_size
    images = frames(shape[0], shape[1] or size, shape[2] or size)
    theirs, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    theirs.eval()
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
        expected = theirs.encode_image(pixels, normalize=True)
        words = open_clip.get_tokenizer(f"local-dir:{folder}")(["a robot", "pole and cart"])
        expected_text = theirs.encode_text(words, normalize=True)
    assert ours.engine == engine
    # Without a resize only rounding differs; with one, some pixels differ by one level of 255.
    tolerance = 2e-6 if not shape[1] else 2e-3
    assert (ours.embed_images(torch.from_numpy(images)) - expected).abs().max() <= tolerance
    text = ours.embed_text(["a robot", "pole and cart"])
    assert (text - expected_text).abs().max() <= 1e-6
    assert ours.embed_dim == expected.shape[1]


@pytest.mark.parametrize("config", [None, SIGLIP_LIKE, TIMM])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_16_bit_towers_stay_close_to_32_bits(
    tmp_path: Path, config: dict[str, Any] | None, precision: str
) -> None:
    # Slow on a CPU and refused by VLMReward there; the same casts run on a GPU.
    folder = untrained(tmp_path, config)
    exact, short = (clip.load_model(str(folder), "cpu", bits) for bits in ("fp32", precision))
    images = torch.from_numpy(frames(3, exact.image_size, exact.image_size))
    bound = 2e-3 if precision == "fp16" else 2e-2
    assert short.embed_images(images).dtype == torch.float32
    assert (short.embed_images(images) - exact.embed_images(images)).abs().max() <= bound
    assert (short.embed_text(["a robot"]) - exact.embed_text(["a robot"])).abs().max() <= bound


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(480, 480), (400, 600), (100, 150), (97, 64), (30, 31)])
def test_pixels_are_within_one_level_of_open_clips_transform(
    mode: str, interpolation: str, shape: tuple[int, int]
) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    image = frames(1, *shape)
    how = Preprocessing(64, (0.0,) * 3, (1.0,) * 3, interpolation, mode, fill=9)
    config = PreprocessCfg(64, "RGB", how.mean, how.std, interpolation, mode, 9)
    expected = image_transform_v2(config, is_train=False)(Image.fromarray(image[0]))
    error = (preprocess(torch.from_numpy(image), how)[0] - expected).abs() * 255
    # PIL's weights are integers of 22 bits, and it may resample columns before rows.
    assert error.max() <= (1.01 if shape[0] <= shape[1] else 6)
    assert error.mean() <= 0.25


def test_a_weights_file_beside_its_configuration_loads_like_its_folder(tmp_path: Path) -> None:
    folder = untrained(tmp_path)
    by_folder = clip.load_model(str(folder))
    by_file = clip.load_model(str(folder / clip.WEIGHTS_FILE))
    image = torch.from_numpy(frames(2, 96, 96))
    assert torch.equal(by_folder.embed_images(image), by_file.embed_images(image))
    assert by_folder.weights_sha256 == by_file.weights_sha256
    assert len(by_folder.weights_sha256) == 64


def test_an_open_clip_name_takes_the_path_of_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = open_clip.create_model("RN50")
    path = tmp_path / "weights.safetensors"
    clip.save_model(theirs, tmp_path)
    (tmp_path / clip.WEIGHTS_FILE).rename(path)
    ours = clip.load_model(f"RN50/{path}")
    assert (ours.image_size, ours.embed_dim, ours.context_length) == (224, 1024, 77)
    assert ours.engine == "lean"
    assert ours.mean == clip.Preprocessing(224, ours.mean, ours.std).original().mean


def test_quickgelu_weights_get_their_activation_whatever_the_name() -> None:
    tag = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    assert clip.model_options(clip.resolve_model("ViT-B-32/openai"))["force_quick_gelu"]
    assert tag["quick_gelu"]
    laion = clip.resolve_model("ViT-B-32/laion2b_s34b_b79k")
    assert not clip.model_options(laion)["force_quick_gelu"]


def test_saved_weights_are_half_precision_and_replace_atomically(tmp_path: Path) -> None:
    folder = untrained(tmp_path)
    size = (folder / clip.WEIGHTS_FILE).stat().st_size
    assert size <= 16e6
    clip.save_model(clip.build_model(folder), folder)
    assert {file.name for file in folder.iterdir()} == {clip.CONFIG_FILE, clip.WEIGHTS_FILE}


def test_tokenizer_counts_marks_and_quotes_what_would_be_cut(tmp_path: Path) -> None:
    tokenize = clip.build_tokenizer(untrained(tmp_path))
    assert tokenize(["pole and cart", "cart"]).shape == (2, 32)
    assert tokenize.count("pole and cart") == 5
    prompt = " ".join(["cart"] * 30)
    assert tokenize.count(prompt) == 32
    tokenize([prompt])
    with pytest.raises(ArgumentError, match=r"at most 32 tokens long, got 34.*'upright pole'"):
        tokenize([f"{prompt} upright pole"])
    with pytest.raises(ArgumentError, match=r"would ignore 'x{400}'"):
        tokenize(["x" * 400])


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        ("ViT-B32/openai", UnknownNameError, "Did you mean 'ViT-B-32'"),
        ("vit-b-32/openai", UnknownNameError, "Did you mean 'ViT-B-32'"),
        ("no such thing", UnknownNameError, "model must be one of open_clip's"),
        ("ViT-B-32", ArgumentError, "Pretrained weights of ViT-B-32: .*openai"),
        ("ViT-B-32/opnai", UnknownNameError, "Did you mean 'openai'"),
        ("ViT-B-32/no/such.pt", UnknownNameError, "pretrained weights of ViT-B-32 must be one of"),
        ("/no/such/folder", ModelError, "existing folder or weights file"),
        ("hf-hub:nameonly", ArgumentError, "hf-hub:ORG/NAME"),
        ("", ArgumentError, "non-empty string"),
        (None, ArgumentError, "non-empty string"),
    ],
)
def test_wrong_model_names_are_refused_with_the_fix(
    model: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        clip.resolve_model(model)


def test_folders_without_configuration_or_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds open_clip_config\.json"):
        clip.resolve_model(str(tmp_path))
    (tmp_path / clip.CONFIG_FILE).write_text(CONFIG.read_text())
    with pytest.raises(ModelError, match="with a checkpoint"):
        clip.resolve_model(str(tmp_path))


def test_broken_files_give_one_model_error(tmp_path: Path) -> None:
    folder = untrained(tmp_path)
    weights = folder / clip.WEIGHTS_FILE
    whole = weights.read_bytes()
    for broken in (b"", whole[:1000], b"\x00" * 5000):
        weights.write_bytes(broken)
        with pytest.raises(ModelError, match="cannot be read"):
            clip.load_model(str(folder))
    weights.write_bytes(whole)
    config = json.loads(CONFIG.read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 32
    (folder / clip.CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"cannot be read: .*"):
        clip.load_model(str(folder))
    (folder / clip.CONFIG_FILE).write_text("{")
    with pytest.raises(ModelError, match=r"the tokenizer|the model"):
        clip.load_model(str(folder))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    folder = untrained(tmp_path)
    (folder / clip.WEIGHTS_FILE).unlink()

    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="neither safetensors nor a checkpoint of plain tensors"):
        clip.load_model(str(folder))
    assert not (tmp_path / "ran").exists()


OFFLINE = """
from vlmrm_fast import VLMReward
for model in ("ViT-B-32/openai", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"):
    try:
        VLMReward(model, goal="a robot")
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_an_unreachable_hub_gives_one_error_that_says_what_to_do(tmp_path: Path) -> None:
    # Offline and with an empty cache: huggingface_hub reads both when it is imported.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env=environment, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("ModelError the ")
        assert "cannot be fetched" in line
        assert 'use model="builtin"' in line
    assert done.stderr == ""


FOLDER_TOKENIZER = """
import sys, vlmrm_fast.clip as clip
from huggingface_hub import constants
import open_clip
seen = []
open_clip.get_tokenizer = lambda name: seen.append(constants.HF_HUB_OFFLINE) or 1 / 0
for model in sys.argv[1:]:
    try:
        clip.load_tokenizer(clip.resolve_model(model))
    except Exception as error:
        assert "division" in str(error), error
print(seen, constants.HF_HUB_OFFLINE)
"""


def test_a_folders_tokenizer_never_asks_the_hub(tmp_path: Path) -> None:
    # No hub answers at this address: with a name whose tokenizer is part of open_clip nobody asks.
    folder = untrained(tmp_path)
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", FOLDER_TOKENIZER, str(folder), "ViT-B-32/openai"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, False] False"


def test_a_hub_that_refuses_connections_is_found_out_at_once() -> None:
    code = "from vlmrm_fast import hub; print(hub.hub_answers())"
    environment = {
        key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")
    }
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="it is there")
def test_a_missing_tokenizer_package_is_named() -> None:
    with pytest.raises(ModelError, match="pip install transformers"):
        clip.load_tokenizer(clip.resolve_model("ViT-B-16-SigLIP/webli"))


def test_a_model_that_does_not_fit_into_memory_is_no_network_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = untrained(tmp_path)

    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("open_clip.create_model", full)
    with pytest.raises(ModelError, match=r"must fit into memory.*Use a smaller model"):
        clip.load_model(str(folder))


def test_a_tower_that_does_not_fit_into_a_gpus_memory_is_no_raw_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = untrained(tmp_path)

    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(clip, "build_tower", full)
    with pytest.raises(ModelError, match=r"must fit into memory.*Use a smaller model"):
        clip.load_model(str(folder))


def test_the_text_tower_leaves_the_gpu_where_prompts_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = clip.load_model(str(untrained(tmp_path)))
    moves: list[object] = []

    def fail(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def move(device: object) -> torch.nn.Module:
        moves.append(device)
        return model._module

    monkeypatch.setattr(model._module, "to", move)
    monkeypatch.setattr(model._module, "encode_text", fail)
    with pytest.raises(torch.OutOfMemoryError):
        model.embed_text(["a robot"])
    assert moves == [model.device, "cpu"]
