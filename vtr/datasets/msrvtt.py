"""MSR-VTT: 10,000 web clips with 20 captions each.

Reads the two official `videodatainfo.json` files or the `MSRVTT_data.json` that joins them, and
the split files of the field with or without sentences. The start and end times in them belong to
the YouTube video that a clip was cut from, so a clip has no window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtr.datasets.annotations import Annotations
from vtr.datasets.base import Caption, Dataset, DatasetInfo
from vtr.datasets.documents import (
    find_documents,
    identity,
    is_missing,
    read_json,
    read_list,
    read_plain_pickle,
    read_table,
    read_text,
    records,
    require_mapping,
    unique,
)
from vtr.datasets.published import published_pairs
from vtr.datasets.splits import split_name
from vtr.errors import DatasetError
from vtr.foreign import printable

JSON_FILES = ("MSRVTT_data*.json", "*videodatainfo*.json", "MSR_VTT.json")
CAPTION_PLACES = "jsfusion_val_caption_idx.pkl"

LISTS = {
    "train": ("MSRVTT_train.full.csv", "train_list_full.txt"),
    "val": ("MSRVTT_val.full.csv", "val_list_full.txt"),
    "test": ("MSRVTT_test.full.csv", "test_list_full.txt"),
    "trainval": ("MSRVTT_train.7k.csv",),
    "1kA-train": ("MSRVTT_train.9k.csv", "train_list_jsfusion.txt"),
    "1kA-test": ("MSRVTT_JSFUSION_test.csv", "MSRVTT_1kA_test*.csv", "val_list_jsfusion.txt"),
    "1kB-train": ("train_list_miech.txt",),
    "1kB-test": ("test_list_miech.txt",),
}

CATEGORIES = (
    "music", "people", "gaming", "sports/actions", "news/events/politics",
    "education", "tv shows", "movie/comedy", "animation", "vehicles/autos",
    "howto", "travel", "science/technology", "animals/pets", "kids/family",
    "documentary", "food/drink", "cooking", "beauty/fashion", "advertisement",
)  # fmt: skip
"""The names in the dataset's category.txt, by number."""

INFO = DatasetInfo(
    files=(
        ("MSRVTT_data.json", "all videos and captions; or the two official files below"),
        ("train_val_videodatainfo.json, test_videodatainfo.json", "the official files of 2016"),
        ("MSR_VTT.json", "or {images, annotations}, as the data of Frozen in Time has them"),
        ("MSRVTT_JSFUSION_test.csv", "optional: the sentences of 1k-A"),
        (CAPTION_PLACES, "or their places among each video's captions"),
        ("MSRVTT_train.9k.csv, MSRVTT_train.7k.csv, *_list_*.txt", "optional: lists, checked"),
        ("category.txt", "optional: names of the categories"),
    ),
    splits={
        "train": 6513,
        "val": 497,
        "test": 2990,
        "trainval": 7010,
        "1kA-train": 9000,
        "1kA-test": 1000,
        "1kB-train": 6656,
        "1kB-test": 1000,
    },
    captions="20 a video; 1kA-test and 1kB-test have one fixed caption a video",
    source="the ms-multimedia-challenge.com files of 2016; the csv files travel with CLIP4Clip's "
    "data archive (github.com/ArrowLuo/CLIP4Clip)",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads MSR-VTT, whole or a part of it, or other data in the same layout.

    Captions have their `sen_id` as id. Without the csv files the queries of 1k-A come from the
    shipped (video_id, sen_id) pairs, with them their sentences are compared with the captions. The
    queries of 1k-B are the first caption of each video, as its authors took it.
    """
    source = Annotations("msrvtt", annotations, videos, JSON_FILES, what="annotation json")
    found = source.recognised
    joined = [path for path in found if path.name.lower().startswith("msrvtt_data")]
    coco = [path for path in found if path.name.lower() == "msr_vtt.json"]
    source.files = joined[:1] or [path for path in found if path not in coco] or coco[:1]
    source.aside = [path for path in found if path not in source.files]
    names, category_file = _category_names(source.folder)
    categories: dict[str, str] = {}
    for path in source.files:
        _read_json(path, source, names, categories)
    source.captions.restrict(source.videos)
    rows = _read_lists(source)
    source.files += category_file
    dataset = source.dataset(apart=())
    splits = dict(dataset.splits)
    if "trainval" not in splits and {"train", "val"} <= splits.keys():
        splits["trainval"] = splits["train"] + splits["val"]
    queries = _queries(splits, rows, dataset.captions)
    return replace(dataset, splits=splits, categories=categories, queries=queries)


def _read_json(
    path: Path, source: Annotations, names: Sequence[str], categories: dict[str, str]
) -> None:
    """Reads one file into `source`, and the categories of its videos."""
    expected = '{"videos": [...], "sentences": [...]}'
    document = require_mapping(read_json(path), path, expected=expected)
    if {"images", "annotations"} <= document.keys():
        document = _from_coco(document, path)
    keys = ("video_id", "caption")
    sentences = list(records(document, path, key="sentences", keys=keys, expected=expected))
    if "videos" in document:
        for place, record in records(document, path, key="videos", expected=expected):
            video_id = identity(record.get("video_id"), place=place)
            split = record.get("split")
            mark = None if is_missing(split) else split_name(str(split))
            source.add_video(video_id, place=place, split=mark)
            number = record.get("category")
            if number is not None:
                categories[video_id] = _category(
                    number, names, f"{place}: the category of {video_id!r}"
                )
    else:
        for place, record in sentences:
            source.videos.setdefault(identity(record["video_id"], place=place), None)
    for number, (place, record) in enumerate(sentences):
        video_id = identity(record["video_id"], place=place)
        caption_id = identity(record.get("sen_id", number), place=place)
        source.captions.add(caption_id, video_id, record["caption"], place=place)


def _from_coco(document: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Returns the lists of `MSR_VTT.json` under the names of the official files."""
    images, notes = (
        records(document, path, key=key, expected='{"images": [...], "annotations": [...]}')
        for key in ("images", "annotations")
    )
    return {
        "videos": [{"video_id": item.get("id")} for _, item in images],
        "sentences": [
            {"video_id": item.get("image_id"), "sen_id": item.get("id", number),
             "caption": item.get("caption")}
            for number, (_, item) in enumerate(notes)
        ],
    }  # fmt: skip


def _category(number: object, names: Sequence[str], place: str) -> str:
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(names):
        return names[number]
    raise DatasetError(f"{place} is {number!r:.40}; allowed: 0 to {len(names) - 1}")


def _category_names(folder: Path) -> tuple[Sequence[str], list[Path]]:
    found = find_documents(folder, ("category.txt",))[:1]
    if not found:
        return CATEGORIES, []
    names: list[str] = []
    lines = [line for line in read_text(found[0]).splitlines() if line.strip()]
    for number, line in enumerate(lines):
        name, _, index = line.rstrip().rpartition("\t")
        if index.strip() != str(number) or not name.strip():
            raise DatasetError(
                f"{printable(found[0])}, line {number + 1} is {line!r:.60}; expected a name, "
                f"a tab and {number}"
            )
        names.append(name.strip())
    return names, found


@dataclass(frozen=True)
class _Row:
    """One row of a file that fixes a caption: by its text, its id, or its place."""

    video_id: str
    place: str
    key: str
    sentence: str | None = None
    sen_id: str | None = None
    number: int | None = None  # Which of the video's captions it is, from 0


def _read_lists(source: Annotations) -> list[_Row]:
    """Reads the lists of splits; returns the rows that fix the captions of 1k-A."""
    fixed: list[_Row] = []
    for split, patterns in LISTS.items():
        for path in source.find(*patterns):
            if path.suffix.lower() != ".csv":
                source.add_list(split, path, read_list(path))
                continue
            rows = list(_read_csv(path))
            source.add_list(split, path, unique(path, (row.video_id for row in rows)))
            if split == "1kA-test" and any(
                (row.sentence, row.sen_id) != (None, None) for row in rows
            ):
                fixed += rows
    for path in source.find(CAPTION_PLACES)[:1]:
        rows = list(_read_places(path))
        fixed += rows
        source.add_list("1kA-test", path, tuple(row.video_id for row in rows))
    return fixed


def _read_places(path: Path) -> Iterator[_Row]:
    content = require_mapping(read_plain_pickle(path), path, expected="{video: place}")
    for key, number in content.items():
        place = f"{path}: {key!r:.80}"
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise DatasetError(f"{place} must be the place of a caption, is {number!r:.40}")
        yield _Row(identity(key, place=place), place, str(key), number=number)


def _read_csv(path: Path) -> Iterator[_Row]:
    for index, (number, row) in enumerate(read_table(path, columns=("video_id",))):
        place = f"{path}, line {number}"
        key, video_id = row.get("key", f"ret{index}"), identity(row["video_id"], place=place)
        yield _Row(video_id, place, key, row.get("sentence"), row.get("sen_id"))


def _queries(
    splits: Mapping[str, tuple[str, ...]], rows: Sequence[_Row], captions: Sequence[Caption]
) -> dict[str, tuple[Caption, ...]]:
    """Returns the fixed captions of the splits that have one per video."""
    of_video: dict[str, list[Caption]] = {}
    for caption in captions:
        of_video.setdefault(caption.video_id, []).append(caption)
    queries: dict[str, tuple[Caption, ...]] = {}
    if members := splits.get("1kA-test"):
        queries["1kA-test"] = _fixed_captions(members, rows, of_video)
    if "1kB-test" in splits:
        queries["1kB-test"] = tuple(
            min(of_video[video_id], key=_sen_id) for video_id in splits["1kB-test"]
            if video_id in of_video
        )  # fmt: skip
    return {split: fixed for split, fixed in queries.items() if fixed or split == "1kB-test"}


def _fixed_captions(
    members: Sequence[str], rows: Sequence[_Row], of_video: Mapping[str, Sequence[Caption]]
) -> tuple[Caption, ...]:
    """Returns the one caption of each video of 1k-A, from the rows or from the shipped pairs."""
    known = set(members)
    pairs = dict(published_pairs("msrvtt", "1kA-test"))
    pairs = pairs if known == pairs.keys() else {}
    queries: dict[str, Caption] = {}
    for row in rows:
        if row.video_id not in known:
            continue
        query = _chosen(row, of_video.get(row.video_id, ()), pairs)
        first = queries.setdefault(row.video_id, query)
        if first.id != query.id:
            raise DatasetError(
                f"{row.place}: the caption of {row.video_id} is {query.id}, but {first.id} "
                "in another csv of the same split"
            )
    for video_id, sen_id in pairs.items() if not queries else ():
        fitting = [item for item in of_video.get(video_id, ()) if item.id == sen_id]
        if not fitting:
            raise DatasetError(
                f"msrvtt: 1k-A asks for the caption with sen_id {sen_id} of {video_id}, which "
                "the annotation json does not have. Were its captions renumbered or cleaned? "
                f"Put MSRVTT_JSFUSION_test.csv or {CAPTION_PLACES} beside it"
            )
        queries[video_id] = fitting[0]
    return tuple(queries.values())


def _chosen(row: _Row, captions: Sequence[Caption], pairs: Mapping[str, str]) -> Caption:
    """Returns the caption that a row fixes, checked against the json and the pairs."""
    if row.sentence is not None and not row.sentence.strip():
        raise DatasetError(f"{row.place}: the sentence of {row.video_id} is empty")
    if row.number is not None:
        if row.number < len(captions):
            return captions[row.number]
        raise DatasetError(
            f"{row.place}: caption {row.number} of {row.video_id} is asked for, which has "
            f"{len(captions)}"
        )
    expected = pairs.get(row.video_id, row.sen_id)
    if row.sen_id not in (None, expected):
        raise DatasetError(
            f"{row.place}: the caption of {row.video_id} is sen_id {row.sen_id}; "
            f"published is {expected}"
        )
    letters = _letters(row.sentence or "")
    for item in sorted(captions, key=_sen_id):
        same = row.sentence in (None, item.text) or _letters(item.text) == letters
        if same and expected in (None, item.id):
            return Caption(item.id, row.video_id, row.sentence or item.text)
    if pairs or row.sentence is None:
        raise DatasetError(
            f"{row.place}: {(row.sentence or '')!r:.80} is not the caption {expected} of "
            f"{row.video_id} in the annotation json"
        )
    return Caption(row.key, row.video_id, row.sentence)


def _sen_id(caption: Caption) -> tuple[int, str]:
    return (int(caption.id) if caption.id.isdecimal() else 0, caption.id)


def _letters(text: str) -> str:
    """Returns a text without what the published csv and json write differently."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())
