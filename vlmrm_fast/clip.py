"""Vision-language models: any of open_clip's, a local folder's, or the built-in one.

open_clip is imported only inside functions: that takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vlmrm_fast.errors import ModelError
from vlmrm_fast.hub import clear_errors, enough_memory, file_sha256
from vlmrm_fast.kernels.reference import Preprocessing
from vlmrm_fast.model_sources import BUILTIN_FOLDER as BUILTIN_FOLDER
from vlmrm_fast.model_sources import CONFIG_FILE, WEIGHTS_FILE, ModelSource, resolve_model
from vlmrm_fast.prompts import PromptTokenizer
from vlmrm_fast.towers import build_tower

ENGINES = ("auto", "eager")

# CLIP's training stops the factor here; nearly all models end at it.
_DEFAULT_SCALE = 100.0


def load_tokenizer(source: ModelSource) -> PromptTokenizer:
    """Return a model's own tokenizer; reads no weights.

    Args:
        source: from `resolve_model`.

    Returns:
        The tokenizer, which counts tokens before it cuts.
    """
    import open_clip

    folder = source.name.startswith("local-dir:")
    local = folder or not _hub_tokenizer(source.name)
    with clear_errors(source.model, "the tokenizer", local, offline=folder):
        if source.name.startswith("hf-hub:"):
            # Without its configuration open_clip would fall back to another tokenizer.
            _download(source.name, CONFIG_FILE)
        return PromptTokenizer(open_clip.get_tokenizer(source.name))


def _hub_tokenizer(name: str) -> bool:
    """Tell whether open_clip fetches the tokenizer of a model from the hub."""
    import open_clip

    if name.startswith("hf-hub:") or "siglip" in name.lower():
        return True
    config = open_clip.get_model_config(name) or {}
    return bool(config.get("text_cfg", {}).get("hf_tokenizer_name"))


class LoadedModel:
    """A vision-language model ready for inference: frames and prompts to embeddings.

    Build it with `load_model`. Not thread-safe.

    Attributes:
        model_id: what the user wrote.
        image_size: side S of the input [pixels].
        mean, std, interpolation, resize_mode: the model's own preprocessing.
        context_length: longest prompt [tokens].
        embed_dim: width D of an embedding.
        device, precision: where and in which format the image tower runs.
        logit_scale: factor on cosines in the softmax that the model was trained with.
        tower: the image tower, see `towers.ImageTower`.
        engine: form of the image tower: "eager", "folded", "packed" or "lean".
        wanted_engine: what was asked for, one of `ENGINES`.

    The text tower stays on the CPU in float32; a GPU holds it only while prompts are embedded.
    """

    def __init__(
        self, source: ModelSource, module: Any, device: torch.device, precision: str, engine: str
    ) -> None:
        config = module.visual.preprocess_cfg
        size = config["size"]
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) != 1:
            raise ModelError(f"model must take square images, got {size} in {source.model!r}.")
        self.model_id = source.model
        self.source = source
        self.image_size: int = sides.pop()
        self.mean = _triple(config["mean"])
        self.std = _triple(config["std"])
        self.interpolation: str = _known_interpolation(config["interpolation"])
        self.resize_mode: str = config["resize_mode"]
        self.preprocessing = Preprocessing(
            self.image_size, self.mean, self.std, self.interpolation, self.resize_mode,
            config.get("fill_color", 0),
        )  # fmt: skip
        self.device, self.precision = device, precision
        self.tokenizer = load_tokenizer(source)
        self.context_length = self.tokenizer.context_length
        self.tower = build_tower(module.visual, device, precision, engine)
        self.wanted_engine = engine
        self.engine = self.tower.engine
        del module.visual  # its weights are in the tower now
        self._module = module
        scale = getattr(module, "logit_scale", None)
        self.logit_scale = _DEFAULT_SCALE if scale is None else float(scale.exp())
        self.embed_dim = self.embed_text(["a"]).shape[1]
        self._sha256: str | None = None
        self._check_range()

    def _check_range(self) -> None:
        """Refuse a format in which the tower overflows, once, on frames black, white and noisy."""
        if self.precision == "fp32":
            return
        size = self.image_size
        noise = torch.Generator().manual_seed(0)
        frames = torch.randint(0, 256, (3, size, size, 3), generator=noise, dtype=torch.uint8)
        frames[0], frames[1] = 0, 255
        z = self.tower.encode(frames.to(self.device), self.preprocessing)
        if not bool(z.isfinite().all()):
            better = "bf16" if self.precision == "fp16" else "fp32"
            raise ModelError(
                f"precision must hold the values of {self.model_id!r}, got {self.precision!r}, in "
                f'which they overflow. Use precision="{better}".'
            )

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the checkpoint file, in hex; computed on first use (about 1 s a GB)."""
        if self._sha256 is None:
            self._sha256 = file_sha256(_weights_path(self.source))
        return self._sha256

    @torch.inference_mode()
    def embed_images(self, frames: torch.Tensor, how: Preprocessing | None = None) -> torch.Tensor:
        """Return (B, D) float32 embeddings of unit length, on the model's device.

        Args:
            frames: (B, H, W, 3) uint8 on the model's device, all encoded at once.
            how: preprocessing in place of the model's own.
        """
        return _unit_rows(self.tower.encode(frames, how or self.preprocessing))

    @torch.inference_mode()
    def embed_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return (P, D) float32 embeddings of unit length; raises as `PromptTokenizer.check`."""
        tokens = self.tokenizer(prompts)
        try:
            module = self._module.to(self.device)
            return _unit_rows(module.encode_text(tokens.to(self.device), normalize=False))
        finally:
            self._module.to("cpu")


def load_model(
    model: str | ModelSource,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    engine: str = "auto",
) -> LoadedModel:
    """Load a vision-language model for inference.

    Args:
        model: see `resolve_model`.
        device: where it runs.
        precision: a key of `precision.DTYPES` that the device runs.
        engine: one of `ENGINES`: the fastest form of the image tower, or open_clip's own.

    Returns:
        The model, in evaluation mode, without gradients.

    Raises:
        ModelError: its files cannot be fetched or read, or it does not fit into memory.
    """
    import open_clip

    source = model if isinstance(model, ModelSource) else resolve_model(model)
    device = torch.device(device)
    # On the CPU in float32: the tower folds its weights before it rounds them.
    options: dict[str, Any] = {"precision": "fp32", "device": "cpu"}
    with clear_errors(source.model, "the model", source.local):
        if source.name.startswith("local-dir:"):
            module = open_clip.create_model(source.name, load_weights=False, **options)
            open_clip.load_checkpoint(module, str(source.weights))
        else:
            module = open_clip.create_model(source.name, **model_options(source), **options)
    if not isinstance(getattr(module, "visual", None), torch.nn.Module):
        raise ModelError(
            f"model must have an image tower, got {source.model!r} without one. "
            "Use a CLIP or SigLIP model."
        )
    size, patch = (getattr(module.visual, name, 0) for name in ("image_size", "patch_size"))
    if patch and min(_pair(size)) < max(_pair(patch)):
        raise ModelError(
            f"model must take images of at least one patch, {max(_pair(patch))} pixels, got "
            f"{min(_pair(size))} in {source.model!r}."
        )
    module.eval().requires_grad_(False)
    with enough_memory(source.model, "the model"):
        return LoadedModel(source, module, device, precision, engine)


def model_options(source: ModelSource) -> dict[str, Any]:
    """Return what open_clip.create_model needs besides the name of a tag, checkpoint or hub model.

    open_clip only warns where weights were trained with another activation than the name's
    (ViT-L-14/openai needs QuickGELU): here the weights decide.
    """
    import open_clip

    tag = open_clip.get_pretrained_cfg(source.name, source.pretrained or "")
    return {
        "pretrained": source.pretrained,
        "require_pretrained": True,
        "force_quick_gelu": bool(tag.get("quick_gelu", False)),
    }


def build_model(folder: str | Path) -> torch.nn.Module:
    """Return an untrained model of the architecture in a folder's open_clip_config.json.

    Args:
        folder: holds open_clip_config.json.

    Returns:
        open_clip's model on the CPU in float32, in training mode, with random weights.

    Raises:
        ModelError: the configuration is missing or not one of open_clip's.
    """
    import open_clip

    with clear_errors(str(folder), "the model", local=True):
        return open_clip.create_model(f"local-dir:{folder}", load_weights=False).train()


def build_tokenizer(folder: str | Path) -> PromptTokenizer:
    """Return the tokenizer of a folder's open_clip_config.json: prompts -> (P, context) int64."""
    return load_tokenizer(ModelSource(str(folder), f"local-dir:{folder}", None, Path(folder)))


def save_model(model: torch.nn.Module, folder: str | Path) -> Path:
    """Write a model's weights as float16 safetensors beside its configuration, atomically.

    Args:
        model: any open_clip model.
        folder: holds open_clip_config.json; an older checkpoint there is replaced.

    Returns:
        The path of the checkpoint.
    """
    from safetensors.torch import save_file

    state = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    path = Path(folder) / WEIGHTS_FILE
    partial = path.with_suffix(".partial")
    save_file(state, partial)
    os.replace(partial, path)
    return path


def _weights_path(source: ModelSource) -> Path:
    """Return the local checkpoint file of a source whose model has been loaded."""
    import open_clip

    if source.weights is not None:
        return source.weights
    if source.name.startswith("hf-hub:"):
        return _download(source.name)
    tag = open_clip.get_pretrained_cfg(source.name, source.pretrained or "")
    return Path(open_clip.download_pretrained(tag))


def _download(name: str, filename: str | None = None) -> Path:
    """Return the cached copy of a file (default: the weights) of "hf-hub:ORG/NAME"."""
    from open_clip.pretrained import download_pretrained_from_hf

    return Path(download_pretrained_from_hf(name.removeprefix("hf-hub:"), filename))


def _unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return float32 rows divided by their length."""
    rows = rows.float()
    return rows / rows.norm(dim=-1, keepdim=True)


def _triple(values: Any) -> tuple[float, float, float]:
    """Return three channel values; a single number stands for all three."""
    if isinstance(values, (int, float)):
        return (float(values),) * 3
    red, green, blue = values
    return float(red), float(green), float(blue)


def _pair(sides: Any) -> tuple[int, int]:
    """Return height and width of a size that may be one number."""
    return tuple(sides) if isinstance(sides, (list, tuple)) else (sides, sides)


def _known_interpolation(name: str) -> str:
    """Return the interpolation at inference: open_clip reads "random" as "bicubic"."""
    return "bilinear" if name == "bilinear" else "bicubic"
