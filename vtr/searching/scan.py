"""Scores of all frames: a float16 product over the mapped index, the best again in float32."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]
_SAMPLED_ROWS = 1 << 14
_BLOCK_ROWS = 1 << 17  # times any row a multiple of the page
_RESIDENT_BYTES = 3 << 28  # with a block in work and torch beside it, 1.3 GB in all


class Scanner:
    """The rows of L videos among the R rows of an index.

    `frames` are (R, D) float16 unit vectors; each video has the rows from `starts` (L,), which
    ascend, to before `stops` (L,).
    """

    recall: float | None = None
    """Share of what an exact scan finds first that is found; None is all, by exact scanning."""

    def __init__(self, frames: NDArray[np.float16], starts: Indices, stops: Indices) -> None:
        self.frames, self.starts, self.stops = frames, starts, stops
        steps = np.zeros(len(frames) + 1, np.int64)
        np.add.at(steps, starts, 1)
        np.subtract.at(steps, stops, 1)
        self.alive = np.cumsum(steps)[:-1] > 0  # (R,) whether a row is of one of the videos
        self._whole = bool(self.alive.all())

    @cached_property
    def sample(self) -> Indices:
        """Rows at even steps among those of videos, enough to tell what is usual."""
        rows = np.flatnonzero(self.alive)
        return rows[:: max(1, len(rows) // _SAMPLED_ROWS)]

    def rows(self, n: int) -> slice:
        """Returns the rows of a video."""
        return slice(int(self.starts[n]), int(self.stops[n]))

    def scores(self, vector: Floats, *, least_videos: int = 1) -> NDArray[np.float32]:
        """Returns (R,) the cosine of every row with a unit vector (D,).

        Where rows are left out, those of at least so many videos are scored.
        """
        return self.scan(vector)

    def of_video(self, n: int, scores: Floats, vector: Floats) -> Floats:
        """Returns the scores of a video's rows, given those of all."""
        return scores[self.rows(n)]

    def scan(self, vector: Floats, first: int = 0) -> NDArray[np.float32]:
        """Returns the cosine of every row from `first` on, within 0.0003."""
        import torch

        query = torch.from_numpy(np.asarray(vector, np.float16))
        scores = torch.empty(len(self.frames) - first)
        product = _product()
        with torch.inference_mode():
            for start in range(first, len(self.frames), _BLOCK_ROWS):
                block = torch.from_numpy(np.asarray(self.frames[start : start + _BLOCK_ROWS]))
                scores[start - first : start - first + len(block)] = product(block, query)
                self._release(start, block.nbytes)
        made: NDArray[np.float32] = scores.numpy()
        return made

    def _release(self, start: int, num_bytes: int) -> None:
        """Gives the memory of mapped rows back that would not stay below the limit anyway."""
        mapped = getattr(self.frames, "_mmap", None)
        at = start * self.frames.strides[0]
        if mapped is not None and at >= _RESIDENT_BYTES:
            mapped.madvise(mmap.MADV_DONTNEED, at, num_bytes)

    def best(self, scores: Floats) -> Floats:
        """Returns (L,) the best score of each video."""
        if not self._whole:
            scores = np.where(self.alive, scores, np.float32(-np.inf))
        best: Floats = np.maximum.reduceat(scores, self.starts)
        return best

    def exact(self, start: int, stop: int, vector: Floats) -> Floats:
        """Returns the cosines of some rows in float32, whatever rounding did to their lengths."""
        return cosines(np.asarray(self.frames[start:stop], np.float32), vector)


def cosines(rows: Floats, vector: Floats) -> Floats:
    """Returns (N,) those of rows (N, D) with a unit vector."""
    scores: Floats = (rows @ vector) / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
    return scores


def _product() -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the quicker way to (N, D) times (D,) in float16 on this processor.

    With float16 instructions oneDNN's product took 133 ms of a million rows where `mv` took 228.
    """
    import torch

    if torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return lambda block, query: torch.nn.functional.linear(query[None], block)[0]
    return torch.mv
