"""Which videos a split has: the published list where it applies, else what the user's files say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vtr.counts import counted
from vtr.datasets.published import published_splits
from vtr.errors import DatasetError
from vtr.foreign import printable
from vtr.names import match_names

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Spellings of split names, in lower case, and ours."""


@dataclass(frozen=True)
class SplitList:
    """One file that lists a split."""

    path: Path  # The file
    ids: tuple[str, ...]  # The videos it lists
    # Published in several versions, so that it may list more than the shipped one.
    loose: bool = False


@dataclass(frozen=True)
class SplitSources:
    """Everything that says which video is in which split."""

    dataset: str  # Name of the reader
    known: Sequence[str]  # The annotated videos, in the files' order
    # Split name to the files that list it, the first being the one that counts.
    lists: Mapping[str, Sequence[SplitList]] = field(default_factory=dict)
    # Split name to the videos that the annotations themselves put in it.
    marked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def split_name(value: str) -> str:
    """Returns a split's name as we write it.

    >>> split_name("Validate")
    'val'
    """
    name = value.strip()
    return SPLIT_NAMES.get(name.lower(), name)


def settle_splits(sources: SplitSources) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Decides the members of every split.

    A published split counts where all its videos are annotated; the user's own lists must then say
    the same. Where some are not (a subset, or other data in the same layout), the user's lists and
    the marks of the annotations count, without videos that are not annotated; where there are
    neither, the annotated part of the published splits.

    Args:
        sources: What the files say.

    Returns:
        Split name to ids, and remarks for people.

    Raises:
        DatasetError: A list and the published split, or two lists of a split, differ.
    """
    known = set(sources.known)
    sources = _respelt(sources, known)
    published = published_splits(sources.dataset)
    splits: dict[str, tuple[str, ...]] = {}
    for split, ids in published.items():
        if known.issuperset(ids):
            _check_lists(sources, split, ids)
            splits[split] = ids
    own = [split for split in (*sources.lists, *sources.marked) if split not in splits]
    notes = _partial_note(sources, splits, known)
    for split in dict.fromkeys(own):
        splits[split], remarks = _own_split(sources, split, known)
        notes += remarks
    if not own:
        for split, ids in published.items():
            part = tuple(identity for identity in ids if identity in known)
            if split not in splits and part:
                splits[split] = part
                notes.append(
                    f"{split}: {len(part):,} of the published {counted(len(ids), 'video')}"
                )
    return {split: ids for split, ids in splits.items() if ids}, notes


def _respelt(sources: SplitSources, known: Collection[str]) -> SplitSources:
    """Returns the sources with the lists' ids as the annotations spell them."""

    def respelt(listed: SplitList) -> SplitList:
        members = set(listed.ids)
        strange = [identity for identity in listed.ids if identity not in known]
        if not strange:
            return listed
        found = match_names(strange, [i for i in sources.known if i not in members])
        own = {name: fit[0] for name, fit in found.files.items() if len(fit) == 1}
        return replace(listed, ids=tuple(own.get(identity, identity) for identity in listed.ids))

    lists = {split: tuple(map(respelt, found)) for split, found in sources.lists.items()}
    return replace(sources, lists=lists)


def _check_lists(sources: SplitSources, split: str, published: tuple[str, ...]) -> None:
    for listed in sources.lists.get(split, ()):
        _compare(sources, split, listed, published)
    if split in sources.marked:
        marked = SplitList(Path("the annotations' own split field"), sources.marked[split])
        _compare(sources, split, marked, published)


def _compare(
    sources: SplitSources, split: str, listed: SplitList, published: tuple[str, ...]
) -> None:
    extra = _without(listed.ids, published)
    lacking = _without(published, listed.ids)
    if (extra and not listed.loose) or lacking:
        raise DatasetError(
            f"{printable(str(listed.path))} and the published split {split!r} of "
            f"{sources.dataset} differ: {counted(len(listed.ids), 'video')} in the file, "
            f"{len(published):,} published, {len(extra) + len(lacking):,} in only one of them"
            f"{_first('only in the file', extra)}{_first('only in the published list', lacking)}. "
            "If the file is another split, move it elsewhere"
        )


def _own_split(
    sources: SplitSources, split: str, known: Collection[str]
) -> tuple[tuple[str, ...], list[str]]:
    lists = sources.lists.get(split, ())
    if not lists:
        return sources.marked[split], []
    first = lists[0]
    for other in lists[1:]:
        if set(other.ids) != set(first.ids):
            raise DatasetError(
                f"{printable(str(first.path))} and {printable(str(other.path))} list different "
                f"videos for {split!r}; keep one of them"
            )
    members = tuple(identity for identity in first.ids if identity in known)
    absent = len(first.ids) - len(members)
    if not absent:
        return members, []
    return members, [
        f"{first.path.name}: {absent:,} of {counted(len(first.ids), 'video is', 'videos are')} "
        "not annotated "
        "and left "
        f"out of {split!r}"
    ]


def _partial_note(
    sources: SplitSources, splits: Mapping[str, tuple[str, ...]], known: Collection[str]
) -> list[str]:
    published = published_splits(sources.dataset)
    if not published or len(splits) == len(published):
        return []
    everything = {identity for ids in published.values() for identity in ids}
    whole = f"; complete are {', '.join(splits)}" if splits else ""
    own = [split for split in (*sources.lists, *sources.marked) if split not in splits]
    named = ", ".join(dict.fromkeys(own))
    source = f"; {named} come from the files themselves" if own else ""
    return [
        f"the annotations hold {counted(len(known), 'video')}, {len(everything & set(known)):,} "
        "of the "
        f"published {len(everything):,}{whole}{source}"
    ]


def _without(ids: Iterable[str], others: Iterable[str]) -> list[str]:
    excluded = set(others)
    return [identity for identity in ids if identity not in excluded]


def _first(what: str, ids: Sequence[str]) -> str:
    if not ids:
        return ""
    shown = ", ".join(printable(identity) for identity in ids[:3])
    return f"; {what}: {shown}" + (", ..." if len(ids) > 3 else "")
