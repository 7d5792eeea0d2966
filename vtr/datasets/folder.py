"""Your own folder of videos, with captions where you have some.

Every video file in the folder and in the folders below it is one video. Its id is its path relative
to the folder, with `/` and with its extension: adding files never renames others, and x.mp4 and
x.webm stay apart.

Captions come from one CSV, TSV, JSONL or JSON file with a video and a caption in each record, and
optionally a category and a split; `records.py` knows the layouts, `vtr/names.py` which file a name
means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from vtr.counts import counted
from vtr.datasets.annotations import CaptionList
from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.captions import sentences
from vtr.datasets.documents import is_missing, require_documents
from vtr.datasets.files import VideoListing, find_videos, match_videos
from vtr.datasets.records import Record, read_records
from vtr.datasets.splits import split_name
from vtr.errors import DatasetError
from vtr.foreign import printable
from vtr.names import normal_path, video_id

CAPTION_FILES = ("captions.csv", "captions.tsv", "captions.jsonl", "captions.json")

INFO = DatasetInfo(
    files=(
        ("captions.csv", "optional: columns video, caption and, as you like, category, split"),
        (
            "captions.jsonl, captions.json",
            "or records with these keys; JSON also {video: caption}, "
            "{split: records}, COCO's and MSR-VTT's lists",
        ),
    ),
    splits={},
    captions="all captions of a video, each a query; a split column makes splits",
    source="you",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Lists the videos of a folder, and reads their captions, where there are annotations.

    Every video on the disk comes first, then those that only the caption file names. An id occurs
    twice where two names differ only in their Unicode composition (`unique_videos` tells them
    apart). Captions have the id of the video and their place among its captions.
    """
    listing = find_videos(videos)
    ids = tuple(map(video_id, listing.names))
    if annotations is None:
        return Dataset(name="folder", video_ids=ids, listing=listing)
    path, aside = _caption_file(annotations)
    records = list(read_records(path))
    names, remarks = _identities(listing, records, path)
    content = _Content()
    for record in records:
        content.add(names[record.name], record)
    present = set(ids)
    absent = tuple(name for name in content.numbers if name not in present)
    notes = [f"{other.name} was found as well and not read" for other in aside]
    notes += [*remarks, *content.notes(ids, absent, path)]
    splits: dict[str, list[str]] = {}
    for name, split in content.splits.items():
        splits.setdefault(split, []).append(name)
    return Dataset(
        name="folder",
        video_ids=(*ids, *absent),
        captions=tuple(content.captions.items),
        splits={split: tuple(members) for split, members in splits.items()},
        categories=content.categories,
        annotation_files=(path,),
        notes=tuple(notes),
        listing=listing,
    )


@dataclass
class _Content:
    """What the records add up to."""

    captions: CaptionList = field(default_factory=CaptionList)
    numbers: dict[str, int] = field(default_factory=dict)  # id -> captions so far
    splits: dict[str, str] = field(default_factory=dict)
    categories: dict[str, str] = field(default_factory=dict)
    starts: dict[str, object] = field(default_factory=dict)  # id -> where its captions begin

    def add(self, name: str, record: Record) -> None:
        """Adds what a record says of the video with the id `name`."""
        start = record.start
        if not is_missing(start) and self.starts.setdefault(name, start) != start:
            raise DatasetError(
                f"{record.place}: a caption of {printable(name)!r} starts at {start!r:.40}, "
                f"another at {self.starts[name]!r:.40}: they describe parts of it. Cut these into "
                "files of their own and name them, or leave out the column"
            )
        self.numbers.setdefault(name, 0)
        for text in sentences(record.captions, place=record.place):
            self.captions.add(f"{name}#{self.numbers[name]}", name, text, place=record.place)
            self.numbers[name] += 1
        for what, value, known in (
            ("split", record.split, self.splits),
            ("category", record.category, self.categories),
        ):
            if is_missing(value) or not str(value).strip():
                continue
            text = split_name(str(value)) if what == "split" else str(value).strip()
            if known.setdefault(name, text) != text:
                raise DatasetError(
                    f"{record.place}: the video {printable(name)!r} has the {what} "
                    f"{printable(text)!r}, but had {printable(known[name])!r} before"
                )

    def notes(self, ids: Sequence[str], absent: Sequence[str], path: Path) -> Iterator[str]:
        """Yields what people should know of captions for the folder's `ids` and `absent` videos."""
        if self.starts:
            yield "the captions' start and end are not read: each is of its whole file"
        captioned = {caption.video_id for caption in self.captions.items}
        bare = sum(name not in captioned for name in ids)
        if bare:
            yield f"{bare:,} of {counted(len(ids), 'video')} in the folder have no caption"
        if absent:
            lost = counted(len(absent), f"video of {path.name} is", f"videos of {path.name} are")
            yield f"{lost} not in the folder (first: {printable(absent[0])})"
        yield from self.captions.notes()


def _caption_file(annotations: Path) -> tuple[Path, list[Path]]:
    if annotations.is_file():
        return annotations, []
    if not annotations.is_dir():
        raise DatasetError(
            f"there is no file or folder {printable(annotations)}; --annotations names a "
            f"caption file or a folder with {' or '.join(CAPTION_FILES)}"
        )
    first, *aside = require_documents(
        annotations, CAPTION_FILES, dataset="folder", what="caption file"
    )
    return first, aside


def _identities(
    listing: VideoListing, records: Sequence[Record], path: Path
) -> tuple[dict[str, str], list[str]]:
    """Returns the id of every video by the name that the caption file has for it, and remarks."""
    names = dict.fromkeys(record.name for record in records)
    match = match_videos(listing, names, any_case=True)
    advice = "write the path from the folder of the videos, with the extension"

    def video(file: Path) -> str:
        return video_id(str(file.relative_to(listing.root)))

    for name, files in match.duplicates.items():
        here, other = (printable(video(file)) for file in (match.paths[name], files[0]))
        if here != other:  # names that differ only in their Unicode composition
            raise DatasetError(
                f"{printable(path)}: {printable(name)!r} may be {here} or {other}; {advice}"
            )
    for file in match.contested.values():
        others = (printable(other) for other, theirs in match.contested.items() if theirs == file)
        raise DatasetError(
            f"{printable(path)}: {' and '.join(islice(others, 2))} may both be "
            f"{printable(video(file))}; {advice}"
        )
    notes = []
    if match.recased:
        name = match.recased[0]
        notes.append(
            f"{len(match.recased):,} of {counted(len(names), 'name')} in {path.name} differ from "
            f"the file in upper and lower case or blanks (first: {printable(name)} is taken for "
            f"{printable(video(match.paths[name]))})"
        )
    ids = {name: video(file) for name, file in {**match.paths, **match.spellings}.items()}
    for name in names:  # what is not in the folder gets one id for all spellings of a path
        ids.setdefault(name, normal_path(name) if "\\" in name or "/" in name else name)
    return ids, notes
