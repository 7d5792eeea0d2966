"""CLIP4Clip's `linear_patch 3d`: patches are embedded over three neighbouring frames.

The convolution (width, 3, 3, P, P) has a stride of one frame and one zero frame of padding at both
ends of a clip; all that follows is per frame. Source: CLIP4Clip @508ffa3, modules/module_clip.py.

The reference pads a short clip with frames of zeros. As the convolution has no bias, a frame of
zeros adds nothing to its neighbours: the features of valid frames are the same with or without
that padding, and no padded frame is needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.errors import CheckpointError


class TemporalPatchEmbedding(nn.Module):
    """Stands in for the patch convolution of transformers' CLIP vision tower.

    Args:
        weight: (width, 3, P, P) the 2d convolution: kept, as in the reference, but not used.
        temporal_weight: (width, 3, 3, P, P): output, colour, time (before, now, after), y, x.
    """

    def __init__(self, weight: Tensor, temporal_weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.temporal_weight = nn.Parameter(temporal_weight, requires_grad=False)
        self.follows: Tensor | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns (B, width, grid, grid) from (B, 3, H, W) frames.

        `follows` (B,) bool must have been set: whether frame i comes right after frame i-1 in one
        clip. Without it every frame is a clip of its own.
        """
        patch = self.weight.shape[-1]
        # The three instants as one convolution: (3 * width, 3, P, P).
        kernels = self.temporal_weight.movedim(2, 0).flatten(0, 1)
        before, now, after = functional.conv2d(pixels, kernels, stride=patch).chunk(3, dim=1)
        result: Tensor = now.clone()
        if self.follows is None:
            return result
        follows = self.follows.to(now.device)[1:, None, None, None]
        result[1:] += torch.where(follows, before[:-1], 0.0)
        result[:-1] += torch.where(follows, after[1:], 0.0)
        return result


def follows_in_clip(offsets: Sequence[int], num_frames: int) -> Tensor:
    """Returns (B,) bool: whether a frame comes right after the one before it in the same clip.

    Args:
        offsets: (n + 1,) where the n clips begin, and B at the end; clips may be empty.
        num_frames: B.

    Raises:
        ValueError: The offsets do not rise from 0 to B.
    """
    rising = all(start <= stop for start, stop in pairwise(offsets))
    if not rising or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != num_frames:
        raise ValueError(f"offsets must rise from 0 to {num_frames}, got {list(offsets)[:10]}")
    follows = torch.ones(num_frames, dtype=torch.bool)
    follows[[start for start in offsets if start < num_frames]] = False
    return follows


def temporal_patches(model: nn.Module) -> TemporalPatchEmbedding | None:
    """Returns a model's patch embedding where that looks at neighbouring frames, else None."""
    vision = getattr(model, "vision_model", None)
    patches = getattr(getattr(vision, "embeddings", None), "patch_embedding", None)
    return patches if isinstance(patches, TemporalPatchEmbedding) else None


def make_temporal(model: nn.Module, temporal_weight: Tensor) -> None:
    """Replaces the patch convolution of transformers' CLIP by one over time.

    Args:
        model: A CLIPModel.
        temporal_weight: (width, 3, 3, P, P), see `TemporalPatchEmbedding`.

    Raises:
        CheckpointError: Another shape.
    """
    embeddings: Any = model.get_submodule("vision_model.embeddings")
    weight = embeddings.patch_embedding.weight.detach()
    wanted = (*weight.shape[:2], 3, *weight.shape[2:])
    if tuple(temporal_weight.shape) != wanted:
        raise CheckpointError(
            f"the patch convolution over time has shape {tuple(temporal_weight.shape)}; beside a "
            f"patch convolution of shape {tuple(weight.shape)} it must have {tuple(wanted)}"
        )
    embeddings.patch_embedding = TemporalPatchEmbedding(weight, temporal_weight.to(weight.dtype))
