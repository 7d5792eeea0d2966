"""Videos in, a feature store out: plan, decode and encode side by side, publish shard by shard."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.datasets.base import Video
from vtr.errors import ConfigError, StoreError, StoreWriteError, WorkersLostError
from vtr.extract.builder import ShardBuilder
from vtr.extract.container import FAILURES
from vtr.extract.jobs import HANDLER, JobConfig, file_facts
from vtr.extract.pool import Outcome, PoolSettings, WorkerPool
from vtr.extract.settings import Encoder, ExtractSettings, feature_spec
from vtr.features.lock import write_lock
from vtr.features.reader import Shard
from vtr.features.rows import LedgerRow, VideoRow
from vtr.features.shard import ShardName, list_shards, write_shard
from vtr.features.spec import FeatureSpec
from vtr.features.store import FeatureStore, require_same, set_aside_damaged
from vtr.files import (
    TEMPORARY_PREFIX,
    begin_beside,
    beside,
    is_begun,
    remove_leftovers,
    take_place,
)

Input = tuple[Video, str | None]
Slot = tuple[int, int, int]


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    done: int
    total: int
    frames: int
    failed: int
    seconds: float


@dataclass(frozen=True)
class ExtractReport:
    """What a run did and what the store holds of its inputs now."""

    inputs: int  # Inputs of this run (of its part, with `--shard`)
    ok: int  # Inputs with all their frames
    partial: int  # Inputs with the frames before a fault
    failed: int  # Inputs without frames
    reasons: dict[str, int]  # Failure class to count, over partial and failed inputs
    done_now: int = 0  # Inputs worked on in this run
    frames_now: int = 0  # Frames embedded in this run
    seconds: float = 0.0  # Wall-clock time
    decode_cpu_seconds: float = 0.0  # CPU time of the workers' jobs
    encode_seconds: float = 0.0  # Wall-clock time within the encoder
    changed: tuple[str, ...] = ()  # Ids of inputs whose file is not the one that was read


@dataclass
class _Tally:
    """Running counts of one run."""

    total: int
    progress: Callable[[Progress], None]
    done: int = 0
    frames: int = 0
    failed: int = 0
    decode_cpu_seconds: float = 0.0
    encode_seconds: float = 0.0
    start: float = field(default_factory=time.perf_counter)

    def count(self, row: LedgerRow, outcome: Outcome) -> None:
        self.done += 1
        self.failed += row.status == "failed"
        self.frames += len(outcome.header.get("pts_seconds", ()))
        self.decode_cpu_seconds += outcome.cpu_seconds
        self.progress(Progress(self.done, self.total, self.frames, self.failed, self.seconds))

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


def extract(
    inputs: Sequence[Input],
    folder: Path,
    encoder: Encoder,
    settings: ExtractSettings,
    *,
    mode: ExtractMode | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> ExtractReport:
    """Embeds the chosen frames of every input that the store does not hold yet.

    Run again after any interruption, it goes on where it stopped. Every input ends with one
    ledger row: ok, partial or failed.

    Args:
        inputs: (video, problem) in a stable order; a problem (a failure class) makes a failed
            row without decoding. See `vtr.datasets.registry.unique_videos`.
        folder: The store.
        encoder: The vision tower.
        settings: How frames are chosen and work is cut.
        mode: Which part of the plan, and what to do anew; by default all that is not there yet.
        progress: Called after every video.

    Raises:
        FingerprintError: The store was made with other settings.
        StoreLockedError: Another run is writing to it.
        StoreWriteError: The disk refused; what was published before is intact.
        WorkersLostError: The decoding processes died as a whole; what was decoded is published.
    """
    mode = mode or ExtractMode()
    spec = feature_spec(encoder, settings)
    mine = list(inputs)[mode.part[0] - 1 :: mode.part[1]]
    with write_lock(folder, part=mode.part):
        replaces = mode.overwrite and bool(list_shards(folder)[0])
        work = _begin_anew(folder, spec) if replaces else folder
        store = _prepare(work, spec, mode)
        run = _Run(work, encoder, settings, spec)
        again = _to_retry(store, inputs, mode, hashed=settings.hash_files)
        held = set(store.input_ids) if store else set()
        new = [item for item in mine if item[0].id not in held]
        tally = _Tally(len(new) + sum(len(items) for _, items in again), progress)
        run.redo(again, tally)
        run.add(new, _first_slot(store, mode.part), tally)
        if replaces:
            _keep_others(folder, work)
            take_place(folder)
    redone = {video.id for _, items in again for video, _ in items}
    return _report(folder, mine, tally, hashed=held - redone if settings.hash_files else set())


@dataclass(frozen=True)
class ExtractMode:
    """Which inputs a run works on.

    Raises:
        ConfigError: One part of several is to delete the store, and with it what the others made.
    """

    # (i, n): every n-th input, beginning with the i-th, counted from 1.
    part: tuple[int, int] = (1, 1)
    # Which rows are done anew: of these statuses ("failed", "partial"), "changed", those whose
    # video is another file than the one that was read (see `has_changed`), and "damaged", all of a
    # damaged shard, which is renamed.
    retry: frozenset[str] = frozenset()
    # Make the store anew: beside the old one, which it replaces when it is complete. Run again
    # after an interruption, it goes on there.
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.overwrite and self.part[1] > 1:
            raise ConfigError(
                f"--overwrite with --shard {self.part[0]}/{self.part[1]} would delete what the "
                "other parts have made. Delete the store first, then start the parts without it"
            )

    def owns(self, name: ShardName) -> bool:
        """Returns whether it is this run, of all parts at work, that may replace a shard."""
        part, parts = self.part
        return name.part == part if name.parts == parts else name.sequence % parts + 1 == part


def _prepare(folder: Path, spec: FeatureSpec, mode: ExtractMode) -> FeatureStore | None:
    """Returns the store to go on with; refuses one made with other settings."""
    part, parts = mode.part
    # What other parts are writing right now is no leftover.
    remove_leftovers(folder, f"*-shard-{part:03d}of{parts:03d}-*" if parts > 1 else "*")
    if "damaged" in mode.retry:
        set_aside_damaged(folder, owned=mode.owns)
    newest, superseded = list_shards(folder)
    for path in superseded:
        path.unlink(missing_ok=True)
    if not newest:
        return None
    store = FeatureStore(folder)
    require_same(store.spec, spec, what=str(folder))
    return store


def _begin_anew(folder: Path, spec: FeatureSpec) -> Path:
    """Returns where the next store is built; what is there already stays if it is of this kind."""
    if is_begun(folder):
        try:
            if not FeatureStore(beside(folder)).spec.differences(spec):
                return beside(folder)
        except StoreError:
            pass  # nothing in it yet, or damaged
    return begin_beside(folder, option="--features")


def _keep_others(folder: Path, work: Path) -> None:
    """Takes along what is not of the store, such as embedded captions, but no results of it."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(source, target, follow_symlinks=False)

    ours = shutil.ignore_patterns("shard-*.h5", ".lock*", f"{TEMPORARY_PREFIX}*", "zero-shot")
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


def _to_retry(
    store: FeatureStore | None, inputs: Sequence[Input], mode: ExtractMode, *, hashed: bool
) -> list[tuple[Shard, list[Input]]]:
    """Returns, per shard, the inputs whose rows are to be done anew.

    Parts at work side by side share the shards, not the inputs: two that replaced the same shard
    would each undo what the other did.
    """
    if store is None or not mode.retry:
        return []
    known = {video.id: (video, problem) for video, problem in inputs}
    plan = []
    for shard in filter(lambda shard: mode.owns(shard.name), store.shards):
        ledger = [(row, known[row.id]) for row in shard.ledger() if row.id in known]
        wanted = [
            item for row, item in ledger if wants_again(row, item[0], mode.retry, hashed=hashed)
        ]
        if wanted:
            plan.append((shard, wanted))
    return plan


def wants_again(
    row: LedgerRow, video: Video, retry: frozenset[str], *, hashed: bool = False
) -> bool:
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


def _first_slot(store: FeatureStore | None, part: tuple[int, int]) -> Slot:
    """Returns the first free slot of this part; shards of other parts do not count."""
    slots = [shard.name.slot for shard in store.shards] if store else []
    taken = [sequence for parts, i, sequence in slots if (i, parts) == part]
    return part[1], part[0], max(taken, default=-1) + 1


class _Run:
    """One run on one store: what does not change from shard to shard."""

    def __init__(
        self, folder: Path, encoder: Encoder, settings: ExtractSettings, spec: FeatureSpec
    ) -> None:
        self.folder, self.encoder, self.settings, self.spec = folder, encoder, settings, spec
        on_gpu = str(encoder.device).startswith("cuda")
        self.batch_size = settings.batch_size or (256 if on_gpu else 32)
        self.pad_embedding = np.asarray(encoder.pad_embedding(), np.float32)

    def add(self, inputs: Sequence[Input], slot: Slot, tally: _Tally) -> None:
        """Works through new inputs and publishes a shard whenever one is full."""
        builder = self._builder(tally)
        try:
            with closing(self._outcomes(inputs)) as outcomes:
                for (video, _), outcome in zip(inputs, outcomes, strict=True):
                    if self._full(builder, outcome):
                        self._publish(builder, slot)
                        slot, builder = (*slot[:2], slot[2] + 1), self._builder(tally)
                    tally.count(builder.add(video, outcome), outcome)
        except (KeyboardInterrupt, WorkersLostError):
            # What is decoded is not thrown away: it makes a short shard.
            if len(builder):
                self._publish(builder, slot)
            raise
        if len(builder):
            self._publish(builder, slot)

    def redo(self, plan: Sequence[tuple[Shard, list[Input]]], tally: _Tally) -> None:
        """Does some rows of published shards anew and replaces those shards."""
        every = [item for _, inputs in plan for item in inputs]
        with closing(self._outcomes(every)) as outcomes:
            for shard, inputs in plan:
                builder = self._builder(tally)
                for video, _ in inputs:
                    outcome = next(outcomes)
                    tally.count(builder.add(video, outcome), outcome)
                fresh = {row.ledger.id: row for row in builder.finish()}
                rows = [fresh.get(row.ledger.id, row) for row in stored_rows(shard)]
                self._write(rows, shard.name.slot, shard.name.revision + 1)
                shard.path.unlink(missing_ok=True)

    def _builder(self, tally: _Tally) -> ShardBuilder:
        encoder = _TimedEncoder(self.encoder, tally)
        return ShardBuilder(encoder, self.spec, batch_size=self.batch_size)

    def _full(self, builder: ShardBuilder, upcoming: Outcome) -> bool:
        more = len(upcoming.header.get("pts_seconds", ())) * builder.frame_bytes
        too_large = builder.num_bytes + more > self.settings.shard_bytes
        return len(builder) >= self.settings.shard_videos or (len(builder) > 0 and too_large)

    def _publish(self, builder: ShardBuilder, slot: Slot) -> None:
        self._write(builder.finish(), slot, 0)

    def _write(self, rows: Sequence[VideoRow], slot: Slot, revision: int) -> None:
        write_shard(
            self.folder,
            rows,
            spec=self.spec,
            slot=slot,
            revision=revision,
            pad_embedding=self.pad_embedding,
        )

    def _outcomes(self, inputs: Sequence[Input]) -> Generator[Outcome, None, None]:
        """Yields one outcome per input, in order; faulty inputs are not decoded."""
        jobs = [video for video, problem in inputs if problem is None]
        settings = self.settings
        config = JobConfig(
            choices=settings.samplers,
            num_frames=settings.num_frames,
            candidate_fps=settings.candidate_fps,
            seed=settings.seed,
            limits=settings.limits,
            preprocessing=self.spec.preprocessing,
            thumbnails=settings.keeps_thumbnails,
            hashed=settings.hash_files,
        )
        pool_settings = PoolSettings(
            HANDLER,
            config,
            workers=settings.workers,
            timeout_seconds=settings.timeout_seconds,
            memory_bytes=settings.memory_bytes,
        )
        with WorkerPool(pool_settings) as pool:
            decoded = pool.run(jobs)
            for _, problem in inputs:
                if problem is None:
                    yield next(decoded)
                else:
                    yield Outcome({}, failure=(problem, FAILURES[problem]))


class _TimedEncoder:
    """An encoder that adds the time it takes to a tally."""

    def __init__(self, encoder: Encoder, tally: _Tally) -> None:
        self._encoder, self._tally = encoder, tally
        self.device, self.describe = encoder.device, encoder.describe
        self.pad_embedding = encoder.pad_embedding

    def encode_frames(self, crops: NDArray[np.uint8], **clips: Any) -> NDArray[np.float32]:
        start = time.perf_counter()
        try:
            return self._encoder.encode_frames(crops, **clips)
        finally:
            self._tally.encode_seconds += time.perf_counter() - start


def stored_rows(shard: Shard) -> list[VideoRow]:
    """Returns a published shard's rows, ready to be written again unchanged."""
    rows = []
    offsets = shard.frame_offset.tolist()
    for v, ledger in enumerate(shard.ledger()):
        place = slice(offsets[v], offsets[v + 1])
        selections = {}
        for label in shard.spec.samplers:
            chosen, offset = shard.selection(label)
            selections[label] = chosen[offset[v] : offset[v + 1]] - offsets[v]
        pts_seconds = shard.columns["frame/pts_seconds"][place]
        every = shard.columns.get("frame/luma")
        luma = None if every is None else every[place]
        rows.append(VideoRow(ledger, shard.frames[place], pts_seconds, selections, luma))
    return rows


def _report(
    folder: Path, inputs: Sequence[Input], tally: _Tally, *, hashed: set[str]
) -> ExtractReport:
    """Counts what the store now holds of these inputs; every one must have its row."""
    ledger = {row.id: row for row in FeatureStore(folder).ledger} if inputs else {}
    held = [(ledger[video.id], video) for video, _ in inputs if video.id in ledger]
    rows = [row for row, _ in held]
    if len(rows) != len(inputs):
        raise StoreError(
            f"{folder} holds {counted(len(rows), 'row')} for {counted(len(inputs), 'input')}"
        )
    statuses = Counter(row.status for row in rows)
    return ExtractReport(
        inputs=len(inputs),
        ok=statuses["ok"],
        partial=statuses["partial"],
        failed=statuses["failed"],
        reasons=dict(Counter(row.reason for row in rows if row.status != "ok").most_common()),
        done_now=tally.done,
        frames_now=tally.frames,
        seconds=tally.seconds,
        decode_cpu_seconds=tally.decode_cpu_seconds,
        encode_seconds=tally.encode_seconds,
        changed=tuple(
            row.id for row, video in held if has_changed(row, video, hashed=row.id in hashed)
        ),
    )
