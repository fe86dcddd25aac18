"""Rewards from a sentence: prompts and a strength become constants, frames become numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vlmrm_fast import clip
from vlmrm_fast.embedding import Embedder
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.inputs import choose_device, numbered
from vlmrm_fast.lanes import CpuLane, CudaLane, Lane, has_idle_core
from vlmrm_fast.objective import Images, Objective, make_objective
from vlmrm_fast.precision import choose_precision
from vlmrm_fast.prompt_sets import PromptSet, build_prompt_set, list_objectives
from vlmrm_fast.prompts import Prompts, check_prompts
from vlmrm_fast.rules import Heads
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
        goal: one prompt, or several whose embeddings are averaged; None with `goal_images` only.
        baseline: prompts of the scene without the goal; needed where alpha is above 0 and for
            "difference".
        alpha: strength of the goal-baseline regularisation, 0 ... 1; 0 is the cosine similarity.
        rule: "goal-baseline", or another of those of `vlmrm_fast.rules`: "cosine", "difference"
            (from the baseline), "softmax" (against `negatives`).
        negatives: for "softmax": prompts of what the camera sees where the goal is not reached.
        temperature: for "softmax", above 0; None for the one that the model was trained with.
        goal_images: pictures of the goal: frames (n, H, W, 3) uint8, files, or a list of either.
        image_weight: their share in the goal's embedding, above 0, at most 1, which replaces the
            sentence; None: 1 without a sentence, else 0.5.
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
        goal: Prompts | None = None,
        baseline: Prompts | None = None,
        alpha: float = 0.0,
        rule: str = "goal-baseline",
        negatives: Prompts | None = None,
        temperature: float | None = None,
        goal_images: Images | None = None,
        image_weight: float | None = None,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
        compat: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self.objective = make_objective(
            goal, baseline, alpha, rule=rule, negatives=negatives, temperature=temperature,
            goal_images=goal_images, image_weight=image_weight,
        )  # fmt: skip
        chosen = choose_device(device)
        precision = choose_precision(precision, chosen)
        if engine not in clip.ENGINES:
            choices = ", ".join(clip.ENGINES)
            raise ArgumentError(f"engine must be one of {choices}, got {engine!r}.")
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ArgumentError(f"batch_size must be a positive integer, got {batch_size!r}.")

        # The token count needs the tokenizer only: a long prompt fails before the download.
        source = clip.resolve_model(model)
        clip.load_tokenizer(source).check(self.objective.prompts)
        self._model = clip.load_model(source, chosen, precision, engine)
        self._replicas: list[clip.LoadedModel] = []  # on other devices, for `scorer`
        self.compat = bool(compat)
        how = self._model.preprocessing.original() if compat else self._model.preprocessing
        default = _GPU_BATCH if chosen.type == "cuda" else _CPU_BATCH
        self._embed = Embedder(self._model, how, batch_size or default)
        self._heads = self._build([self.objective]).heads

    def _build(self, objectives: Sequence[Objective]) -> PromptSet:
        """Embed what the rewards are scored against."""
        return build_prompt_set(self._model, objectives, self._embed.how, compat=self.compat)

    @property
    def goal(self) -> tuple[str, ...]:
        """The goal's prompts."""
        return self.objective.goal

    @property
    def baseline(self) -> tuple[str, ...]:
        """The baseline's prompts, perhaps none."""
        return self.objective.baseline

    @property
    def alpha(self) -> float:
        """Strength of the goal-baseline regularisation, 0 ... 1."""
        return self.objective.alpha

    @property
    def batch_size(self) -> int:
        """Most frames encoded at once; halved when a GPU runs out of memory."""
        return self._embed.batch_size

    def prompt_set(
        self,
        goals: Sequence[Prompts | Objective],
        baselines: Prompts | Sequence[Prompts | None] | None = None,
        alphas: float | Sequence[float] = 0.0,
        *,
        rules: str | Sequence[str] = "goal-baseline",
        negatives: Prompts | None = None,
        temperature: float | None = None,
    ) -> PromptSet:
        """Return P rewards of the same frames, for `score_many`: embedded once, then cheap.

        Args:
            goals: P goals, each one prompt, several whose embeddings are averaged, or another
                reward's `objective`.
            baselines: one prompt for all, or P as `goals`; None where alpha is 0.
            alphas: one strength for all, or P.
            rules: one name for all, or P.
            negatives: of those with the rule "softmax".
            temperature: likewise.

        Returns:
            The prompts with the constants of their rewards, on this reward's device.

        Raises:
            ArgumentError: as the constructor, or the numbers of goals, baselines, alphas and rules
                differ.
        """
        return self._build(list_objectives(goals, baselines, alphas, rules, negatives, temperature))

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
        self,
        goal: Prompts | None = None,
        baseline: Prompts | None = None,
        alpha: float = 0.0,
        **more: Any,
    ) -> VLMReward:
        """Return a reward for other prompts that shares this one's model and settings.

        Args:
            goal: as in the constructor.
            baseline: as in the constructor.
            alpha: as in the constructor.
            more: `rule`, `negatives`, `temperature`, `goal_images` and `image_weight`, likewise.

        Returns:
            A new reward; the embeddings of stored frames serve both.
        """
        other = copy.copy(self)
        other.objective = make_objective(goal, baseline, alpha, **more)
        other._heads = other._build([other.objective]).heads
        return other

    def score(self, frames: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return the reward of each frame; other frames change it by rounding only (2.4e-7, fp32).

        Args:
            frames: (B, H, W, 3) uint8, any B, H and W; resized to the model's input where needed.

        Returns:
            (B,) float32 rewards.

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
        heads = self._heads if prompts is None else prompts.heads_for(model.model_id)
        other._model, other._heads = model, heads.to(model.device)
        other._embed = Embedder(model, self._embed.how, self.batch_size)
        return other

    def _lane(self, num_slots: int, background: bool) -> Lane:
        """Return what scores frames on this reward's device."""
        if self.device.type == "cpu":
            return CpuLane(self._rewards, background=background)
        how, tower, heads = self._embed.how, self._model.tower, self._heads

        def encode(frames: torch.Tensor) -> torch.Tensor:
            # Embeddings of any length: `score` divides by it.
            return heads.score(tower.encode(frames, how))

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
        heads = prompts.heads_for(self._model.model_id)
        return check_rewards(self._read(heads, self._embed(frames)), self._model.precision)

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
        return self._read(self._heads, self._rows(z))[:, 0]

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
        return self._read(prompts.heads_for(self._model.model_id), self._rows(z))

    def _rows(self, z: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return checked embeddings (B, D) float32 on the device."""
        if z.ndim != 2 or z.shape[1] != self.embed_dim:
            raise ArgumentError(f"z must be (B, {self.embed_dim}), got {tuple(z.shape)}.")
        return torch.as_tensor(z, dtype=torch.float32, device=self.device)

    @staticmethod
    @torch.inference_mode()
    def _read(heads: Heads, z: torch.Tensor) -> np.ndarray:
        """Return (B, P) float32 rewards of (B, D) embeddings on the device."""
        return heads.score(z).cpu().numpy()

    def describe(self) -> dict[str, Any]:
        """Return what a run must record: model, weights, device, precision, prompts, tokens."""
        model = self._model
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
            **self.objective.describe(1 / model.logit_scale),
            "prompt_tokens": {p: model.tokenizer.count(p) for p in self.objective.prompts},
        }

    @torch.inference_mode()
    def _rewards(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return (B, P) float32 rewards of frames, on the device."""
        return self._heads.score(self._embed(frames))
