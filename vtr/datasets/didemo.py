"""DiDeMo: Flickr videos, the first 30 seconds of each described by a paragraph.

The descriptions of a video's moments are joined, in the file's order, to one paragraph; the csv
files of T-MASS hold the same paragraphs ready made. Ids are file names, most with an extension
or a dot at their end; whatever container is on disk is found.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vtr.counts import counted
from vtr.datasets.annotations import Annotations
from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.captions import paragraph
from vtr.datasets.documents import identity, read_json, read_list, read_table, records, unique
from vtr.errors import DatasetError
from vtr.foreign import printable

SPLITS = ("train", "val", "test")
LOOSE = frozenset({"train", "val"})  # published lists of these differ in a few videos
SECONDS = 30.0
"""The part of a video that was shown to the annotators: six segments of five seconds."""

INFO = DatasetInfo(
    files=(
        ("train_data.json, val_data.json, test_data.json", "[{video, description, times}]"),
        ("didemo_train_label.csv, ..._val_..., ..._test_...", "or columns video_path, text"),
        ("train_list.txt, val_list.txt, test_list.txt", "optional: one id a line, checked"),
    ),
    splits={"train": 8362, "val": 1062, "test": 1004},
    captions="one paragraph a video",
    source="github.com/LisaAnne/LocalizingMoments; csv: github.com/Jiamian-Wang/T-MASS-text-video-"
    "retrieval",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads DiDeMo as paragraphs.

    A video has one caption, with its id and `#paragraph`, and a window: its first 30 seconds.
    """
    patterns = (*(f"{split}_data.json" for split in SPLITS), "didemo_*_label.csv")
    source = Annotations("didemo", annotations, videos, patterns, what="annotation file")
    for split in SPLITS:
        for video_id, (text, place) in _read_split(source, split).items():
            if video_id in source.videos:
                raise DatasetError(f"{place}: the video {printable(video_id)!r} is in two splits")
            source.videos[video_id] = None
            source.captions.add(f"{video_id}#paragraph", video_id, text, place=place)
    return replace(source.dataset(), windows=dict.fromkeys(source.videos, (None, SECONDS)))


Paragraphs = dict[str, tuple[str, str]]
"""Video id to its text and where that stands."""


def _read_split(source: Annotations, split: str) -> Paragraphs:
    """Returns the paragraphs of one split; a csv's counts before the json's."""
    listing, csv, data = (
        source.find(name)[:1]
        for name in (f"{split}_list.txt", f"didemo_{split}_label.csv", f"{split}_data.json")
    )
    texts = _read_csv(csv[0]) if csv else {}
    moments = _read_moments(data[0]) if data else {}
    other = [
        name for name in texts
        if name in moments and texts[name][0].split() != moments[name][0].split()
    ]  # fmt: skip
    if other:
        source.notes.append(
            f"{data[0].name} has other words for {counted(len(other), 'video')} than the csv, "
            f"which counts (first: {printable(other[0])})"
        )
    loose = split in LOOSE
    if not listing and not csv:
        for path in data:  # more videos than the protocol's
            source.add_list(split, path, tuple(moments), loose=True)
    elif texts or moments:
        source.files += data
        for path in listing:
            source.add_list(split, path, read_list(path), loose=loose)
        for path in csv:
            source.add_list(split, path, tuple(texts), loose=loose)
    return texts | moments | texts  # in the csv's order


def _read_csv(path: Path) -> Paragraphs:
    rows = [
        (
            identity(row["video_path"].replace("\\", "/").rpartition("/")[2], place=f"{path}"),
            (row["text"], f"{path}, line {number}"),
        )
        for number, row in read_table(path, columns=("video_path", "text"))
    ]
    unique(path, (name for name, _ in rows))
    return dict(rows)


def _read_moments(path: Path) -> Paragraphs:
    parts: dict[str, list[object]] = {}
    expected, keys = "a list of {video, description} moments", ("video", "description")
    for place, record in records(read_json(path), path, keys=keys, expected=expected):
        parts.setdefault(identity(record["video"], place=place), []).append(record["description"])
    return {name: (paragraph(texts, place=str(path)), str(path)) for name, texts in parts.items()}
