"""QVHighlights: sentences about parts of YouTube vlogs and news, cut to two and a half minutes.

Of a test query the parts are unpublished, so its split can be searched but not scored. Ids of
videos are `YOUTUBE_START_END`, as their files are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vtr.datasets.annotations import Annotations, CaptionList
from vtr.datasets.base import Caption, Dataset, DatasetInfo
from vtr.datasets.documents import identity, moment_windows, read_json_lines
from vtr.errors import DatasetError
from vtr.foreign import printable

SPLITS = ("train", "val", "test")
RATING = range(5)

INFO = DatasetInfo(
    files=(
        (
            "highlight_train_release.jsonl, ..._val_..., ..._test_...",
            "{qid, query, vid, relevant_windows, relevant_clip_ids, saliency_scores} a line",
        ),
    ),
    # Queries are published: 7,218, 1,550 and 1,542; the number of their videos is not.
    splits=dict.fromkeys(SPLITS),
    captions="every query of a video, with its windows and ratings but for the test split",
    source="github.com/jayleicn/moment_detr (Lei et al. 2021)",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads QVHighlights; a caption's id is `qid`."""
    names = {split: f"highlight_{split}_release.jsonl" for split in SPLITS}
    source = Annotations(
        "qvhighlights", annotations, videos, tuple(names.values()), what="query file"
    )
    queries: dict[str, tuple[Caption, ...]] = {}
    for split, name in names.items():
        for path in source.find(name)[:1]:
            before = len(source.captions.items)
            source.add_split(split, path, _read(path, source.captions))
            queries[split] = tuple(source.captions.items[before:])
    return replace(source.dataset(apart=()), queries=queries)


def _read(path: Path, captions: CaptionList) -> tuple[str, ...]:
    ids: list[str] = []
    for number, record in read_json_lines(path):
        place = f"{path}, line {number}"
        if not isinstance(record, dict) or not {"qid", "query", "vid"} <= record.keys():
            raise DatasetError(
                f"{printable(place)}: expected an object with qid, query and vid, is {record!r:.80}"
            )
        ids.append(identity(record["vid"], place=place))
        captions.add(
            identity(record["qid"], place=place, what="qid"), ids[-1], record["query"], place=place,
            windows=moment_windows(record.get("relevant_windows", ()), place=place),
            ratings=_ratings(record, place),
        )  # fmt: skip
    return tuple(dict.fromkeys(ids))


def _ratings(record: Mapping[str, Any], place: str) -> tuple[tuple[int, tuple[int, ...]], ...]:
    clips, scores = record.get("relevant_clip_ids", []), record.get("saliency_scores", [])
    fits = (
        isinstance(clips, list)
        and isinstance(scores, list)
        and len(clips) == len(scores)
        and all(type(clip) is int and clip >= 0 for clip in clips)
        and len(set(clips)) == len(clips)
        and all(
            isinstance(row, list) and all(type(n) is int and n in RATING for n in row)
            for row in scores
        )
    )
    if not fits:
        raise DatasetError(
            f"{printable(place)}: expected in saliency_scores a list of ratings from 0 to 4 for "
            f"each of relevant_clip_ids, none of which twice, found {scores!r:.80}"
        )
    return tuple((clip, tuple(row)) for clip, row in zip(clips, scores, strict=True))
