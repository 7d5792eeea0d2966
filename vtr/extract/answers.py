"""What a decoding worker answers of a video, and the row that becomes of it.

Apart from what decodes, so that whoever only asks for frames loads no decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.datasets.base import Video
from vtr.extract.pool import Outcome
from vtr.extract.resume import file_facts
from vtr.extract.samplers.base import Signals
from vtr.extract.settings import ExtractSettings
from vtr.extract.timeline import Indices, Seconds
from vtr.extract.worker import Answer
from vtr.features.pictures import to_webp
from vtr.features.rows import LedgerRow, VideoRow

HANDLER = "vtr.extract.sample:make_handler"

Crops = NDArray[np.uint8]


@dataclass(frozen=True)
class SampledVideo:
    """The frames that at least one sampler chose."""

    # (R, ...) stacked outputs of the transform, in presentation order, R >= 1; (R, k, ...) of
    # windows.
    crops: NDArray[Any]
    pts_seconds: Seconds  # (R,) float64, presentation times as stored in the file
    # Sampler label to (K,) int64 ascending indices into the R frames.
    selections: Mapping[str, Indices]
    signals: Signals  # What the samplers saw, one entry per candidate
    status: str  # "ok", or "partial" where the file is damaged or cut off
    error: str  # One line why it is partial, else empty
    width: int  # Of the upright picture
    height: int  # Of the upright picture
    duration_seconds: float  # Of the whole file, counted
    start_seconds: float  # Presentation time of the file's first frame
    decode_route: str  # "sparse", or "full: " and why not sparse
    spans: Seconds | None = None  # (R, 2) start and end of windows, as stored in the file

    @property
    def num_candidates(self) -> int:
        """How many frames the samplers chose from."""
        return len(self.signals)


def answer(sampled: SampledVideo, facts: Mapping[str, Any], settings: ExtractSettings) -> Answer:
    """Returns a header as JSON values and the bytes of crops, and of what else is to be kept."""
    header: dict[str, Any] = {
        "shape": sampled.crops.shape,
        "pts_seconds": sampled.pts_seconds.tolist(),
        "spans": None if sampled.spans is None else sampled.spans.tolist(),
        "selections": {label: rows.tolist() for label, rows in sampled.selections.items()},
        "facts": {
            "status": sampled.status,
            "error": f"damaged: {sampled.error}" if sampled.error else "",
            "num_candidates": sampled.num_candidates,
            "duration_seconds": sampled.duration_seconds,
            "start_seconds": sampled.start_seconds,
            "width": sampled.width,
            "height": sampled.height,
            **facts,
        },
    }
    payload = np.ascontiguousarray(sampled.crops).data.cast("B")
    more: list[bytes] = []
    if settings.pictures == "webp":  # here, on all cores
        more = to_webp(sampled.crops)
        header["webp_bytes"] = [len(file) for file in more]
    if not settings.keeps_thumbnails:
        return header, b"".join([payload, *more]) if more else payload
    # Thumbnails are kept on stores that hold every candidate: then they are the rows'.
    assert sampled.signals.luma is not None
    assert len(sampled.signals.luma) == len(sampled.crops)
    header["luma_shape"] = sampled.signals.luma.shape
    return header, b"".join([payload, *more, sampled.signals.luma.tobytes()])


def read_answer(video: Video, outcome: Outcome, embedding_dim: int) -> tuple[VideoRow, Crops]:
    """Returns a video's row, its embeddings still to be made, and (R, h, w, 3) uint8 crops.

    The crops are a view of the answer's bytes.
    """
    if outcome.failure is not None:
        error = ": ".join(outcome.failure)
        ledger = LedgerRow(video.id, "failed", error, **file_facts(video.path))
        return VideoRow.failed(ledger, embedding_dim), np.zeros((0, 0, 0, 3), np.uint8)
    header = outcome.header
    payload = np.frombuffer(outcome.payload, np.uint8)
    num_crop_bytes = math.prod(header["shape"])
    ends = num_crop_bytes + np.cumsum([0, *header.get("webp_bytes", ())])
    luma = header.get("luma_shape")
    row = VideoRow(
        LedgerRow(video.id, **header["facts"]),
        np.zeros((0, embedding_dim), np.float32),
        np.array(header["pts_seconds"], np.float64),
        {label: np.array(rows, np.int64) for label, rows in header["selections"].items()},
        None if luma is None else payload[ends[-1] :].reshape(luma).copy(),
        [payload[start:end].tobytes() for start, end in pairwise(ends.tolist())] or None,
        None if header.get("spans") is None else np.array(header["spans"], np.float64),
    )
    return row, payload[:num_crop_bytes].reshape(header["shape"])
