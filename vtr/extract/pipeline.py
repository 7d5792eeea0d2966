"""Videos in, a feature store out: decode and encode side by side, publish shard by shard."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.datasets.base import Video
from vtr.errors import FingerprintError, OverBudgetError, StoreError, WorkersLostError
from vtr.extract.answers import HANDLER, Crops, read_answer
from vtr.extract.encoders import EncoderGroup
from vtr.extract.limits import FAILURES
from vtr.extract.pool import Outcome, PoolSettings, WorkerPool
from vtr.extract.resume import (
    ExtractMode,
    Input,
    begin_anew,
    has_changed,
    keep_others,
    open_for_writing,
    require_alike,
    to_retry,
)
from vtr.extract.settings import Encoder, ExtractSettings, feature_spec
from vtr.features.engine_check import EngineCheck
from vtr.features.lock import write_lock
from vtr.features.pictures import stored_bytes
from vtr.features.reader import Shard
from vtr.features.rows import VideoRow
from vtr.features.shard import list_shards, write_shard
from vtr.features.spec import FeatureSpec
from vtr.features.store import FeatureStore
from vtr.files import take_place

CHECKED_FRAMES = 64  # By which an encoder is judged
Slot = tuple[int, int, int]
Rows = Generator[tuple[VideoRow, Crops], None, None]


@dataclass
class Progress:
    """How far a run is; the same object from call to call."""

    total: int  # Inputs to work on
    done: int = 0
    frames: int = 0  # Embedded, or about to be
    failed: int = 0
    seconds: float = 0.0  # Wall-clock time
    decode_cpu_seconds: float = 0.0  # CPU time of the workers' jobs
    encode_seconds: float = 0.0  # Wall-clock time within the encoders, over all of them


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
    encode_seconds: float = 0.0  # Wall-clock time within the encoders, over all of them
    changed: tuple[str, ...] = ()  # Ids of inputs whose file is not the one that was read


def extract(
    inputs: Sequence[Input],
    folder: Path,
    encoder: Encoder,
    settings: ExtractSettings,
    *,
    mode: ExtractMode | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> ExtractReport:
    """Embeds the chosen frames of every input that the store in a folder does not hold yet.

    Run again after any interruption, it goes on where it stopped. Every input ends with one
    ledger row: ok, partial or failed. One with a problem, a failure class, is not decoded (see
    `vtr.datasets.registry.unique_videos`). `progress` is called after every video.

    Raises:
        FingerprintError: The store was made with other settings.
        StoreLockedError: Another run is writing to it.
        StoreWriteError: The disk refused; what was published before is intact.
        WorkersLostError: The decoding processes died as a whole; what was decoded is published.
        OverBudgetError: The pictures take more than they may; what came before is published.
    """
    mode, hashed = mode or ExtractMode(), settings.hash_files
    spec = feature_spec(encoder, settings)
    mine = list(inputs) if mode.is_alone else list(inputs)[mode.part[0] - 1 :: mode.part[1]]
    with write_lock(folder, part=mode.part, option=mode.option):
        replaces = mode.overwrite and bool(list_shards(folder)[0])
        kept = settings.pictures
        work = begin_anew(folder, spec, kept) if replaces else folder
        store = open_for_writing(work, spec, mode, kept)
        again = to_retry(store, inputs, mode, hashed=hashed)
        held = set(store.input_ids) if store else set()
        new = [item for item in mine if item[0].id not in held]
        now = Progress(len(new) + sum(len(items) for _, items in again))
        run = StoreRun(work, encoder, settings, spec, now, progress)
        run.mode, run.has_begun = mode, store is not None
        run.redo(again)
        run.add(run.decoded(new), first_slot(store, mode.part))
        if replaces:
            keep_others(folder, work)
            take_place(folder)
    redone = {video.id for _, items in again for video, _ in items}
    only = mode.part if mode.is_alone else None
    return report_of(folder, mine, now, hashed=held - redone if hashed else set(), part=only)


def to_decode(inputs: Sequence[Input]) -> list[Video]:
    """Returns the videos of the inputs without a problem."""
    return [video for video, problem in inputs if problem is None]


def first_slot(store: FeatureStore | None, part: tuple[int, int]) -> Slot:
    """Returns the first free slot of this part; shards of other parts do not count."""
    slots = [shard.name.slot for shard in store.shards] if store else []
    taken = [sequence for parts, i, sequence in slots if (i, parts) == part]
    return part[1], part[0], max(taken, default=-1) + 1


def pool_settings(settings: ExtractSettings, preprocessing: Mapping[str, Any]) -> PoolSettings:
    """How the decoding processes of an extraction are run."""
    return PoolSettings(
        HANDLER,
        (settings, dict(preprocessing)),
        workers=settings.workers,
        timeout_seconds=settings.timeout_seconds,
        options=("--timeout", "--memory"),
        memory_bytes=settings.memory_bytes,
    )


class StoreRun:
    """One run on one store: what does not change from shard to shard."""

    mode = ExtractMode()
    has_begun = False  # There are shards of these settings: whoever comes with others is refused

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        settings: ExtractSettings,
        spec: FeatureSpec,
        now: Progress,
        progress: Callable[[Progress], None],
    ) -> None:
        self.folder, self.settings, self.spec = folder, settings, spec
        self.encoders = encoder if isinstance(encoder, EncoderGroup) else EncoderGroup([encoder])
        self.now, self._progress, self._start = now, progress, time.perf_counter()
        on_gpu = str(encoder.device).startswith("cuda")
        self.batch_size = settings.batch_size or (256 if on_gpu else 32)
        self._picture_bytes = 0

    @cached_property
    def pad_embedding(self) -> NDArray[np.float32]:
        """(D,); only when a shard is written, as the first frames need not wait for it."""
        return np.asarray(self.encoders.pad_embedding(), np.float32)

    def add(self, new: Rows, slot: Slot) -> None:
        """Works through new rows and publishes a shard whenever one is full."""
        shard = _ShardRows(self)
        try:
            with closing(new) as rows:
                for row, crops in rows:
                    if shard.is_full(row):
                        self._write(shard.finish(), slot, 0)
                        slot, shard = (*slot[:2], slot[2] + 1), _ShardRows(self)
                    shard.add(row, crops)
                    self._progress(self.now)
        except (KeyboardInterrupt, WorkersLostError, OverBudgetError) as error:
            # What is decoded is not thrown away: it makes a short shard. Who interrupts a run
            # before its encoder was judged does not wait for that.
            judged = self.mode.check is None or not isinstance(error, KeyboardInterrupt)
            if shard.rows and judged:
                self._write(shard.finish(), slot, 0)
            raise
        if shard.rows:
            self._write(shard.finish(), slot, 0)

    def redo(self, shards: Sequence[tuple[Shard, list[Input]]]) -> None:
        """Does some rows of published shards anew and replaces those shards."""
        every = [item for _, inputs in shards for item in inputs]
        with closing(self.decoded(every)) as rows:
            for old, inputs in shards:
                shard = _ShardRows(self)
                for _ in inputs:
                    shard.add(*next(rows))
                    self._progress(self.now)
                fresh = {row.ledger.id: row for row in shard.finish()}
                merged = [fresh.get(row.ledger.id, row) for row in old.rows()]
                self._write(merged, old.name.slot, old.name.revision + 1)
                old.path.unlink(missing_ok=True)

    def check(self, waiting: Sequence[Crops]) -> None:
        """Has the encoder judged by the first frames of this run, spread over those at hand."""
        if self.mode.check is None:
            return
        frames = np.concatenate(waiting)
        chosen = np.linspace(0, len(frames) - 1, min(len(frames), CHECKED_FRAMES)).astype(int)
        measured = self.mode.check(frames[chosen])
        EngineCheck(self.spec.fingerprint, **measured).write(self.folder, self.mode.part)
        self.mode = replace(self.mode, check=None)

    def kept(self, view: FeatureStore, ids: Sequence[str]) -> Rows:
        """Yields rows and pictures of some videos, of the frames that a store is seen through."""
        ledger = {row.id: row for row in view.ledger}
        for video_id in ids:
            row = VideoRow.failed(ledger[video_id], self.spec.embedding_dim)
            pixels = np.zeros((0, *self.spec.preprocessing["size"], 3), np.uint8)
            if video_id in view:
                pixels = view.pictures([video_id]).pixels
                times = view.packed([video_id]).pts_seconds
                chosen = {label: np.arange(len(times)) for label in self.spec.samplers}
                row = replace(row, pts_seconds=times, selections=chosen)
            self._count(row, len(pixels))
            yield row, pixels

    def embed(self, old: Shard, revision: int) -> None:
        """Embeds the pictures of a shard and publishes them in the same slot."""
        shard, side = _ShardRows(self), old.spec.preprocessing["size"]
        ends = old.frame_offset.tolist()
        for row, (start, end) in zip(old.rows(), pairwise(ends), strict=True):
            pixels = np.empty((end - start, *side, 3), np.uint8)
            old.pictures(slice(start, end), pixels)
            shard.add(replace(row, pictures=None), pixels)
            self._count(row, end - start)
            self._progress(self.now)
        self._write(shard.finish(), old.name.slot, revision)

    def _write(self, rows: Sequence[VideoRow], slot: Slot, revision: int) -> None:
        pad, where = self.pad_embedding, self.folder
        if not self.has_begun:
            require_alike(where, self.spec, self.settings.pictures)
        path = write_shard(
            where, rows, spec=self.spec, slot=slot, revision=revision, pad_embedding=pad
        )
        if not self.has_begun:
            try:  # of two that began at the same moment at least one sees the other
                require_alike(where, self.spec, self.settings.pictures)
            except FingerprintError:
                path.unlink(missing_ok=True)
                raise
        self.has_begun = True
        self.now.seconds = time.perf_counter() - self._start

    def decoded(self, inputs: Sequence[Input]) -> Rows:
        """Yields a row without embeddings and its crops per input, in order."""
        settings, now = self.settings, self.now
        how = pool_settings(settings, self.spec.preprocessing)
        own = WorkerPool(how)  # starts nothing yet
        pool = self.mode.pool if self.mode.pool and self.mode.pool.settings == how else own
        with own, closing(pool.run(to_decode(inputs))) as decoded:
            for video, problem in inputs:
                if problem is None:
                    outcome = next(decoded)
                else:
                    outcome = Outcome({}, failure=(problem, FAILURES[problem]))
                row, crops = read_answer(video, outcome, self.spec.embedding_dim)
                if self.settings.pictures == "raw":
                    row = replace(row, pictures=crops)
                now.decode_cpu_seconds += outcome.cpu_seconds
                self._check_budget(row)
                self._count(row, len(crops))
                yield row, crops

    def _check_budget(self, row: VideoRow) -> None:
        """Raises OverBudgetError where this video's pictures exceed the run's budget."""
        self._picture_bytes += 0 if row.pictures is None else stored_bytes(row.pictures)
        limit = self.settings.picture_bytes
        if limit is not None and self._picture_bytes > limit:
            raise OverBudgetError(
                f"the pictures up to {row.ledger.id!r} take {self._picture_bytes / 1e9:.3g} GB, "
                f"and --crops-budget allows {limit / 1e9:.3g}. What came before is kept; go on "
                "with another --crops-budget"
            )

    def _count(self, row: VideoRow, num_frames: int) -> None:
        self.now.done += 1
        self.now.failed += row.ledger.status == "failed"
        self.now.frames += num_frames
        self.now.seconds = time.perf_counter() - self._start


class _ShardRows:
    """Collects the videos of one shard in plan order.

    Frames are encoded as soon as a batch is full, and never across a shard's border: so the
    numbers in a shard depend on its own videos alone, and a resumed run gives the same bytes as
    one that was never interrupted. For an encoder that sees neighbouring frames, batches hold
    whole videos.
    """

    def __init__(self, run: StoreRun) -> None:
        self.rows: list[VideoRow] = []
        self._run, self._spec = run, run.spec
        self._waiting: list[Crops] = []
        self._begun: deque[Future[NDArray[np.float32]]] = deque()
        self._embeddings: list[NDArray[np.float32]] = []

    def is_full(self, row: VideoRow) -> bool:
        """Returns whether one more video belongs into the next shard."""
        settings, spec = self._run.settings, self._spec
        frame_bytes = spec.embedding_dim * np.dtype(spec.storage_dtype).itemsize
        num_bytes = 0
        for one in (*self.rows, row):
            num_bytes += len(one.pts_seconds) * frame_bytes
            num_bytes += 0 if one.pictures is None else stored_bytes(one.pictures)
        too_large = bool(self.rows) and num_bytes > settings.shard_bytes
        return len(self.rows) >= settings.shard_videos or too_large

    def add(self, row: VideoRow, crops: Crops) -> None:
        """Takes one video; its crops are dropped as soon as they are encoded."""
        self.rows.append(row)
        if len(crops):
            self._waiting.append(crops)
        del crops
        enough = self._run.batch_size
        if self._run.mode.check is not None:
            enough = max(enough, CHECKED_FRAMES)
        while sum(map(len, self._waiting)) >= enough:
            self._encode()
            enough = self._run.batch_size

    def finish(self) -> list[VideoRow]:
        """Encodes what is left and returns the rows in plan order, with their embeddings."""
        while self._waiting:
            self._encode()
        self._collect(wait=True)
        empty = np.zeros((0, self._spec.embedding_dim), np.float32)
        encoded = np.concatenate([empty, *self._embeddings])
        ends = np.cumsum([len(row.pts_seconds) for row in self.rows])
        assert ends[-1] == len(encoded), f"{len(encoded)} embeddings for {ends[-1]} frames"
        parts = np.split(encoded, ends[:-1])
        return [self._embedded(row, part) for row, part in zip(self.rows, parts, strict=True)]

    def _encode(self) -> None:
        before = self._waiting
        self._run.check(before)
        batch = self._take_videos() if self._spec.linear_patch == "3d" else self._take_frames()
        ends = np.cumsum([0, *map(len, batch)]).tolist()
        offsets = ends if self._spec.linear_patch == "3d" else None
        try:
            made = self._run.encoders.submit(np.concatenate(batch), offsets=offsets)
        except KeyboardInterrupt:
            self._waiting = before  # `finish` makes a short shard of what is there
            raise
        self._begun.append(made)
        self._collect(wait=False)

    def _collect(self, *, wait: bool) -> None:
        """Takes the answers that are there, in order."""
        while self._begun and (wait or self._begun[0].done()):
            self._embeddings.append(self._begun[0].result())
            self._begun.popleft()
        self._run.now.encode_seconds = self._run.encoders.seconds

    def _take_videos(self) -> list[Crops]:
        """Takes a batch that ends where a video ends."""
        num_frames = np.cumsum([len(crops) for crops in self._waiting])
        count = int(np.searchsorted(num_frames, self._run.batch_size)) + 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _take_frames(self) -> list[Crops]:
        batch: list[Crops] = []
        rest, space = list(self._waiting), self._run.batch_size
        while rest and space:
            batch.append(rest[0][:space])
            rest[0] = rest[0][space:]
            space -= len(batch[-1])
            if not len(rest[0]):
                rest.pop(0)
        self._waiting = rest
        return batch

    def _embedded(self, row: VideoRow, frames: NDArray[np.float32]) -> VideoRow:
        stored = frames.astype(self._spec.storage_dtype)
        sound = np.isfinite(stored).all(axis=1) & (stored != 0).any(axis=1)
        if sound.all():
            return replace(row, frames=stored)
        error = (
            f"bad-features: {np.count_nonzero(~sound)} of {counted(len(sound), 'frame')} "
            "gave a zero or non-finite embedding"
        )
        failed = replace(row.ledger, status="failed", error=error)
        return VideoRow.failed(failed, self._spec.embedding_dim)


def report_of(
    folder: Path,
    inputs: Sequence[Input],
    now: Progress,
    *,
    hashed: set[str],
    part: tuple[int, int] | None = None,
) -> ExtractReport:
    """Counts what the store (its part) now holds of these inputs; every one must have its row."""
    ledger = {row.id: row for row in FeatureStore(folder, part=part).ledger} if inputs else {}
    held = [(ledger[video.id], video) for video, _ in inputs if video.id in ledger]
    if len(held) != len(inputs):
        raise StoreError(
            f"{folder} holds {counted(len(held), 'row')} for {counted(len(inputs), 'input')}"
        )
    statuses = Counter(row.status for row, _ in held)
    return ExtractReport(
        inputs=len(inputs),
        ok=statuses["ok"],
        partial=statuses["partial"],
        failed=statuses["failed"],
        reasons=dict(Counter(row.reason for row, _ in held if row.status != "ok").most_common()),
        done_now=now.done,
        frames_now=now.frames,
        seconds=now.seconds,
        decode_cpu_seconds=now.decode_cpu_seconds,
        encode_seconds=now.encode_seconds,
        changed=tuple(
            row.id for row, video in held if has_changed(row, video, hashed=row.id in hashed)
        ),
    )
