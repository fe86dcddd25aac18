"""Contrastive training of both towers with exact soft targets for every picture-caption pair."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vlmrm_fast.pretrain import PretrainConfig, captions
from vlmrm_fast.pretrain.data import Frames
from vlmrm_fast.pretrain.flat import FLAT_SCENES

# Suits about one true pair in eight.
INITIAL_BIAS = -2.0
# Targets stay off 0 and 1: beyond these log-odds there is nothing to learn but confidence.
LEAST_TRUTH, GREATEST_TRUTH = 1e-3, 0.99


@dataclass
class FitResult:
    """What training measured.

    Attributes:
        losses: mean loss of each tenth of the steps.
        seconds: wall-clock time.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


def fit(
    model: Any,
    tokenize: Callable[[list[str]], torch.Tensor],
    frames: Frames,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    config: PretrainConfig,
    log: Callable[[str], None],
) -> FitResult:
    """Train an open_clip model in place and leave it in evaluation mode.

    Args:
        model: with `encode_image` and `encode_text`.
        tokenize: texts to (P, context length) int64.
        frames: what to train on; side equal to the model's input.
        normalise: (B, S, S, 3) uint8 to what `encode_image` takes.
        config: how to train.
        log: takes lines of progress.

    Returns:
        The losses and the speed.
    """
    scale = torch.nn.Parameter(model.logit_scale.detach().clone())
    bias = torch.nn.Parameter(torch.tensor(INITIAL_BIAS))
    optimizer, schedule = _optimizer(model, (scale, bias), config)
    batches = _Batches(frames, tokenize, config)
    model.train()
    losses: list[float] = []
    every, start = max(config.steps // 20, 1), time.perf_counter()
    for step in range(1, config.steps + 1):
        images, tokens, columns, targets = batches.draw()
        x = functional.normalize(model.encode_image(normalise(images)), dim=-1)
        t = functional.normalize(model.encode_text(tokens), dim=-1)
        loss = pair_loss(x @ t[columns].T, targets, scale.exp(), bias)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % every == 0:
            rate = step * len(images) / (time.perf_counter() - start)
            recent = float(np.mean(losses[-every:]))
            log(f"step {step}/{config.steps}  loss {recent:.4f}  {rate:.0f} images/s")
    model.eval()
    with torch.no_grad():
        model.logit_scale.copy_(scale)
    return FitResult(
        [float(part.mean()) for part in np.array_split(losses, min(10, len(losses)))],
        time.perf_counter() - start,
    )


class _Batches:
    """Draws batches of frames and captions with their targets, reproducibly."""

    def __init__(
        self,
        frames: Frames,
        tokenize: Callable[[list[str]], torch.Tensor],
        config: PretrainConfig,
    ) -> None:
        self.frames, self.config = frames, config
        self.size = min(config.batch_size, len(frames))
        self.rng = np.random.default_rng((config.seed, 1))
        flat = np.isin(frames.groups, FLAT_SCENES)
        robots, poles = np.isnan(frames.angles) & ~flat, ~np.isnan(frames.angles) & ~flat
        self.robots, self.poles, self.flat = map(np.flatnonzero, (robots, poles, flat))
        self.num_flat = round(self.size * config.flat_share) if len(self.flat) else 0
        share = config.robot_share if len(self.poles) and len(self.robots) else robots.mean()
        self.num_robots = round(float((self.size - self.num_flat) * share))
        self.encode = lru_cache(maxsize=None)(lambda text: tokenize([text])[0])

    def draw(self) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, torch.Tensor]:
        """Draw one batch.

        Returns:
            images (B, S, S, 3) uint8, tokens (U, context) int64 of the unique captions, (P,) which
            of those each caption is, and targets (B, P) float32.
        """
        robots = self.rng.choice(self.robots, self.num_robots)
        poles = self.rng.choice(self.poles, self.size - self.num_flat - self.num_robots)
        # Nothing is drawn for no frame, so that batches without flat frames are as ever.
        flat = self.rng.choice(self.flat, self.num_flat) if self.num_flat else self.flat[:0]
        chosen = np.sort(np.concatenate([robots, poles, flat]))
        degrees = self.frames.degrees[chosen]
        drawn = [captions.describe(row, self.rng) for row in degrees]
        drawn += [captions.random_caption(self.rng) for _ in range(self.config.random_captions)]
        # Prompts that came up twice go through the text tower once.
        unique, columns = np.unique([caption.text for caption in drawn], return_inverse=True)
        return (
            torch.from_numpy(np.array(self.frames.images[chosen])),
            torch.stack([self.encode(str(text)) for text in unique]),
            columns,
            torch.from_numpy(captions.truth(drawn, degrees)),
        )


def pair_loss(
    cosines: torch.Tensor, targets: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Return the soft pairwise contrastive loss, mean over pairs.

    loss = KL(target || sigmoid(scale * cosine + bias)): zero where every pair's probability is its
    target. The cosine then follows the log-odds of the caption being true of the picture.

    Args:
        cosines: (B, P) float32 in [-1, 1].
        targets: (B, P) float32 in [0, 1].
        scale: () float32, positive.
        bias: () float32.

    Returns:
        () float32.

    Source:
        the sigmoid loss of SigLIP (Zhai et al., ICCV 2023), with soft targets.
    """
    targets = targets.clamp(LEAST_TRUTH, GREATEST_TRUTH)
    entropy = functional.binary_cross_entropy(targets, targets)
    return functional.binary_cross_entropy_with_logits(cosines * scale + bias, targets) - entropy


def _optimizer(
    model: torch.nn.Module, extra: tuple[torch.nn.Parameter, ...], config: PretrainConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW (no decay on vectors, embeddings and scalars) and its one-cycle schedule."""
    decayed: list[torch.nn.Parameter] = []
    plain = list(extra)
    for name, parameter in model.named_parameters():
        if name.endswith(("logit_scale", "logit_bias")):
            continue
        kept = parameter.ndim < 2 or "embedding" in name
        (plain if kept else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.15
    )
    return optimizer, schedule
