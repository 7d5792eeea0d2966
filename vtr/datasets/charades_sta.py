"""Charades-STA: sentences about parts of indoor videos of half a minute.

A line is `VIDEO START END##SENTENCE`, in seconds. What is to be found is the part, by
`vtr eval --moments`; the sentences can also be used to find whole videos.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vtr.datasets.annotations import Annotations, CaptionList
from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.documents import identity, moment_windows, plain_number, read_text, text_lines
from vtr.errors import DatasetError
from vtr.foreign import printable

SPLITS = ("train", "test")

INFO = DatasetInfo(
    files=(("charades_sta_train.txt, charades_sta_test.txt", "VIDEO START END##SENTENCE"),),
    splits={"train": 5338, "test": 1334},
    captions="every sentence of a video, each with its start and end",
    source="github.com/jiyanggao/TALL; videos: prior.allenai.org/projects/charades",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads Charades-STA; a caption's id is its video's with its split and place, from 0."""
    names = {split: f"charades_sta_{split}.txt" for split in SPLITS}
    source = Annotations(
        "charades-sta", annotations, videos, tuple(names.values()), what="sentence file"
    )
    for split, name in names.items():
        for path in source.find(name)[:1]:
            source.add_split(split, path, _read(path, split, source.captions))
    return source.dataset()


def _read(path: Path, split: str, captions: CaptionList) -> tuple[str, ...]:
    count: Counter[str] = Counter()
    for number, line in enumerate(text_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        head, mark, text = line.partition("##")
        fields = head.split()
        if not mark or len(fields) != 3:
            raise DatasetError(
                f"{printable(place)}: expected VIDEO START END##SENTENCE, found "
                f"{printable(line)!r:.80}"
            )
        video_id = identity(fields[0], place=place)
        name = f"{video_id}#{split}-{count[video_id]}"
        windows = moment_windows([[*map(plain_number, fields[1:])]], place=place)
        captions.add(name, video_id, text, place=place, windows=windows)
        count[video_id] += 1
    return tuple(count)
