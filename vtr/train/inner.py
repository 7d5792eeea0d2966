"""Scores that are inner products: of some texts with all videos, again and again."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

from vtr.clip.products import has_onednn, laid_out, multiplied

_SURELY_FINITE = 1e37
"""Inner products of vectors whose lengths multiply to less do not overflow float32."""

_PIECE_ROWS = 64
"""Texts that oneDNN multiplies at once where the scores have a place: it makes fresh memory, and
what is kept of scores lies down in what is free between two products. Of less, less is lost."""


class InnerProducts:
    """The inner products of texts (b, D) with all videos (V, D)."""

    def __init__(self, videos: Tensor) -> None:
        self.num_videos = len(videos)
        self._longest = float(videos.norm(dim=1).max())
        plain = videos.device.type == "cpu" and videos.dtype == torch.float32
        self._by_onednn = plain and has_onednn()
        self._videos = laid_out(videos) if self._by_onednn else videos

    def surely_finite(self, texts: Tensor) -> bool:
        """Whether no product with these texts can have overflowed."""
        flat = texts.reshape(-1)  # no vector of a block is longer than all of it
        return math.sqrt(float(flat @ flat)) * self._longest < _SURELY_FINITE

    @torch.no_grad()
    def __call__(self, texts: Tensor, out: Tensor | None = None) -> Tensor:
        """Returns (b, V), in `out` where that is given."""
        if not self._by_onednn:
            return torch.mm(texts, self._videos.T, out=out)
        if out is None:
            return multiplied(texts, self._videos)
        # Even pieces: a single row is multiplied in another way.
        num_pieces = -(-len(texts) // _PIECE_ROWS)
        for rows, place in zip(texts.chunk(num_pieces), out.chunk(num_pieces), strict=True):
            place.copy_(multiplied(rows, self._videos))
        return out


class InThreads:
    """The same in several threads at once, for up to `height` texts.

    Each product has one thread: cores that count what they multiplied do not wait for each other.
    A thread gets its scores in the same piece of memory each time: with a new one for each block,
    what is kept of them lies between, and no memory can be used again.
    """

    def __init__(self, inner: InnerProducts, height: int) -> None:
        self._inner, self._height, self._local = inner, height, threading.local()
        self._num_threads = torch.get_num_threads()

    def __call__(self, texts: Tensor) -> Tensor:
        """Returns (b, V), good until the thread's next call."""
        if not hasattr(self._local, "scores"):
            shape = self._height, self._inner.num_videos
            self._local.scores = torch.empty(shape, device=texts.device)
        torch.set_num_threads(1)  # of this thread
        try:
            return self._inner(texts, self._local.scores[: len(texts)])
        finally:
            torch.set_num_threads(self._num_threads)
