"""MSVD: 1,970 short YouTube clips with about 40 captions each.

Captions come from `captions_msvd.json`, `raw-captions.pkl` (read without running it), or the files
that the dataset was published as. The same layouts with other videos are read as well, captions
being texts, lists of texts or lists of words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    read_table,
    read_text,
    require_mapping,
    text_lines,
)
from vtr.datasets.pickles import read_plain_pickle
from vtr.datasets.splits import SplitList, settle_splits
from vtr.errors import DatasetError
from vtr.names import VIDEO_EXTENSIONS

CAPTION_FILES = (
    "captions_msvd.json",
    "raw-captions.pkl",
    "captions.json",
    "AllVideoDescriptions.txt",
    "video_corpus.csv",
    "MSR Video Description Corpus.csv",
)
CORPUS_COLUMNS = ("VideoID", "Start", "End", "Language", "Description")
LISTS = {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"}

INFO = DatasetInfo(
    files=(
        ("captions_msvd.json", "{video: [captions]}"),
        ("raw-captions.pkl", "or {video: [[words]]}; captions.json of the forks works too"),
        ("AllVideoDescriptions.txt", "or lines of a video and a caption"),
        ("video_corpus.csv", "or columns VideoID, Start, End, Language, Description: the English"),
        ("train_list.txt, val_list.txt, test_list.txt", "optional: one id a line, checked"),
    ),
    splits={"train": 1200, "val": 100, "test": 670},
    captions="all captions of a video, each a query",
    source="captions_msvd.json: github.com/layer6ai-labs/xpool; raw-captions.pkl: the data archive "
    "of github.com/ArrowLuo/CLIP4Clip; clips: the YouTubeClips archive of UT Austin",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads MSVD, or other data in its layout.

    Returns:
        Captions have the id of the video and their place in its list.
    """
    folder, (path, *aside) = open_folder(
        annotations, videos, CAPTION_FILES, dataset="msvd", what="caption file"
    )
    content = _content(path)
    files = {split: found for split, name in LISTS.items() if (found := _one(folder, name))}
    listed = {split: read_list(found) for split, found in files.items()}
    bare = {identity for ids in listed.values() for identity in ids}
    captions = CaptionList()
    names: dict[str, None] = {}
    for key, value in content.items():
        place = f"{path}: {key!r:.80}"
        video_id = _bare_name(identity(key, place=place), bare)
        names[video_id] = None
        captions.add_all(video_id, sentences(value, place=place), place=place)
    lists = {split: [SplitList(files[split], ids)] for split, ids in listed.items()}
    splits, notes = settle_splits("msvd", tuple(names), lists)
    dataset = Dataset(
        name="msvd",
        video_ids=tuple(names),
        captions=tuple(captions.items),
        splits=splits,
        annotation_files=(path, *files.values()),
        notes=(
            *notes,
            *(f"{other.name} was found as well and not read" for other in aside),
            *captions.notes(names),
        ),
    )
    check_overlap(dataset, (("train", "val"), ("train", "test"), ("val", "test")))
    return dataset


def _content(path: Path) -> Mapping[str, Any]:
    """Returns video to captions, whatever the file's kind."""
    kind = path.suffix.lower()
    if kind == ".txt":
        return _gathered(_spoken(path))
    if kind == ".csv":
        return _gathered(
            (
                "_".join(row[name].strip() for name in ("VideoID", "Start", "End")),
                row["Description"],
            )
            for _, row in read_table(path, columns=CORPUS_COLUMNS)
            if row["Language"].strip().lower() == "english"
        )
    document = read_plain_pickle(path) if kind == ".pkl" else read_json(path)
    return require_mapping(document, path, expected="{video: [captions]}")


def _spoken(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text_lines(read_text(path)), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, text = line.strip().partition(" ")
        if not text.strip():
            raise DatasetError(f"{path}, line {number}: expected a video, a blank and a caption")
        yield name, text.strip()


def _gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for name, text in pairs:
        captions.setdefault(name, []).append(text)
    return captions


def _one(folder: Path, name: str) -> Path | None:
    return next(iter(find_documents(folder, (name,))), None)


def _bare_name(name: str, listed: Iterable[str]) -> str:
    """Returns a caption file's id without the extension, where the lists write it without."""
    path = Path(name)
    if name not in listed and path.suffix.lower() in VIDEO_EXTENSIONS and path.stem in listed:
        return path.stem
    return name
