"""Smaller copies of a whole folder: resumable, with one ledger row per video.

The ledger is a file of JSON lines in the target folder. It is written before the first video is
touched, so that every copy there is known to be ours; a row is added when its copy is in place.
A row lost in a crash costs doing that video again, never a wrong copy. A copy is replaced by a new
one only; one that cannot be made again stays, with its row, while its original is the same.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from vtr.counts import counted
from vtr.datasets.files import find_videos
from vtr.errors import ConfigError, StoreError, StoreLockedError, StoreWriteError
from vtr.extract.compress import CompressSettings, compress_video
from vtr.extract.pool import Outcome, PoolSettings, WorkerPool
from vtr.extract.resume import file_facts, size_of
from vtr.extract.worker import Answer
from vtr.features.lock import write_lock
from vtr.files import open_shared, publish, read_regular, remove_leftovers
from vtr.foreign import escape_undecodable, printable
from vtr.json_files import as_fields, parse_json
from vtr.names import VIDEO_EXTENSIONS, without_extension

LEDGER_NAME = "compress-ledger.jsonl"
HANDLER = "vtr.extract.compress_folder:make_handler"
MAX_ERROR_LETTERS = 500


@dataclass(frozen=True)
class CompressRow:
    """What became of one video."""

    name: str  # Path relative to the source folder
    target: str  # Path of the copy relative to the target folder
    # "planned", "ok", "partial" (the copy holds what could be decoded) or "failed".
    status: str = "planned"
    error: str = ""  # "class: detail" for partial and failed, else empty
    source_bytes: int = -1  # Size of the original; -1 where there was none
    settings: Mapping[str, Any] = field(default_factory=dict)  # What the copy was asked to be like
    num_frames: int = 0  # Frames in the copy
    duration_seconds: float = 0.0  # How long the copy plays
    width: int = 0  # Pixels
    height: int = 0
    target_bytes: int = 0  # Size of the copy
    source_mtime_ns: int = -1  # When the original was last written; -1 in older ledgers

    @property
    def reason(self) -> str:
        """The failure class: what stands before the first colon of `error`."""
        return self.error.partition(":")[0]

    def is_of(self, planned: CompressRow) -> bool:
        """Returns whether it is of the original that is there now."""
        same_time = self.source_mtime_ns in (-1, planned.source_mtime_ns)
        return same_time and self.source_bytes == planned.source_bytes

    def is_whole(self, target: Path) -> bool:
        """Returns whether the copy is there as it was written."""
        return size_of(target / self.target) == self.target_bytes


@dataclass(frozen=True)
class CompressMode:
    """How a run works."""

    workers: int = 1  # Processes
    timeout_seconds: float = 3600.0  # Wall-clock limit per video
    retry: frozenset[str] = frozenset()  # Statuses that are done again ("failed", "partial")
    overwrite: bool = False  # Do everything again, and replace files that are not ours
    # What does the jobs: processes here, or a `vtr.extract.cluster.RayPool`.
    make_pool: Callable[[PoolSettings], AbstractContextManager[Any]] = WorkerPool

    def pool(
        self, settings: CompressSettings, target: Path, *, num_jobs: int
    ) -> AbstractContextManager[Any]:
        """Returns what does so many jobs; without any, no cluster is asked for them."""
        workers = min(self.workers, max(1, num_jobs))
        how = PoolSettings(
            HANDLER,
            (settings, str(target)),
            workers,
            timeout_seconds=self.timeout_seconds,
            options=("--timeout",),
        )
        return (self.make_pool if num_jobs else WorkerPool)(how)


@dataclass(frozen=True)
class CompressReport:
    """What a run did and what became of the source folder's videos so far."""

    rows: tuple[CompressRow, ...]  # One per video of the source folder, in its order
    done_now: int  # Videos worked on in this run
    source_bytes_now: int  # Size of their originals
    target_bytes_now: int  # Size of their copies
    seconds: float  # Wall-clock time
    # (name, why) of folders that cannot be listed; their videos are not among the rows.
    unreadable: tuple[tuple[str, str], ...] = ()
    skipped: str = ""  # What is no video, in words

    def count(self, status: str) -> int:
        """Returns how many videos have this status."""
        return sum(row.status == status for row in self.rows)

    @property
    def reasons(self) -> dict[str, int]:
        """Failure class to count, over partial and failed videos, the most frequent first."""
        return dict(Counter(row.reason for row in self.rows if row.error).most_common())


def compress_folder(
    source: Path,
    target: Path,
    settings: CompressSettings,
    *,
    mode: CompressMode | None = None,
    progress: Callable[[int, int, int], None] = lambda _done, _total, _failed: None,
) -> CompressReport:
    """Makes a small copy of every video in a folder and in the folders below it.

    Run again, it does what is new, what changed its size or date, and everything if the settings
    changed. Copies and ledger go to `target`, sub-folders kept; see `assign_targets`. `progress` is
    called with (done, total, failed) after every video.

    Raises:
        ConfigError: No source folder, no videos in it, one folder inside the other, or files in
            the way that vtr did not make.
        StoreError: The ledger is damaged.
        StoreLockedError: Another run is writing there.
        StoreWriteError: The file system refused; what is finished is intact.
    """
    mode, start = mode or CompressMode(), time.perf_counter()
    _require_apart(source, target)
    listing = find_videos(source)
    if not len(listing):
        raise ConfigError(f"no videos in {printable(source)} or in a folder below it")
    with ExitStack() as stack:
        _lock(stack, target)
        ledger = stack.enter_context(_Ledger(target / LEDGER_NAME))
        planned = _plan(source, listing.names, ledger.rows, settings)
        todo = [row for row in planned if _is_due(row, ledger.rows.get(row.name), target, mode)]
        _require_ours([row for row in todo if row.name not in ledger.rows], target, mode)
        ledger.begin(todo)
        failed: dict[str, CompressRow] = {}
        done: list[CompressRow] = []
        pool = stack.enter_context(mode.pool(settings, target, num_jobs=len(todo)))
        jobs = [(str(listing.path(row.name)), str(target / row.target)) for row in todo]
        for row, outcome in zip(todo, pool.run(jobs), strict=True):
            finished = _finished(row, outcome)
            if finished.status == "failed":
                failed[row.name] = finished
            if finished.status != "failed" or not _stays(ledger.rows[row.name], row, target):
                ledger.add(finished)
            done.append(finished)
            progress(len(done), len(todo), len(failed))
        return CompressReport(
            rows=tuple(failed.get(name, ledger.rows[name]) for name in listing.names),
            done_now=len(done),
            source_bytes_now=sum(max(0, row.source_bytes) for row in done),
            target_bytes_now=sum(row.target_bytes for row in done),
            seconds=time.perf_counter() - start,
            unreadable=tuple(listing.unreadable),
            skipped=listing.skipped,
        )


def assign_targets(names: Iterable[str], *, held: Mapping[str, str]) -> dict[str, str]:
    """Returns the copy's name for every source: its own with the extension .mp4.

    Where two would meet, a source that is called .mp4 already keeps its name and the others get
    .mp4 appended to theirs (x.avi.mp4); so does a newcomer whose name an earlier run gave away.
    Names that are `held` stay, and the order of the others does not count.

    >>> assign_targets(["x.avi", "x.mp4", "y.mkv"], held={})
    {'x.mp4': 'x.mp4', 'x.avi': 'x.avi.mp4', 'y.mkv': 'y.mp4'}
    """
    every = list(names)
    targets = {name: held[name] for name in every if name in held}
    # Folders keep their names, so no file may take one of those.
    taken = {
        *held.values(),
        *(str(folder) for name in every for folder in PurePosixPath(name).parents),
    }
    for name in sorted(
        set(every) - set(targets), key=lambda n: (not n.endswith(".mp4"), os.fsencode(n))
    ):
        target = f"{without_extension(name, VIDEO_EXTENSIONS)}.mp4"
        if target in taken:
            target = name if name.endswith(".mp4") and name not in taken else f"{name}.mp4"
        while target in taken:
            target += ".mp4"
        taken.add(target)
        targets[name] = target
    return targets


def make_handler(config: tuple[CompressSettings, str]) -> Callable[[tuple[str, str]], Answer]:
    """Returns the job of a worker: (source, target) in, the facts of the copy out."""
    settings, scratch = config

    def handle(job: tuple[str, str]) -> Answer:
        source, target = map(Path, job)
        try:
            copy = compress_video(source, target, settings, scratch=Path(scratch))
        except StoreWriteError as error:
            return {"store_error": escape_undecodable(str(error))}, b""
        return asdict(copy), b""

    return handle


class _Ledger:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.rows = _read_ledger(path)

    def __enter__(self) -> _Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            # What it holds is flushed after every row; on a full disk closing would raise again.
            with suppress(OSError):
                self._file.close()

    def begin(self, planned: Iterable[CompressRow]) -> None:
        """Writes the whole ledger, planned rows after the old ones, and opens it for more."""
        self.rows = {row.name: row for row in planned} | self.rows
        publish(self._path, b"".join(map(_line, self.rows.values())))
        self._file = open_shared(self._path, append=True)

    def add(self, row: CompressRow) -> None:
        """Adds one finished row, which is on the disk afterwards, or raises StoreWriteError."""
        assert self._file is not None
        try:
            self._file.write(_line(row))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreWriteError(
                f"cannot write {self._path}: {error.strerror or error}. Free some space, then run "
                "the same command again: it resumes"
            ) from None
        self.rows[row.name] = row


def _line(row: CompressRow) -> bytes:
    # ASCII: escapes keep file names that are not valid Unicode.
    return json.dumps(asdict(row), ensure_ascii=True).encode() + b"\n"


def _read_ledger(path: Path) -> dict[str, CompressRow]:
    if not path.exists():
        return {}
    lines = read_regular(path, needed="a ledger", limit=1 << 30, error=StoreError).split(b"\n")
    rows = {}
    # What follows the last line feed is empty, or a row that a crash cut off.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            fields = parse_json(line, source=path, needed="a ledger", error=StoreError)
            row = as_fields(CompressRow, fields, source=path, error=StoreError)
        except StoreError:
            raise StoreError(
                f"{path} is damaged in line {number}. Delete it, and run again with --overwrite"
            ) from None
        rows[row.name] = row
    return rows


def _plan(
    source: Path, names: Sequence[str], rows: Mapping[str, CompressRow], settings: CompressSettings
) -> list[CompressRow]:
    targets = assign_targets(names, held={row.name: row.target for row in rows.values()})
    asked = {name: getattr(settings, name) for name in ("fps", "size", "crf", "upscale")}
    facts = {name: file_facts(source / name) for name in names}
    return [
        CompressRow(
            name,
            targets[name],
            source_bytes=facts[name].get("file_bytes", -1),
            source_mtime_ns=facts[name].get("file_mtime_ns", -1),
            settings=asked,
        )
        for name in names
    ]


def _is_due(
    planned: CompressRow, row: CompressRow | None, target: Path, mode: CompressMode
) -> bool:
    """Returns whether a video is worked on: what its row says of it holds no more, or never did."""
    if mode.overwrite or row is None or row.status in ("planned", *mode.retry):
        return True
    if not row.is_of(planned) or row.settings != planned.settings:
        return True
    return row.status != "failed" and not row.is_whole(target)


def _stays(old: CompressRow, planned: CompressRow, target: Path) -> bool:
    """Returns whether there is a copy of what the video still is; removes one of another."""
    if old.status not in ("ok", "partial"):
        return False
    if not old.is_of(planned):
        with suppress(OSError):
            (target / old.target).unlink()
        return False
    return old.is_whole(target)


def _require_ours(new: Sequence[CompressRow], target: Path, mode: CompressMode) -> None:
    """Raises ConfigError where a new copy would replace a file that vtr did not make."""
    foreign = [row.target for row in new if os.path.lexists(target / row.target)]
    if foreign and not mode.overwrite:
        raise ConfigError(
            f"{printable(target)} already holds {counted(len(foreign), 'file')} that vtr compress "
            f"did not make, such as {printable(foreign[0])}. Choose an empty folder, or replace "
            "them with --overwrite"
        )


def _require_apart(source: Path, target: Path) -> None:
    inner, outer = target.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ConfigError(
            f"the copies would go to {printable(target)} and the originals are in "
            f"{printable(source)}: neither may lie in the other. Choose a folder beside it"
        )


def _lock(stack: ExitStack, target: Path) -> None:
    """Keeps others out of the target, and leaves no temporary files there, now and at the end."""

    def tidy() -> None:
        with suppress(OSError):
            remove_leftovers(target)

    try:
        stack.enter_context(write_lock(target, option="DST"))
    except StoreLockedError:
        raise StoreLockedError(
            f"another run is writing to {printable(target)}. Wait for it to end, or choose "
            "another folder"
        ) from None
    tidy()
    stack.callback(tidy)  # after the pool is gone: killed workers leave files


def _finished(row: CompressRow, outcome: Outcome) -> CompressRow:
    """Returns the row of a video that was worked on; StoreWriteError where its worker could not."""
    facts = dict(outcome.header)
    if "store_error" in facts:
        raise StoreWriteError(facts["store_error"])
    if outcome.failure is not None:
        error = ": ".join(outcome.failure)[:MAX_ERROR_LETTERS]
        return replace(row, status="failed", error=error)
    facts["target_bytes"] = facts.pop("num_bytes")
    error = facts.pop("error")[:MAX_ERROR_LETTERS]
    return replace(row, status="partial" if error else "ok", error=error, **facts)
