"""MSVD: 1,970 short YouTube clips with about 40 captions each.

Captions come from `captions_msvd.json`, `raw-captions.pkl` (read without running it), or the files
that the dataset was published as. The same layouts with other videos are read as well, captions
being texts, lists of texts or lists of words.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vtr.datasets.annotations import Annotations
from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.captions import sentences
from vtr.datasets.documents import (
    identity,
    read_json,
    read_plain_pickle,
    read_table,
    read_text,
    require_mapping,
    text_lines,
)
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
    """Reads MSVD, or other data in its layout; a caption's id is its video's with its place."""
    source = Annotations("msvd", annotations, videos, CAPTION_FILES, what="caption file")
    path, *source.aside = source.recognised
    source.files.append(path)
    source.read_lists(LISTS)
    listed = {name for lists in source.lists.values() for name in lists[0].ids}
    for key, value in _content(path).items():
        place = f"{path}: {key!r:.80}"
        video_id = _bare_name(identity(key, place=place), listed)
        source.videos[video_id] = None
        source.captions.add_all(video_id, sentences(value, place=place), place=place)
    return source.dataset()


def _content(path: Path) -> Mapping[str, Any]:
    """Returns video to captions, whatever the file's kind."""
    kind = path.suffix.lower()
    pairs: Iterable[tuple[str, str]]
    if kind == ".txt":
        pairs = _spoken(path)
    elif kind == ".csv":
        pairs = (
            ("_".join(row[name].strip() for name in CORPUS_COLUMNS[:3]), row["Description"])
            for _, row in read_table(path, columns=CORPUS_COLUMNS)
            if row["Language"].strip().lower() == "english"
        )
    else:
        document = read_plain_pickle(path) if kind == ".pkl" else read_json(path)
        return require_mapping(document, path, expected="{video: [captions]}")
    captions: dict[str, list[str]] = {}
    for name, text in pairs:
        captions.setdefault(name, []).append(text)
    return captions


def _spoken(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text_lines(read_text(path)), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, text = line.strip().partition(" ")
        if not text.strip():
            raise DatasetError(f"{path}, line {number}: expected a video, a blank and a caption")
        yield name, text.strip()


def _bare_name(name: str, listed: Container[str]) -> str:
    """Returns a caption file's id without the extension, where the lists write it without."""
    path = Path(name)
    if name not in listed and path.suffix.lower() in VIDEO_EXTENSIONS and path.stem in listed:
        return path.stem
    return name
