"""An LSTM over the frames, added to them, then the mean.

    y_k = f_k + LSTM(f)_k,    p = normalise(mean over valid k of y_k / |y_k|),    score = <t^, p>

8 D^2 + 8 D parameters: 2,101,248 at D = 512. They start from torch's default, uniform within
1/sqrt(D), in the reference too; CLIP has nothing to copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vtr.train.dropout import RowDropout
from vtr.train.heads.base import (
    Code,
    Head,
    HeadInfo,
    VideoBatch,
    check_option,
    masked_frames,
    masked_mean,
    normalise,
)


@dataclass(frozen=True)
class Options:
    """What users may set."""

    layers: int = 1  # LSTMs on top of each other
    width: int = 0  # Size of their state; 0 means D. Another than D adds a linear layer back to D.
    dropout: float = 0.0  # Of what the LSTM says of a frame, while training

    def __post_init__(self) -> None:
        check_option(1 <= self.layers <= 16, "layers", self.layers, "1 to 16")
        check_option(0 <= self.width <= 8192, "width", self.width, "1 to 8192, or 0 for D")
        check_option(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")


class LstmPooling(Head):
    """See the module."""

    info = HeadInfo(
        needs_order=True, source="CLIP4Clip, ArrowLuo/CLIP4Clip@508ffa3, sim_header seqLSTM"
    )

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        width = options.width or dim
        self.lstm_visual = nn.LSTM(dim, width, num_layers=options.layers, batch_first=True)
        self.back = nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)
        self.dropout = RowDropout(options.dropout)

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns one unit vector (V, D) per video."""
        frames = masked_frames(videos)
        # No packing by length: frames are left aligned, so padding comes after all that counts.
        states, _ = self.lstm_visual(frames)
        told = frames + self.dropout(self.back(states))
        return (normalise(masked_mean(normalise(told), videos.mask)),)
