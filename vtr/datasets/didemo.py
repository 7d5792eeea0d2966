"""DiDeMo: Flickr videos, the first 30 seconds of each described by a paragraph.

The descriptions of a video's moments are joined, in the file's order, to one paragraph; the csv
files of T-MASS hold the same paragraphs ready made. Ids are file names, most with an extension
or a dot at their end; whatever container is on disk is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vtr.counts import counted
from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.captions import CaptionList, check_overlap, paragraph
from vtr.datasets.documents import (
    find_documents,
    identity,
    open_folder,
    read_json,
    read_list,
    read_table,
    unique,
)
from vtr.datasets.splits import SplitList, settle_splits
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

    Returns:
        One caption per video, with the video's id and `#paragraph`. Every video has a window: its
        first 30 seconds.
    """
    patterns = (*(f"{split}_data.json" for split in SPLITS), "didemo_*_label.csv")
    folder, _ = open_folder(annotations, videos, patterns, dataset="didemo", what="annotation file")
    found = _Found()
    for split in SPLITS:
        found.read(folder, split)
    known = tuple(found.paragraphs)
    splits, notes = settle_splits("didemo", known, found.lists)
    captions = CaptionList()
    for video_id, (text, place) in found.paragraphs.items():
        captions.add(f"{video_id}#paragraph", video_id, text, place=place)
    dataset = Dataset(
        name="didemo",
        video_ids=known,
        captions=tuple(captions.items),
        splits=splits,
        windows=dict.fromkeys(known, (None, SECONDS)),
        annotation_files=tuple(found.files),
        notes=(*notes, *found.notes, *captions.notes(known)),
    )
    check_overlap(dataset, (("train", "val"), ("train", "test"), ("val", "test")))
    return dataset


@dataclass
class _Found:
    """What the files of all splits say."""

    paragraphs: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> text, place
    lists: dict[str, list[SplitList]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self, folder: Path, split: str) -> None:
        """Reads one split; a csv's paragraph counts before the json's."""
        loose = split in LOOSE
        given: list[SplitList] = []
        texts: dict[str, tuple[str, str]] = {}
        for path in find_documents(folder, (f"{split}_list.txt",))[:1]:
            given.append(SplitList(path, read_list(path), loose))
        for path in find_documents(folder, (f"didemo_{split}_label.csv",))[:1]:
            texts = _read_csv(path)
            given.append(SplitList(path, tuple(texts), loose))
        for path in find_documents(folder, (f"{split}_data.json",))[:1]:
            moments = _read_moments(path)
            other = [name for name in texts if name in moments and not _same(texts, moments, name)]
            if other:
                self.notes.append(
                    f"{path.name} has other words for {counted(len(other), 'video')} than the "
                    "csv, which "
                    f"counts (first: {printable(other[0])})"
                )
            texts = texts | {name: moments[name] for name in moments if name not in texts}
            if given:
                self.files.append(path)
            else:  # more videos than the protocol's
                given.append(SplitList(path, tuple(moments), loose=True))
        if texts:
            self.lists[split] = given
            self.files += [listed.path for listed in given]
        for name, text in texts.items():
            if name in self.paragraphs:
                raise DatasetError(f"{text[1]}: the video {printable(name)!r} is in two splits")
            self.paragraphs[name] = text


def _same(
    one: Mapping[str, tuple[str, str]], other: Mapping[str, tuple[str, str]], name: str
) -> bool:
    return one[name][0].split() == other[name][0].split()


def _read_csv(path: Path) -> dict[str, tuple[str, str]]:
    rows = [
        (
            identity(row["video_path"].replace("\\", "/").rpartition("/")[2], place=f"{path}"),
            (row["text"], f"{path}, line {number}"),
        )
        for number, row in read_table(path, columns=("video_path", "text"))
    ]
    unique(path, (name for name, _ in rows))
    return dict(rows)


def _read_moments(path: Path) -> dict[str, tuple[str, str]]:
    document = read_json(path)
    if not isinstance(document, list):
        raise DatasetError(
            f"{printable(str(path))} must hold a list of {{video, description}} moments"
        )
    parts: dict[str, list[object]] = {}
    for number, record in enumerate(document):
        place = f"{path}: entry {number}"
        if not isinstance(record, dict) or not {"video", "description"} <= record.keys():
            raise DatasetError(
                f"{place} must be an object with video and description, is {record!r:.80}"
            )
        parts.setdefault(identity(record["video"], place=place), []).append(record["description"])
    return {name: (paragraph(texts, place=str(path)), str(path)) for name, texts in parts.items()}
