"""Frames to embeddings, as many at once as the device holds."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from vlmrm_fast.clip import LoadedModel
from vlmrm_fast.errors import VLMRMError
from vlmrm_fast.inputs import borrowable, check_frames
from vlmrm_fast.kernels.reference import Preprocessing


class Embedder:
    """Encodes frames in batches. Not thread-safe.

    Attributes:
        model: what encodes.
        how: how frames become pixels.
        batch_size: most frames encoded at once; halved, with a warning, when a GPU runs out of
            memory.
    """

    def __init__(self, model: LoadedModel, how: Preprocessing, batch_size: int) -> None:
        """Keep what decides the embeddings.

        Args:
            model: what encodes.
            how: how frames become pixels.
            batch_size: most frames encoded at once, at least 1.
        """
        self.model, self.how, self.batch_size = model, how, batch_size

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return (B, D) float32 unit rows on the model's device.

        Args:
            frames: (B, H, W, 3) uint8, any B.

        Returns:
            The embeddings.

        Raises:
            ArgumentError: `frames` has another dtype or shape.
            VLMRMError: the GPU has no memory for a single frame.
        """
        check_frames(frames)
        if not len(frames):
            return torch.empty(0, self.model.embed_dim, device=self.model.device)
        try:
            return self._embed(frames)
        except torch.OutOfMemoryError as error:
            smaller = self.batch_size // 2
            if smaller < 1:
                raise VLMRMError(
                    f"The GPU has no memory for one frame of {self.model.model_id!r}. "
                    'Use a smaller model or device="cpu".'
                ) from error
        # Outside the handler, so that the failed batch's tensors are free.
        warnings.warn(f"GPU out of memory: batch_size is now {smaller}.", stacklevel=3)
        self.batch_size = smaller
        torch.cuda.empty_cache()
        return self(frames)

    def _embed(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Encode checked frames, at least one, chunk by chunk."""
        rows = []
        for start in range(0, len(frames), self.batch_size):
            chunk = frames[start : start + self.batch_size]
            tensor = torch.from_numpy(borrowable(chunk)) if isinstance(chunk, np.ndarray) else chunk
            rows.append(self.model.embed_images(tensor.to(self.model.device), self.how))
        return torch.cat(rows)
