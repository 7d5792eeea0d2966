"""Turns decoded videos into a shard's rows, encoding their frames in batches that mix videos."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.datasets.base import Video
from vtr.extract.jobs import Decoded, file_facts, read_answer
from vtr.extract.pool import Outcome
from vtr.extract.settings import Encoder, TemporalEncoder
from vtr.features.rows import LedgerRow, VideoRow
from vtr.features.spec import FeatureSpec


class ShardBuilder:
    """Collects the videos of one shard in plan order.

    Frames are encoded as soon as a batch is full, and never across a shard's border: so the
    numbers in a shard depend on its own videos alone, and a resumed run gives the same bytes as
    one that was never interrupted. For an encoder that sees neighbouring frames, batches hold
    whole videos.

    Args:
        encoder: The vision tower.
        spec: The store's spec.
        batch_size: Frames per call of the encoder.
    """

    def __init__(self, encoder: Encoder, spec: FeatureSpec, *, batch_size: int) -> None:
        self._encoder = encoder
        self._spec = spec
        self._batch_size = batch_size
        self._ledger: list[LedgerRow] = []
        self._decoded: list[Decoded | None] = []
        self._waiting: list[NDArray[np.uint8]] = []
        self._embeddings: list[NDArray[np.float32]] = []

    def __len__(self) -> int:
        return len(self._ledger)

    @property
    def num_bytes(self) -> int:
        """Embedding bytes of the shard so far."""
        frames = sum(len(decoded.pts_seconds) for decoded in self._decoded if decoded)
        return self.frame_bytes * frames

    @property
    def frame_bytes(self) -> int:
        """Bytes of one stored embedding."""
        return self._spec.embedding_dim * np.dtype(self._spec.storage_dtype).itemsize

    def add(self, video: Video, outcome: Outcome) -> LedgerRow:
        """Takes one video's outcome; returns its ledger row as far as it is known."""
        if outcome.failure is not None:
            kind, detail = outcome.failure
            row = LedgerRow(video.id, "failed", f"{kind}: {detail}", **file_facts(video.path))
            decoded = None
        else:
            decoded = read_answer(outcome)
            row = LedgerRow(video.id, **decoded.facts)
        self._ledger.append(row)
        self._decoded.append(decoded)
        if decoded is not None:
            self._waiting.append(decoded.crops)
            # The crops are needed until they are encoded, not until the shard is done.
            self._decoded[-1] = replace(decoded, crops=np.zeros((0, 0, 0, 3), np.uint8))
            while sum(map(len, self._waiting)) >= self._batch_size:
                self._encode()
        return row

    def finish(self) -> list[VideoRow]:
        """Encodes what is left and returns the rows in plan order."""
        while self._waiting:
            self._encode()
        dim = self._spec.embedding_dim
        encoded = np.concatenate([np.zeros((0, dim), np.float32), *self._embeddings])
        rows, start = [], 0
        for ledger, decoded in zip(self._ledger, self._decoded, strict=True):
            if decoded is None:
                rows.append(VideoRow.failed(ledger, dim))
                continue
            stop = start + len(decoded.pts_seconds)
            rows.append(self._row(ledger, decoded, encoded[start:stop]))
            start = stop
        assert start == len(encoded), f"{len(encoded)} embeddings for {start} frames"
        return rows

    def _encode(self) -> None:
        if self._spec.linear_patch == "3d":
            self._encode_whole_videos()
            return
        batch, rest, space = [], list(self._waiting), self._batch_size
        while rest and space:
            batch.append(rest[0][:space])
            rest[0] = rest[0][space:]
            space -= len(batch[-1])
            if not len(rest[0]):
                rest.pop(0)
        self._embeddings.append(self._encoder.encode_frames(np.concatenate(batch)))
        self._waiting = rest

    def _encode_whole_videos(self) -> None:
        """As `_encode`, with a batch that ends where a video ends."""
        num_frames = np.cumsum([len(crops) for crops in self._waiting])
        count = int(np.searchsorted(num_frames, self._batch_size)) + 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        encoder = cast("TemporalEncoder", self._encoder)
        offsets = [0, *num_frames[: len(batch)].tolist()]
        self._embeddings.append(encoder.encode_frames(np.concatenate(batch), offsets=offsets))

    def _row(self, ledger: LedgerRow, decoded: Decoded, frames: NDArray[np.float32]) -> VideoRow:
        stored = frames.astype(self._spec.storage_dtype)
        sound = np.isfinite(stored).all(axis=1) & (stored != 0).any(axis=1)
        if not sound.all():
            error = (
                f"bad-features: {np.count_nonzero(~sound)} of {counted(len(sound), 'frame')} "
                "gave a zero or "
                "non-finite embedding"
            )
            failed = replace(ledger, status="failed", error=error)
            return VideoRow.failed(failed, self._spec.embedding_dim)
        return VideoRow(ledger, stored, decoded.pts_seconds, decoded.selections, decoded.luma)
