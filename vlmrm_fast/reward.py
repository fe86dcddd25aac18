"""Rewards from a sentence: prompts and a strength become constants, frames become numbers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vlmrm_fast import clip
from vlmrm_fast.errors import ArgumentError, VLMRMError
from vlmrm_fast.inputs import borrowable, check_frames, choose_device, numbered
from vlmrm_fast.kernels import ops, reference
from vlmrm_fast.lanes import CpuLane, CudaLane, Lane, has_idle_core
from vlmrm_fast.precision import choose_precision
from vlmrm_fast.prompt_sets import PromptSet, build_prompt_set
from vlmrm_fast.prompts import Prompts, check_alpha, check_prompts
from vlmrm_fast.scorer import Scorer, check_rewards

# Frames encoded at once. CPU: the best of 8 ... 64 for the built-in model (its activations stay in
# the cache), 10 % above 4 for a ViT-B-32. GPU: 512 frames of a ViT-bigG need 5 GB.
_CPU_BATCH = 16
_GPU_BATCH = 512


class VLMReward:
    """Reward of a frame: how well it shows the goal, seen by a vision-language model.

    Prompts, alpha and the model's name are checked before any weights are read. Not thread-safe;
    changes no global setting of torch.

    Args:
        model: "builtin", "NAME/PRETRAINED" of open_clip, a local folder or weights file, or
            "hf-hub:ORG/NAME".
        goal: one prompt, or several whose embeddings are averaged.
        baseline: prompts of the scene without the goal; needed where alpha is above 0.
        alpha: strength of the goal-baseline regularisation, 0 ... 1; 0 is the cosine similarity.
        device: "auto" (one GPU where there is one), "cpu", "cuda:1", or "cuda", whose `scorer`
            uses every GPU.
        precision: "auto" (fp32 on a CPU, fp16 on a GPU), "fp32", "fp16", "bf16", "int8" or "fp8";
            what a device lacks is refused. `vlmrm-fast fidelity` shows what each changes.
        engine: "auto" (the fastest form of the image tower) or "eager" (open_clip's own code).
        compat: reproduce the numbers of the paper's authors: their resize, their mean and
            standard deviation for every model, averaged prompts not renormalised.
        batch_size: most frames encoded at once; None picks it by device.

    Raises:
        ArgumentError: a prompt, alpha, device, precision or batch size that cannot be used.
        ModelError: the model cannot be fetched or read.
        UnknownNameError: open_clip knows no such model or weights.

    Source: Rocamonde et al., ICLR 2024, Definition 1.
    """

    def __init__(
        self,
        model: str = "builtin",
        *,
        goal: Prompts,
        baseline: Prompts | None = None,
        alpha: float = 0.0,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
        compat: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self._check_task(goal, baseline, alpha)
        chosen = choose_device(device)
        precision = choose_precision(precision, chosen)
        if engine not in clip.ENGINES:
            choices = ", ".join(clip.ENGINES)
            raise ArgumentError(f"engine must be one of {choices}, got {engine!r}.")
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ArgumentError(f"batch_size must be a positive integer, got {batch_size!r}.")

        # The token count needs the tokenizer only: a long prompt fails before the download.
        source = clip.resolve_model(model)
        clip.load_tokenizer(source).check(self.goal + self.baseline)
        self._model = clip.load_model(source, chosen, precision, engine)
        self._replicas: list[clip.LoadedModel] = []  # on other devices, for `scorer`
        self.compat = bool(compat)
        self.batch_size = batch_size or (_GPU_BATCH if chosen.type == "cuda" else _CPU_BATCH)
        self._set_tasks()

    def _check_task(self, goal: Prompts, baseline: Prompts | None, alpha: float) -> None:
        """Check and keep the prompts and alpha."""
        if goal is None:
            raise ArgumentError("goal must be a prompt or a list of prompts, got None.")
        self.goal = check_prompts("goal", goal)
        self.baseline = check_prompts("baseline", baseline)
        self.alpha = check_alpha(alpha, self.goal, self.baseline)

    def _set_tasks(self) -> None:
        """Embed the prompts."""
        self._tasks = self.prompt_set([self.goal], [self.baseline or None], self.alpha).tasks

    def prompt_set(
        self,
        goals: Sequence[Prompts],
        baselines: Prompts | Sequence[Prompts | None] | None = None,
        alphas: float | Sequence[float] = 0.0,
    ) -> PromptSet:
        """Return P rewards of the same frames, for `score_many`: embedded once, then cheap.

        Args:
            goals: P goals, each one prompt or several whose embeddings are averaged.
            baselines: one prompt for all, or P as `goals`; None where alpha is 0.
            alphas: one strength for all, or P.

        Returns:
            The prompts with the constants of their rewards, on this reward's device.

        Raises:
            ArgumentError: as the constructor, or the numbers of goals, baselines and alphas
                differ.
        """
        return build_prompt_set(self._model, goals, baselines, alphas, compat=self.compat)

    @property
    def image_size(self) -> int:
        """Side S of the model's input [pixels]; frames of this size are not resampled."""
        return self._model.image_size

    @property
    def embed_dim(self) -> int:
        """Width D of an embedding."""
        return self._model.embed_dim

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._model.device

    def with_prompts(
        self, goal: Prompts, baseline: Prompts | None = None, alpha: float = 0.0
    ) -> VLMReward:
        """Return a reward for other prompts that shares this one's model and settings.

        Args:
            goal: as in the constructor.
            baseline: as in the constructor.
            alpha: as in the constructor.

        Returns:
            A new reward; the embeddings of stored frames serve both.
        """
        other = copy.copy(self)
        other._check_task(goal, baseline, alpha)
        other._model.tokenizer.check(other.goal + other.baseline)
        other._set_tasks()
        return other

    def score(self, frames: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return the reward of each frame; it does not depend on the other frames.

        Args:
            frames: (B, H, W, 3) uint8, any B, H and W; resized to the model's input where needed.

        Returns:
            (B,) float32 rewards, at most 1.

        Raises:
            ArgumentError: `frames` has another dtype or shape.
            VLMRMError: a reward is not finite, with the precision to use.
        """
        return check_rewards(self._rewards(frames)[:, 0].cpu().numpy(), self._model.precision)

    def scorer(
        self,
        num_slots: int = 3,
        *,
        devices: Sequence[str] | None = None,
        background: bool | None = None,
        prompts: PromptSet | None = None,
    ) -> Scorer:
        """Return a pipeline that scores frames while the next ones are made.

        Its rewards are the bits of `score` on a CPU, and within rounding on a GPU, where batches
        are put together in another way.

        Args:
            num_slots: submissions whose frames can wait at once, at least 3.
            devices: one replica of the model for each, rows of a submission split among them;
                None: this reward's device, which for "cuda" without a number is every GPU.
            background: on a CPU, whether a thread scores while the caller goes on; None: where
                torch leaves a core idle.
            prompts: score these, from `prompt_set`, in place of this reward's own.

        Returns:
            The scorer; close it when done.

        Raises:
            ArgumentError: `num_slots` or a device cannot be used, or there is none; `prompts` are
                another model's.
        """
        if devices is not None and (isinstance(devices, str) or not devices):
            raise ArgumentError(f"devices must be a list of at least one name, got {devices!r}.")
        own = numbered(self.device)
        wanted = [own] if devices is None else [numbered(choose_device(d)) for d in devices]
        if devices is None and self.device.type == "cuda" and self.device.index is None:
            wanted = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        if any(device.type != own.type for device in wanted):
            got = ", ".join(map(str, wanted))
            raise ArgumentError(f"devices must be of the reward's kind, {own.type}, got {got}.")
        background = has_idle_core() if background is None else background
        replicas = [self._on(model, prompts) for model in self._models_on(wanted)]
        return Scorer(
            [r._lane(num_slots, background) for r in replicas], num_slots, self._model.precision
        )

    def _models_on(self, devices: Sequence[torch.device]) -> list[clip.LoadedModel]:
        """Return a model for each device: this one's own for one of them, each loaded once."""
        own, free, found = self._model, [self._model, *self._replicas], []
        for device in devices:
            model = next((m for m in free if numbered(m.device) == device), None)
            if model is None:
                model = clip.load_model(own.source, device, own.precision, own.wanted_engine)
                self._replicas.append(model)
            else:
                free.remove(model)
            found.append(model)
        return found

    def _on(self, model: clip.LoadedModel, prompts: PromptSet | None) -> VLMReward:
        """Return this reward with another copy of its model, perhaps for other prompts."""
        if model is self._model and prompts is None:
            return self
        other = copy.copy(self)
        tasks = self._tasks if prompts is None else prompts.tasks_for(model.model_id)
        other._model, other._tasks = model, tasks.to(model.device)
        return other

    def _lane(self, num_slots: int, background: bool) -> Lane:
        """Return what scores frames on this reward's device."""
        if self.device.type == "cpu":
            return CpuLane(self._rewards, background=background)
        how, tower, tasks = self._how(), self._model.tower, self._tasks

        def encode(frames: torch.Tensor) -> torch.Tensor:
            # Embeddings of any length: `score` divides by it.
            return ops.score(tower.encode(frames, how), tasks)

        return CudaLane(encode, numbered(self.device), self.batch_size, num_slots)

    def score_many(self, frames: np.ndarray | torch.Tensor, prompts: PromptSet) -> np.ndarray:
        """Return P rewards of each frame; each is encoded once, whatever P.

        Args:
            frames: as in `score`.
            prompts: from `prompt_set` of a reward with this model.

        Returns:
            (B, P) float32 rewards.

        Raises:
            ArgumentError: as `score`, or `prompts` are another model's.
            VLMRMError: as `score`.
        """
        return check_rewards(self._many(self._embed(frames), prompts), self._model.precision)

    def embed_images(self, frames: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return the embeddings of frames, for `score_embeddings`.

        Args:
            frames: as in `score`.

        Returns:
            (B, D) float32 rows of unit length.

        Raises:
            ArgumentError: as `score`.
        """
        return self._embed(frames).cpu().numpy()

    def embed_text(self, prompts: Prompts) -> np.ndarray:
        """Return (P, D) float32 embeddings of unit length, one a prompt.

        Args:
            prompts: one prompt or several; not averaged.

        Returns:
            The embeddings.

        Raises:
            ArgumentError: there is no prompt, or one is empty or longer than the model's context.
        """
        return self._model.embed_text(check_prompts("prompts", prompts)).cpu().numpy()

    def score_embeddings(self, z: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return the reward of each stored embedding.

        Args:
            z: (B, D) of any length but 0, from this model.

        Returns:
            (B,) float32 rewards.

        Raises:
            ArgumentError: `z` is not (B, D) for this model's D.
        """
        return self._score(self._rows(z))

    def score_many_embeddings(self, z: np.ndarray | torch.Tensor, prompts: PromptSet) -> np.ndarray:
        """Return P rewards of each stored embedding.

        Args:
            z: as in `score_embeddings`.
            prompts: as in `score_many`.

        Returns:
            (B, P) float32 rewards.

        Raises:
            ArgumentError: as `score_embeddings`, or `prompts` are another model's.
        """
        return self._many(self._rows(z), prompts)

    def _rows(self, z: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return checked embeddings (B, D) float32 on the device."""
        if z.ndim != 2 or z.shape[1] != self.embed_dim:
            raise ArgumentError(f"z must be (B, {self.embed_dim}), got {tuple(z.shape)}.")
        return torch.as_tensor(z, dtype=torch.float32, device=self.device)

    @torch.inference_mode()
    def _many(self, z: torch.Tensor, prompts: PromptSet) -> np.ndarray:
        """Return (B, P) float32 rewards of (B, D) embeddings on the device."""
        return ops.score(z, prompts.tasks_for(self._model.model_id)).cpu().numpy()

    def describe(self) -> dict[str, Any]:
        """Return what a run must record: model, weights, device, precision, prompts, tokens."""
        model = self._model
        prompts = self.goal + self.baseline
        return {
            "model": model.model_id,
            "weights_sha256": model.weights_sha256,
            "image_size": model.image_size,
            "embed_dim": model.embed_dim,
            "context_length": model.context_length,
            "device": str(model.device),
            "precision": model.precision,
            "engine": model.engine,
            "batch_size": self.batch_size,
            "compat": self.compat,
            "goal": list(self.goal),
            "baseline": list(self.baseline),
            "alpha": self.alpha,
            "prompt_tokens": {prompt: model.tokenizer.count(prompt) for prompt in prompts},
        }

    @torch.inference_mode()
    def _rewards(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return (B, P) float32 rewards of frames, on the device."""
        return ops.score(self._embed(frames), self._tasks)

    @torch.inference_mode()
    def _score(self, z: torch.Tensor) -> np.ndarray:
        """Return (B,) float32 rewards of (B, D) embeddings on the device."""
        return ops.score(z, self._tasks)[:, 0].cpu().numpy()

    def _embed(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return (B, D) float32 unit rows on the device, encoding `batch_size` at a time."""
        check_frames(frames)
        if not len(frames):
            return torch.empty(0, self.embed_dim, device=self.device)
        try:
            return self._embed_chunks(frames)
        except torch.OutOfMemoryError as error:
            smaller = self.batch_size // 2
            if smaller < 1:
                raise VLMRMError(
                    f"The GPU has no memory for one frame of {self._model.model_id!r}. "
                    'Use a smaller model or device="cpu".'
                ) from error
        # Outside the handler, so that the failed batch's tensors are free.
        warnings.warn(f"GPU out of memory: batch_size is now {smaller}.", stacklevel=3)
        self.batch_size = smaller
        torch.cuda.empty_cache()
        return self._embed(frames)

    def _how(self) -> reference.Preprocessing:
        """Return how frames become pixels."""
        how = self._model.preprocessing
        return how.original() if self.compat else how

    def _embed_chunks(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Encode checked frames, at least one, chunk by chunk."""
        how = self._how()
        rows = []
        for start in range(0, len(frames), self.batch_size):
            chunk = frames[start : start + self.batch_size]
            tensor = torch.from_numpy(borrowable(chunk)) if isinstance(chunk, np.ndarray) else chunk
            rows.append(self._model.embed_images(tensor.to(self.device), how))
        return torch.cat(rows)
