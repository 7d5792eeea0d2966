"""One video's row: what the ledger says of it, and its features where it has any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vtr.features.pictures import Kept

Status = Literal["ok", "partial", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
MAX_ERROR_BYTES = 500


@dataclass(frozen=True)
class VideoFeatures:
    """The cached features of one video.

    >>> import vtr
    >>> store = vtr.FeatureStore("demo-world/features", sampler="uniform", frames=8)
    >>> video = store["test-order-000a"]
    >>> video.frames.shape, video.pts_seconds.shape
    ((8, 96), (8,))
    """

    id: str  # Video id
    # (K, D) floating point, not normalised, in presentation order.
    frames: NDArray[np.floating[Any]]
    pts_seconds: NDArray[np.float64]  # (K,) float64, presentation times of these frames
    # (K, 2) float64 start and end of each window, where rows are windows; None where frames.
    spans: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 2 or self.pts_seconds.shape != self.frames.shape[:1]:
            raise ValueError(
                f"frames must be (K, D) and pts_seconds (K,); are {self.frames.shape} and "
                f"{self.pts_seconds.shape}"
            )


@dataclass(frozen=True, slots=True)  # there may be millions
class LedgerRow:
    """What became of one input.

    >>> import vtr
    >>> row = vtr.FeatureStore("demo-world/features", sampler="uniform").ledger[0]
    >>> row.id, row.status, row.duration_seconds
    ('train-content-000', 'ok', 6.0)
    """

    id: str  # Video id
    status: Status  # "ok", "partial" (frames before a fault) or "failed" (no frames)
    error: str = ""  # "class: detail" for partial and failed, else empty
    file_bytes: int = -1  # Size of the file that was read; -1 where there was none
    num_candidates: int = 0  # Frames the samplers chose from
    duration_seconds: float = 0.0  # Counted from the decoded frames, not from a header
    start_seconds: float = 0.0  # Presentation time of the first frame
    width: int = 0  # Pixels, after rotation
    height: int = 0  # Pixels, after rotation
    # When the file that was read was last written, nanoseconds since 1970; -1 where that is not
    # known (older stores).
    file_mtime_ns: int = -1
    file_sha256: str = ""  # Of its content, in hexadecimal; empty where it was not asked for

    @property
    def reason(self) -> str:
        """The failure class: what stands before the first colon of `error`."""
        return self.error.partition(":")[0]


@dataclass(frozen=True)
class VideoRow:
    """A ledger row with its features, ready to be stored."""

    ledger: LedgerRow  # What became of the input
    frames: NDArray[np.floating[Any]]  # (R, D), R = 0 where it failed
    pts_seconds: NDArray[np.float64]  # (R,) float64; of windows the middle
    # Sampler label to (k,) indices into the R frames.
    selections: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    luma: NDArray[np.uint8] | None = None  # (R, s, s) uint8 thumbnails, in stores that keep them
    pictures: Kept | None = None  # R pictures that the tower saw, in stores that keep them
    spans: NDArray[np.float64] | None = None  # (R, 2) start and end, where rows are windows

    @classmethod
    def failed(cls, ledger: LedgerRow, embedding_dim: int) -> VideoRow:
        """Returns a row without frames."""
        return cls(ledger, np.zeros((0, embedding_dim), np.float32), np.zeros(0))
