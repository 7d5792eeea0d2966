"""Where a library's videos and features come from: a folder of its own, or a store that exists."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vtr.arithmetic import prepare_arithmetic
from vtr.counts import counted
from vtr.datasets import folder as plain_folder
from vtr.datasets.registry import VideoSurvey, survey_videos, unique_videos
from vtr.errors import ConfigError, ModelError, StoreLockedError
from vtr.extract import pipeline
from vtr.extract.resume import ExtractMode, has_changed
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings, usable_cores
from vtr.features.lock import write_lock
from vtr.features.reader import STATUS_OF
from vtr.features.rows import LedgerRow
from vtr.features.store import FeatureStore
from vtr.files import make_folder, publish
from vtr.json_files import read_json
from vtr.progress import note, progress, warn_of_unreadable
from vtr.search.encoder import QueryEncoder
from vtr.search.home import find_home, find_index
from vtr.search.index import Index, read_index, shard_names, update_index

DEFAULT_MODEL = "openai/clip-vit-base-patch32"
FPS = 2.0  # at 1 the ends of moments are half a second off, mean IoU at most 84 (measured)
_SHARD_VIDEOS = 64  # what a kill loses at most
_WAIT_SECONDS = 0.5
_SETTINGS = "search.json"


@dataclass(frozen=True)
class Changes:
    """What a refresh found."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.deleted)


class Source(Protocol):
    """What a library asks of the place that its features come from."""

    encoder: QueryEncoder

    def refresh(self, *, rebuild: bool = False) -> tuple[Index, Changes]:
        """Brings the index up to date."""

    def paths(self, ids: Sequence[str]) -> Mapping[str, Path | None]:
        """Returns the videos that can be found now, with their files."""


class FolderSource:
    """A plain folder of videos; its features are made by this."""

    def __init__(
        self, folder: Path, home: Path | None, model: str | None, device: str, workers: int | None
    ) -> None:
        self.folder, self.model, self.device, self.workers = folder, model, device, workers
        self._survey()
        self.home = home or find_home(folder)
        self.encoder = QueryEncoder(model or read_model(self.home) or DEFAULT_MODEL, device=device)

    def paths(self, ids: Sequence[str]) -> Mapping[str, Path | None]:
        """Returns the videos of the last survey."""
        return {video.id: video.path for video, _ in self._inputs}

    def refresh(self, *, rebuild: bool = False) -> tuple[Index, Changes]:
        """Embeds what is new and changed.

        Raises:
            ModelError: The store is of another model than the one that was asked for.
        """
        self._survey()
        place = find_index(self.home)
        index = read_index(place)
        changes = self._changes(index)
        names = shard_names(self.home)
        stale = index is None or index.facts["shards"] != names
        if rebuild or changes.new or changes.changed or stale:
            self._extract(index, rebuild=rebuild)
            store = FeatureStore(self.home)
            index = update_index(place, store, self.encoder.bank())
        elif self.model is not None:
            self._require_model(index)
        assert index is not None
        return index, changes

    def _survey(self) -> None:
        dataset = plain_folder.load(None, self.folder)
        survey = survey_videos(dataset, self.folder)
        warn_of_unreadable(survey.listing.unreadable)
        self._inputs = unique_videos(video for video in survey.videos if video.path is not None)
        if not self._inputs:
            raise ConfigError(_no_videos(self.folder, survey))

    def _changes(self, index: Index | None) -> Changes:
        if index is None:
            return Changes(new=tuple(video.id for video, _ in self._inputs))
        held = {row.id: row for row in ledger_rows(index)}
        there = {video.id: video for video, _ in self._inputs}
        return Changes(
            tuple(i for i in there if i not in held),
            tuple(i for i, video in there.items() if i in held and has_changed(held[i], video)),
            tuple(i for i in held if i not in there),
        )

    def _extract(self, index: Index | None, *, rebuild: bool) -> None:
        if not rebuild:
            self._require_model(index)
        note(f"indexing {counted(len(self._inputs), 'video')} of {self.folder} into {self.home}")
        prepare_arithmetic()
        backbone = self.encoder.backbone
        chosen = Path(self.encoder.model).expanduser()
        model = str(chosen.resolve()) if chosen.is_dir() else self.encoder.model
        make_folder(self.home, option="--index")
        publish(self.home / _SETTINGS, json.dumps({"model": model}).encode())
        settings = ExtractSettings(
            samplers=parse_samplers("dense"),
            candidate_fps=FPS,
            thumbnails=False,
            shard_videos=_SHARD_VIDEOS,
            workers=self.workers or min(usable_cores(), len(self._inputs)),
        )
        mode = ExtractMode(retry=frozenset({"changed", "damaged"}), overwrite=rebuild)
        with progress("indexing") as update:
            update(0, len(self._inputs), "starting")

            def show(now: pipeline.Progress) -> None:
                rate = f"{now.frames / now.seconds:.0f} frames/s" if now.seconds > 0 else ""
                update(now.done, now.total, rate)

            while True:
                try:
                    report = pipeline.extract(
                        self._inputs, self.home, backbone, settings, mode=mode, progress=show
                    )
                    break
                except StoreLockedError as error:
                    note(f"waiting: {error}")
                    _wait_for(self.home)
        if report.failed or report.partial:
            note(f"{report.failed} failed, {report.partial} partial of {report.inputs} videos")

    def _require_model(self, index: Index | None) -> None:
        if index is None or self.model is None:
            return
        made = self.encoder.backbone.weights_sha256
        if made != index.facts["weights_sha256"]:
            raise ModelError(
                f"{self.home} was made with {index.facts['backbone']} (weights "
                f"{index.facts['weights_sha256'][:12]}), not with {self.model} (weights "
                f"{made[:12]}). Leave out --model, or make everything anew with --rebuild"
            )


class StoreSource:
    """A store that exists, such as a workspace's; nothing is extracted.

    Args:
        store: Its folder.
        files: Video id to its file.
        model: Of the store.
    """

    def __init__(
        self, store: Path, files: Mapping[str, Path | None], *, model: str, device: str = "auto"
    ) -> None:
        self.store, self.files = store, files
        self.encoder = QueryEncoder(model, device=device)

    def paths(self, ids: Sequence[str]) -> Mapping[str, Path | None]:
        """Returns all videos of the store, with the files that are there."""
        return {i: self.files.get(i) for i in ids}

    def refresh(self, *, rebuild: bool = False) -> tuple[Index, Changes]:
        """Indexes shards that are new in the store."""
        place = find_index(self.store)
        index = None if rebuild else read_index(place)
        if index is None or index.facts["shards"] != shard_names(self.store):
            store = FeatureStore(self.store)
            if store.spec.weights_sha256 != self.encoder.backbone.weights_sha256:
                raise ModelError(
                    f"{self.store} was made with {store.spec.backbone}, and {self.encoder.model} "
                    "is another model. Name the store's own with --model"
                )
            index = update_index(place, store, self.encoder.bank())
        return index, Changes()


def ledger_rows(index: Index) -> list[LedgerRow]:
    """Returns what the index knows of every input."""
    video = index.video
    return [
        LedgerRow(i, STATUS_OF[status], error.decode(), num_bytes, file_mtime_ns=mtime)
        for i, status, error, num_bytes, mtime in zip(
            index.ids,
            *(video[name].tolist() for name in ("status", "error", "bytes", "mtime_ns")),
            strict=True,
        )
    ]


def read_model(home: Path) -> str | None:
    """Returns the model that a folder's features are made with; None where none was chosen yet."""
    path = home / _SETTINGS
    return str(read_json(path, needed="the model")["model"]) if path.is_file() else None


def _no_videos(folder: Path, survey: VideoSurvey) -> str:
    skipped = survey.listing.skipped
    aside = f"; it has {skipped}" if skipped else ": it is empty"
    return f"no videos in {folder} or below it{aside}. Name the folder that holds them"


def _wait_for(home: Path) -> None:
    while True:
        try:
            with write_lock(home):
                return
        except StoreLockedError:
            time.sleep(_WAIT_SECONDS)
