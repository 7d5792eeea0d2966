"""The published splits, shipped with the package: ids and pairs of ids, never captions.

`data/NAME.txt.xz` holds the splits of one dataset as text, `data/index.json` how many ids each
split has and the SHA-256 of its id list; `data/README.md` says where the lists come from.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from vtr.errors import DatasetError

_RANGE = re.compile(r"(.*?)(0|[1-9]\d*)\.\.(\d+)")


def ids_sha256(ids: Iterable[str]) -> str:
    r"""Returns the SHA-256 of an id list: UTF-8, in order, each id followed by a line feed.

    >>> ids_sha256(["video0", "video1"])[:12]
    '46cb890c3771'
    """
    return hashlib.sha256("".join(f"{identity}\n" for identity in ids).encode()).hexdigest()


@cache
def split_facts(dataset: str) -> Mapping[str, Mapping[str, int | str]]:
    """Returns "count" and "sha256" of a dataset's published splits; empty where none ship."""
    return MappingProxyType(json.loads(_resource("index.json")).get(dataset, {}))


@cache
def published_splits(dataset: str) -> Mapping[str, tuple[str, ...]]:
    """Returns the ids of a dataset's published splits, as published; empty without any."""
    splits = {split: tuple(row[0] for row in rows) for split, rows in _rows(dataset).items()}
    for split, facts in split_facts(dataset).items():
        ids = splits.get(split, ())
        if facts != {"count": len(ids), "sha256": ids_sha256(ids)}:
            raise DatasetError(
                f"the list of {dataset} {split!r} that ships with vtr is damaged; "
                "install the package again"
            )
    return MappingProxyType(splits)


@cache
def published_pairs(dataset: str, split: str) -> tuple[tuple[str, str], ...]:
    """Returns the (video id, caption id) pairs of a split that fixes a caption per video, or ()."""
    return tuple(row for row in _rows(dataset).get(split, ()) if row[1])


def unpack_splits(payload: bytes) -> dict[str, list[tuple[str, str]]]:
    """Returns split name to (id, caption id or empty text) of one shipped file."""
    splits: dict[str, list[tuple[str, str]]] = {}
    rows: list[tuple[str, str]] = []
    for line in lzma.decompress(payload).decode().splitlines():
        if line.startswith("["):
            rows = splits.setdefault(line[1:-1], [])
        elif between := _RANGE.fullmatch(line):
            stem, first, last = between.groups()
            rows += [(f"{stem}{number}", "") for number in range(int(first), int(last) + 1)]
        else:
            identity, _, caption = line.partition(" ")
            rows.append((identity, caption))
    return splits


@cache
def _rows(dataset: str) -> Mapping[str, Sequence[tuple[str, str]]]:
    if not split_facts(dataset):
        return {}
    try:
        return unpack_splits(_resource(f"{dataset}.txt.xz"))
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"the splits of {dataset} that ship with vtr cannot be read ({error}); "
            "install the package again"
        ) from None


def _resource(name: str) -> bytes:
    return (files("vtr.datasets") / "data" / name).read_bytes()
