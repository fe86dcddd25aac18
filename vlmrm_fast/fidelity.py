"""`vlmrm-fast fidelity`: what a number format or an engine does to the rewards of a task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.scoring import rank_correlation, task_states

if TYPE_CHECKING:
    from vlmrm_fast.reward import VLMReward

# Most reward error and least rank correlation with open_clip in float32, by precision: what the
# formats' rounding leaves of CLIP's rewards, with room for towers of 48 blocks.
GATES = {
    "fp32": (1e-6, 0.9999),
    "fp16": (2e-4, 0.9995),
    "bf16": (1.5e-3, 0.999),
    "int8": (2e-3, 0.999),
    "fp8": (1e-2, 0.995),
}


@dataclass(frozen=True)
class FidelityConfig:
    """Which format is compared with open_clip's own tower in float32, on which frames.

    Attributes:
        task: a registered task; states that a random policy reaches are drawn and scored.
        model: "builtin", "NAME/PRETRAINED" of open_clip, a local folder or "hf-hub:ORG/NAME".
        precision: "fp32", "fp16", "bf16", "int8" or "fp8"; "auto" is what training would use.
        num_states: frames to score.
        seed: of states and actions.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    task: tyro.conf.Positional[str]
    model: str = "builtin"
    precision: str = "auto"
    num_states: int = 200
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Fidelity:
    """How far rewards are from those of open_clip's own tower in float32.

    Attributes:
        precision, engine: of the tower that was measured.
        num_states: frames.
        max_error, mean_error: of the reward.
        spread: standard deviation of the exact rewards over the frames.
        spearman: rank correlation with the exact rewards; NaN where they are constant.
        min_cosine: between the two embeddings of a frame, the worst.
        speed: frames per second over those of the exact tower, same device, measured once.
    """

    precision: str
    engine: str
    num_states: int
    max_error: float
    mean_error: float
    spread: float
    spearman: float
    min_cosine: float
    speed: float

    @property
    def passed(self) -> bool:
        """Whether both gates of the precision hold."""
        error, spearman = GATES[self.precision]
        return self.max_error <= error and self.spearman >= spearman


def measure_fidelity(config: FidelityConfig) -> Fidelity:
    """Score the same frames with open_clip's own tower in float32 and with the one asked for.

    Args:
        config: what to compare.

    Returns:
        The differences.

    Raises:
        ArgumentError: a number, the device or the precision cannot be used.
        UnknownNameError: there is no such task.
    """
    if config.num_states < 2:
        raise ArgumentError(f"num_states must be at least 2, got {config.num_states}.")
    from vlmrm_fast.reward import VLMReward
    from vlmrm_fast.tasks import get_native_task

    task = get_native_task(config.task)

    def load(**options: Any) -> VLMReward:
        return VLMReward(
            config.model,
            goal=task.goal,
            baseline=task.baseline,
            alpha=task.alpha,
            device=config.device,
            **options,
        )

    # One model at a time: two of the largest do not fit a GPU.
    measured = load(precision=config.precision)
    states = task_states(task, measured.image_size, config.num_states, config.seed)
    frames = np.concatenate([pictures for _, pictures, _ in states])
    z, seconds = _timed(measured.embed_images, frames)
    rewards, described = measured.score_embeddings(z), measured.describe()
    del measured
    exact = load(precision="fp32", engine="eager")
    right, exact_seconds = _timed(exact.embed_images, frames)
    right_rewards = exact.score_embeddings(right)

    error = np.abs(rewards.astype(np.float64) - right_rewards)
    return Fidelity(
        precision=described["precision"],
        engine=described["engine"],
        num_states=len(frames),
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        spread=float(right_rewards.std()),
        spearman=rank_correlation(rewards, right_rewards),
        min_cosine=float((z.astype(np.float64) * right).sum(1).min()),
        speed=exact_seconds / seconds,
    )


def _timed(
    embed: Callable[[np.ndarray], np.ndarray], frames: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the embeddings and how long they took after a first, smaller batch [s]."""
    embed(frames[:16])
    start = time.perf_counter()
    return embed(frames), time.perf_counter() - start


def fidelity_table(config: FidelityConfig, found: Fidelity) -> Any:
    """Return a table for the terminal.

    Args:
        config: what was compared.
        found: the differences.

    Returns:
        A `rich.table.Table`.
    """
    from rich.table import Table
    from rich.text import Text

    error, spearman = GATES[found.precision]
    title = f"{config.model} in {found.precision} ({found.engine}) on {config.task}"
    table = Table(title=Text(title))
    for heading in ("", "measured", "gate"):
        table.add_column(heading, justify="left" if not heading else "right")

    def verdict(text: str, held: bool) -> str:
        return text if held else f"{text}: missed"

    relative = found.max_error / found.spread if found.spread else float("nan")
    error_gate = verdict(f"<= {error:g}", found.max_error <= error)
    spearman_gate = verdict(f">= {spearman:g}", found.spearman >= spearman)
    for what, measured, gate in (
        ("largest error of a reward", f"{found.max_error:.2e}", error_gate),
        ("mean error", f"{found.mean_error:.2e}", ""),
        ("standard deviation of the rewards", f"{found.spread:.2e}", ""),
        ("largest error over that", f"{relative:.2%}", ""),
        ("rank correlation (Spearman)", f"{found.spearman:.5f}", spearman_gate),
        ("smallest cosine of embeddings", f"{found.min_cosine:.6f}", ""),
        ("frames per second", f"{found.speed:.2f}x", ""),
    ):
        table.add_row(what, measured, gate)
    table.caption = f"{found.num_states} frames against open_clip's own tower in float32."
    return table


def run_fidelity(config: FidelityConfig) -> int:
    """Measure and print a table.

    Args:
        config: what to compare.

    Returns:
        The exit code: 0 where both gates hold, else 1.
    """
    from rich.console import Console

    found = measure_fidelity(config)
    Console().print(fidelity_table(config, found))
    return 0 if found.passed else 1
