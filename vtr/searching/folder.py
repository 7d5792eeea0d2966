"""Where a library's videos and features come from: a folder of its own, or a store that exists."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vtr.arithmetic import prepare_arithmetic
from vtr.counts import counted, human_seconds
from vtr.datasets.base import Video
from vtr.datasets.files import VideoListing, find_videos
from vtr.datasets.registry import unique_videos
from vtr.errors import ConfigError, FingerprintError, ModelError, ShardError, StoreLockedError
from vtr.features.lock import write_lock
from vtr.features.shard import list_shards
from vtr.features.store import FeatureStore
from vtr.files import make_folder
from vtr.foreign import printable
from vtr.names import video_id
from vtr.progress import note, progress, warn_of_unreadable
from vtr.searching.codes import wants_codes
from vtr.searching.encoder import QueryEncoder
from vtr.searching.home import can_make, find_home, find_index
from vtr.searching.index import Index, read_index, update_index
from vtr.searching.same_files import mark_files, read_marks, replaced, write_marks

DEFAULT_MODEL = "openai/clip-vit-base-patch32"
FPS = 2.0  # at 1 the ends of moments are half a second off, mean IoU at most 84 (measured)
# At even steps a clip that blinks in step with them shows one side only: frames of the demo world
# find their video within 0.5 s in 98.7 %; in 98.8, 98.8, 99.3, 99.3 % at 0.25, 0.5, 0.75, 1. Joined
# clips are found with IoU >= 0.7 in 93.3 % at 0, 94.4 at 0.75, 93.1 at 1.
_JITTER = 0.75
# What a kill loses at most: of short clips so many, of films half an hour or so.
_SHARD_VIDEOS, _SHARD_BYTES = 64, 4 << 20
_WAIT_SECONDS = 0.3
_AS_BEFORE = ": the answer comes from what was indexed before"


@dataclass(frozen=True)
class Changes:
    """What a refresh found."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.deleted)


class FolderSource:
    """A plain folder of videos, whose features are made here.

    Args:
        folder: Of the videos.
        home: Where the features lie; by default hidden beside the videos, or in the user's cache.
        model: Hub id or folder of the backbone; by default the one that the features were made
            with, at first CLIP ViT-B/32.
        device: Where it runs.
        workers: Decoding processes; by default one per core.

    Raises:
        ConfigError: No such folder, or no videos in it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        home: Path | None = None,
        model: str | None = None,
        device: str = "auto",
        workers: int | None = None,
    ) -> None:
        self.folder, self.device, self.workers = folder, device, workers
        self._asked = model
        self._warned: set[tuple[str, str]] = set()
        self._look()
        self.store = home or find_home(folder)
        self.encoder = QueryEncoder(model, self.store, default=DEFAULT_MODEL, device=device)

    def paths(self, ids: Sequence[str]) -> Mapping[str, Path | None]:
        """Returns the videos that were found last."""
        return {video.id: video.path for video, _ in self._inputs}

    def refresh(self, *, rebuild: bool = False) -> tuple[Index, Changes]:
        """Embeds what is new and changed."""
        self._look()
        place, index = find_index(self.store), None
        known = read_marks(place)
        marks = mark_files(self.paths(()), known)
        if not rebuild and list_shards(self.store)[0]:
            with suppress(ShardError):  # none is whole: they are put aside, and all is made anew
                self._require_same(read_index(place))
                index = bring_up_to_date(place, self.store, self.encoder)
                self.encoder.remember()
        others = replaced(marks, known)
        changes = self._changes(index, others)
        if not (rebuild or changes.new or changes.changed) and index is not None:
            if marks != known:
                write_marks(place, marks)
            return index, changes
        if index is not None and not can_make(self.store):
            note(f"{self.store} cannot be written{_AS_BEFORE}; --index DIR keeps one of your own")
            return index, changes
        try:
            self._extract(rebuild=rebuild, again=others)
        except StoreLockedError as error:
            if index is not None:
                note(f"{_writer(error)}{_AS_BEFORE}")
                return index, changes
            with _waiting_lock(self.store):
                pass
            return self.refresh(rebuild=rebuild)  # mostly there is nothing left to be made
        index = bring_up_to_date(place, self.store, self.encoder)
        write_marks(place, marks)
        return index, changes

    def _look(self) -> None:
        listing = find_videos(self.folder)
        warn_of_unreadable(set(listing.unreadable) - self._warned)
        self._warned = set(listing.unreadable)
        self._inputs = unique_videos(
            Video(video_id(name), listing.path(name)) for name in listing.names
        )
        if not self._inputs:
            raise ConfigError(_no_videos(listing))

    def _changes(self, index: Index | None, others: Collection[str]) -> Changes:
        from vtr.extract.resume import has_changed

        held = {} if index is None else {row.id: row for row in index.ledger()}
        there = {video.id: video for video, _ in self._inputs}
        both = [(i, video) for i, video in there.items() if i in held]
        return Changes(
            tuple(i for i in there if i not in held),
            tuple(i for i, video in both if i in others or has_changed(held[i], video)),
            tuple(i for i in held if i not in there),
        )

    def _extract(self, *, rebuild: bool, again: frozenset[str]) -> None:
        """Embeds what the store lacks; waits for another process that does so already."""
        from vtr.arithmetic import usable_cores
        from vtr.extract import pipeline
        from vtr.extract.resume import ExtractMode
        from vtr.extract.samplers.base import parse_samplers
        from vtr.extract.settings import ExtractSettings

        make_folder(self.store, option="--index")
        note(f"loading {self.encoder.model}")
        prepare_arithmetic()
        backbone = self.encoder.backbone
        if not list_shards(self.store)[0]:  # a run that is killed now goes on with this model
            self.encoder.remember()
        settings = ExtractSettings(
            samplers=parse_samplers("dense"),
            candidate_fps=FPS,
            candidate_jitter=self._jitter(rebuild=rebuild),
            thumbnails=False,
            shard_videos=_SHARD_VIDEOS,
            shard_bytes=_SHARD_BYTES,
            workers=self.workers or min(usable_cores(), len(self._inputs)),
        )
        mode = ExtractMode(
            retry=frozenset({"changed", "damaged"}),
            again=again,
            overwrite=rebuild,
            option="--index",
        )
        note(f"indexing {self.folder} ({counted(len(self._inputs), 'video')}) into {self.store}")
        with progress("indexing") as update:

            def show(now: pipeline.Progress) -> None:
                rate = f"{now.frames / now.seconds:.0f} frames/s" if now.seconds > 0 else ""
                failed = f", {now.failed} failed" if now.failed else ""
                update(now.done, now.total, f"{rate}{failed}")

            try:
                report = pipeline.extract(
                    self._inputs, self.store, backbone, settings, mode=mode, progress=show
                )
            except FingerprintError as error:
                differences = str(error).partition(". Use ")[0]
                raise FingerprintError(f"{differences}. Make it anew with --rebuild") from None
        self.encoder.remember()
        if report.done_now:  # else another process has just made it
            seconds = human_seconds(report.seconds)
            frames = counted(report.frames_now, "frame")
            note(f"indexed {counted(report.done_now, 'video')}, {frames}, {seconds}")

    def _jitter(self, *, rebuild: bool) -> float:
        """Returns that of the store, so that an older one goes on; windows need even steps."""
        if not rebuild and list_shards(self.store)[0]:
            with suppress(ShardError):
                return FeatureStore(self.store, skip_damaged=True).spec.candidate_jitter
        return 0.0 if self.encoder.backbone.window > 1 else _JITTER

    def _require_same(self, index: Index | None) -> None:
        """Refuses another model than that of the features that are there already."""
        made, name = _made_by(index, self.store, skip_damaged=True)
        if made != self.encoder.weights_sha256:
            raise ModelError(
                f"the features in {self.store} were made with {name}, and {self.encoder.model} is "
                "another model: their spaces have nothing in common. Leave out --model, or make "
                "everything anew with --rebuild"
            )


class StoreSource:
    """A store that exists, such as a workspace's; nothing is extracted.

    `files` are by video id, and what is not named has none; the index's `place` is beside the
    features where it is None, or in the user's cache.
    """

    def __init__(
        self,
        store: Path,
        files: Mapping[str, Path | None],
        *,
        model: str,
        device: str = "auto",
        place: Path | None = None,
    ) -> None:
        self.store, self.files = store, files
        if not list_shards(store)[0]:
            FeatureStore(store)  # says what is wrong
        self.place = place or find_index(store)
        if list_shards(self.place)[0]:
            raise ConfigError(
                f"--index is {self.place}, which holds features: an index beside them would be "
                "taken for theirs. Name another folder"
            )
        self.encoder = QueryEncoder(model, self.place, default=model, device=device)

    def paths(self, ids: Sequence[str]) -> Mapping[str, Path | None]:
        """Returns all videos of the store, with the files that are there."""
        return {i: self.files.get(i) for i in ids}

    def refresh(self, *, rebuild: bool = False) -> tuple[Index, Changes]:
        """Indexes shards that are new in the store."""
        index = read_index(self.place)
        made, name = _made_by(index, self.store)
        if made != self.encoder.weights_sha256:
            raise ModelError(
                f"{self.store} was made with {name}, and {self.encoder.model} is another model: "
                "their spaces have nothing in common. Name the store's own with --model"
            )
        held = set(index.ids) if index is not None else set()
        index = bring_up_to_date(self.place, self.store, self.encoder, rebuild=rebuild)
        self.encoder.remember()
        return index, Changes(new=tuple(i for i in index.ids if i not in held))


Source = FolderSource | StoreSource


def _made_by(index: Index | None, store: Path, *, skip_damaged: bool = False) -> tuple[str, str]:
    """Returns the digest and the name of the model that made the features of a store."""
    if index is not None:
        return index.facts["weights_sha256"], index.facts["backbone"]
    spec = FeatureStore(store, skip_damaged=skip_damaged).spec
    return spec.weights_sha256, spec.backbone


def bring_up_to_date(
    place: Path, store: Path, encoder: QueryEncoder, *, rebuild: bool = False
) -> Index:
    """Returns the index of a store; makes it where shards are new, or a file is gone."""
    index = None if rebuild else read_index(place)
    names = [path.name for _, path in list_shards(store)[0]]
    whole = index is not None and index.facts["shards"] == names
    if index is not None and whole and not wants_codes(index.facts, len(index.pts_seconds)):
        return index
    with _waiting_lock(place):
        return update_index(place, FeatureStore(store, skip_damaged=True), encoder.bank())


@contextmanager
def _waiting_lock(folder: Path) -> Iterator[None]:
    """Holds a folder for writing; waits for another process that does."""
    told = False
    while True:
        try:
            with write_lock(folder, option="--index"):
                yield
            return
        except StoreLockedError as error:
            if not told:
                note(f"waiting: {_writer(error)}")
            told = True
            time.sleep(_WAIT_SECONDS)


def _writer(error: StoreLockedError) -> str:
    """Returns who writes where, without the advice for extractions."""
    return str(error).partition(". ")[0]


def _no_videos(listing: VideoListing) -> str:
    skipped = listing.skipped
    aside = f"only {skipped}" if skipped else "nothing at all"
    return (
        f"no videos in {printable(listing.root)} or in the folders below it, {aside}. Name "
        "the folder that holds them"
    )
