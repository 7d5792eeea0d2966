"""Blocks of scores from tiles of one fixed grid, so that a pair always gets the same value.

A matrix product may round a pair differently in another place of another shape: of OpenBLAS's
values about one in twenty differs in the last bit between a narrow tile and the whole. Counting
wants each video's own captions scored first, and the very same values again later; so both come
from the same calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.evaluate.ranks import Scores

Fill = Callable[[slice, slice, NDArray[np.float32]], None]

ROWS_PER_TILE = 1024
VIDEOS_PER_TILE = 256


class TiledScores:
    """A source for `vtr.evaluate.ranks.stream_ranks`.

    One pass costs the whole matrix; `own` costs the tiles along the diagonal, which are few where
    the queries of neighbouring videos stand together.

    Args:
        fill: `fill(rows, videos, out)` writes the scores of some texts with some videos into
            `out`; the same call must always write the same values.
        num_rows: How many (distinct) texts there are.
        num_videos: How many videos.
        rows_per_tile: Texts per call.
        videos_per_tile: Videos per call.
    """

    def __init__(
        self,
        fill: Fill,
        num_rows: int,
        num_videos: int,
        *,
        rows_per_tile: int = ROWS_PER_TILE,
        videos_per_tile: int = VIDEOS_PER_TILE,
    ) -> None:
        self._fill = fill
        self._num_rows, self._num_videos = num_rows, num_videos
        self._rows_per_tile, self._videos_per_tile = rows_per_tile, videos_per_tile

    def __call__(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yields (first row, scores (b, num_videos)); the next block reuses the memory."""
        buffer = np.empty((min(self._rows_per_tile, self._num_rows), self._num_videos), np.float32)
        for rows in _slices(self._num_rows, self._rows_per_tile):
            block = buffer[: rows.stop - rows.start]
            for videos in _slices(self._num_videos, self._videos_per_tile):
                self._fill(rows, videos, block[:, videos])
            yield rows.start, block

    def own(
        self,
        query_video: NDArray[np.integer[Any]],
        query_text: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """(Q,) the score of each query with its own video.

        Args:
            query_video: (Q,) the video of each query.
            query_text: (Q,) the row of each query; None where row i is query i.
        """
        texts = np.arange(len(query_video)) if query_text is None else np.asarray(query_text)
        own = np.empty(len(texts), np.float32)
        buffer = np.empty((min(self._rows_per_tile, self._num_rows), self._num_videos), np.float32)
        columns_of_tiles = -(-self._num_videos // self._videos_per_tile)
        tile = (
            texts // self._rows_per_tile * columns_of_tiles + query_video // self._videos_per_tile
        )
        order = np.argsort(tile, kind="stable")
        cuts = np.flatnonzero(np.diff(tile[order])) + 1
        for queries in np.split(order, cuts):
            row, column = divmod(int(tile[queries[0]]), columns_of_tiles)
            rows = _slice(row, self._rows_per_tile, self._num_rows)
            videos = _slice(column, self._videos_per_tile, self._num_videos)
            block = buffer[: rows.stop - rows.start]
            self._fill(rows, videos, block[:, videos])
            own[queries] = block[texts[queries] - rows.start, query_video[queries]]
        return own


def product_scores(texts: Scores, videos: Scores) -> TiledScores:
    """Scores by inner product, for heads that give one vector per video.

    Args:
        texts: (N, D) float32, one row per distinct text.
        videos: (V, D) float32.
    """

    def fill(rows: slice, columns: slice, out: NDArray[np.float32]) -> None:
        np.matmul(texts[rows], videos[columns].T, out=out)

    return TiledScores(fill, len(texts), len(videos))


def _slice(number: int, size: int, end: int) -> slice:
    return slice(number * size, min((number + 1) * size, end))


def _slices(end: int, size: int) -> Iterator[slice]:
    return (_slice(number, size, end) for number in range(-(-end // size)))
