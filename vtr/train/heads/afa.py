"""Frames weighted by what they show, the same for every text: one vector per video.

    b_f = softmax over valid f of (W2 relu(W1 y_f + c1) + c2) / temperature
    score = <normalise(t), normalise(sum over f of b_f y_f / |y_f|)>

y are the frames, after seqTransf's layers with `layers=4`. W2 starts at zero: the weights are then
uniform, and the untrained head is meanP exactly (seqTransf with layers). An index can serve it; it
learns most from a stronger head, see `vtr.train.teacher`.

0.26 M parameters at D = 512, 12.91 M with four layers. Padding has no weight here; in the reference
it has. Source: TeachCLIP's student (ruc-aimc-lab/TeachCLIP), implemented from the formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vtr.train.heads.base import Code, HeadInfo, VideoBatch, check_option, normalise
from vtr.train.heads.blocks import LayerOptions, SequenceHead, ShareMlp


@dataclass(frozen=True)
class Options(LayerOptions):
    """What users may set."""

    temperature: float = 0.1  # Of the softmax over frames

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self.temperature > 0, "temperature", self.temperature, "above 0")


PRESETS: Mapping[str, Options] = {"teachclip": Options(layers=4)}


class AttentiveAggregation(SequenceHead):
    """See the module."""

    info = HeadInfo(source="TeachCLIP, ruc-aimc-lab/TeachCLIP (formula)")
    rest = "uniform weights"

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        self.frame_weight_fc = ShareMlp(dim)

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns one unit vector (V, D) per video."""
        return self.encode_with_weights(videos)[0]

    def encode_with_weights(self, videos: VideoBatch) -> tuple[Code, Tensor]:
        """Returns the code and (V, K) logits of its frames, not yet divided by the temperature."""
        frames = self.contextual_frames(videos)
        logits = self.frame_weight_fc(frames)[..., 0].masked_fill(~videos.mask, -torch.inf)
        weights = (logits / self.options.temperature).softmax(dim=1)
        return (normalise(torch.einsum("vk,vkd->vd", weights, normalise(frames))),), logits
