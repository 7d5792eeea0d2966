"""MSR-VTT: 10,000 web clips with 20 captions each.

Reads the two official `videodatainfo.json` files or the `MSRVTT_data.json` that joins them, and
the split files of the field with or without sentences. The start and end times in them belong to
the YouTube video that a clip was cut from, so a clip has no window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtr.datasets.base import Caption, Dataset, DatasetInfo
from vtr.datasets.captions import CaptionList
from vtr.datasets.documents import (
    find_documents,
    identity,
    is_missing,
    open_folder,
    read_json,
    read_list,
    read_table,
    read_text,
    require_mapping,
    unique,
)
from vtr.datasets.pickles import read_plain_pickle
from vtr.datasets.published import published_pairs
from vtr.datasets.splits import SplitList, settle_splits, split_name
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

    Returns:
        Captions have their `sen_id` as id. Without the csv files the queries of 1k-A come from the
        shipped (video_id, sen_id) pairs, with them their sentences are compared with the captions.
        The queries of 1k-B are the first caption of each video, as its authors took it.
    """
    folder, found = open_folder(
        annotations, videos, JSON_FILES, dataset="msrvtt", what="annotation json"
    )
    read, aside = _choose(found)
    names, category_file = _category_names(folder)
    content = _Content(names)
    for path in read:
        content.read(path)
    content.captions.restrict(content.marks)
    lists, rows, list_files = _read_lists(folder)
    splits, notes = settle_splits("msrvtt", tuple(content.marks), lists, content.marked())
    if "trainval" not in splits and {"train", "val"} <= splits.keys():
        splits["trainval"] = splits["train"] + splits["val"]
    queries = _queries(splits, rows, content.captions.items)
    notes += [f"{path.name} was found as well and not read" for path in aside]
    return Dataset(
        name="msrvtt",
        video_ids=tuple(content.marks),
        captions=tuple(content.captions.items),
        splits=splits,
        categories=content.categories,
        annotation_files=(*read, *list_files, *category_file),
        queries=queries,
        notes=(*notes, *content.captions.notes(content.marks)),
    )


def _choose(found: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Returns the files to read and those that repeat them: one joined file, or the parts."""
    joined = [path for path in found if path.name.lower().startswith("msrvtt_data")]
    coco = [path for path in found if path.name.lower() == "msr_vtt.json"]
    read = joined[:1] or [path for path in found if path not in coco] or coco[:1]
    return read, [path for path in found if path not in read]


@dataclass
class _Content:
    """What the json files hold."""

    category_names: Sequence[str]
    marks: dict[str, str | None] = field(default_factory=dict)  # video id -> split field
    categories: dict[str, str] = field(default_factory=dict)
    captions: CaptionList = field(default_factory=CaptionList)

    def read(self, path: Path) -> None:
        document = require_mapping(
            read_json(path), path, expected='{"videos": [...], "sentences": [...]}'
        )
        if {"images", "annotations"} <= document.keys():
            document = _from_coco(document, path)
        sentences = list(_records(document, "sentences", path))
        if "videos" in document:
            for place, record in _records(document, "videos", path):
                self._add_video(record, place)
        else:
            for place, record in sentences:
                self.marks.setdefault(identity(record.get("video_id"), place=place), None)
        for number, (place, record) in enumerate(sentences):
            if not {"video_id", "caption"} <= record.keys():
                raise DatasetError(
                    f"{place} must have video_id, caption and sen_id; has {', '.join(record)}"
                )
            video_id = identity(record["video_id"], place=place)
            caption_id = identity(record.get("sen_id", number), place=place)
            self.captions.add(caption_id, video_id, record["caption"], place=place)

    def marked(self) -> dict[str, tuple[str, ...]]:
        splits: dict[str, list[str]] = {}
        for video_id, mark in self.marks.items():
            if mark is not None:
                splits.setdefault(mark, []).append(video_id)
        return {split: tuple(ids) for split, ids in splits.items()}

    def _add_video(self, record: Mapping[str, Any], place: str) -> None:
        video_id = identity(record.get("video_id"), place=place)
        if video_id in self.marks:
            raise DatasetError(f"{place}: the video {printable(video_id)!r} is listed twice")
        split = record.get("split")
        self.marks[video_id] = None if is_missing(split) else split_name(str(split))
        category = record.get("category")
        if category is None:
            return
        if (
            not isinstance(category, int)
            or isinstance(category, bool)
            or not 0 <= category < len(self.category_names)
        ):
            raise DatasetError(
                f"{place}: the category of {printable(video_id)!r} is {category!r:.40}; "
                f"allowed: 0 to {len(self.category_names) - 1}"
            )
        self.categories[video_id] = self.category_names[category]


def _from_coco(document: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Returns the lists of `MSR_VTT.json` under the names of the official files."""
    return {
        "videos": [{"video_id": item.get("id")} for _, item in _records(document, "images", path)],
        "sentences": [
            {"video_id": item.get("image_id"), "sen_id": item.get("id", number),
             "caption": item.get("caption")}
            for number, (_, item) in enumerate(_records(document, "annotations", path))
        ],
    }  # fmt: skip


def _records(
    document: Mapping[str, Any], key: str, path: Path
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    records = document.get(key)
    if not isinstance(records, list):
        raise DatasetError(
            f"{printable(str(path))} has no list {key!r}; expected "
            '{"videos": [...], "sentences": [...]}'
        )
    start = f"{path}: entry"  # a path is slow to spell, 200,000 times
    for number, record in enumerate(records):
        place = f"{start} {number} of {key!r}"
        if not isinstance(record, dict):
            raise DatasetError(f"{place} must be an object, is {record!r:.80}")
        yield place, record


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
                f"{printable(str(found[0]))}, line {number + 1} is {line!r:.60}; expected a name, "
                f"a tab and {number}"
            )
        names.append(name.strip())
    return names, found


@dataclass(frozen=True)
class _Row:
    """One row of a test csv that fixes a caption."""

    key: str
    video_id: str
    sentence: str | None
    sen_id: str | None
    place: str
    number: int | None = None
    """Instead of both: which of the video's captions it is, from 0."""


def _read_lists(
    folder: Path,
) -> tuple[dict[str, list[SplitList]], dict[str, list[_Row]], list[Path]]:
    lists: dict[str, list[SplitList]] = {}
    rows: dict[str, list[_Row]] = {}
    files: list[Path] = []
    for split, patterns in LISTS.items():
        for path in find_documents(folder, patterns):
            if path.suffix.lower() == ".csv":
                table = _read_csv(path)
                ids = unique(path, (row.video_id for row in table))
                if any(row.sentence is not None or row.sen_id is not None for row in table):
                    rows.setdefault(split, []).extend(table)
            else:
                ids = read_list(path)
            lists.setdefault(split, []).append(SplitList(path, ids))
            files.append(path)
    for path in find_documents(folder, (CAPTION_PLACES,))[:1]:
        table = _read_places(path)
        rows.setdefault("1kA-test", []).extend(table)
        lists.setdefault("1kA-test", []).append(
            SplitList(path, tuple(row.video_id for row in table))
        )
        files.append(path)
    return lists, rows, files


def _read_places(path: Path) -> list[_Row]:
    content = require_mapping(read_plain_pickle(path), path, expected="{video: place}")
    rows: list[_Row] = []
    for key, number in content.items():
        place = f"{path}: {key!r:.80}"
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise DatasetError(f"{place} must be the place of a caption, is {number!r:.40}")
        rows.append(_Row(str(key), identity(key, place=place), None, None, place, number))
    return rows


def _read_csv(path: Path) -> list[_Row]:
    return [
        _Row(
            row.get("key", f"ret{index}"),
            identity(row["video_id"], place=f"{path}, line {number}"),
            row.get("sentence"),
            row.get("sen_id"),
            f"{path}, line {number}",
        )
        for index, (number, row) in enumerate(read_table(path, columns=("video_id",)))
    ]


def _queries(
    splits: Mapping[str, tuple[str, ...]],
    rows: Mapping[str, Sequence[_Row]],
    captions: Sequence[Caption],
) -> dict[str, tuple[Caption, ...]]:
    """Returns the fixed captions of the splits that have one per video."""
    single = {split for split in ("1kA-test", "1kB-test") if split in splits}
    wanted = {identity for split in single for identity in splits[split]}
    of_video: dict[str, list[Caption]] = {identity: [] for identity in wanted}
    for caption in captions:
        if caption.video_id in of_video:
            of_video[caption.video_id].append(caption)
    queries: dict[str, tuple[Caption, ...]] = {}
    if "1kA-test" in single:
        fixed = _OneCaption(of_video, splits["1kA-test"])
        found = fixed.from_rows(rows.get("1kA-test", ())) or fixed.from_pairs()
        if found:
            queries["1kA-test"] = found
    if "1kB-test" in single:
        queries["1kB-test"] = tuple(
            min(of_video[video_id], key=_sen_id) for video_id in splits["1kB-test"]
            if of_video[video_id]
        )  # fmt: skip
    return queries


class _OneCaption:
    """The one caption of each video of 1k-A, from the csv or from the shipped pairs."""

    def __init__(self, of_video: Mapping[str, Sequence[Caption]], members: Iterable[str]) -> None:
        self.of_video = of_video
        self.members = set(members)
        pairs = dict(published_pairs("msrvtt", "1kA-test"))
        self.pairs = pairs if self.members == pairs.keys() else {}

    def from_rows(self, rows: Sequence[_Row]) -> tuple[Caption, ...]:
        queries: dict[str, Caption] = {}
        for row in rows:
            if row.video_id not in self.members:
                continue
            query = self._from_row(row)
            first = queries.setdefault(row.video_id, query)
            if first.id != query.id:
                raise DatasetError(
                    f"{row.place}: the caption of {row.video_id} is {query.id}, but {first.id} "
                    "in another csv of the same split"
                )
        return tuple(queries.values())

    def from_pairs(self) -> tuple[Caption, ...]:
        queries: list[Caption] = []
        for video_id, sen_id in self.pairs.items():
            fitting = [item for item in self.of_video[video_id] if item.id == sen_id]
            if not fitting:
                raise DatasetError(
                    f"msrvtt: 1k-A asks for the caption with sen_id {sen_id} of {video_id}, which "
                    "the annotation json does not have. Were its captions renumbered or cleaned? "
                    f"Put MSRVTT_JSFUSION_test.csv or {CAPTION_PLACES} beside it"
                )
            queries.append(fitting[0])
        return tuple(queries)

    def _from_row(self, row: _Row) -> Caption:
        """Returns the caption that a csv row fixes, checked against the json and the pairs."""
        if row.sentence is not None and not row.sentence.strip():
            raise DatasetError(f"{row.place}: the sentence of {row.video_id} is empty")
        captions = self.of_video[row.video_id]
        if row.number is not None:
            if row.number >= len(captions):
                raise DatasetError(
                    f"{row.place}: caption {row.number} of {row.video_id} is asked for, which has "
                    f"{len(captions)}"
                )
            return captions[row.number]
        expected = self.pairs.get(row.video_id, row.sen_id)
        if row.sen_id not in (None, expected):
            raise DatasetError(
                f"{row.place}: the caption of {row.video_id} is sen_id {row.sen_id}; "
                f"published is {expected}"
            )
        letters = _letters(row.sentence or "")
        same = [
            item
            for item in sorted(captions, key=_sen_id)
            if row.sentence in (None, item.text) or _letters(item.text) == letters
        ]
        chosen = next((item for item in same if expected in (None, item.id)), None)
        if chosen is None and (self.pairs or row.sentence is None):
            raise DatasetError(
                f"{row.place}: {(row.sentence or '')!r:.80} is not the caption {expected} of "
                f"{row.video_id} in the annotation json"
            )
        if chosen is None:
            return Caption(row.key, row.video_id, row.sentence or "")
        return Caption(chosen.id, row.video_id, row.sentence or chosen.text)


def _sen_id(caption: Caption) -> tuple[int, str]:
    return (int(caption.id) if caption.id.isdecimal() else 0, caption.id)


def _letters(text: str) -> str:
    """Returns a text without what the published csv and json write differently."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())
