"""Whether a `result.json` that may have been edited or damaged has the shape of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from vtr.errors import ConfigError

_OBJECTS = (
    "protocol", "coverage", "setup", "metrics", "postprocessed", "groups", "pairs", "breakdowns",
    "similarity", "rank_histogram", "examples", "videos", "files",
)  # fmt: skip
_NUMBERS = ("edges", "counts", "matching", "other", "pts_seconds")
_RECORDS = ("absent", "success", "failure", "retrieved")
_LARGEST = 1e300


def require_result(
    document: Mapping[str, Any], *, source: object, cells: Sequence[str] = ("value",)
) -> None:
    """Checks the types of what is there, and that every number of the headline has `cells`.

    Raises:
        ConfigError: Names the first wrong field, its value and what is allowed.
    """
    absent = (
        (f"metrics: {key}", cell, f"an object with {', '.join(cells)}")
        for key, cell in document.get("metrics", {}).items()
        if not set(cells) <= cell.keys()
    )
    for name, value, allowed in chain(_wrong(document), absent):
        raise ConfigError(f"{source}: {name} is {value!r:.60}; allowed: {allowed}. Evaluate again")


def _wrong(document: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    for name in _OBJECTS:
        if not isinstance(document.get(name, {}), dict):
            yield name, document[name], "an object"
            return
    if not isinstance(document.get("videos", {}).get("paths", {}), dict):
        yield "videos: paths", document["videos"]["paths"], "an object"
        return
    for video, path in document.get("videos", {}).get("paths", {}).items():
        if not isinstance(path, str):
            yield f"videos: paths: {video}", path, "a path"
    for name, rows in document.get("breakdowns", {}).items():
        if not _is_records(rows) or not all({"name", "n", "metrics"} <= row.keys() for row in rows):
            yield f"breakdowns: {name}", rows, "a list of objects with name, n and metrics"
    yield from _wrong_below(document, "")


def _wrong_cells(metrics: object, place: str) -> Iterator[tuple[str, object, str]]:
    if not isinstance(metrics, dict):
        yield place, metrics, "an object"
        return
    for key, cell in metrics.items():
        if not isinstance(cell, dict):
            yield f"{place}: {key}", cell, "an object with value, low, high and n"
            continue
        for name in ("value", "low", "high", "n"):
            if name in cell and not _is_number(cell[name]):
                yield f"{place}: {key}: {name}", cell[name], "a number"


def _wrong_below(value: object, place: str) -> Iterator[tuple[str, object, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{place}: {key}" if place else str(key)
            if key in _NUMBERS and not _are_numbers(inner):
                yield where, inner, "numbers"
            if key == "n" and not _is_number(inner):
                yield where, inner, "a number"
            if key == "metrics":
                yield from _wrong_cells(inner, where)
            if key in _RECORDS and not _is_records(inner):
                yield where, inner, "a list of objects"
            yield from _wrong_below(inner, where)
    elif isinstance(value, list):
        for inner in value:
            yield from _wrong_below(inner, place)
    elif isinstance(value, int) and abs(value) > _LARGEST:
        yield place, value, "a number that a computer holds"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= _LARGEST


def _is_records(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _are_numbers(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_number, value)))
