"""Where a vision-language model comes from: its name checked before anything is loaded."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from vlmrm_fast.errors import ArgumentError, ModelError, UnknownNameError, unknown_name

BUILTIN_FOLDER = Path(__file__).parent / "assets" / "builtin"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"

# Names under which checkpoints are published, in open_clip's order of preference.
_WEIGHT_NAMES = (
    WEIGHTS_FILE,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, resolved without loading anything.

    Attributes:
        model: what the user wrote.
        name: what open_clip calls it: a model name, "local-dir:PATH" or "hf-hub:ORG/NAME".
        pretrained: tag or checkpoint path for a model name; None for the other two.
        weights: local checkpoint file, where it is known already.
    """

    model: str
    name: str
    pretrained: str | None = None
    weights: Path | None = None

    @property
    def local(self) -> bool:
        """Whether the model is read from disk: no network is needed."""
        return self.weights is not None


def resolve_model(model: str) -> ModelSource:
    """Find out which model is meant; no weights are read and no network is used.

    Args:
        model: "builtin", "NAME/PRETRAINED" of open_clip (PRETRAINED a tag or a checkpoint file),
            a folder holding open_clip_config.json, a weights file in such a folder, or
            "hf-hub:ORG/NAME".

    Returns:
        The source, for `load_model` and `load_tokenizer`.

    Raises:
        ArgumentError: `model` is empty or names no pretrained weights.
        ModelError: a path that does not exist or holds no configuration or weights.
        UnknownNameError: open_clip knows no such model or tag.
    """
    if not isinstance(model, str) or not model.strip():
        raise ArgumentError(
            f"model must be a non-empty string, got {model!r}. "
            'Give "builtin", "NAME/PRETRAINED", a folder or "hf-hub:ORG/NAME".'
        )
    if model == "builtin":
        return _resolve_folder(model, BUILTIN_FOLDER, None)
    if model.startswith("hf-hub:"):
        if model.count("/") != 1 or model.endswith(("/", ":")):
            raise ArgumentError(f'model must be "hf-hub:ORG/NAME", got {model!r}.')
        return ModelSource(model, model)
    path = Path(model.removeprefix("local-dir:")).expanduser()
    if path.is_dir():
        return _resolve_folder(model, path, None)
    if path.is_file():
        return _resolve_folder(model, path.parent, path)
    if model.startswith(("local-dir:", "/", "./", "../", "~")):
        raise ModelError(f"model must be an existing folder or weights file, got {model!r}.")
    return _resolve_name(model)


def _resolve_folder(model: str, folder: Path, weights: Path | None) -> ModelSource:
    """Return the source of a local folder in the layout of the Hugging Face hub."""
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(
            f"model must be a folder that holds {CONFIG_FILE}, got {str(folder)!r}. For a bare "
            f'checkpoint name its architecture too: "ViT-B-32/{weights or "PATH"}".'
        )
    if weights is None:
        found = [folder / name for name in _WEIGHT_NAMES if (folder / name).is_file()]
        found += sorted(folder.glob("*.safetensors"))
        if not found:
            raise ModelError(
                f"model must be a folder with a checkpoint ({WEIGHTS_FILE}), "
                f"got {str(folder)!r} without one."
            )
        weights = found[0]
    return ModelSource(model, f"local-dir:{folder}", None, weights)


def _resolve_name(model: str) -> ModelSource:
    """Return the source of "NAME/PRETRAINED", checked against open_clip's lists."""
    import open_clip

    name, _, pretrained = model.partition("/")
    known = open_clip.list_models()
    if name not in known:
        lower = {entry.lower(): entry for entry in known}
        near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
        hint = f" Did you mean {', '.join(repr(lower[n]) for n in near)}?" if near else ""
        raise UnknownNameError(
            f"model must be one of open_clip's {len(known)} models with its weights "
            f'("ViT-B-32/openai"), a folder, "hf-hub:ORG/NAME" or "builtin", got {model!r}.{hint}'
        )
    tags = sorted(open_clip.list_pretrained_tags_by_model(name))
    if not pretrained:
        listed = ", ".join(tags) or "none: give the path of a checkpoint"
        raise ArgumentError(
            f'model must be "NAME/PRETRAINED", got {model!r}. Pretrained weights of {name}: '
            f"{listed}."
        )
    path = Path(pretrained).expanduser()
    if path.is_file():
        return ModelSource(model, name, str(path), path)
    if not open_clip.get_pretrained_cfg(name, pretrained):
        raise unknown_name(f"pretrained weights of {name}", pretrained, tags)
    return ModelSource(model, name, pretrained)
