"""The demo world that `vtr demo` renders.

One file, `demo.json`: a list of videos with split, group and category (the kind of background), and
a list of captions, five for each video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtr.counts import counted
from vtr.datasets.base import Caption, Dataset, DatasetInfo
from vtr.errors import DatasetError
from vtr.json_files import read_json

_FILE_NAME = "demo.json"
_SPLITS = ("train", "val", "test")
_GROUPS = ("content", "order", "brief")

INFO = DatasetInfo(
    files=((_FILE_NAME, "videos with split, group and category; five captions a video"),),
    splits=dict.fromkeys(_SPLITS),
    captions="all five captions of a video, each a query",
    source="`vtr demo` renders it",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads the annotations of the demo world.

    Args:
        annotations: `demo.json` or the folder that holds it; None looks in the folder
            `annotations` beside `videos`, where `vtr demo` puts it.
        videos: The folder of the clips.

    Returns:
        The dataset; every video has a group and a category.

    Raises:
        DatasetError: The file is missing, damaged, or does not agree with itself.
    """
    path = _locate(annotations, videos)
    document = _read(path)
    entries = _records(document, "videos", {"id", "split", "group", "category"}, path)
    ids = tuple(str(entry["id"]) for entry in entries)
    captions = tuple(
        Caption(str(entry["id"]), str(entry["video_id"]), str(entry["text"]))
        for entry in _records(document, "captions", {"id", "video_id", "text"}, path)
    )
    _check(path, entries, ids, captions)
    splits = {
        split: tuple(str(entry["id"]) for entry in entries if entry["split"] == split)
        for split in _SPLITS
    }
    return Dataset(
        name="demo",
        video_ids=ids,
        captions=captions,
        splits={split: members for split, members in splits.items() if members},
        categories={str(entry["id"]): str(entry["category"]) for entry in entries},
        groups={str(entry["id"]): str(entry["group"]) for entry in entries},
        rivals={str(entry["id"]): str(entry["twin"]) for entry in entries if entry.get("twin")},
        annotation_files=(path,),
    )


def _locate(annotations: Path | None, videos: Path) -> Path:
    path = videos.parent / "annotations" if annotations is None else annotations
    if path.is_dir():
        path = path / _FILE_NAME
    if not path.is_file():
        raise DatasetError(
            f"the demo world has no annotation file {path}. Name {_FILE_NAME} or its folder with "
            "--annotations; `vtr demo` renders a world with one"
        )
    return path


def _read(path: Path) -> Mapping[str, Any]:
    needed = "videos and captions; `vtr demo` renders the world again"
    return read_json(path, needed=needed, error=DatasetError)


def _records(
    document: Mapping[str, Any], name: str, keys: set[str], path: Path
) -> Sequence[Mapping[str, Any]]:
    records = document.get(name)
    if not isinstance(records, list):
        raise DatasetError(f"{path} has no list {name!r}; is it the demo world's {_FILE_NAME}?")
    for number, record in enumerate(records):
        if not isinstance(record, dict) or keys - record.keys():
            raise DatasetError(
                f"{path}: entry {number} of {name!r} must have {', '.join(sorted(keys))}, "
                f"is {record!r:.120}"
            )
    return records


def _check(
    path: Path,
    entries: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    captions: Sequence[Caption],
) -> None:
    for key, allowed in (("split", _SPLITS), ("group", _GROUPS)):
        for entry in entries:
            if entry[key] not in allowed:
                raise DatasetError(
                    f"{path}: video {entry['id']!r} has {key} {entry[key]!r}; "
                    f"allowed: {', '.join(allowed)}"
                )
    for what, names in (("video", ids), ("caption", [caption.id for caption in captions])):
        name, count = Counter(names).most_common(1)[0] if names else ("", 0)
        if count > 1:
            raise DatasetError(f"{path}: {what} {name!r} is listed {counted(count, 'time')}")
    known = set(ids)
    for caption in captions:
        if caption.video_id not in known:
            raise DatasetError(
                f"{path}: caption {caption.id!r} is of video {caption.video_id!r}, "
                "which is not listed"
            )
