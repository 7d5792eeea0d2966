"""A store as the JSON document that FiftyOne's `Dataset.from_json` reads; it is not imported.

The layout is that of `Dataset.to_dict` of fiftyone 1.22: fields by the names of their classes,
arrays as what `numpy.save` writes, compressed by zlib, in BSON's extended JSON.
"""

from __future__ import annotations

import base64
import io
import json
import mimetypes
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vtr.features.rows import LedgerRow, VideoRow
from vtr.remote import url_of

VERSION = "1.22.1"
_FIELDS = "fiftyone.core.fields"
_LABELS = "fiftyone.core.labels"
_SAMPLE_FIELDS = {
    "id": f"{_FIELDS}.ObjectIdField",
    "filepath": f"{_FIELDS}.StringField",
    "tags": f"{_FIELDS}.ListField({_FIELDS}.StringField)",
    "metadata": f"{_FIELDS}.EmbeddedDocumentField(fiftyone.core.metadata.VideoMetadata)",
    "video_id": f"{_FIELDS}.StringField",
    "error": f"{_FIELDS}.StringField",
    "embedding": f"{_FIELDS}.VectorField",
    "moments": f"{_FIELDS}.EmbeddedDocumentField({_LABELS}.TemporalDetections)",
}


@dataclass(frozen=True)
class Moment:
    """A part of a video that fits a sentence; times in seconds from the first frame."""

    label: str
    start_seconds: float
    end_seconds: float
    score: float  # Becomes the detection's confidence
    level: float  # As in `vtr.searching.library.Hit`


def write_dataset(
    file: BinaryIO, name: str, info: dict[str, str], samples: Iterable[dict[str, Any]]
) -> None:
    """Writes the document, one sample after the other."""
    head = {"name": name, "version": VERSION, "media_type": "video",
            "sample_fields": _SAMPLE_FIELDS, "frame_fields": {}, "info": info}  # fmt: skip
    file.write(json.dumps(head)[:-1].encode() + b', "samples": [')
    for number, sample in enumerate(samples):
        file.write(b",\n" * bool(number) + json.dumps(sample).encode())
    file.write(b"]}\n")


def make_sample(
    row: VideoRow, path: Path | None, rate: float | None, moments: Sequence[Moment]
) -> dict[str, Any]:
    """Returns one video: where it is, what its ledger row says, its mean embedding, its moments.

    Args:
        row: Of the store.
        path: The file; None where it is not known: then `filepath` is the id, as of an MP4.
        rate: Frames per second; None where that is not known: then no moment can be told, since
            FiftyOne counts them in frames.
        moments: Of this video, best first.
    """
    ledger = row.ledger
    total = max(1, round(ledger.duration_seconds * rate)) if rate else None
    sample: dict[str, Any] = {
        "filepath": (url_of(path) or str(path.absolute())) if path else _placeholder(ledger.id),
        "_media_type": "video",  # else it goes by the file's ending
        "tags": [ledger.status],
        "metadata": _metadata(ledger, rate, total),
        "video_id": ledger.id,
        "error": ledger.error or None,
        "embedding": _vector(mean_of_units(row.frames)),
        "moments": None,
    }
    if moments and total and ledger.duration_seconds > 0:
        found = [_detection(moment, ledger.duration_seconds, total) for moment in moments]
        sample["moments"] = {"_cls": "TemporalDetections", "detections": found}
    return sample


def has_video_ending(name: str) -> bool:
    """Returns whether FiftyOne takes a file for a video; it copies no other samples."""
    return (mimetypes.guess_type(name)[0] or "").startswith("video")


def _placeholder(video_id: str) -> str:
    return video_id if has_video_ending(video_id) else f"{video_id}.mp4"


def mean_of_units(frames: NDArray[Any]) -> NDArray[np.float32]:
    """Returns (D,) of length 1: the direction of the mean of (R, D) frames, each of length 1.

    NaN where there are no frames, or no finite ones.
    """
    if not len(frames):
        return np.full(frames.shape[1], np.nan, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        rows = frames.astype(np.float32)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        mean = rows.mean(axis=0)
        unit: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return unit


def _metadata(ledger: LedgerRow, rate: float | None, total: int | None) -> dict[str, Any]:
    return {
        "_cls": "VideoMetadata",
        "size_bytes": ledger.file_bytes if ledger.file_bytes >= 0 else None,
        "frame_width": ledger.width or None,
        "frame_height": ledger.height or None,
        "frame_rate": rate,
        "total_frame_count": total,
        "duration": ledger.duration_seconds,
    }


def _detection(moment: Moment, duration_seconds: float, total: int) -> dict[str, Any]:
    """Returns a TemporalDetection; `support` holds the numbers of its first and last frame."""
    support = []
    for seconds in (moment.start_seconds, moment.end_seconds):
        share = min(max(seconds / duration_seconds, 0.0), 1.0)
        support.append(1 + round(share * (total - 1)))
    return {
        "_cls": "TemporalDetection",
        "tags": [],
        "label": moment.label,
        "support": support,
        "confidence": min(max(moment.score, 0.0), 1.0),
        "level": moment.level,
    }


def _vector(values: NDArray[np.float32]) -> dict[str, Any] | None:
    if not np.isfinite(values).all():
        return None
    held = io.BytesIO()
    np.save(held, values, allow_pickle=False)
    content = base64.b64encode(zlib.compress(held.getvalue())).decode()
    return {"$binary": {"base64": content, "subType": "00"}}
