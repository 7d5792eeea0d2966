"""The nouns that every dataset reader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vtr.datasets.files import VideoListing


@dataclass(frozen=True, slots=True)  # there may be millions
class Video:
    """One clip to be retrieved.

    >>> import vtr
    >>> from pathlib import Path
    >>> vtr.Video("clip1", Path("videos/clip1.mp4")).id
    'clip1'
    """

    id: str  # Unicode NFC; data, never a file name that we write
    path: Path | None  # The file, or None where the dataset expects it and the disk has none
    # Start of the window, counted from the first frame; None is the beginning.
    start_seconds: float | None = None
    end_seconds: float | None = None  # End of the window (exclusive); None is the end of the file


@dataclass(frozen=True)
class Caption:
    """One sentence that describes one video.

    >>> import vtr
    >>> vtr.Caption("video0#1", "video0", "a dog runs on the beach").video_id
    'video0'
    """

    id: str
    video_id: str
    text: str
    # (start, end) in seconds of the parts that it describes, where the dataset says so.
    windows: tuple[tuple[float, float], ...] = ()
    # (two-second clip, how well it shows the text by each annotator, 0 to 4) of QVHighlights.
    ratings: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What a dataset's published annotation files say.

    >>> import vtr
    >>> dataset = vtr.Dataset("mine", ("a", "b"), splits={"test": ("a",)})
    >>> dataset.splits["test"]
    ('a',)
    """

    name: str  # Option name of the reader
    video_ids: tuple[str, ...]  # Every video that the annotations expect, in their order
    captions: tuple[Caption, ...] = ()  # Every caption, in the files' order
    # Split name to the ids in it ("train", "val", "test").
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Video id to (start_seconds, end_seconds) for clips cut out of longer files.
    windows: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    # Video id to category, where the dataset has categories.
    categories: Mapping[str, str] = field(default_factory=dict)
    # Video id to a labelled group of test queries, where the dataset has them.
    groups: Mapping[str, str] = field(default_factory=dict)
    # Video id to the one video that only the order of its frames tells from it.
    rivals: Mapping[str, str] = field(default_factory=dict)
    annotation_files: tuple[Path, ...] = ()  # The files that were recognised and read
    # Split name to its captions, where these are not all captions of its videos.
    queries: Mapping[str, tuple[Caption, ...]] = field(default_factory=dict)
    # Video id to another name, without extension, that its file may have.
    file_stems: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # What people should know
    # What the folder of videos holds, where the reader has looked: no need to list it again.
    listing: VideoListing | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class DatasetInfo:
    """What a reader says about its dataset before any file is read."""

    # (name or pattern, what it is) of the annotation files that are recognised.
    files: tuple[tuple[str, str], ...]
    # Split name to the number of its videos as published, None where it is not fixed.
    splits: Mapping[str, int | None]
    captions: str  # Which captions are the queries of a split, in one line
    source: str  # Where the files come from


def split_queries(dataset: Dataset, split: str) -> tuple[Caption, ...]:
    """Returns the query captions of a split: `queries` where it has the split, else all captions.

    Raises:
        KeyError: The dataset has no such split.
    """
    members = set(dataset.splits[split])
    if split in dataset.queries:
        return dataset.queries[split]
    return tuple(caption for caption in dataset.captions if caption.video_id in members)
