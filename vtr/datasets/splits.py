"""Which videos a split has: the published list where it applies, else what the user's files say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vtr.counts import counted
from vtr.datasets.published import published_splits
from vtr.errors import DatasetError
from vtr.foreign import printable
from vtr.names import match_names

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "validate": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Spellings of split names, in lower case, and ours."""


@dataclass(frozen=True)
class SplitList:
    """One file that lists a split."""

    path: Path
    ids: tuple[str, ...]  # The videos it lists
    loose: bool = False  # Published in several versions: may list more than the shipped one


Lists = Mapping[str, Sequence[SplitList]]
"""Split name to the files that list it, the first being the one that counts."""
Splits = Mapping[str, tuple[str, ...]]


def split_name(value: str) -> str:
    """Returns a split's name as we write it.

    >>> split_name("Validate")
    'val'
    """
    name = value.strip()
    return SPLIT_NAMES.get(name.lower(), name)


def settle_splits(
    dataset: str, known: Sequence[str], lists: Lists, marked: Splits
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Decides the members of every split.

    A published split counts where all its videos are annotated; the user's own lists must then say
    the same. Where some are not (a subset, or other data in the same layout), the user's lists and
    the marks of the annotations count, without videos that are not annotated; where there are
    neither, the annotated part of the published splits.

    `known` are the annotated videos, in the files' order; `marked` what the annotations themselves
    put in each split. Returned are the ids of each split, and remarks for people.
    """
    annotated = set(known)
    lists = {
        split: [_respelt(listed, known, annotated) for listed in given]
        for split, given in lists.items()
    }
    published = published_splits(dataset)
    splits: dict[str, tuple[str, ...]] = {}
    for split, ids in published.items():
        if annotated.issuperset(ids):
            given = [*lists.get(split, ())]
            if split in marked:
                given.append(SplitList(Path("the annotations' own split field"), marked[split]))
            for listed in given:
                _require_same(dataset, split, listed, ids)
            splits[split] = ids
    own = dict.fromkeys(split for split in (*lists, *marked) if split not in splits)
    notes = _partial_notes(published, splits, own, annotated)
    for split in own:
        splits[split] = marked.get(split, ())
        if lists.get(split):
            splits[split], remarks = _listed_split(split, lists[split], annotated)
            notes += remarks
    for split, ids in published.items() if not own else ():
        part = tuple(identity for identity in ids if identity in annotated)
        if split not in splits and part:
            splits[split] = part
            notes.append(f"{split}: {len(part):,} of the published {counted(len(ids), 'video')}")
    return {split: ids for split, ids in splits.items() if ids}, notes


def _respelt(listed: SplitList, known: Sequence[str], annotated: Collection[str]) -> SplitList:
    """Returns a list with its ids as the annotations spell them."""
    strange = _without(listed.ids, annotated)
    if not strange:
        return listed
    match = match_names(strange, _without(known, listed.ids))
    own = {name: fit[0] for name, fit in match.files.items() if len(fit) == 1}
    return replace(listed, ids=tuple(own.get(identity, identity) for identity in listed.ids))


def _require_same(dataset: str, split: str, listed: SplitList, published: Sequence[str]) -> None:
    extra, lacking = _without(listed.ids, published), _without(published, listed.ids)
    if (extra and not listed.loose) or lacking:
        raise DatasetError(
            f"{printable(listed.path)} and the published split {split!r} of "
            f"{dataset} differ: {counted(len(listed.ids), 'video')} in the file, "
            f"{len(published):,} published, {len(extra) + len(lacking):,} in only one of them"
            f"{_first('only in the file', extra)}{_first('only in the published list', lacking)}. "
            "If the file is another split, move it elsewhere"
        )


def _listed_split(
    split: str, lists: Sequence[SplitList], annotated: Collection[str]
) -> tuple[tuple[str, ...], list[str]]:
    first = lists[0]
    for other in lists[1:]:
        if set(other.ids) != set(first.ids):
            raise DatasetError(
                f"{printable(first.path)} and {printable(other.path)} list different videos for "
                f"{split!r}; keep one of them"
            )
    members = tuple(identity for identity in first.ids if identity in annotated)
    absent = len(first.ids) - len(members)
    share = f"{absent:,} of {counted(len(first.ids), 'video is', 'videos are')}"
    note = f"{first.path.name}: {share} not annotated and left out of {split!r}"
    return members, [note] if absent else []


def _partial_notes(
    published: Splits, splits: Splits, own: Iterable[str], annotated: Collection[str]
) -> list[str]:
    if len(splits) == len(published):
        return []
    everything = {identity for ids in published.values() for identity in ids}
    whole = f"; complete are {', '.join(splits)}" if splits else ""
    source = f"; {named} come from the files themselves" if (named := ", ".join(own)) else ""
    return [
        f"the annotations hold {counted(len(annotated), 'video')}, "
        f"{len(everything & set(annotated)):,} of the published {len(everything):,}{whole}{source}"
    ]


def _without(ids: Iterable[str], others: Collection[str]) -> list[str]:
    excluded = others if isinstance(others, set) else set(others)
    return [identity for identity in ids if identity not in excluded]


def _first(what: str, ids: Sequence[str]) -> str:
    shown = ", ".join(map(printable, ids[:3])) + ", ..." * (len(ids) > 3)
    return f"; {what}: {shown}" if ids else ""
