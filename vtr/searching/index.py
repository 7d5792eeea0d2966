"""The derived index: unit frames in float16, mapped, with times and pieces.

It lies in a folder of its own beside the store. `frames-*.f16` holds rows that are only ever
appended; `index.npz` says which of them count, with the digest of each piece that was appended, and
replaces its predecessor in one step, so that a reader sees either. What it was made from is in it:
the store's fingerprint and the names of its shards, which carry the digest of their bytes. Rows of
shards that are gone stay until they are half of all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import StoreError, StoreWriteError
from vtr.evaluate.coverage import check_features
from vtr.features.foreign import BROKEN
from vtr.features.rows import STATUSES, LedgerRow
from vtr.features.store import FeatureStore
from vtr.files import make_folder, publish
from vtr.marks import Remembered, is_settled, mark_of
from vtr.progress import progress
from vtr.searching.calibration import bank_scores, usual
from vtr.searching.codes import code_frames
from vtr.searching.moments import find_cuts
from vtr.searching.scan import Scanner

Array = NDArray[Any]
VERSION = 4
_FILE = "index.npz"
_TEXTS = ("id", "error")
_VIDEO = ("shard", "status", "bytes", "mtime_ns", "duration", "start", "first", "stop")


@dataclass(frozen=True)
class Bank:
    """Unrelated sentences in the model's space: what a score has to be better than."""

    version: str  # Names the list and the model
    vectors: NDArray[np.float32] = field(repr=False)  # (B, D) unit vectors


@dataclass(frozen=True)
class Index:
    """What a store's search needs; arrays run over V inputs, R rows, P pieces."""

    folder: Path
    facts: Mapping[str, Any]  # Fingerprint, bank version, shard names, file of frames, backbone
    video: Mapping[str, Array]  # `_TEXTS` and `_VIDEO` of each input; rows first to before stop
    pts_seconds: NDArray[np.float64]  # (R,) from the first frame of the file on
    piece_row: NDArray[np.int64]  # (P,) where each piece begins, ascending
    frames: NDArray[np.float16] = field(repr=False)  # (R, D) unit vectors, mapped
    # (R, 2) mean and deviation of each row's scores over the unrelated sentences.
    bank_moments: NDArray[np.float32] = field(repr=False)
    # (S, 2, B) what each of them scores at best in each shard, raw and standardised.
    bank_best: NDArray[np.float32] = field(repr=False)
    bank_usual: NDArray[np.float32] = field(repr=False)  # (B,) what a frame usually scores
    # (R, 2) start and end of each row where rows are windows, else (0, 2).
    spans: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)), repr=False)

    @property
    def ids(self) -> list[str]:
        """The ids of all inputs."""
        return [text.decode() for text in self.video["id"].tolist()]

    def ledger(self) -> list[LedgerRow]:
        """Returns what became of every input."""
        video = self.video
        columns = (video[n].tolist() for n in ("status", "error", "bytes", "duration", "mtime_ns"))
        return [
            LedgerRow(
                i, STATUSES[status], error.decode(), num_bytes,
                duration_seconds=duration, file_mtime_ns=mtime,
            )
            for i, status, error, num_bytes, duration, mtime in zip(self.ids, *columns, strict=True)
        ]  # fmt: skip

    def pieces(self, video: int) -> NDArray[np.int64]:
        """Returns where the pieces of a video begin, counted from its first row, and its end."""
        first, stop = (int(self.video[name][video]) for name in ("first", "stop"))
        low, high = np.searchsorted(self.piece_row, [first, stop])
        return np.append(self.piece_row[low:high], stop) - first


def read_index(folder: Path, *, is_new: bool = False) -> Index | None:
    """Returns the index in a folder; None where there is none, or one that cannot be used.

    Rows are read once for every state of their file, and held against their digests; not where the
    index `is_new`, just written.
    """
    try:
        with (folder / _FILE).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
        facts = json.loads(bytes(columns.pop("facts")))
        if facts["version"] != VERSION:
            return None
        shape = (len(columns["pts_seconds"]), int(facts["dim"]))
        frames: NDArray[np.float16] = np.zeros(shape, np.float16)
        if shape[0]:
            if not is_new and not _is_whole(folder, facts, 2 * shape[0] * shape[1]):
                return None
            # Copy on write: torch takes no arrays that cannot be written.
            frames = np.memmap(folder / facts["frames"], np.float16, "c", shape=shape)
        video = {name: columns.pop(f"video_{name}") for name in (*_TEXTS, *_VIDEO)}
        return Index(folder, facts, video, frames=frames, **columns)
    except BROKEN:
        return None


def _is_whole(folder: Path, facts: Mapping[str, Any], num_bytes: int) -> bool:
    """Whether the rows that count are those that were appended."""
    with (folder / facts["frames"]).open("rb") as file:
        status, known = os.fstat(file.fileno()), Remembered("whole-indexes", folder)
        mark = f"{facts['digests'][-1][1]} {mark_of(status)}"
        if status.st_size < num_bytes or facts["digests"][-1][0] != num_bytes:
            return False
        if mark in known.lines:
            return True
        for (start, _), (stop, digest) in pairwise([[0, ""], *facts["digests"]]):
            if hashlib.sha256(file.read(stop - start)).hexdigest() != digest:
                return False
    if is_settled(status):
        known.replace({mark})
    return True


def update_index(folder: Path, store: FeatureStore, bank: Bank) -> Index:
    """Makes the index of a store, or adds what is new to it; `bank` is of the store's model."""
    make_folder(folder, option="--index")
    names = [shard.path.name for shard in store.shards]
    old = read_index(folder)
    _sweep(folder, {} if old is None else old.facts)  # what a full disk or a kill left behind
    if old is not None and not _fits(old, store, bank, names):
        old = None
    build = _Build(folder, store, bank, old)
    fresh = [s for s, name in enumerate(names) if name not in build.shards]
    with progress("indexing frames") as update:
        for done, s in enumerate(fresh):
            build.add(s)
            update(done + 1, len(fresh), "shards")
    build.publish()
    made = read_index(folder, is_new=True)
    if made is None:
        raise StoreError(f"{folder} cannot be read back. Delete it and search again")
    return made


def _sweep(folder: Path, facts: Mapping[str, Any]) -> None:
    """Deletes the files of frames and codes that an index does not name."""
    for path in (*folder.glob("frames-*.f16"), *folder.glob("codes-*.faiss")):
        if path.name not in (facts.get("frames"), facts.get("codes")):
            with contextlib.suppress(OSError):
                path.unlink()


def _fits(old: Index, store: FeatureStore, bank: Bank, names: Sequence[str]) -> bool:
    facts = old.facts
    same = facts["fingerprint"] == store.fingerprint and facts["bank"] == bank.version
    kept = [facts["shards"][s] in names for s in old.video["shard"].tolist()]
    sizes = (old.video["stop"] - old.video["first"])[np.array(kept, bool)]
    return same and 2 * int(sizes.sum()) >= len(old.pts_seconds)


class _Build:
    """An index that grows shard by shard."""

    def __init__(self, folder: Path, store: FeatureStore, bank: Bank, old: Index | None) -> None:
        self.folder, self.store, self.bank = folder, store, bank
        self.dim = store.spec.embedding_dim
        self.video: dict[str, list[Any]] = {name: [] for name in (*_TEXTS, *_VIDEO)}
        self.shards: list[str] = []
        self.rows: list[dict[str, Array]] = []
        self.best: list[Array] = []
        self.name, self.count = f"frames-{uuid.uuid4().hex}.f16", 0
        # [bytes up to its end, SHA-256] of each piece that was appended to the rows.
        self.digests: list[tuple[int, str]] = []
        self.old_facts: Mapping[str, Any] = {}
        if old is not None:
            self._keep(old)
        self._seen = {text.decode() for text in self.video["id"]}
        self._ledger = {row.id: row for row in store.ledger}

    def _keep(self, old: Index) -> None:
        names = {shard.path.name for shard in self.store.shards}
        self.shards = [name for name in old.facts["shards"] if name in names]
        place = {name: number for number, name in enumerate(self.shards)}
        listed = [place.get(name) for name in old.facts["shards"]]
        kept = np.array([listed[s] is not None for s in old.video["shard"].tolist()], bool)
        for name, values in self.video.items():
            values += old.video[name][kept].tolist()
        self.video["shard"] = [listed[s] for s in self.video["shard"]]
        self.rows.append({name: getattr(old, name) for name in _ROWS})
        self.best += [best for best, s in zip(old.bank_best, listed, strict=True) if s is not None]
        self.name, self.count = old.facts["frames"], len(old.pts_seconds)
        self.digests = list(old.facts["digests"])
        self.old_facts = old.facts

    def add(self, s: int) -> None:
        """Adds the videos of one shard."""
        shard = self.store.shards[s]
        ids = [i for i in shard.ids if i not in self._seen and i in self._ledger]
        self._seen.update(ids)
        held = [i for i in ids if i in self.store]
        packed = self.store.packed(held, dtype="float32")
        check_features(packed)  # one frame that is no number would make every answer none
        if not np.isfinite(packed.pts_seconds).all():
            raise StoreError(f"{self.store.folder} has frames without times; extract it again")
        frames = packed.frames / np.maximum(
            np.linalg.norm(packed.frames, axis=1, keepdims=True), 1e-12
        )
        spans = dict(zip(held, pairwise(packed.offsets.tolist()), strict=True))
        pts, cuts = packed.pts_seconds.copy(), [np.zeros(0, np.int64)]
        times = np.zeros((0, 2)) if packed.spans is None else packed.spans
        for video_id in ids:
            first, stop = map(int, spans.get(video_id, (0, 0)))
            row = self._ledger[video_id]
            pts[first:stop] -= row.start_seconds
            times[first:stop] -= row.start_seconds
            cuts.append(find_cuts(frames[first:stop]) + first + self.count)
            facts = (
                len(self.shards), STATUSES.index(row.status), row.file_bytes, row.file_mtime_ns,
                row.duration_seconds, row.start_seconds, first + self.count, stop + self.count,
            )  # fmt: skip
            for name, value in zip(_VIDEO, facts, strict=True):
                self.video[name].append(value)
            self.video["id"].append(video_id.encode())
            self.video["error"].append(row.error.encode())
        self._append(frames.astype(np.float16))
        moments, best = bank_scores(frames, self.bank.vectors)
        columns = (pts, np.concatenate(cuts), moments, times)
        self.rows.append(dict(zip(_ROWS, columns, strict=True)))
        self.best.append(best)
        self.shards.append(shard.path.name)

    def _append(self, frames: NDArray[np.float16]) -> None:
        path = self.folder / self.name
        try:
            with path.open("r+b" if self.count else "w+b") as file:
                file.truncate(self.count * self.dim * 2)
                file.seek(0, os.SEEK_END)
                content = frames.data.cast("B") if frames.size else b""
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreWriteError(
                f"cannot write {path}: {error.strerror or error}. What was indexed before is "
                "intact; free some space, then search again"
            ) from None
        if len(frames):
            self.count += len(frames)
            end, digest = 2 * self.count * self.dim, hashlib.sha256(content).hexdigest()
            self.digests.append((end, digest))

    def _scanner(self) -> Scanner | None:
        """Returns one of all videos that have frames; None where there are none."""
        spans = np.array([self.video["first"], self.video["stop"]], np.int64)
        spans = spans[:, spans[1] > spans[0]]
        if not spans.size:
            return None
        frames = np.memmap(self.folder / self.name, np.float16, "c", shape=(self.count, self.dim))
        return Scanner(frames, *spans[:, np.argsort(spans[0])])

    def publish(self) -> None:
        """Replaces the index by what was built, and deletes what no index names any more."""
        columns: dict[str, Array] = {
            name: np.concatenate([_ROWS[name], *(part[name] for part in self.rows)])
            for name in _ROWS
        }
        for name in _TEXTS:
            columns[f"video_{name}"] = np.array(self.video[name] or [b""], np.bytes_)[
                : len(self.video[name])
            ]
        for name in _VIDEO:
            kind = np.float64 if name in ("duration", "start") else np.int64
            columns[f"video_{name}"] = np.array(self.video[name], kind)
        facts = {
            "version": VERSION, "fingerprint": self.store.fingerprint, "bank": self.bank.version,
            "shards": self.shards, "frames": self.name, "digests": self.digests, "dim": self.dim,
            "weights_sha256": self.store.spec.weights_sha256,
            "backbone": self.store.spec.backbone, "fps": self.store.spec.candidate_fps,
        }  # fmt: skip
        num_sentences = len(self.bank.vectors)
        columns["bank_best"] = np.array(self.best, np.float32).reshape(-1, 2, num_sentences)
        columns["bank_usual"] = np.zeros(num_sentences, np.float32)
        if (scanner := self._scanner()) is not None:
            sampled = np.asarray(scanner.frames[scanner.sample], np.float32)
            columns["bank_usual"] = usual(sampled @ self.bank.vectors.T).astype(np.float32)
            moments, bank = columns["bank_moments"], self.bank.vectors
            facts |= code_frames(self.folder, scanner, moments, bank, before=self.old_facts)
        columns["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **columns)  # type: ignore[arg-type]
        publish(self.folder / _FILE, buffer.getbuffer())
        _sweep(self.folder, facts)


_ROWS: Mapping[str, Array] = {
    "pts_seconds": np.zeros(0),
    "piece_row": np.zeros(0, np.int64),
    "bank_moments": np.zeros((0, 2), np.float32),
    "spans": np.zeros((0, 2)),
}
