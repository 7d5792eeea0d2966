"""One shard file: built in memory, published whole, read without trusting it.

Layout (schema 1), all datasets contiguous and unfiltered, V videos, R frames, D dimensions:

    attributes            schema, spec (JSON), fingerprint, part (text "i/n"), sequence, revision
    video/id              (V,) fixed-length UTF-8, NFC      video/status  (V,) uint8, see STATUSES
    video/error           (V,) fixed-length UTF-8           video/frame_offset  (V+1,) int64
    video/{duration,start}_seconds (V,) float64             video/{width,height} (V,) int32
    video/{file_bytes,num_candidates} (V,) int64
    video/file_mtime_ns   (V,) int64, video/file_sha256 (V,) fixed-length text: in newer shards
    frame/embedding       (R, D) float16 or float32         frame/pts_seconds  (R,) float64
    frame/{start,end}_seconds (R,) float64, where a row is a window of frames (the spec's
                          preprocessing has `frames`); its pts_seconds are then the middle
    frame/luma            (R, s, s) uint8, where the spec has a thumbnail_side s
    frame/picture         (R, H, W, 3) uint8 RGB of the spec's picture size, where pictures are kept
    frame/picture_webp    (B,) uint8, files of WebP one after the other, and
    frame/picture_offset  (R+1,) int64 where each begins: instead, where they are kept so
    selection/NAME/row    int64 rows of this shard          selection/NAME/offset  (V+1,) int64
    pad_embedding         (D,) float32

The file name is `shard-{part}of{parts}-{sequence}-r{revision}-{sha256 of the file}.h5`. For one
part and sequence the highest revision counts: a retry publishes a new revision and only then
deletes the old one, so a crash in between loses nothing. Of one revision several may be there,
written by runs that could not see each other's lock: all count, and of an id the first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vtr.features.rows import MAX_ERROR_BYTES, STATUSES, VideoRow
from vtr.features.spec import SCHEMA, FeatureSpec
from vtr.files import publish

_NAME = re.compile(
    r"shard-(?P<part>\d{3,5})of(?P<parts>\d{3,5})-(?P<sequence>\d{6,})-r(?P<revision>\d{3,})"
    r"-(?P<sha256>[0-9a-f]{64})\.h5"
)


@dataclass(frozen=True, order=True)
class ShardName:
    """What a shard's file name says."""

    parts: int
    part: int
    sequence: int
    revision: int
    sha256: str

    @property
    def slot(self) -> tuple[int, int, int]:
        """The place in the plan; of several revisions in one slot the highest counts."""
        return self.parts, self.part, self.sequence

    def __str__(self) -> str:
        return (
            f"shard-{self.part:03d}of{self.parts:03d}-{self.sequence:06d}"
            f"-r{self.revision:03d}-{self.sha256}.h5"
        )

    @classmethod
    def parse(cls, name: str) -> ShardName | None:
        """Returns the parts of a shard's file name, None for any other file."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        numbers = {k: int(v) for k, v in match.groupdict().items() if k != "sha256"}
        return cls(**numbers, sha256=match["sha256"])


def list_shards(
    folder: Path, *, part: tuple[int, int] | None = None
) -> tuple[list[tuple[ShardName, Path]], list[Path]]:
    """Returns the shards that count (of part (i, n) only), in plan order, and superseded ones."""
    which = "*" if part is None else f"{part[0]:03d}of{part[1]:03d}-*"
    named = [(ShardName.parse(path.name), path) for path in folder.glob(f"shard-{which}.h5")]
    newest: dict[tuple[int, int, int], list[tuple[ShardName, Path]]] = {}
    superseded: list[Path] = []
    for name, path in sorted((name, path) for name, path in named if name is not None):
        there = newest.setdefault(name.slot, [])  # a later revision comes later
        if there and there[0][0].revision < name.revision:
            superseded += [older for _, older in there]
            there.clear()
        there.append((name, path))
    return [shard for there in newest.values() for shard in there], superseded


def write_shard(
    folder: Path,
    rows: Sequence[VideoRow],
    *,
    spec: FeatureSpec,
    slot: tuple[int, int, int],
    revision: int,
    pad_embedding: NDArray[np.float32],
) -> Path:
    """Publishes one shard atomically and returns its path.

    Args:
        folder: The store.
        rows: All inputs of the shard, failed ones too, in plan order; where one has pictures, all
            with frames have them, kept in one way.
        spec: What the numbers depend on.
        slot: (parts, part, sequence).
        revision: 0, or one more than the shard it replaces.
        pad_embedding: (D,) the tower's output for an all-zero normalised image.

    Raises:
        StoreWriteError: The disk refused; nothing was published.
    """
    attributes = {
        "schema": SCHEMA,
        "spec": spec.to_json(),
        "fingerprint": spec.fingerprint,
        "part": f"{slot[1]}/{slot[0]}",
        "sequence": slot[2],
        "revision": revision,
    }
    pad = np.asarray(pad_embedding, np.float32)
    payload = _build(attributes, {**_columns(rows, spec), **_pictures(rows), "pad_embedding": pad})
    name = ShardName(*slot, revision, hashlib.sha256(payload).hexdigest())
    path = folder / str(name)
    publish(path, payload)
    return path


def _build(attributes: dict[str, Any], datasets: dict[str, NDArray[Any]]) -> bytes:
    # HDF5 never touches the disk: a full disk under a live HDF5 file ends in a crash, and a
    # killed writer leaves a file nobody can open (measured: needs.md §4.4).
    with h5py.File("shard", "w", driver="core", backing_store=False, libver="earliest") as file:
        for key, value in attributes.items():
            file.attrs[key] = value
        for name, array in datasets.items():
            file.create_dataset(name, data=array)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _columns(rows: Sequence[VideoRow], spec: FeatureSpec) -> dict[str, NDArray[Any]]:
    ledger = [row.ledger for row in rows]
    offsets = _offsets([len(row.frames) for row in rows])
    dtype = np.dtype(spec.storage_dtype)
    frames = [row.frames.astype(dtype) for row in rows]
    columns: dict[str, NDArray[Any]] = {
        "video/id": _texts([row.id for row in ledger]),
        "video/status": np.array([STATUSES.index(row.status) for row in ledger], np.uint8),
        "video/error": _texts([_shorten(row.error) for row in ledger]),
        "video/frame_offset": offsets,
        "frame/embedding": np.concatenate([np.zeros((0, spec.embedding_dim), dtype), *frames]),
        "frame/pts_seconds": np.concatenate([np.zeros(0), *(row.pts_seconds for row in rows)]),
    }
    if spec.window_frames > 1:
        spans = np.concatenate([np.zeros((0, 2)), *(r.spans for r in rows if r.spans is not None)])
        columns |= {name: np.ascontiguousarray(spans[:, n]) for n, name in enumerate(SPAN)}
    if spec.thumbnail_side is not None:
        side = spec.thumbnail_side
        luma = [row.luma for row in rows if row.luma is not None]
        columns["frame/luma"] = np.concatenate([np.zeros((0, side, side), np.uint8), *luma])
    for name, kind in LEDGER_NUMBERS.items():
        columns[f"video/{name}"] = np.array([getattr(row, name) for row in ledger], kind)
    columns["video/file_mtime_ns"] = np.array([row.file_mtime_ns for row in ledger], np.int64)
    if any(row.file_sha256 for row in ledger):
        columns["video/file_sha256"] = _texts([row.file_sha256 for row in ledger])
    for label in spec.samplers:
        empty = np.zeros(0, np.int64)
        chosen = [row.selections.get(label, empty) for row in rows]
        columns[f"selection/{label}/row"] = np.concatenate(
            [empty, *(start + rows for start, rows in zip(offsets[:-1], chosen, strict=True))]
        )
        columns[f"selection/{label}/offset"] = _offsets([len(rows) for rows in chosen])
    return columns


def _pictures(rows: Sequence[VideoRow]) -> dict[str, NDArray[Any]]:
    kept = [row.pictures for row in rows if row.pictures is not None and len(row.frames)]
    if not kept:
        return {}
    if isinstance(kept[0], np.ndarray):
        return {"frame/picture": np.concatenate([np.asarray(pixels) for pixels in kept])}
    files = [bytes(file) for of_video in kept for file in of_video]
    return {
        "frame/picture_webp": np.frombuffer(b"".join(files), np.uint8),
        "frame/picture_offset": _offsets([len(file) for file in files]),
    }


SPAN = ("frame/start_seconds", "frame/end_seconds")
# What shards have had from one version on; the others lack it.
OPTIONAL = frozenset({"video/file_mtime_ns", "video/file_sha256"})
LEDGER_NUMBERS: dict[str, type[np.generic]] = {
    "file_bytes": np.int64,
    "num_candidates": np.int64,
    "duration_seconds": np.float64,
    "start_seconds": np.float64,
    "width": np.int32,
    "height": np.int32,
}


def _offsets(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _shorten(text: str) -> str:
    # Cut on a character, not within one.
    return text.encode()[:MAX_ERROR_BYTES].decode(errors="ignore")


def _texts(texts: Sequence[str]) -> NDArray[np.bytes_]:
    encoded = [text.encode() for text in texts]
    width = max([1, *map(len, encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))
