"""ActivityNet Captions: long YouTube videos, each with a paragraph.

The sentences of a video are joined to one paragraph. The validation videos were described twice;
the two are the splits val_1 and val_2. Ids are `v_` and the YouTube id; files are found under
either name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vtr.datasets.annotations import Annotations, CaptionList
from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.captions import paragraph
from vtr.datasets.documents import identity, read_json, require_mapping, unique
from vtr.errors import DatasetError

FILES = {
    "train": ("train.json", "train_modified.json"),
    "val_1": ("val_1.json",),
    "val_2": ("val_2.json",),
}
ID_LISTS = {"train": "train_ids.json", "val_1": "val_ids.json"}
PREFIX = "v_"

INFO = DatasetInfo(
    files=(
        ("train.json", "{video: {duration, timestamps, sentences}}"),
        ("val_1.json, val_2.json", "the same, by two annotators"),
        ("train_ids.json, val_ids.json", "optional: lists of ids, checked"),
    ),
    splits={"train": 10009, "val_1": 4917, "val_2": 4885},
    captions="one paragraph a video; val_1 is the split of the retrieval protocol",
    source="cs.stanford.edu/people/ranjaykrishna/densevid; videos: activity-net.org",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads ActivityNet Captions.

    Every paragraph is a caption with the id `VIDEO#SPLIT`; a validation video has up to two, of
    which `queries` gives each split its own.
    """
    patterns = tuple(name for names in FILES.values() for name in names)
    source = Annotations("activitynet", annotations, videos, patterns, what="caption file")
    for split, names in FILES.items():
        for path in source.find(*names)[:1]:
            source.add_split(split, path, _read(path, split, source.captions))
    for split, name in ID_LISTS.items():
        for path in source.find(name)[:1]:
            if split in source.lists:
                source.add_list(split, path, _read_ids(path))
    dataset = source.dataset(apart=(("train", "val_1"), ("train", "val_2")))
    by_id = {caption.id: caption for caption in dataset.captions}
    queries = {
        split: tuple(by_id[i] for name in members if (i := f"{name}#{split}") in by_id)
        for split, members in dataset.splits.items()
        if split in ("val_1", "val_2")
    }
    stems = {name: name.removeprefix(PREFIX) for name in source.videos if name.startswith(PREFIX)}
    return replace(dataset, queries=queries, file_stems=stems)


def _read(path: Path, split: str, captions: CaptionList) -> tuple[str, ...]:
    content = require_mapping(read_json(path), path, expected="{video: {sentences: [...]}}")
    ids: list[str] = []
    for key, record in content.items():
        place = f"{path}: {key!r:.80}"
        parts = record.get("sentences") if isinstance(record, dict) else None
        if not isinstance(parts, list):
            raise DatasetError(
                f"{place} must be an object with a list of sentences, is {record!r:.80}"
            )
        video_id = identity(key, place=place)
        ids.append(video_id)
        captions.add(f"{video_id}#{split}", video_id, paragraph(parts, place=place), place=place)
    return unique(path, ids)


def _read_ids(path: Path) -> tuple[str, ...]:
    document = read_json(path)
    if not isinstance(document, list):
        raise DatasetError(f"{path} must hold a list of ids, is {document!r:.80}")
    return unique(path, (identity(value, place=str(path)) for value in document))
