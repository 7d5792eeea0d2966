"""VATEX (English): ten-second clips of Kinetics with 10 captions each.

Reads the official files, lists of {videoID, enCap}, or the `vatex_data.json` of CLIP2Video,
{video: {enCap}}. Ids carry the seconds that the clip was cut from, so a clip has no window; files
may be named by the YouTube id alone, where only one clip has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.captions import CaptionList, check_overlap, sentences
from vtr.datasets.documents import (
    find_documents,
    identity,
    open_folder,
    read_json,
    read_list,
)
from vtr.datasets.splits import SplitList, settle_splits
from vtr.errors import DatasetError
from vtr.foreign import printable

CAPTION_FILES = (
    "vatex_data*.json",
    "vatex_training*.json",
    "vatex_validation*.json",
    "vatex_public_test_english*.json",
)
_SECONDS = re.compile(r"_\d{6}_\d{6}$")
LISTS = {
    "train": "train_list.txt",
    "val": "val_list.txt",
    "test": "test_list.txt",
    "test-1k5": "test1k5_sec_list.txt",
}

INFO = DatasetInfo(
    files=(
        ("vatex_training_v1.0.json, vatex_validation_v1.0.json", "[{videoID, enCap}]"),
        ("vatex_data.json", "or {video: {enCap}}, all in one"),
        ("vatex_public_test_english_v1.1.json", "optional: the split public-test"),
        ("train_list.txt, val_list.txt, test_list.txt, test1k5_sec_list.txt", "optional, checked"),
    ),
    splits={"train": 25991, "val": 1500, "test": 1500, "test-1k5": 1500, "public-test": 6000},
    captions="all 10 English captions of a video, each a query",
    source="eric-xw.github.io/vatex-website; the split lists: github.com/CryhanFang/CLIP2Video",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads the English captions of VATEX, or other data in its layouts.

    Returns:
        `val` and `test` are the halves of the official validation set (HGR's split), `test-1k5` is
        the other published 1,500 of the two together.
    """
    folder, found = open_folder(
        annotations, videos, CAPTION_FILES, dataset="vatex", what="caption file"
    )
    joined = [path for path in found if path.name.lower().startswith("vatex_data")][:1]
    captions = CaptionList()
    names: dict[str, None] = {}
    marked: dict[str, tuple[str, ...]] = {}
    files = joined or found
    for path in files:
        before = len(names)
        for place, video_id, value in _entries(path):
            if video_id in names:
                raise DatasetError(f"{place}: the video {printable(video_id)!r} is listed twice")
            names[video_id] = None
            captions.add_all(video_id, sentences(value, place=place), place=place)
        if "public_test" in path.name.lower():
            marked["public-test"] = tuple(names)[before:]
    lists: dict[str, list[SplitList]] = {}
    for split, name in LISTS.items():
        for path in find_documents(folder, (name,)):
            lists[split] = [SplitList(path, read_list(path))]
    splits, notes = settle_splits("vatex", tuple(names), lists, marked)
    dataset = Dataset(
        name="vatex",
        video_ids=tuple(names),
        captions=tuple(captions.items),
        splits=splits,
        annotation_files=(*files, *(listed[0].path for listed in lists.values())),
        file_stems={name: stem for name in names if (stem := _SECONDS.sub("", name)) != name},
        notes=(
            *notes,
            *(f"{path.name} was found as well and not read" for path in found if path not in files),
            *captions.notes(names),
        ),
    )
    check_overlap(
        dataset, (("train", "val"), ("train", "test"), ("val", "test"), ("train", "test-1k5"))
    )
    return dataset


def _entries(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Yields (place, video id, English captions) of either layout."""
    document = read_json(path)
    if isinstance(document, dict):
        records = [(key, value, f"{path}: {key!r:.80}") for key, value in document.items()]
    elif isinstance(document, list):
        records = [
            (
                record.get("videoID") if isinstance(record, dict) else None,
                record,
                f"{path}: {place}",
            )
            for place, record in ((f"entry {number}", item) for number, item in enumerate(document))
        ]
    else:
        raise DatasetError(
            f"{printable(str(path))} must hold [{{videoID, enCap}}] or {{video: {{enCap}}}}"
        )
    for key, record, place in records:
        if not isinstance(record, dict) or "enCap" not in record:
            raise DatasetError(
                f"{place} must be an object with enCap (and videoID in a list), is {record!r:.80}"
            )
        yield place, identity(key, place=place), record["enCap"]
