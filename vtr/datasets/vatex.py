"""VATEX (English): ten-second clips of Kinetics with 10 captions each.

Reads the official files, lists of {videoID, enCap}, or the `vatex_data.json` of CLIP2Video,
{video: {enCap}}. Ids carry the seconds that the clip was cut from, so a clip has no window; files
may be named by the YouTube id alone, where only one clip has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vtr.datasets.annotations import APART, Annotations
from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.captions import sentences
from vtr.datasets.documents import identity, read_json, records
from vtr.errors import DatasetError

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

    `val` and `test` are the halves of the official validation set (HGR's split), `test-1k5` is the
    other published 1,500 of the two together.
    """
    source = Annotations("vatex", annotations, videos, CAPTION_FILES, what="caption file")
    found = source.recognised
    source.files = [p for p in found if p.name.lower().startswith("vatex_data")][:1] or found[:]
    source.aside = [path for path in found if path not in source.files]
    for path in source.files:
        split = "public-test" if "public_test" in path.name.lower() else None
        for place, video_id, captions in _entries(path):
            source.add_video(video_id, place=place, split=split)
            source.captions.add_all(video_id, sentences(captions, place=place), place=place)
    source.read_lists(LISTS)
    stems = {name: _SECONDS.sub("", name) for name in source.videos}
    return replace(
        source.dataset(apart=(*APART, ("train", "test-1k5"))),
        file_stems={name: stem for name, stem in stems.items() if stem != name},
    )


def _entries(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Yields (place, video id, English captions) of either layout."""
    document = read_json(path)
    if not isinstance(document, dict):
        expected = "[{videoID, enCap}] or {video: {enCap}}"
        for place, record in records(document, path, keys=("enCap",), expected=expected):
            yield place, identity(record.get("videoID"), place=place), record["enCap"]
        return
    for key, record in document.items():
        place = f"{path}: {key!r:.80}"
        if not isinstance(record, dict) or "enCap" not in record:
            raise DatasetError(f"{place} must be an object with enCap, is {record!r:.80}")
        yield place, identity(key, place=place), record["enCap"]
