"""LSMDC: clips of films with one sentence each, under a licence of its own.

Reads the tab-separated files of the 2016 challenge: six columns without a header (clip, start and
end as aligned, start and end as extracted, sentence). The times belong to the film, so a clip has
no window.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vtr.counts import counted
from vtr.datasets.annotations import Annotations
from vtr.datasets.base import Dataset, DatasetInfo
from vtr.datasets.documents import identity, read_text
from vtr.errors import DatasetError

FILES = {
    "train": ("LSMDC16_annos_training.csv", "LSMDC16_annos_training_someone.csv"),
    "val": ("LSMDC16_annos_val.csv", "LSMDC16_annos_val_someone.csv"),
    "test": (
        "LSMDC16_challenge_1000_publictect.csv",  # the published name is spelt so
        "LSMDC16_challenge_1000_publictest.csv",
        "LSMDC16_challenge_1000_publictect_someone.csv",
        "LSMDC16_challenge_1000_publictest_someone.csv",
    ),
}
NUM_COLUMNS = 6

INFO = DatasetInfo(
    files=(
        (", ".join(FILES["train"]), "tab-separated, six columns, no header"),
        (", ".join(FILES["val"]), "the same"),
        (f"{FILES['test'][0]}, ..._publictest.csv, ..._someone.csv", "the same"),
    ),
    splits={"train": None, "val": 7408, "test": 1000},
    captions="every line is a query; a clip may have several",
    source="sites.google.com/site/describingmovies, after signing its licence",
)


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Reads LSMDC; a caption's id is its clip's with its place among the clip's lines."""
    patterns = tuple(name for names in FILES.values() for name in names)
    source = Annotations("lsmdc", annotations, videos, patterns, what="annotation file")
    lines: Counter[str] = Counter()
    for split, names in FILES.items():
        paths = source.find(*names)
        source.aside += paths[1:]
        for path in paths[:1]:
            source.add_list(split, path, _read(path, source, lines))
        if not paths:
            source.notes.append(f"{names[0]} was not found; its split is left out")
    return source.dataset()


def _read(path: Path, source: Annotations, lines: Counter[str]) -> tuple[str, ...]:
    """Reads one file, and counts the lines of each clip; returns the clips."""
    members: dict[str, None] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        columns = line.rstrip("\r").split("\t")
        # Some copies have lost the tab before an empty sentence.
        if len(columns) not in (NUM_COLUMNS, NUM_COLUMNS - 1):
            raise DatasetError(
                f"{place}: {counted(len(columns), 'column')} separated by tabs; expected "
                f"{NUM_COLUMNS}: clip, start, end, start, end, sentence"
            )
        clip = identity(columns[0], place=place)
        text = columns[5].strip() if len(columns) == NUM_COLUMNS else ""
        source.captions.add(f"{clip}#{lines[clip]}", clip, text, place=place)
        lines[clip] += 1
        members[clip] = source.videos[clip] = None
    return tuple(members)
