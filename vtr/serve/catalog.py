"""Videos under opaque keys: a page names no path, and no path outside of the folder is opened."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr.datasets.files import find_videos
from vtr.errors import VtrError
from vtr.features.shard import list_shards
from vtr.foreign import json_values, shown
from vtr.marks import mark_of
from vtr.searching.library import Hit, VideoEntry

_MOST_FOLDERS = 500
_SHOWN = 24  # videos before anything is searched


class RefusedError(Exception):
    """Why something is not shown: the status of the answer, and what the page says."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def key_of(video_id: str) -> str:
    """Returns the key of a video: letters, digits, - and _ only.

    >>> key_of("cats/one.mp4")
    'wXJs7MtcLVgb'
    """
    digest = hashlib.blake2b(video_id.encode("utf-8", "surrogatepass"), digest_size=9).digest()
    return base64.urlsafe_b64encode(digest).decode()


@dataclass(frozen=True)
class VideoFile:
    """A file that was found fit to be shown."""

    path: Path  # Where it really lies
    version: str  # What changes when the file does


class Catalog:
    """The videos of a library at one time, those that cannot be shown too.

    With `follow_links` files outside `root` that links in it point to are shown as well.
    """

    def __init__(
        self, videos: Sequence[VideoEntry], root: Path, *, follow_links: bool = False
    ) -> None:
        self.videos = videos
        self._root, self._follows = root.resolve(), follow_links
        self._entries = {key_of(video.id): video for video in videos}

    def entry(self, key: str) -> VideoEntry:
        """Returns a video; `RefusedError` where there is none of this key."""
        if key not in self._entries:
            raise RefusedError(404, "There is no such video here any more.")
        return self._entries[key]

    def file(self, key: str) -> VideoFile:
        """Returns the file of a video."""
        path = self.entry(key).path
        if path is None:
            raise RefusedError(404, "The file is not in the folder any more.")
        try:
            real = path.resolve(strict=True)
            facts = real.stat()
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "a link that leads to itself"
            raise RefusedError(404, f"The file cannot be read: {reason}.") from None
        if not (self._follows or real.is_relative_to(self._root)):
            raise RefusedError(
                403,
                "This file is a link that leads out of the folder. "
                "`vtr serve --follow-links` shows such files too.",
            )
        if not stat.S_ISREG(facts.st_mode):
            raise RefusedError(404, "This is no regular file any more.")
        return VideoFile(real, mark_of(facts))

    def document(self, video: VideoEntry) -> dict[str, Any]:
        """Returns what a page knows of a video."""
        folder, _, name = video.id.rpartition("/")
        path = "" if video.path is None else str(video.path)
        return {
            "key": key_of(video.id),
            "name": shown(name),
            "folder": shown(folder),
            "path": json_values(path),
            "duration": round(video.duration_seconds, 3),
            "status": video.status,
            "error": shown(video.error),
        }

    def hit(self, hit: Hit) -> dict[str, Any]:
        """Returns what a page knows of a moment."""
        names = ("start_seconds", "end_seconds", "best_seconds", "score", "level")
        numbers = {n.removesuffix("_seconds"): round(getattr(hit, n), 4) for n in names}
        return {**self.document(self.entry(key_of(hit.video_id))), **numbers}

    def overview(self) -> dict[str, Any]:
        """Returns counts, the sub-folders, some videos, and those that cannot be searched."""
        sound = [video for video in self.videos if video.status != "failed"]
        step = max(1, len(sound) // _SHOWN)
        failed = [video for video in self.videos if video.status == "failed"]
        return {
            "videos": len(self.videos),
            "seconds": round(sum(video.duration_seconds for video in self.videos)),
            "folders": _folders(video.id for video in self.videos),
            "some": [self.document(video) for video in sound[::step][:_SHOWN]],
            "failed": [self.document(video) for video in failed[:200]],
            "num_failed": len(failed),
            "num_partial": sum(video.status == "partial" for video in self.videos),
        }


def _folders(ids: Iterable[str]) -> list[str]:
    names: set[str] = set()
    for video_id in ids:
        parts = video_id.split("/")[:-1]
        names.update("/".join(parts[: n + 1]) for n in range(len(parts)))
    return [str(json_values(name)) for name in sorted(names)[:_MOST_FOLDERS]]


def store_signature(folder: Path) -> str:
    """Returns what changes when a shard of a store comes, goes or changes; never ""."""
    return _signature(path for _, path in list_shards(folder)[0])


def signature(root: Path) -> str:
    """Returns what changes when a video below a folder comes, goes or changes; "" for none."""
    try:
        listing = find_videos(root)
    except VtrError:
        return ""
    return _signature(map(listing.path, listing.names)) if listing.names else ""


def _signature(paths: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with suppress(OSError):
            mark = mark_of(os.stat(path))  # noqa: PTH116  (any file name)
            digest.update(os.fsencode(path) + f"\0{mark}\0".encode())
    return digest.hexdigest()
