"""What a protocol is, and the queries and videos it comes to on a given dataset."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.datasets.base import Caption, Dataset
from vtr.errors import ConfigError, DatasetError, UnknownNameError
from vtr.evaluate import protocols
from vtr.options import load_plugin, plugin_names

CaptionPolicy = Literal["one", "all", "paragraph"]
Gallery = Literal["split", "folder"]
Part = Literal["train", "val", "test"]
GALLERIES: Mapping[str, Gallery] = {"folder": "folder", "captioned": "split"}
"""What `--gallery` takes, and the gallery that it means."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way of the field to count, declared with what it must come to.

    >>> import vtr
    >>> protocol = vtr.load_protocol("msrvtt-1kA")
    >>> protocol.test_split, protocol.num_queries
    ('1kA-test', 1000)
    """

    name: str  # Option name
    dataset: str  # Whose videos and captions
    summary: str  # One line for people
    test_split: str = "test"  # Whose videos are searched for, and whose captions are the queries
    # What may be trained on; None where the protocol names nothing.
    train_split: str | None = "train"
    # What the best epoch may be chosen on; None where the protocol names nothing: then a part of
    # the training videos is held out.
    val_split: str | None = "val"
    # "one" given sentence per video, "all" captions of a video each a query of its own, or all of a
    # video's sentences as one "paragraph".
    captions: CaptionPolicy
    # How many the gallery has; None where it depends on the user's files.
    num_videos: int | None = None
    num_queries: int | None = None  # How many queries; likewise
    # Of the gallery's sorted ids, joined by newlines; None where no list is public.
    ids_sha256: str | None = None
    # Of the sorted "video_id caption_id" lines; None where captions have no published ids.
    pairs_sha256: str | None = None
    source: str = ""  # Where the protocol comes from
    gallery: Gallery = "split"
    """The test split alone, or with it every video of a folder that is in no split: one that nobody
    described is a distractor. Training and validation videos are never in it."""


@dataclass(frozen=True)
class QuerySet:
    """Q queries over V videos, as one part of a protocol has them.

    >>> import vtr
    >>> world = vtr.open_workspace("demo-world")
    >>> dataset = vtr.load_dataset("demo", annotations=world.annotations, videos=world.videos)
    >>> test = vtr.queries(vtr.load_protocol("demo"), dataset)
    >>> len(test.texts), len(test.video_ids), test.query_video.shape
    (30, 6, (30,))
    """

    protocol: str  # Name of the protocol
    part: Part  # "train", "val" or "test"
    # V ids, the gallery, sorted by their first appearance in the dataset.
    video_ids: tuple[str, ...]
    # Q captions; those of one video stand together, in the order of `video_ids`.
    texts: tuple[str, ...]
    text_ids: tuple[str, ...]  # Q caption ids
    query_video: NDArray[np.int64]  # (Q,) int64, ascending: the video that each query describes
    categories: Mapping[str, str] = field(default_factory=dict)  # Video id to category, where known
    # Video id to the labelled group of its queries, where the dataset has groups.
    groups: Mapping[str, str] = field(default_factory=dict)
    # Video id to the one video that is told apart from it by order alone.
    rivals: Mapping[str, str] = field(default_factory=dict)
    # How this differs from what the protocol declares; empty: as published.
    problems: tuple[str, ...] = ()
    held_out: bool = False  # True for a "val" part that was cut out of the training videos

    def __post_init__(self) -> None:
        if not len(self.texts) == len(self.text_ids) == len(self.query_video):
            raise ValueError("texts, text_ids and query_video differ in length")

    @property
    def digest(self) -> str:
        """sha256 over the gallery and every query with its video: equal means comparable."""
        whole = hashlib.sha256()
        for video_id in self.video_ids:
            whole.update(f"v\0{video_id}\n".encode("utf-8", "surrogatepass"))
        for owner, text in zip(self.query_video.tolist(), self.texts, strict=True):
            whole.update(f"q\0{owner}\0{text}\n".encode("utf-8", "surrogatepass"))
        return whole.hexdigest()


def protocol_names() -> list[str]:
    """Returns the names of all protocols.

    >>> import vtr
    >>> "msrvtt-1kA" in vtr.protocol_names()
    True
    """
    return plugin_names(protocols)


def load_protocol(name: str) -> Protocol:
    """Returns a protocol by its option name.

    >>> import vtr
    >>> vtr.load_protocol("msrvtt-1kA").num_videos
    1000

    Raises:
        UnknownNameError: No such protocol.
    """
    found: Protocol = load_plugin(protocols, name, kind="protocol").PROTOCOL
    return found


def with_gallery(protocol: Protocol, gallery: str | None) -> Protocol:
    """Returns a protocol with the gallery that `--gallery` names; None leaves its own."""
    if gallery is None:
        return protocol
    if gallery not in GALLERIES:
        raise UnknownNameError("gallery", gallery, GALLERIES)
    if protocol.gallery == "split":
        raise ConfigError(
            f"--gallery is for a folder of your own; protocol {protocol.name!r} says itself which "
            "videos are ranked"
        )
    return replace(protocol, gallery=GALLERIES[gallery])


def default_protocol(dataset: str) -> Protocol:
    """Returns the protocol to use where none is named: the dataset's most used one."""
    preferred = {"msrvtt": "msrvtt-1kA", "vatex": "vatex-1k5"}
    fitting = [name for name in protocol_names() if load_protocol(name).dataset == dataset]
    if not fitting:
        raise ConfigError(
            f"no protocol is defined on dataset {dataset!r}. Known protocols: "
            f"{', '.join(protocol_names())}; a new one is one file in vtr/evaluate/protocols"
        )
    wanted = preferred.get(dataset, fitting[0])
    return load_protocol(wanted if wanted in fitting else fitting[0])


def ids_digest(lines: Iterable[str]) -> str:
    """Returns the sha256 of the sorted lines, joined by newlines, as protocols declare it."""
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogatepass")).hexdigest()


def queries(
    protocol: Protocol, dataset: Dataset, part: Part = "test", *, hold_out: float = 0.05
) -> QuerySet:
    """Returns the queries and the gallery of one part of a protocol.

    >>> import vtr
    >>> world = vtr.open_workspace("demo-world")
    >>> dataset = vtr.load_dataset("demo", annotations=world.annotations, videos=world.videos)
    >>> vtr.queries(vtr.load_protocol("demo"), dataset, "train").part
    'train'

    Args:
        protocol: From `load_protocol`.
        dataset: Read by the reader that the protocol names.
        part: "test", "train" or "val". Training videos never include a video of the test part or
            of the validation part. Where there is no validation split, a share of the training
            videos is held out, chosen by a digest of their ids: the same videos on every machine,
            whatever the seed.
        hold_out: That share, 0 to 1.

    Raises:
        DatasetError: The dataset lacks the split or its captions.
        ConfigError: Another dataset, or a protocol without training videos.
    """
    if dataset.name != protocol.dataset:
        raise ConfigError(
            f"protocol {protocol.name!r} is defined on dataset {protocol.dataset!r}; this "
            f"workspace holds {dataset.name!r}. Protocols for it: "
            f"{', '.join(n for n in protocol_names() if load_protocol(n).dataset == dataset.name)}"
        )
    test = _members(protocol, dataset, protocol.test_split)
    if part == "test":
        asked = _query_set(protocol, dataset, part, split=protocol.test_split, members=test)
        if protocol.gallery == "folder":
            listed = {*test, *(i for split in dataset.splits.values() for i in split)}
            others = (i for i in dict.fromkeys(dataset.video_ids) if i not in listed)
            asked = replace(asked, video_ids=(*asked.video_ids, *others))
        return asked
    if protocol.train_split is None:
        raise ConfigError(
            f"protocol {protocol.name!r} names no training videos; train with another protocol of "
            f"{dataset.name!r} or give the captions a split column"
        )
    train, val = _train_and_val(protocol, dataset, set(test), hold_out)
    if part == "val":
        named = validation_split(protocol, dataset)
        split = named or protocol.train_split
        return _query_set(protocol, dataset, part, split=split, members=val, held_out=named is None)
    return _query_set(protocol, dataset, part, split=protocol.train_split, members=train)


def validation_split(protocol: Protocol, dataset: Dataset) -> str | None:
    """Returns the validation split where the protocol names one and the dataset's files give it."""
    return protocol.val_split if dataset.splits.get(protocol.val_split or "") else None


def _train_and_val(
    protocol: Protocol, dataset: Dataset, test: set[str], hold_out: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    train = [i for i in _members(protocol, dataset, str(protocol.train_split)) if i not in test]
    named = validation_split(protocol, dataset)
    if named is not None:
        val = tuple(i for i in _members(protocol, dataset, named) if i not in test)
    else:
        count = max(1, round(hold_out * len(train))) if len(train) > 1 else 0
        val = tuple(
            sorted(train, key=lambda video_id: ids_digest([f"held out\0{video_id}"]))[:count]
        )
    kept = set(val)
    return tuple(video_id for video_id in train if video_id not in kept), val


def _members(protocol: Protocol, dataset: Dataset, split: str) -> tuple[str, ...]:
    members = dataset.splits.get(split, ())
    if not dataset.splits and split == protocol.test_split:
        # A folder whose captions name no split: everything that has a caption is asked for.
        captioned = {caption.video_id for caption in dataset.captions}
        members = tuple(video_id for video_id in dataset.video_ids if video_id in captioned)
    if not members:
        raise DatasetError(_no_split(protocol, dataset, split))
    return members


def _no_split(protocol: Protocol, dataset: Dataset, split: str) -> str:
    """Returns what to say of a split without videos."""
    if not dataset.captions:
        remarks = "".join(f"; {note}" for note in dataset.notes)
        hint = "They come from the files that --annotations names"
        if dataset.name == "folder":
            hint = (
                "Write captions.csv with the columns video, caption and, to train, split (train, "
                "val or test), and name it with --annotations"
            )
        return (
            f"protocol {protocol.name!r} needs captions, and dataset {dataset.name!r} has none"
            f"{remarks}. {hint}"
        )
    found = ", ".join(sorted(dataset.splits)) or "none"
    hint = "; add a column split to the captions" if dataset.name == "folder" else ""
    return (
        f"protocol {protocol.name!r} needs the split {split!r} of dataset {dataset.name!r}, "
        f"which the annotation files do not give. Splits found: {found}{hint}; "
        f"see `vtr data show {dataset.name}`"
    )


def _query_set(
    protocol: Protocol,
    dataset: Dataset,
    part: Part,
    *,
    split: str,
    members: tuple[str, ...],
    held_out: bool = False,
) -> QuerySet:
    place = {video_id: v for v, video_id in enumerate(dict.fromkeys(members))}
    asked = dataset.queries.get(split, dataset.captions)
    chosen = sorted(
        (caption for caption in asked if caption.video_id in place),
        key=lambda caption: place[caption.video_id],  # stable: the files' order within a video
    )
    if not chosen:
        remarks = "".join(f"; {note}" for note in dataset.notes)
        raise DatasetError(
            f"no caption describes any of the {counted(len(place), 'video')} of split {split!r} of "
            f"dataset {dataset.name!r}{remarks}. Captions come from the files that --annotations "
            "names"
        )
    problems = _problems(protocol, place, chosen) if part == "test" else ()
    return QuerySet(
        protocol=protocol.name,
        part=part,
        video_ids=tuple(place),
        texts=tuple(caption.text for caption in chosen),
        text_ids=tuple(caption.id for caption in chosen),
        query_video=np.array([place[caption.video_id] for caption in chosen], dtype=np.int64),
        categories={i: dataset.categories[i] for i in place if i in dataset.categories},
        groups={i: dataset.groups[i] for i in place if i in dataset.groups},
        rivals={i: r for i, r in dataset.rivals.items() if i in place and r in place},
        problems=problems,
        held_out=held_out,
    )


def _problems(protocol: Protocol, members: Iterable[str], chosen: list[Caption]) -> tuple[str, ...]:
    """Returns how the queries differ from what the protocol declares, in words."""
    ids = list(members)
    found = []
    if protocol.num_videos is not None and len(ids) != protocol.num_videos:
        found.append(f"{counted(len(ids), 'video')}, the protocol has {protocol.num_videos:,}")
    elif protocol.ids_sha256 is not None and ids_digest(ids) != protocol.ids_sha256:
        found.append("the video ids are not the published ones")
    if protocol.num_queries is not None and len(chosen) != protocol.num_queries:
        found.append(f"{counted(len(chosen), 'query')}, the protocol has {protocol.num_queries:,}")
    elif protocol.pairs_sha256 is not None:
        pairs = (f"{caption.video_id} {caption.id}" for caption in chosen)
        if ids_digest(pairs) != protocol.pairs_sha256:
            found.append("the queries are not the published captions")
    counts = Counter(caption.video_id for caption in chosen)
    silent = len(ids) - len(counts)
    if silent:
        found.append(f"{counted(silent, 'video has', 'videos have')} no query")
    if protocol.captions != "all" and max(counts.values()) > 1:
        several = sum(count > 1 for count in counts.values())
        found.append(f"more than one query for {counted(several, 'video')}")
    return tuple(found)
