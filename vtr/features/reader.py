"""Opens one shard without trusting it.

HDF5 can point at other files (external storage, virtual datasets, soft and external links) and
can hold pickled objects; a reader that follows them hands out any local file. So every link is
looked at before it is followed, every dataset must be plain, and the bytes are then mapped by us.
"""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vtr.errors import ShardError
from vtr.features.rows import STATUSES, LedgerRow, Status
from vtr.features.shard import LEDGER_NUMBERS, ShardName
from vtr.features.spec import FeatureSpec


@dataclass(frozen=True)
class Shard:
    """One shard, mapped: the arrays are views of the file, read when touched.

    Args:
        path: The file.
        name: What its name says.
        spec: What its numbers depend on.
        ids: V video ids.
        columns: Dataset name to array, as listed in `vtr.features.shard`.
    """

    path: Path
    name: ShardName
    spec: FeatureSpec
    ids: tuple[str, ...]
    columns: dict[str, NDArray[Any]] = field(repr=False)

    @property
    def frames(self) -> NDArray[np.floating[Any]]:
        """(R, D) embeddings of all frames."""
        return self.columns["frame/embedding"]

    @property
    def frame_offset(self) -> NDArray[np.int64]:
        """(V+1,) where each video's frames begin."""
        return self.columns["video/frame_offset"]

    def selection(self, label: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns (rows, (V+1,) offsets) of one sampler."""
        return self.columns[f"selection/{label}/row"], self.columns[f"selection/{label}/offset"]

    def ledger(self) -> list[LedgerRow]:
        """Returns the V ledger rows."""
        columns = {name: self.columns[f"video/{name}"].tolist() for name in LEDGER_NUMBERS}
        status = [_STATUS[code] for code in self.columns["video/status"].tolist()]
        errors = decode_texts(self.columns["video/error"])
        return [
            LedgerRow(
                id=self.ids[v],
                status=status[v],
                error=errors[v],
                **{name: column[v] for name, column in columns.items()},
            )
            for v in range(len(self.ids))
        ]


_STATUS: dict[int, Status] = {0: "ok", 1: "partial", 2: "failed"}
assert tuple(_STATUS.values()) == STATUSES


def open_shard(path: Path, name: ShardName) -> Shard:
    """Opens and checks one shard.

    Raises:
        ShardError: Not HDF5, cut short, of another schema, inconsistent, or with anything in it
            that a shard of ours never has.
    """
    try:
        path.open("rb").close()  # says what the system has against it better than HDF5 does
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}. {MEND}") from None
    try:
        with h5py.File(path, "r", locking=False) as file:
            text = file.attrs.get("spec")
            if not isinstance(text, str):
                raise ShardError("not a shard of vtr (no spec)")
            spec = FeatureSpec.from_json(text)
            if file.attrs.get("fingerprint") != spec.fingerprint:
                raise ShardError("its fingerprint does not fit its spec")
            places = {item: _place(file, item) for item in _expected(spec)}
        columns = _map(path, places)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ShardError(f"{path}: not a readable shard ({error}). {MEND}") from None
    except ShardError as error:
        raise ShardError(f"{path}: {error}. {MEND}") from None
    shard = Shard(path, name, spec, tuple(decode_texts(columns["video/id"])), columns)
    _check(shard)
    return shard


MEND = "Move it away and run the extraction again: only its videos are done anew"


def verify_checksum(shard: Shard) -> bool:
    """Returns whether the file's bytes are those it was published with."""
    with shard.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == shard.name.sha256


def decode_texts(column: NDArray[np.bytes_]) -> list[str]:
    """Returns a fixed-length UTF-8 column as texts."""
    return [text.decode() for text in column.tolist()]


def _expected(spec: FeatureSpec) -> list[str]:
    video = ["id", "status", "error", "frame_offset", *LEDGER_NUMBERS]
    selections = [f"{label}/{item}" for label in spec.samplers for item in ("row", "offset")]
    return [
        *(f"video/{item}" for item in video),
        "frame/embedding",
        "frame/pts_seconds",
        "pad_embedding",
        *(["frame/luma"] if spec.thumbnail_side is not None else []),
        *(f"selection/{item}" for item in selections),
    ]


def _place(file: h5py.File, name: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Returns (dtype, shape, byte offset) of a plain dataset, or refuses it."""
    group: Any = file
    for step in name.split("/"):
        if not isinstance(group.get(step, getlink=True), h5py.HardLink):
            raise ShardError(f"{name!r} is absent or a link to elsewhere")
        group = group[step]
    dataset = group
    if not isinstance(dataset, h5py.Dataset):
        raise ShardError(f"{name!r} is not a dataset")
    plain = dataset.chunks is None and not dataset.is_virtual and not dataset.external
    if not plain or dataset.id.get_create_plist().get_nfilters():
        raise ShardError(f"{name!r} is not stored plainly in this file")
    if dataset.dtype.kind not in "iufS":
        raise ShardError(f"{name!r} holds {dataset.dtype}, not numbers or fixed-length text")
    offset = dataset.id.get_offset()
    if offset is None and dataset.size:
        raise ShardError(f"{name!r} has no data in this file")
    return dataset.dtype, dataset.shape, offset or 0


def _map(
    path: Path, places: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]
) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    columns = {}
    for name, (dtype, shape, offset) in places.items():
        count = int(np.prod(shape, dtype=object))
        if offset + count * dtype.itemsize > len(memory):
            raise ShardError(f"{name!r} reaches past the end of the file")
        columns[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
    return columns


def _check(shard: Shard) -> None:
    """Refuses offsets that do not cover the frames, and rows that point outside."""
    num_videos, num_frames = len(shard.ids), len(shard.frames)
    wrong = [
        name
        for name, column in shard.columns.items()
        if name.startswith("video/") and len(column) != num_videos + name.endswith("_offset")
    ]
    if shard.frames.shape != (num_frames, shard.spec.embedding_dim):
        wrong.append("frame/embedding")
    if shard.columns["frame/pts_seconds"].shape != (num_frames,):
        wrong.append("frame/pts_seconds")
    side = shard.spec.thumbnail_side
    if side is not None and shard.columns["frame/luma"].shape != (num_frames, side, side):
        wrong.append("frame/luma")
    if shard.columns["video/status"].size and shard.columns["video/status"].max() > 2:
        wrong.append("video/status")
    if not wrong and not _covers(shard.frame_offset, num_videos, num_frames):
        wrong.append("video/frame_offset")
    for label in shard.spec.samplers:
        rows, offset = shard.selection(label)
        inside = not len(rows) or (rows.min() >= 0 and rows.max() < num_frames)
        if not inside or not _covers(offset, num_videos, len(rows)):
            wrong.append(f"selection/{label}")
    if wrong:
        raise ShardError(f"{shard.path}: inconsistent {', '.join(wrong)}. {MEND}")


def _covers(offset: NDArray[np.int64], num_videos: int, total: int) -> bool:
    ends = len(offset) == num_videos + 1 and offset[0] == 0 and offset[-1] == total
    return bool(ends and (np.diff(offset) >= 0).all())
