"""Features that somebody else extracted, as a store: arrays of (n, D) named by video.

Such sets (clip-features-vit-h14 among them) say nothing of how they were made. The store's spec
says that: its backbone is "imported:NAME", its weights digest is that of the files. No text tower
shares that digest, so training on it needs a text projection.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.errors import ConfigError, StoreError
from vtr.features.foreign import EXTENSIONS, TensorReader, UnusableError
from vtr.features.rows import LedgerRow, VideoRow
from vtr.features.shapes import common_size, fits_float16, plain_shape, read_rows
from vtr.features.shard import list_shards, write_shard
from vtr.features.sources import Loader, Source, find_files, find_sources
from vtr.features.spec import FeatureSpec
from vtr.files import open_regular, replacing

SHARD_VIDEOS = 256
SHARD_BYTES = 256 << 20
SAMPLER = "dense"
"""What the files hold is all there is to choose from: any sampler can be applied to it later."""

BACKBONE_PREFIX = "imported:"
_NAMED = 3


@dataclass(frozen=True)
class ImportReport:
    """What was imported."""

    ok: int  # Videos with features
    failed: dict[str, str]  # Id to reason of what could not be used
    frames: int  # Rows in all
    dim: int  # D
    dtype: str = "float16"  # As stored; float32 where float16 would change a row by a thousandth
    skipped: int = 0  # Files with other endings, which were not looked at
    padded: int = 0  # Videos that end in rows of zeros or NaN, which were left out
    timed: int = 0  # Videos whose times were read
    # Of a store that was exported: videos that had failed when it was extracted.
    failed_before: int | None = None
    crops: int = 0  # Crops per video, of which the mean was taken; 0 where there are none


def no_tensors(path: Path) -> Any:
    """Refuses a file of torch; a reader of them is given by who may import torch."""
    raise UnusableError(f"not-an-array: nobody here reads {path.suffix}")


def import_arrays(
    source: Path,
    store: Path,
    *,
    name: str | None = None,
    fps: float = 1.0,
    dim: int | None = None,
    tensors: TensorReader = no_tensors,
) -> ImportReport:
    """Makes a store of the arrays below a folder, or in one file.

    Args:
        source: The folder, with its sub-folders, or the file.
        store: To be made; must hold no shards yet.
        name: What to call the backbone; the folder's name by default.
        fps: Rows per second, where no file of times says more: time stamps are then row / fps.
        dim: D, where the shapes do not tell it; then an array (D, n) is turned.
        tensors: Reads a file of torch.

    Raises:
        ConfigError: No such files there, the store holds something already, or D is not clear.
        StoreError: Not one array could be used; no store is made.
        StoreWriteError: The file system refused; no store is made.
    """
    files, skipped = find_files(source)
    if not files:
        what = "holds no arrays" if source.exists() else "does not exist"
        raise ConfigError(
            f"{source} {what}; looked for {', '.join(EXTENSIONS)}, named by video. LMDB, .mat and "
            "text have to be written as one of these first"
        )
    require_new(store)
    sources = find_sources(source, files, tensors=tensors)
    reader = _Reader(Loader(tensors), fps=fps, dim=_dim(sources, dim), turned=dim is not None)
    spec = FeatureSpec(
        backbone=BACKBONE_PREFIX + (name or source.resolve().name),
        revision="imported",
        weights_sha256=_digest(source, files),
        embedding_dim=reader.dim,
        compute_dtype="unknown",
        storage_dtype=reader.survey(sources),
        preprocessing={"route": "unknown"},
        candidate_fps=None if any(one.times for one in sources) else fps,
        num_frames=None,
        samplers=(SAMPLER,),
        seed=0,
        versions={"numpy": np.__version__},
    )
    pad = np.zeros(reader.dim, np.float32)
    report = write_rows(store, map(reader.row, sources), spec, pad)
    return replace(
        report,
        skipped=skipped,
        padded=len(reader.padded),
        timed=sum(one.times is not None and one.id not in report.failed for one in sources),
        crops=max(len(one.paths) for one in sources) if len(sources[0].paths) > 1 else 0,
    )


def require_new(store: Path) -> None:
    """Refuses a folder in which something lies: a store, or other files (ConfigError)."""
    if list_shards(store)[0]:
        raise ConfigError(f"{store} is a store already: import into another folder")
    if store.exists() and (not store.is_dir() or any(store.iterdir())):
        raise ConfigError(f"{store} holds other files: import into a new folder")


def write_rows(
    store: Path, rows: Iterable[VideoRow], spec: FeatureSpec, pad: NDArray[np.float32]
) -> ImportReport:
    """Makes a store of rows in plan order, whole or not at all; holds one shard of them in memory.

    Raises:
        StoreError: Two rows are of one video; no store is made.
        StoreWriteError: The file system refused; no store is made.
    """
    failed: dict[str, str] = {}
    ids: set[str] = set()
    ok, frames = 0, 0
    with replacing(store, option="--out") as place:
        for sequence, part in enumerate(_cut(rows)):
            for row in part:
                if row.ledger.id in ids:
                    raise StoreError(f"nothing was imported: {row.ledger.id!r} is there twice")
                ids.add(row.ledger.id)
            write_shard(
                place, part, spec=spec, slot=(1, 1, sequence), revision=0, pad_embedding=pad
            )
            failed |= {row.ledger.id: row.ledger.error for row in part if not len(row.frames)}
            frames += sum(len(row.frames) for row in part)
            ok += sum(len(row.frames) > 0 for row in part)
    return ImportReport(ok, failed, frames, spec.embedding_dim, spec.storage_dtype)


class _Reader:
    def __init__(self, loader: Loader, *, fps: float, dim: int, turned: bool) -> None:
        self._loader, self._fps, self.dim, self._turned = loader, fps, dim, turned
        self.padded: set[str] = set()

    def survey(self, sources: Sequence[Source]) -> str:
        """Returns the dtype that keeps what all videos hold; StoreError where none has features."""
        reasons, fits = [], True
        for row in map(self.row, sources):
            if row.ledger.error:
                reasons.append(f"{row.ledger.id} ({row.ledger.error})")
            else:
                fits = fits and fits_float16(row.frames)
        if len(reasons) == len(sources):
            raise _nothing(reasons)
        return "float16" if fits else "float32"

    def row(self, source: Source) -> VideoRow:
        """Returns the row of a video, a failed one where its features cannot be used."""
        size = -1
        try:
            with contextlib.suppress(OSError):
                size = sum(path.stat().st_size for path in source.paths)
            array = self._loader.load(source)
            frames, padding = read_rows(array, self.dim, turned=self._turned)
            used, count = len(frames), len(frames) + padding
            seconds = self._loader.times(source)
            if seconds is None:
                seconds = np.arange(count) / self._fps
            if len(seconds) != count:
                raise UnusableError(
                    f"wrong-times: {counted(len(seconds), 'time')} for {counted(count, 'row')}"
                )
        except UnusableError as error:
            return VideoRow.failed(LedgerRow(source.id, "failed", str(error), size), self.dim)
        if padding:
            self.padded.add(source.id)
        last = seconds[used - 1] - seconds[0]
        step = last / (used - 1) if used > 1 else 1 / self._fps
        lasts, starts = float(last + step), float(seconds[0])
        ledger = LedgerRow(source.id, "ok", "", size, used, lasts, starts)
        return VideoRow(ledger, frames, seconds[:used], {SAMPLER: np.arange(used)})


def _cut(rows: Iterable[VideoRow]) -> Iterator[list[VideoRow]]:
    part: list[VideoRow] = []
    size = 0
    for row in rows:
        if part and (len(part) == SHARD_VIDEOS or size + row.frames.nbytes > SHARD_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += row.frames.nbytes
    yield part


def _dim(sources: Sequence[Source], named: int | None) -> int:
    shapes, reasons = [], []
    for source in sources:
        try:
            if source.problem:
                raise UnusableError(source.problem)
            shapes.append(plain_shape(source.shape))
        except UnusableError as error:
            reasons.append(f"{source.id} ({error})")
    if not shapes:
        raise _nothing(reasons)
    return common_size(shapes, named)


def _nothing(reasons: Sequence[str]) -> StoreError:
    more = f" and {len(reasons) - _NAMED:,} more" if len(reasons) > _NAMED else ""
    return StoreError(f"nothing was imported: {'; '.join(reasons[:_NAMED])}{more}")


def _digest(source: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(source).as_posix() if path != source else path.name
        with contextlib.suppress(OSError), os.fdopen(open_regular(path), "rb") as file:
            inner = hashlib.file_digest(file, "sha256")
            digest.update(f"{name} {file.tell()}\n".encode("utf-8", "surrogatepass"))
            digest.update(inner.digest())
    return digest.hexdigest()
