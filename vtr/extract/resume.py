"""What a run finds where it is to write: a store to go on with, rows to do anew, an old store."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.datasets.base import Video
from vtr.errors import FingerprintError, ShardError, StoreError, StoreWriteError
from vtr.extract.pool import WorkerPool
from vtr.features import engine_check
from vtr.features.digests import WholeShards
from vtr.features.pictures import PictureFormat
from vtr.features.reader import Shard, open_shard
from vtr.features.rows import LedgerRow
from vtr.features.shard import ShardName, list_shards, write_shard
from vtr.features.spec import FeatureSpec
from vtr.features.store import FeatureStore, require_same
from vtr.files import (
    TEMPORARY_PREFIX,
    begin_beside,
    beside,
    file_sha256,
    is_begun,
    remove_leftovers,
)
from vtr.remote import facts_of, url_of

Input = tuple[Video, str | None]
"""A video, and the class of its failure where it must not be decoded."""


Check = Callable[[NDArray[np.uint8]], Mapping[str, Any]]


@dataclass(frozen=True)
class ExtractMode:
    """Which inputs a run works on; only a run of one part may overwrite."""

    part: tuple[int, int] = (1, 1)
    """(i, n): every n-th input, beginning with the i-th, counted from 1."""
    retry: frozenset[str] = frozenset()
    """Which rows are done anew: of these statuses ("failed", "partial"), "changed", those whose
    video is another file than the one that was read (see `has_changed`), and "damaged", all of a
    damaged shard, which is renamed."""
    overwrite: bool = False
    """Make the store anew: beside the old one, which it replaces when it is complete. Run again
    after an interruption, it goes on there."""

    is_alone: bool = False
    """The inputs are this part's only, and in no other part's shards: those are not looked at."""
    pool: WorkerPool | None = None
    """Decoding processes to use, with the settings of `pool_settings`; the caller closes them."""

    again: frozenset[str] = frozenset()
    """Ids of videos that are done anew whatever their rows say."""

    option: str = "--features"
    """With which another folder can be named where this one cannot be written to."""

    check: Check | None = None
    """Judges the encoder by the run's first frames (n, h, w, 3), before it counts: raises where it
    is too far from right, and returns the figures of an `EngineCheck`."""

    def owns(self, name: ShardName) -> bool:
        """Returns whether it is this run, of all parts at work, that may replace a shard."""
        part, parts = self.part
        return name.part == part if name.parts == parts else name.sequence % parts + 1 == part


def open_for_writing(
    folder: Path, spec: FeatureSpec, mode: ExtractMode, pictures: PictureFormat | None
) -> FeatureStore | None:
    """Returns the store to go on with; refuses one made with other settings."""
    part, parts = mode.part
    # What other parts are writing right now is no leftover.
    remove_leftovers(folder, f"*-shard-{part:03d}of{parts:03d}-*" if parts > 1 else "*")
    if "damaged" in mode.retry:
        set_aside_damaged(folder, owned=mode.owns)
    only = mode.part if mode.is_alone else None
    newest, superseded = list_shards(folder, part=only)
    for path in superseded:
        path.unlink(missing_ok=True)
    if not newest:
        return None
    store = FeatureStore(folder, part=only)
    if _settle_twins(store, mode):
        store = FeatureStore(folder, part=only)
    require_same(store.spec, spec, what=str(folder))
    require_same_pictures(store, pictures)
    return store


def set_aside_damaged(folder: Path, *, owned: Callable[[ShardName], bool]) -> list[Path]:
    """Renames the damaged shards of a store, so that an extraction does their videos again.

    The store's write lock must be held; `owned` says which shards may be replaced. Returns what the
    files are called now: they are kept, and no part of the store any more.
    """
    whole, moved = WholeShards(folder), []
    for name, path in list_shards(folder)[0]:
        if not owned(name):
            continue
        try:
            whole.check(path, name)
            open_shard(path, name)
        except ShardError:
            with contextlib.suppress(FileNotFoundError):  # one who cannot see our lock was faster
                moved.append(path.rename(path.with_name(f"damaged-{path.name}")))
    whole.remember()
    return moved


def _settle_twins(store: FeatureStore, mode: ExtractMode) -> bool:
    """Leaves one shard in every slot, so that it can be replaced; returns whether any had several.

    What only another one has goes into a slot of its own.
    """
    free = {shard.name.slot[:2]: shard.name.slot[2] + 1 for shard in store.shards}  # in plan order
    twins = [
        shard
        for before, shard in pairwise(store.shards)
        if before.name.slot == shard.name.slot and mode.owns(shard.name)
    ]
    for shard in twins:
        rows = [row for row in shard.rows() if store.holds_in(shard, row.ledger.id)]
        if rows:
            parts, part, _ = shard.name.slot
            write_shard(
                store.folder, rows, spec=shard.spec, slot=(parts, part, free[parts, part]),
                revision=0, pad_embedding=shard.columns["pad_embedding"],
            )  # fmt: skip
            free[parts, part] += 1
        shard.path.unlink(missing_ok=True)
    return bool(twins)


def require_same_pictures(store: FeatureStore, pictures: PictureFormat | None) -> None:
    """Refuses to keep pictures in another way than a store does (FingerprintError)."""
    if len(store.picture_formats) > 1:
        kinds = " and ".join(sorted(map(_kept, store.picture_formats)))
        raise FingerprintError(
            f"shards of {store.folder} keep {kinds} beside their embeddings: parts made with "
            "several --crops are read together, but nothing is added to them. Use another folder "
            "(--features DIR), or --overwrite to start it anew"
        )
    if len(store) and store.picture_format != pictures:
        raise FingerprintError(
            f"{store.folder} keeps {_kept(store.picture_format)} beside its embeddings, asked: "
            f"{_kept(pictures)}. Leave --crops out to go on as it is, use another folder "
            "(--features DIR), or --overwrite to start it anew"
        )


def require_alike(folder: Path, spec: FeatureSpec, pictures: PictureFormat | None) -> None:
    """Refuses settings with which another run, at work at the same time, has not begun a store."""
    specs: dict[str, FeatureSpec] = {}
    for name, path in list_shards(folder)[0]:
        try:
            other = open_shard(path, name, specs=specs)
        except ShardError:  # replaced, or of no use to anybody
            continue
        what = f"{folder}, which another run began at the same time"
        require_same(other.spec, spec, what=what)
        if len(other.frames) and other.picture_format != pictures:
            raise FingerprintError(
                f"{what}, keeps {_kept(other.picture_format)} beside its embeddings, asked: "
                f"{_kept(pictures)}. Use the same --crops, or another folder (--features DIR)"
            )


def _kept(pictures: PictureFormat | None) -> str:
    return "no pictures" if pictures is None else f"{pictures} pictures"


def begin_anew(folder: Path, spec: FeatureSpec, pictures: PictureFormat | None) -> Path:
    """Returns where the next store is built; what is there already stays if it is of this kind."""
    if is_begun(folder):
        try:
            begun = FeatureStore(beside(folder))
            if not begun.spec.differences(spec) and begun.picture_format == pictures:
                return beside(folder)
        except StoreError:
            pass  # nothing in it yet, or damaged
    return begin_beside(folder, option="--features")


def keep_others(folder: Path, work: Path) -> None:
    """Takes along what is not of the store, such as embedded captions, but no results of it."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(source, target, follow_symlinks=False)

    ours = shutil.ignore_patterns(
        "shard-*.h5", f"{engine_check.PREFIX}*", ".lock*", f"{TEMPORARY_PREFIX}*", "zero-shot"
    )
    names = [path.name for path in work.iterdir()]
    try:
        for name in set(names) - ours(str(work), names):  # of an attempt that was stopped here
            path = work / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(
            folder, work, symlinks=True, ignore=ours, copy_function=link, dirs_exist_ok=True
        )
    except OSError as error:
        raise StoreWriteError(
            f"cannot keep what lies beside the shards of {folder}: {error}. The store is as it "
            "was; the new one is complete: run the same command again"
        ) from None


def to_retry(
    store: FeatureStore | None, inputs: Sequence[Input], mode: ExtractMode, *, hashed: bool
) -> list[tuple[Shard, list[Input]]]:
    """Returns, per shard, the inputs whose rows are to be done anew.

    Parts at work side by side share the shards, not the inputs: two that replaced the same shard
    would each undo what the other did.
    """
    if store is None or not (mode.retry or mode.again):
        return []
    known = {item[0].id: item for item in inputs}
    shards = []
    for shard in store.shards:
        rows = [row for row in shard.ledger() if row.id in known] if mode.owns(shard.name) else []
        items = [(row, known[row.id]) for row in rows]
        wanted = [
            item
            for row, item in items
            if row.id in mode.again or wants_again(row, item[0], mode.retry, hashed)
        ]
        if wanted:
            shards.append((shard, wanted))
    return shards


def wants_again(row: LedgerRow, video: Video, retry: frozenset[str], hashed: bool) -> bool:
    """Returns whether `--retry` asks for this row."""
    return row.status in retry or ("changed" in retry and has_changed(row, video, hashed=hashed))


def has_changed(row: LedgerRow, video: Video, *, hashed: bool = False) -> bool:
    """Returns whether another file is there than the one that was read.

    By its size and the time it was written. Where the ledger has a digest of its content, that
    decides of a file of another time, and with `hashed` of every file.
    """
    now = file_facts(video.path)
    if not now or now["file_bytes"] != row.file_bytes:
        return bool(now)
    same_time = row.file_mtime_ns in (-1, now["file_mtime_ns"])
    if row.file_sha256 and (hashed or not same_time):
        digest = file_facts(video.path, hashed=True).get("file_sha256")
        return digest not in (None, row.file_sha256)
    return not same_time


def file_facts(path: Path | None, *, hashed: bool = False) -> dict[str, Any]:
    """Returns what tells a file from another in its place, by the names of the ledger.

    With `hashed` it is read as a whole, for the digest of its content.
    """
    try:
        if path is None:
            return {}
        if url := url_of(path):
            return facts_of(url)
        status = os.stat(path)  # noqa: PTH116  (any file name)
        facts: dict[str, Any] = {"file_bytes": status.st_size, "file_mtime_ns": status.st_mtime_ns}
        if hashed and stat.S_ISREG(status.st_mode):
            facts["file_sha256"] = file_sha256(path)
        return facts
    except (OSError, ValueError):
        return {}


def size_of(path: Path | None) -> int:
    """Returns the bytes of a file; -1 where there is none."""
    return int(file_facts(path).get("file_bytes", -1))
