"""Opens one shard without trusting it.

HDF5 can point at other files (external storage, virtual datasets, soft and external links) and
can hold pickled objects; a reader that follows them hands out any local file. So every link is
looked at before it is followed, every dataset must be plain, and the bytes are then mapped by us.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vtr.errors import ShardError
from vtr.features.digests import mend
from vtr.features.pictures import Kept, PictureFormat, Pixels, from_webp
from vtr.features.rows import STATUSES, LedgerRow, VideoRow
from vtr.features.shard import LEDGER_NUMBERS, OPTIONAL, SPAN, ShardName
from vtr.features.spec import FeatureSpec


@dataclass(frozen=True)
class Shard:
    """One shard, mapped: the arrays are views of the file, read when touched."""

    path: Path  # The file
    name: ShardName  # What its name says
    spec: FeatureSpec  # What its numbers depend on
    ids: tuple[str, ...]  # V video ids
    num_bytes: int  # Of the file
    # Dataset name to array, as listed in `vtr.features.shard`.
    columns: dict[str, NDArray[Any]] = field(repr=False)

    @property
    def frames(self) -> NDArray[np.floating[Any]]:
        """(R, D) embeddings of all frames."""
        return self.columns["frame/embedding"]

    @property
    def frame_offset(self) -> NDArray[np.int64]:
        """(V+1,) where each video's frames begin."""
        return self.columns["video/frame_offset"]

    @property
    def picture_format(self) -> PictureFormat | None:
        """How pictures are kept; None where they are not."""
        if "frame/picture" in self.columns:
            return "raw"
        return "webp" if "frame/picture_webp" in self.columns else None

    @property
    def picture_bytes(self) -> int:
        """What the kept pictures take."""
        return sum(self.columns[name].nbytes for name in PICTURES if name in self.columns)

    def pictures(self, rows: slice | NDArray[np.int64], out: Pixels) -> None:
        """Reads the kept pictures of some of the shard's frames into `out` (rows, H, W, 3).

        Raises:
            ShardError: One cannot be read.
        """
        if self.picture_format == "raw":
            gather(self.columns["frame/picture"], rows, out)
            return
        data, offset = self.columns["frame/picture_webp"], self.columns["frame/picture_offset"]
        asked = np.arange(len(offset) - 1)[rows].tolist()
        from_webp((data[offset[r] : offset[r + 1]].data for r in asked), out)

    @property
    def spans(self) -> NDArray[np.float64] | None:
        """(R, 2) start and end of each row in seconds, where rows are windows."""
        return np.stack([self.columns[n] for n in SPAN], 1) if SPAN[0] in self.columns else None

    def kept_pictures(self, rows: slice) -> Kept | None:
        """Returns pictures as they are stored, to be written again."""
        if self.picture_format != "webp":
            kept = self.columns.get("frame/picture")
            return None if kept is None else kept[rows]
        data, offset = self.columns["frame/picture_webp"], self.columns["frame/picture_offset"]
        return [data[offset[r] : offset[r + 1]].tobytes() for r in range(rows.start, rows.stop)]

    def selection(self, label: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns (rows, (V+1,) offsets) of one sampler; without its label of all frames."""
        if label is None:
            return np.arange(len(self.frames)), self.frame_offset
        return self.columns[f"selection/{label}/row"], self.columns[f"selection/{label}/offset"]

    def ledger(self) -> list[LedgerRow]:
        """Returns the V ledger rows."""
        columns = {name: self.columns[f"video/{name}"].tolist() for name in LEDGER_NUMBERS}
        for name in OPTIONAL & self.columns.keys():
            column = self.columns[name]
            values = decode_texts(column) if column.dtype.kind == "S" else column.tolist()
            columns[name.removeprefix("video/")] = values
        status = [STATUSES[code] for code in self.columns["video/status"].tolist()]
        errors = decode_texts(self.columns["video/error"])
        names = ("id", "status", "error", *columns)
        together = zip(self.ids, status, errors, *columns.values(), strict=True)
        return [LedgerRow(**dict(zip(names, row, strict=True))) for row in together]

    def rows(self, *, pictures: bool = True) -> Iterator[VideoRow]:
        """Yields the rows as they are stored, ready to be written again unchanged."""
        offsets, luma = self.frame_offset.tolist(), self.columns.get("frame/luma")
        spans = self.spans
        for v, ledger in enumerate(self.ledger()):
            place = slice(offsets[v], offsets[v + 1])
            selections = {}
            for label in self.spec.samplers:
                chosen, offset = self.selection(label)
                selections[label] = chosen[offset[v] : offset[v + 1]] - offsets[v]
            yield VideoRow(
                ledger,
                self.frames[place],
                self.columns["frame/pts_seconds"][place],
                selections,
                None if luma is None else luma[place],
                self.kept_pictures(place) if pictures else None,
                None if spans is None else spans[place],
            )


def gather(source: NDArray[Any], rows: slice | NDArray[np.int64], out: NDArray[Any]) -> None:
    """Copies some rows of a mapped array; that they are in range was checked when it was opened."""
    if isinstance(rows, slice) or source.dtype != out.dtype:
        out[:] = source[rows]
    else:
        np.take(source, rows, axis=0, out=out, mode="clip")


def open_shard(
    path: Path, name: ShardName, *, specs: dict[str, FeatureSpec] | None = None
) -> Shard:
    """Opens and checks one shard; `specs` are those of shards opened before, by their text.

    Raises:
        ShardError: Not HDF5, cut short, of another schema, inconsistent, or with anything in it
            that a shard of ours never has.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            text = file.attrs.get("spec")
            if not isinstance(text, str):
                raise ShardError("not a shard of vtr (no spec)")
            spec = (specs or {}).get(text) or FeatureSpec.from_json(text)
            if file.attrs.get("fingerprint") != spec.fingerprint:
                raise ShardError("its fingerprint does not fit its spec")
            if specs is not None:
                specs[text] = spec
            asked = [i for i in _layout(spec, 0, 0, {}) if i not in OPTIONAL or i in file]
            asked += [item for item in PICTURES if item in file]
            places = {item: _place(file, item) for item in asked}
        columns, num_bytes = _map(path, places)
        _check(spec, columns)
        ids = tuple(decode_texts(columns["video/id"]))
        for item in {"video/error", "video/file_sha256"} & columns.keys():
            decode_texts(columns[item])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ShardError(f"{path}: not a readable shard ({error}). {mend(path.parent)}") from None
    except ShardError as error:
        raise ShardError(f"{path}: {error}. {mend(path.parent)}") from None
    return Shard(path, name, spec, ids, num_bytes, columns)


def decode_texts(column: NDArray[np.bytes_]) -> list[str]:
    """Returns a fixed-length UTF-8 column as texts."""
    return [text.decode() for text in column.tolist()]


PICTURES = ("frame/picture", "frame/picture_webp", "frame/picture_offset")
Layout = dict[str, tuple[type[np.generic], tuple[int, ...]]]


def _layout(spec: FeatureSpec, num_videos: int, num_frames: int, rows: Mapping[str, int]) -> Layout:
    layout: Layout = {
        "video/id": (np.bytes_, (num_videos,)),
        "video/error": (np.bytes_, (num_videos,)),
        "video/file_mtime_ns": (np.int64, (num_videos,)),
        "video/file_sha256": (np.bytes_, (num_videos,)),
        "video/status": (np.uint8, (num_videos,)),
        "video/frame_offset": (np.int64, (num_videos + 1,)),
        "frame/embedding": (np.dtype(spec.storage_dtype).type, (num_frames, spec.embedding_dim)),
        "frame/pts_seconds": (np.float64, (num_frames,)),
        "pad_embedding": (np.float32, (spec.embedding_dim,)),
    }
    layout |= {f"video/{name}": (kind, (num_videos,)) for name, kind in LEDGER_NUMBERS.items()}
    if spec.window_frames > 1:
        layout |= dict.fromkeys(SPAN, (np.float64, (num_frames,)))
    if spec.thumbnail_side is not None:
        layout["frame/luma"] = (np.uint8, (num_frames, spec.thumbnail_side, spec.thumbnail_side))
    for label in spec.samplers:
        layout[f"selection/{label}/row"] = (np.int64, (rows.get(label, 0),))
        layout[f"selection/{label}/offset"] = (np.int64, (num_videos + 1,))
    return layout


def _place(file: h5py.File, name: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Returns (dtype, shape, byte offset) of a plain dataset, or refuses it."""
    # By the library's lower level: a store of a million videos asks some hundred thousand times.
    path, links = name.encode(), file.id.links
    steps = [path[: match.start()] for match in re.finditer(b"/", path)] + [path]
    try:
        are_hard = all(links.get_info(step).type == h5py.h5l.TYPE_HARD for step in steps)
    except (KeyError, RuntimeError):
        are_hard = False
    if not are_hard:
        raise ShardError(f"{name!r} is absent or a link to elsewhere")
    dataset = h5py.h5o.open(file.id, path)
    if not isinstance(dataset, h5py.h5d.DatasetID):
        raise ShardError(f"{name!r} is not a dataset")
    made = dataset.get_create_plist()
    plain = made.get_layout() in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS)
    if not plain or made.get_external_count() or made.get_nfilters():
        raise ShardError(f"{name!r} is not stored plainly in this file")
    if dataset.dtype.kind not in "iufS":
        raise ShardError(f"{name!r} holds {dataset.dtype}, not numbers or fixed-length text")
    offset = dataset.get_offset()
    if offset is None and dataset.get_space().get_simple_extent_npoints():
        raise ShardError(f"{name!r} has no data in this file")
    return dataset.dtype, dataset.shape, offset or 0


def _map(
    path: Path, places: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]
) -> tuple[dict[str, NDArray[Any]], int]:
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    columns = {}
    for name, (dtype, shape, offset) in places.items():
        count = int(np.prod(shape, dtype=object))
        if offset + count * dtype.itemsize > len(memory):
            raise ShardError(f"{name!r} reaches past the end of the file")
        columns[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
    return columns, len(memory)


def _check(spec: FeatureSpec, columns: Mapping[str, NDArray[Any]]) -> None:
    """Refuses other types or sizes, offsets that do not cover, and rows that point outside."""
    num_videos, num_frames = len(columns["video/id"]), len(columns["frame/embedding"])
    rows = {label: columns[f"selection/{label}/row"].size for label in spec.samplers}
    wanted = _layout(spec, num_videos, num_frames, rows)
    wrong = [
        name
        for name, column in columns.items()
        if name not in PICTURES
        and (column.dtype.type is not wanted[name][0] or column.shape != wanted[name][1])
    ]
    if not _holds_pictures(spec, columns, num_frames):
        wrong.append("frame/picture")
    if not wrong:
        statuses, offset = columns["video/status"], columns["video/frame_offset"]
        if statuses.size and statuses.max() >= len(STATUSES):
            wrong.append("video/status")
        if not _covers(offset, num_frames):
            wrong.append("video/frame_offset")
        if SPAN[0] in columns and not (columns[SPAN[0]] < columns[SPAN[1]]).all():
            wrong.append(SPAN[1])
        for label in spec.samplers:
            chosen = columns[f"selection/{label}/row"]
            inside = not len(chosen) or (chosen.min() >= 0 and chosen.max() < num_frames)
            if not inside or not _covers(columns[f"selection/{label}/offset"], len(chosen)):
                wrong.append(f"selection/{label}")
    if wrong:
        raise ShardError(f"inconsistent {', '.join(wrong)}")


def _holds_pictures(
    spec: FeatureSpec, columns: Mapping[str, NDArray[Any]], num_frames: int
) -> bool:
    """Whether there are no pictures, or one for every frame."""
    raw, files, offset = (columns.get(name) for name in PICTURES)
    if raw is not None:
        shape = (num_frames, *spec.preprocessing.get("size", ()), 3)
        return files is None and raw.dtype == np.uint8 and raw.shape == shape
    if files is None or offset is None:
        return files is offset
    plain = files.dtype == np.uint8 and files.ndim == 1 and offset.dtype == np.int64
    return plain and offset.shape == (num_frames + 1,) and _covers(offset, len(files))


def _covers(offset: NDArray[np.int64], total: int) -> bool:
    return bool(offset[0] == 0 and offset[-1] == total and (np.diff(offset) >= 0).all())
