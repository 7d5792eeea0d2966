"""The demo world that `vtr demo` renders.

One file, `demo.json`: a list of videos with split, group and category (the kind of background), and
a list of captions, five for each video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vtr.counts import counted
from vtr.datasets.base import Caption, Dataset, DatasetInfo
from vtr.datasets.documents import records
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
    """Reads `demo.json`, or that of a folder; None is where `vtr demo` puts it."""
    path = _locate(annotations, videos)
    needed = "videos and captions; `vtr demo` renders the world again"
    document = read_json(path, needed=needed, error=DatasetError)
    entries, sentences = (
        [record for _, record in records(document, path, key=key, keys=keys, expected=needed)]
        for key, keys in (
            ("videos", ("id", "split", "group", "category")),
            ("captions", ("id", "video_id", "text")),
        )
    )
    captions = tuple(
        Caption(str(entry["id"]), str(entry["video_id"]), str(entry["text"])) for entry in sentences
    )
    by_id = {str(entry["id"]): entry for entry in entries}
    _check(path, entries, by_id, captions)
    splits = {
        split: tuple(name for name, entry in by_id.items() if entry["split"] == split)
        for split in _SPLITS
    }
    return Dataset(
        name="demo",
        video_ids=tuple(by_id),
        captions=captions,
        splits={split: members for split, members in splits.items() if members},
        categories={name: str(entry["category"]) for name, entry in by_id.items()},
        groups={name: str(entry["group"]) for name, entry in by_id.items()},
        rivals={name: str(entry["twin"]) for name, entry in by_id.items() if entry.get("twin")},
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


def _check(
    path: Path,
    entries: Sequence[Mapping[str, Any]],
    known: Collection[str],
    captions: Sequence[Caption],
) -> None:
    for key, allowed in (("split", _SPLITS), ("group", _GROUPS)):
        for entry in entries:
            if entry[key] not in allowed:
                raise DatasetError(
                    f"{path}: video {entry['id']!r} has {key} {entry[key]!r}; "
                    f"allowed: {', '.join(allowed)}"
                )
    videos = [str(entry["id"]) for entry in entries]
    for what, names in (("video", videos), ("caption", [caption.id for caption in captions])):
        name, count = Counter(names).most_common(1)[0] if names else ("", 0)
        if count > 1:
            raise DatasetError(f"{path}: {what} {name!r} is listed {counted(count, 'time')}")
    for caption in captions:
        if caption.video_id not in known:
            raise DatasetError(
                f"{path}: caption {caption.id!r} is of video {caption.video_id!r}, "
                "which is not listed"
            )
