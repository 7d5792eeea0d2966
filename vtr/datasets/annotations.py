"""A dataset while its files are read: what the readers have in common, from the folder to notes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from vtr.counts import counted
from vtr.datasets.base import Caption, Dataset
from vtr.datasets.captions import listed_captions
from vtr.datasets.documents import find_documents, is_missing, read_list, require_documents
from vtr.datasets.splits import SplitList, settle_splits
from vtr.errors import DatasetError
from vtr.foreign import escape_undecodable, printable

Windows = Sequence[tuple[float, float]]
APART = tuple(combinations(("train", "val", "test"), 2))
"""Splits that share no video."""


@dataclass
class CaptionList:
    """Captions in the files' order; those without a word are dropped and counted."""

    items: list[Caption] = field(default_factory=list)  # What was kept
    _ids: set[str] = field(default_factory=set)
    _empty: list[str] = field(default_factory=list)
    _instants: list[str] = field(default_factory=list)  # Captions of windows without length
    _unlisted: list[str] = field(default_factory=list)  # Videos of captions that were dropped

    def add(
        self,
        caption_id: str,
        video_id: str,
        text: object,
        *,
        place: str,
        windows: Windows = (),
        **ratings: Any,
    ) -> None:
        """Keeps one caption as it stands, however long and however often the text occurs.

        Texts that are empty, blank, None or NaN and windows, (start, end) in seconds, without
        length are dropped and counted. `place` is where it stands, for errors.
        """
        if caption_id in self._ids:
            raise DatasetError(f"{place}: the caption id {printable(caption_id)!r} occurs twice")
        self._ids.add(caption_id)
        if is_missing(text) or (isinstance(text, str) and not text.strip()):
            self._empty.append(caption_id)
            return
        if not isinstance(text, str):
            raise DatasetError(f"{place}: a caption must be a text, is {text!r:.80}")
        if listed_captions(text, place=place) is not text:
            raise DatasetError(
                f"{place}: {text!r:.80} spells a list of captions where one is expected. Write one "
                "caption a row"
            )
        lasting = tuple((start, end) for start, end in windows if start < end)
        self._instants += [caption_id] * (len(windows) - len(lasting))
        words = escape_undecodable(text)
        self.items.append(Caption(caption_id, video_id, words, windows=lasting, **ratings))

    def add_all(self, video_id: str, texts: Sequence[object], *, place: str) -> None:
        """Keeps the captions of one video; their ids are the video's with their place, from 0."""
        for number, text in enumerate(texts):
            self.add(f"{video_id}#{number}", video_id, text, place=place)

    def restrict(self, video_ids: Collection[str]) -> None:
        """Drops and counts the captions of videos that are not among `video_ids`."""
        self._unlisted += [item.video_id for item in self.items if item.video_id not in video_ids]
        self.items = [item for item in self.items if item.video_id in video_ids]

    def notes(self, video_ids: Iterable[str] = ()) -> Iterator[str]:
        """Yields what people should know: dropped captions, and `video_ids` without a caption."""
        captioned = {item.video_id for item in self.items}
        bare = [identity for identity in video_ids if identity not in captioned]
        for ids, noun, several, what in (
            (self._empty, "caption is", "captions are", " empty, dropped"),
            (
                self._unlisted,
                "caption is",
                "captions are",
                " of videos that are not listed, dropped",
            ),
            (
                self._instants,
                "window ends no later than it begins",
                "windows end no later than they begin",
                ", dropped",
            ),
            (bare, "video has", "videos have", " no caption"),
        ):
            if ids:
                yield f"{counted(len(ids), noun, several)}{what} (first: {printable(ids[0])})"


class Annotations:
    """The files, videos, captions and lists of one dataset, as its reader meets them.

    They lie in the folder `annotations`, or with a file of that name; None is the folder of this
    name beside that of the videos. At least one file must fit `patterns`, see `find_documents`;
    errors call these files `what`.
    """

    def __init__(
        self,
        name: str,
        annotations: Path | None,
        videos: Path,
        patterns: Sequence[str],
        *,
        what: str,
    ) -> None:
        folder = videos.parent / "annotations" if annotations is None else annotations
        if folder.is_file():
            folder = folder.parent
        if not folder.is_dir():
            raise DatasetError(
                f"there is no folder {printable(folder)} with annotation files. Name it with "
                f"--annotations; looked for: {', '.join(patterns)}"
            )
        self.name, self.folder = name, folder
        self.recognised = require_documents(folder, patterns, dataset=name, what=what)
        self.captions = CaptionList()
        self.videos: dict[str, str | None] = {}  # id -> the split that its own record names
        self.lists: dict[str, list[SplitList]] = {}
        self.files: list[Path] = []
        self.aside: list[Path] = []  # Files that repeat others
        self.notes: list[str] = []

    def find(self, *patterns: str) -> list[Path]:
        """Returns the files that fit, the best first; see `find_documents`."""
        return find_documents(self.folder, patterns)

    def add_video(self, video_id: str, *, place: str, split: str | None = None) -> None:
        """Adds a video that only one record may describe."""
        if video_id in self.videos:
            raise DatasetError(f"{place}: the video {printable(video_id)!r} is listed twice")
        self.videos[video_id] = split

    def add_list(
        self, split: str, path: Path, ids: tuple[str, ...], *, loose: bool = False
    ) -> None:
        """Adds a file that lists the videos of a split; `loose` as in `SplitList`."""
        self.lists.setdefault(split, []).append(SplitList(path, ids, loose))
        self.files.append(path)

    def add_split(self, split: str, path: Path, ids: tuple[str, ...]) -> None:
        """Adds a file that lists a split by describing its videos."""
        self.add_list(split, path, ids)
        self.videos |= dict.fromkeys(ids)

    def read_lists(self, names: Mapping[str, str]) -> None:
        """Reads the files, by split, that list one id a line; those that are not there are left."""
        for split, name in names.items():
            for path in self.find(name)[:1]:
                self.add_list(split, path, read_list(path))

    def dataset(self, *, apart: Iterable[tuple[str, str]] = APART) -> Dataset:
        """Returns the dataset, its splits settled; the pairs in `apart` must share no video."""
        known = tuple(self.videos)
        marked: dict[str, list[str]] = {}
        for video_id, split in self.videos.items():
            if split is not None:
                marked.setdefault(split, []).append(video_id)
        splits, notes = settle_splits(
            self.name, known, self.lists, {split: tuple(ids) for split, ids in marked.items()}
        )
        aside = [f"{path.name} was found as well and not read" for path in self.aside]
        dataset = Dataset(
            name=self.name,
            video_ids=known,
            captions=tuple(self.captions.items),
            splits=splits,
            annotation_files=tuple(self.files),
            notes=(*notes, *self.notes, *aside, *self.captions.notes(known)),
        )
        check_overlap(dataset, apart)
        return dataset


def check_overlap(dataset: Dataset, apart: Iterable[tuple[str, str]]) -> None:
    """Checks that pairs of splits share no video; those that the dataset lacks are skipped."""
    for one, other in apart:
        shared = sorted({*dataset.splits.get(one, ())} & {*dataset.splits.get(other, ())})
        if shared:
            raise DatasetError(
                f"{dataset.name}: {counted(len(shared), 'video is', 'videos are')} in {one!r} "
                f"and in {other!r} (first: {', '.join(map(printable, shared[:3]))}); a video must "
                "be in one of them"
            )
