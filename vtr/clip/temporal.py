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

import torch
from torch import Tensor, nn
from torch.nn import functional


class TemporalPatches(nn.Module):
    """Stands in for the patch convolution of CLIP's vision tower."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        # The 2d convolution: kept, as in the reference, but not used.
        self.weight = nn.Parameter(torch.empty(width, 3, patch, patch))
        # Output, colour, time (before, now, after), y, x.
        self.temporal_weight = nn.Parameter(torch.empty(width, 3, 3, patch, patch))

    def forward(self, pixels: Tensor, follows: Tensor | None = None) -> Tensor:
        """Returns (B, width, grid, grid) of frames (B, 3, H, W).

        `follows` (B,) bool says whether frame i comes right after frame i-1 in one clip; without it
        every frame is a clip of its own.
        """
        patch = self.weight.shape[-1]
        # The three instants as one convolution: (3 * width, 3, P, P).
        kernels = self.temporal_weight.movedim(2, 0).flatten(0, 1)
        before, now, after = functional.conv2d(pixels, kernels, stride=patch).chunk(3, dim=1)
        if follows is None:
            return now
        linked = follows.to(now.device)[1:, None, None, None]
        result: Tensor = now.clone()
        result[1:] += torch.where(linked, before[:-1], 0.0)
        result[:-1] += torch.where(linked, after[1:], 0.0)
        return result


def follows_in_clip(offsets: Sequence[int], num_frames: int) -> Tensor:
    """Returns (B,) bool: whether a frame comes right after the one before it in the same clip."""
    rising = all(start <= stop for start, stop in pairwise(offsets))
    if not rising or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != num_frames:
        raise ValueError(f"offsets must rise from 0 to {num_frames}, got {list(offsets)[:10]}")
    follows = torch.ones(num_frames, dtype=torch.bool)
    follows[[start for start in offsets if start < num_frames]] = False
    return follows
