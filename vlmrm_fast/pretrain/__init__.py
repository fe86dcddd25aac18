"""Training the built-in model: a small CLIP of cart-poles, humanoid robots and mountain cars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmrm_fast.errors import ArgumentError

BUILTIN_FOLDER = Path(__file__).parent.parent / "assets" / "builtin"


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of one pretraining run; assets/builtin/README.md names those of the built-in model.

    Attributes:
        out: folder for open_clip_config.json, open_clip_model.safetensors and evaluation.json.
        architecture: an open_clip_config.json; its image size is the size of the frames.
        frames: number of MuJoCo frames to draw, rounded up to whole blocks.
        flat_frames: number of frames of CartPole-v1 and MountainCarContinuous-v0, likewise.
        steps: optimiser steps.
        batch_size: frames a step; each brings one caption.
        random_captions: further captions a step, drawn without a frame.
        robot_share: share of robots among the MuJoCo frames of a step, in (0, 1).
        flat_share: share of flat frames among all frames of a step, in [0, 1), where there are any.
        init: folder of a model to start from; None starts from random weights.
        learning_rate: the greatest of a one-cycle schedule.
        weight_decay: of AdamW, on matrices only.
        seed: seeds frames, captions and weights.
        workers: processes that draw frames.
        data: folder in which drawn frames are kept and found again; None keeps none.
        eval_frames: held-out frames of each kind for evaluation.json; 0 skips the evaluation.
    """

    out: str = "pretrained"
    architecture: str = str(BUILTIN_FOLDER / "open_clip_config.json")
    frames: int = 100_000
    flat_frames: int = 20_000
    steps: int = 1_500
    batch_size: int = 128
    random_captions: int = 64
    robot_share: float = 0.5
    flat_share: float = 0.3
    init: str | None = None
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    workers: int = 2
    data: str | None = None
    eval_frames: int = 960

    def validate(self) -> None:
        """Check all values.

        Raises:
            ArgumentError: if a value is out of range or the architecture file is missing.
        """
        for name in ("frames", "steps", "batch_size", "workers"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("flat_frames", "random_captions", "eval_frames", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ArgumentError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if not 0 < self.robot_share < 1:
            raise ArgumentError(f"robot_share must be in (0, 1), got {self.robot_share}.")
        if not 0 <= self.flat_share < 1:
            raise ArgumentError(f"flat_share must be in [0, 1), got {self.flat_share}.")
        if not self.learning_rate > 0:
            raise ArgumentError(f"learning_rate must be positive, got {self.learning_rate}.")
        if (
            self.init is not None
            and not (Path(self.init) / "open_clip_model.safetensors").is_file()
        ):
            raise ArgumentError(
                f"init must be a folder with open_clip_model.safetensors, got {self.init!r}."
            )
        if not Path(self.architecture).is_file():
            raise ArgumentError(
                f"architecture must be a file, got {self.architecture!r}. "
                "Give the path of an open_clip_config.json."
            )


def pretrain(config: PretrainConfig, log: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Draw frames, train a model on them and write it, with its accuracy on held-out states.

    Args:
        config: the settings.
        log: takes lines of progress; None writes them to the terminal.

    Returns:
        What evaluation.json holds: the settings, the losses and the held-out figures.

    Raises:
        ArgumentError: if a setting is out of range or the output folder cannot be made.
    """
    from vlmrm_fast.pretrain.run import run

    config.validate()
    return run(config, log)


__all__ = ["BUILTIN_FOLDER", "PretrainConfig", "pretrain"]
