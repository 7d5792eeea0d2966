"""Training data held whole: packed arrays on the device, from which a batch is a gather."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.features.store import FeatureStore, PackedFrames
from vtr.train.heads.base import TextBatch, VideoBatch
from vtr.train.memory import fits
from vtr.train.texts import TextFeatures
from vtr.train.vision_tower import PictureBatch

Index = NDArray[np.int64]

_PICTURES = (32, 1024)
"""Pictures encoded together without gradients, on a CPU and on a GPU."""


@dataclass(frozen=True)
class PictureRows:
    """The frames of V videos before the vision tower."""

    ids: tuple[str, ...]  # V video ids
    # (R, H, W, 3) uint8 pictures, or (R, K, width) what the frozen blocks made of them; may be a
    # mapped file. Of a store: pictures that are read when they are asked for.
    rows: NDArray[Any] | FeatureStore
    offsets: Index  # (V+1,) int64; video v has rows offsets[v] to offsets[v + 1]
    # What padding is: (K, width) activations; of pictures, whether the head reads it.
    pad: Tensor | bool = False

    @property
    def num_rows(self) -> int:
        """R."""
        return int(self.offsets[-1])

    def span(self, first: int, last: int) -> NDArray[Any]:
        """Returns the rows of videos `first` to before `last`."""
        if isinstance(self.rows, FeatureStore):
            return self.rows.pictures(self.ids[first:last]).pixels
        rows: NDArray[Any] = self.rows[self.offsets[first] : self.offsets[last]]
        return rows


@dataclass(frozen=True)
class PairedData:
    """Captions and the videos they describe."""

    texts: TextFeatures  # N captions
    # V videos, each with at least one frame; pictures where the vision tower is trained.
    videos: PackedFrames | PictureRows
    text_video: Index  # (N,) int64: the place in `videos` of the video that a caption describes
    # (D,) what the vision tower makes of padding, for heads that read it.
    pad: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if len(self.text_video) != len(self.texts):
            raise ValueError(f"{len(self.texts)} texts, {len(self.text_video)} owners")
        empty = np.flatnonzero(np.diff(self.videos.offsets) == 0)
        if len(empty):
            raise ConfigError(
                f"{counted(len(empty), 'video has', 'videos have')} no frames, such as "
                f"{self.videos.ids[int(empty[0])]!r}; "
                "leave them out"
            )
        outside = (self.text_video < 0) | (self.text_video >= len(self.videos.ids))
        if outside.any():
            n = int(np.flatnonzero(outside)[0])
            raise ConfigError(
                f"caption {self.texts.ids[n]!r} belongs to video number {self.text_video[n]}; "
                f"there are {len(self.videos.ids)}"
            )


def chosen_rows(table: Tensor, index: Index, beside: bool = False) -> Tensor:
    """Returns rows of a table in the order of `index` (M,): neighbours are a view.

    `beside` other work of torch on a CPU it takes no more than the caller's thread.
    """
    first, count = int(index[0]), len(index)
    if index[-1] == first + count - 1 and bool((index[1:] > index[:-1]).all()):
        return table[first : first + count]
    if beside:
        return torch.from_numpy(table.numpy().take(index, axis=0))
    # Six times as fast as [place] on a CPU.
    return table.index_select(0, torch.from_numpy(index).to(table.device))


class Packed:
    """Rows (R, D) of several items in one tensor: item m has rows offsets[m] to offsets[m + 1]."""

    def __init__(self, rows: NDArray[Any], offsets: Index, device: torch.device) -> None:
        # torch refuses read-only arrays; the copy is made for those alone.
        self.rows = torch.from_numpy(np.require(rows, requirements=["C", "W"])).to(device)
        self.lengths: Index = np.diff(offsets)
        self._first = torch.from_numpy(offsets[:-1].copy()).to(device)
        self._length = torch.from_numpy(self.lengths.copy()).to(device)
        longest = int(self.lengths.max(initial=0))
        self._equal = bool((self.lengths == longest).all())
        self._steps = torch.arange(longest, device=device)

    def width(self, index: Index) -> int:
        """Returns the length of the longest of some items."""
        return int(self.lengths[index].max(initial=0))

    def gather(self, index: Index, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Returns ((B, K, D) float32, (B, K) bool), K `width` or the longest item."""
        place = torch.from_numpy(index).to(self.rows.device)
        longest = self.width(index) if width is None else width
        steps = self._steps[:longest]
        mask = steps < self._length[place][:, None]
        if self._equal:
            items = self.rows.view(-1, longest, self.rows.shape[1])
            return items.index_select(0, place).float(), mask
        rows = self._first[place][:, None] + steps
        flat = rows.clamp_(max=len(self.rows) - 1).flatten()
        shape = (len(index), longest, self.rows.shape[1])
        return self.rows.index_select(0, flat).view(shape).float(), mask


class ResidentTexts:
    """Captions on a device."""

    def __init__(self, texts: TextFeatures, device: torch.device) -> None:
        self.ids = texts.ids
        self._pooled = torch.from_numpy(np.require(texts.pooled, requirements=["C", "W"]))
        self._pooled = self._pooled.to(device)
        self._tokens = None
        if texts.tokens is not None and texts.token_offsets is not None:
            self._tokens = Packed(texts.tokens, texts.token_offsets, device)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_tokens(self) -> bool:
        """Whether captions have features of their words, and not only one vector each."""
        return self._tokens is not None

    def width(self, index: Index) -> int:
        """Returns the tokens of the longest of some captions; 0 where there are no tokens."""
        return 0 if self._tokens is None else self._tokens.width(index)

    def batch(self, index: Index, width: int | None = None) -> TextBatch:
        """Returns the chosen captions, in the order of `index` (B,), padded to `width` tokens."""
        pooled = chosen_rows(self._pooled, index)
        if self._tokens is None:
            return TextBatch(pooled)
        return TextBatch(pooled, *self._tokens.gather(index, width))


class ResidentVideos:
    """Videos on a device; `pad` (D,) is what the vision tower makes of padding."""

    def __init__(
        self, videos: PackedFrames, device: torch.device, pad: NDArray[np.float32] | None = None
    ) -> None:
        self.ids = videos.ids
        self._frames = Packed(videos.frames, videos.offsets, device)
        self._pad = None if pad is None else torch.from_numpy(pad.copy()).to(device)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Index:
        """(V,) frames of each video."""
        return self._frames.lengths

    @property
    def at_once(self) -> int:
        """Videos that may be encoded together without gradients."""
        return max(1, len(self))

    def width(self, index: Index) -> int:
        """Returns the frames of the longest of some videos."""
        return self._frames.width(index)

    def batch(self, index: Index, width: int | None = None) -> VideoBatch:
        """Returns the chosen videos, in the order of `index` (B,), padded to `width` frames."""
        frames, mask = self._frames.gather(index, width)
        return VideoBatch(frames, mask, self._pad)


class ResidentPictures:
    """Pictures, or what frozen blocks made of them, of which each batch is sent to a device."""

    def __init__(self, videos: PictureRows, device: torch.device) -> None:
        self.ids = videos.ids
        self.lengths: Index = np.diff(videos.offsets)
        self._offsets, self._pad, self._device = videos.offsets, videos.pad, device
        self._rows: Tensor | FeatureStore
        if isinstance(videos.rows, FeatureStore):
            self._rows = videos.rows
        else:
            rows = torch.from_numpy(np.require(videos.rows, requirements=["C", "W"]))
            moves = device.type != "cpu" and fits(rows.nbytes, device)
            self._rows = rows.to(device) if moves else rows
        self.at_once = max(1, _PICTURES[device.type == "cuda"] // int(self.lengths.max(initial=1)))

    def __len__(self) -> int:
        return len(self.ids)

    def width(self, index: Index) -> int:
        """Returns the frames of the longest of some videos."""
        return int(self.lengths[index].max(initial=0))

    def batch(self, index: Index, width: int | None = None) -> PictureBatch:
        """Returns the chosen videos, in the order of `index` (B,), padded to `width` frames."""
        distinct, place = np.unique(index, return_inverse=True)
        repeats = len(distinct) < len(index)
        chosen = distinct if repeats else index
        longest, lengths = self.width(index) if width is None else width, self.lengths[chosen]
        begins = np.concatenate(([0], lengths.cumsum()[:-1]))
        follows = np.ones(lengths.sum(), dtype=bool)
        follows[begins] = False
        if isinstance(self._rows, FeatureStore):
            rows = torch.from_numpy(self._rows.pictures([self.ids[v] for v in chosen]).pixels)
        else:
            # Torch's own memory, aligned to 64 bytes: products of the same numbers at another
            # alignment differ in their last bits.
            places = np.arange(lengths.sum()) + np.repeat(self._offsets[chosen] - begins, lengths)
            rows = self._rows.index_select(0, torch.from_numpy(places).to(self._rows.device))
        return PictureBatch(
            rows.to(self._device),
            self._send(np.arange(longest) < lengths[:, None]),
            self._send(place) if repeats else None,
            self._send(follows),
            self._pad,
        )

    def _send(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


class Resident:
    """Training data on a device."""

    def __init__(self, data: PairedData, device: torch.device) -> None:
        self.data = data
        self.device = device
        self.texts = ResidentTexts(data.texts, device)
        self.videos = resident_videos(data.videos, device, data.pad)


def resident_videos(
    videos: PackedFrames | PictureRows, device: torch.device, pad: NDArray[np.float32] | None = None
) -> ResidentVideos | ResidentPictures:
    """Returns videos on a device, whatever is known of them; `pad` as in `ResidentVideos`."""
    if isinstance(videos, PictureRows):
        return ResidentPictures(videos, device)
    return ResidentVideos(videos, device, pad)


def group_by_owner(owner: Index, num_owners: int) -> tuple[Index, Index]:
    """Returns (items sorted by owner (N,), offsets (num_owners + 1,)).

    >>> group_by_owner(np.array([1, 0, 1]), 2)[0].tolist()
    [1, 0, 2]
    """
    counts = np.bincount(owner, minlength=num_owners)
    offsets = np.concatenate(([0], counts.cumsum())).astype(np.int64)
    return np.argsort(owner, kind="stable"), offsets
