"""Scores of all frames: a float16 product over the mapped index, the best again in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]
_BLOCK_ROWS = 1 << 17


class Scanner:
    """The rows of L videos among the R rows of an index.

    Args:
        frames: (R, D) float16 unit vectors.
        starts: (L,) where each video's rows begin, ascending.
        stops: (L,) where they end.
    """

    def __init__(self, frames: NDArray[np.float16], starts: Indices, stops: Indices) -> None:
        self.frames, self._starts, self._stops = frames, starts, stops
        steps = np.zeros(len(frames) + 1, np.int64)
        np.add.at(steps, starts, 1)
        np.subtract.at(steps, stops, 1)
        self.alive = np.cumsum(steps)[:-1] > 0  # (R,) whether a row is of one of the videos
        self._whole = bool(self.alive.all())

    def rows(self, n: int) -> slice:
        """Returns the rows of a video."""
        return slice(int(self._starts[n]), int(self._stops[n]))

    def scores(self, vector: Floats) -> NDArray[np.float32]:
        """Returns (R,) the cosine of every row with a unit vector (D,), within 0.0003."""
        import torch

        query = torch.from_numpy(np.asarray(vector, np.float16))
        scores = np.empty(len(self.frames), np.float32)
        with torch.inference_mode():
            for start in range(0, len(scores), _BLOCK_ROWS):
                block = torch.from_numpy(np.asarray(self.frames[start : start + _BLOCK_ROWS]))
                scores[start : start + len(block)] = torch.mv(block, query).float().numpy()
        return scores

    def best(self, scores: Floats) -> Floats:
        """Returns (L,) the best score of each video."""
        if not self._whole:
            scores = np.where(self.alive, scores, np.float32(-np.inf))
        best: Floats = np.maximum.reduceat(scores, self._starts)
        return best

    def exact(self, start: int, stop: int, vector: Floats) -> Floats:
        """Returns the cosines of some rows in float32, whatever rounding did to their lengths."""
        rows = np.asarray(self.frames[start:stop], np.float32)
        scores: Floats = (rows @ vector) / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
        return scores
