"""CLIP's ResNet for inference: the same embedding, less work."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vlmrm_fast.layers import SingleQuery


class FoldedConv:
    """A convolution with its batch normalisation folded in: relu(conv(x) + residual).

    Args:
        conv: square-kernel convolution without bias.
        norm: the batch normalisation after it, in evaluation mode.
        dtype: of the folded weights; they are folded in float32.
        relu: whether a ReLU follows.
    """

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, relu: bool = True
    ) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        weight = conv.weight.detach() * scale.view(-1, 1, 1, 1)
        self.weight = weight.to(dtype=dtype, memory_format=torch.channels_last)
        self.bias = (norm.bias.detach() - norm.running_mean * scale).to(dtype)
        self.stride, self.padding, self.relu = conv.stride, conv.padding, relu

    def __call__(self, pixels: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, C', H', W') activations; `residual` has that shape."""
        out = functional.conv2d(pixels, self.weight, self.bias, self.stride, self.padding)
        if residual is not None:
            out += residual
        return out.relu_() if self.relu else out


class LeanAttentionPool:
    """Attention pooling for its single query: the mean token asks, the T = 1 + HW tokens answer.

    Args:
        pool: open_clip's AttentionPool2d.

    Source: open_clip, modified_resnet.py, AttentionPool2d (the same function).
    """

    def __init__(self, pool: Any) -> None:
        self.positions = pool.positional_embedding.detach()
        layers = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        self.attend = SingleQuery(*layers, pool.num_heads)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, D) embeddings of (B, E, H, W) features, in float32."""
        batch, width = features.shape[:2]
        tokens = features.permute(0, 2, 3, 1).reshape(batch, -1, width).float()
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positions
        return self.attend(tokens[:, 0], tokens)


class LeanResNet:
    """CLIP's ResNet with folded normalisation, channels_last layout and single-query pooling.

    On two AVX2 cores the built-in model's tower runs at 2.5x eager open_clip at B = 64
    (bench/test_reward.py). Weights are copied at construction.

    Args:
        tower: open_clip's ModifiedResNet, in evaluation mode, float32, where it is to run.
        dtype: of weights and activations; the pooling runs in float32.

    Source: open_clip, modified_resnet.py, ModifiedResNet (the same function).
    """

    def __init__(self, tower: Any, dtype: torch.dtype = torch.float32) -> None:
        self.stem = [
            FoldedConv(tower.conv1, tower.bn1, dtype),
            FoldedConv(tower.conv2, tower.bn2, dtype),
            FoldedConv(tower.conv3, tower.bn3, dtype),
        ]
        groups = (tower.layer1, tower.layer2, tower.layer3, tower.layer4)
        self.blocks = [_fold_block(block, dtype) for group in groups for block in group]
        self.pool = LeanAttentionPool(tower.attnpool)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, D) embeddings of (B, 3, S, S) pixels."""
        out = pixels.contiguous(memory_format=torch.channels_last)
        for conv in self.stem:
            out = conv(out)
        out = functional.avg_pool2d(out, 2)
        for (first, second, third), shortcut, stride in self.blocks:
            inner = second(first(out))
            if stride > 1:
                inner = functional.avg_pool2d(inner, stride)
                out = functional.avg_pool2d(out, stride)
            out = third(inner, residual=out if shortcut is None else shortcut(out))
        return self.pool(out)


Block = tuple[tuple[FoldedConv, FoldedConv, FoldedConv], FoldedConv | None, int]


def _fold_block(block: Any, dtype: torch.dtype) -> Block:
    """Fold one bottleneck: its three convolutions, its shortcut and its stride."""
    convs = (
        FoldedConv(block.conv1, block.bn1, dtype),
        FoldedConv(block.conv2, block.bn2, dtype),
        FoldedConv(block.conv3, block.bn3, dtype),  # its ReLU comes after the sum
    )
    if block.downsample is None:
        return convs, None, block.stride
    parts = dict(block.downsample.named_children())
    return convs, FoldedConv(parts["0"], parts["1"], dtype, relu=False), block.stride


def is_clip_resnet(tower: nn.Module) -> bool:
    """Tell whether `tower` is open_clip's ModifiedResNet, by name: no import of open_clip."""
    return type(tower).__name__ == "ModifiedResNet" and hasattr(tower, "attnpool")
