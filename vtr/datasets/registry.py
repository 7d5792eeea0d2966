"""Datasets by name, and the files of the videos they expect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vtr import datasets
from vtr.datasets.base import Dataset, DatasetInfo, Video
from vtr.datasets.files import VideoListing, find_videos, match_videos
from vtr.foreign import is_undecodable
from vtr.names import video_id
from vtr.options import load_plugin, plugin_names
from vtr.remote import located

DUPLICATE_ID = "duplicate-id"
BAD_NAME = "bad-name"


@dataclass(frozen=True)
class VideoSurvey:
    """What the disk has of a dataset."""

    videos: tuple[Video, ...]  # One per expected id, in the dataset's order
    duplicates: Mapping[str, tuple[Path, ...]]  # Id to further files that fit it
    unexpected: tuple[Path, ...]  # Video files that belong to no id
    listing: VideoListing
    # Ids that contradict each other, to the file that all fit: they are missing.
    contested: Mapping[str, Path] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """The ids without a file, in the dataset's order."""
        return tuple(video.id for video in self.videos if video.path is None)


def dataset_names() -> list[str]:
    """Returns the names of all datasets that can be read.

    >>> import vtr
    >>> "msrvtt" in vtr.dataset_names()
    True
    """
    return plugin_names(datasets)


def load_dataset(
    name: str, *, annotations: str | Path | None = None, videos: str | Path
) -> Dataset:
    """Reads a dataset's published annotation files.

    >>> import vtr
    >>> world = vtr.open_workspace("demo-world")
    >>> dataset = vtr.load_dataset("demo", annotations=world.annotations, videos=world.videos)
    >>> len(dataset.captions), list(dataset.splits)
    (130, ['train', 'val', 'test'])

    Args:
        name: One of `dataset_names()`.
        annotations: Where these files are; None for a dataset that needs none.
        videos: The folder of its videos.

    Raises:
        UnknownNameError: No such dataset.
        ConfigError: A folder is missing.
        DatasetError: The annotation files cannot be read or do not agree.
    """
    reader = load_plugin(datasets, name, kind="dataset")
    folder = None if annotations is None else Path(annotations)
    dataset: Dataset = reader.load(folder, located(videos))
    return dataset


def dataset_info(name: str) -> tuple[str, DatasetInfo]:
    """Returns one line about a dataset, and what its reader says before any file is read."""
    module = load_plugin(datasets, name, kind="dataset")
    info: DatasetInfo = getattr(module, "INFO", None) or DatasetInfo((), {}, "", "")
    return (module.__doc__ or "").strip().partition("\n")[0], info


def resolve_videos(dataset: Dataset, videos: str | Path) -> tuple[Video, ...]:
    """Returns every video that `dataset` expects, in its order; see `survey_videos`."""
    return survey_videos(dataset, videos).videos


def survey_videos(dataset: Dataset, videos: str | Path) -> VideoSurvey:
    """Finds the files of a dataset's videos in a folder, their duplicates and what is no video's.

    An id that the dataset holds several times (twins in different Unicode composition) gets one
    file after the other.
    """
    known = dataset.listing
    listing = known if known and known.root == located(videos) else find_videos(located(videos))
    match = match_videos(listing, dataset.video_ids, stems=dataset.file_stems)
    files = {i: [path, *match.duplicates.get(i, ())] for i, path in match.paths.items()}
    expected: list[Video] = []
    for identity in dataset.video_ids:
        left = files.get(identity)
        window = dataset.windows.get(identity, (None, None))
        expected.append(Video(identity, left.pop(0) if left else None, *window))
    duplicates = {i: tuple(left) for i, left in files.items() if left}
    return VideoSurvey(tuple(expected), duplicates, match.unexpected, listing, match.contested)


def unique_videos(videos: Iterable[Video]) -> tuple[tuple[Video, str | None], ...]:
    """Gives every video an id of its own and says which ones must not be processed.

    The first video of an id keeps it; the next one is called `id#duplicate-2` and so on. Ids are
    put into NFC first, and what UTF-8 cannot say is escaped with backslashes.

    Returns:
        Each video in its place, with None or the class of its problem: "duplicate-id", or
        "bad-name" where the id or the file name is not valid Unicode.
    """
    given = list(videos)
    ids = [video_id(video.id) for video in given]
    taken = set(ids)
    copies: Counter[str] = Counter()
    result: list[tuple[Video, str | None]] = []
    for video, identity in zip(given, ids, strict=True):
        copies[identity] += 1
        repeated = copies[identity] > 1
        own = identity
        while repeated and own in taken:
            own = f"{identity}#duplicate-{copies[identity]}"
            copies[identity] += own in taken
        taken.add(own)
        bad = is_undecodable(video.id) or is_undecodable(str(video.path or ""))
        problem = BAD_NAME if bad else DUPLICATE_ID if repeated else None
        result.append((video if own == video.id else replace(video, id=own), problem))
    return tuple(result)
