"""What a `result.json` holds, of which types: written and read through this module alone.

Sections may be absent, as in results of earlier versions; what is there must have its type.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Self

import pydantic
from pydantic_core import PydanticCustomError

from vtr.errors import ConfigError
from vtr.json_files import read_json

RESULT_FILE = "result.json"
PER_QUERY, PER_VIDEO = "per_query.csv", "per_video.csv"  # the tables beside it
SCHEMA = 1
KIND = "vtr-result"
_LARGEST = 1e300
_CARD = {
    "protocol": ("name", "published", "num_queries", "num_videos"),
    "coverage": ("present", "videos", "policy"),
    "setup": ("trained_on_test", "sampler", "fingerprint", "seed", "rerank"),
}
"""Section to the fields that a model card states."""


def _must(allowed: str, is_allowed: Callable[[Any], bool]) -> Any:
    """Returns a check whose error says what is allowed."""

    def check(value: Any) -> Any:
        if not is_allowed(value):
            raise PydanticCustomError("allowed", allowed)
        return value

    return pydantic.BeforeValidator(check)


def _is_number(value: object) -> bool:
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise PydanticCustomError("allowed", "a number that a computer holds")
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= _LARGEST


def _are_numbers(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_number, value)))


def _are_objects(value: object, keys: Sequence[str] = ()) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and entry.keys() >= set(keys) for entry in value
    )


_ROW = ("name", "n", "metrics")
Number = Annotated[Any, _must("a number", _is_number)]
MaybeNumber = Annotated[Any, _must("a number or null", lambda v: v is None or _is_number(v))]
Numbers = Annotated[Any, _must("numbers", _are_numbers)]
Text = Annotated[Any, _must("a text", lambda v: isinstance(v, str))]
MaybeText = Annotated[Any, _must("a text or null", lambda v: v is None or isinstance(v, str))]
Path = Annotated[Any, _must("a path", lambda v: isinstance(v, str))]
Objects = _must("a list of objects", _are_objects)
Rows = _must("a list of objects with name, n and metrics", lambda rows: _are_objects(rows, _ROW))
IsCell = _must("an object with value, low, high and n", lambda v: isinstance(v, dict))


class _Part(pydantic.BaseModel):
    """An object; fields that are not declared may hold anything."""

    model_config = pydantic.ConfigDict(extra="allow", protected_namespaces=())


class _Cell(_Part):
    value: Number
    low: Number = 0
    high: Number = 0
    n: Number = 0


_Cells = dict[str, Annotated[_Cell, IsCell]]


class _Protocol(_Part):
    name: Text = ""
    dataset: MaybeText = None
    part: MaybeText = None
    digest: MaybeText = None
    num_videos: MaybeNumber = None
    num_queries: MaybeNumber = None


class _Coverage(_Part):
    present: Number = 0
    videos: Number = 0
    policy: MaybeText = None
    absent: Annotated[list[dict[str, Any]], Objects] = []


class _Setup(_Part):
    title: MaybeText = None
    fingerprint: Text = ""
    sampler: MaybeText = None
    trained_on_test: MaybeNumber = None
    rerank: MaybeNumber = None


class _Group(_Part):
    n: Number = 0
    metrics: _Cells


class _Postprocessed(_Part):
    metrics: _Cells = {}


class _Pairs(_Part):
    n: MaybeNumber = None
    accuracy: Number
    low: MaybeNumber = None
    high: MaybeNumber = None


class _Similarity(_Part):
    edges: Numbers = None
    matching: Numbers = None
    other: Numbers = None
    matching_mean: MaybeNumber = None
    other_mean: MaybeNumber = None

    @pydantic.model_validator(mode="after")
    def _fit(self) -> Self:
        if self.matching or self.other:
            _require_bins(self.edges, self.matching, self.other)
        return self


class _Histogram(_Part):
    edges: Numbers = None
    counts: Numbers = None

    @pydantic.model_validator(mode="after")
    def _fit(self) -> Self:
        if self.model_fields_set or self.model_extra:
            _require_bins(self.edges, self.counts)
        return self


def _require_bins(edges: Any, *counts: Any) -> None:
    """Refuses counts without one edge more than they are."""
    if any(value is None or len(edges or ()) != len(value) + 1 for value in counts):
        raise PydanticCustomError("allowed", "edges, one more than the counts between them")


class _Hit(_Part):
    score: MaybeNumber = None
    pts_seconds: Numbers = None


_Hits = Annotated[list[_Hit], Objects]


class _Example(_Part):
    rank: Number
    own: _Hit | None = None
    retrieved: _Hits | None = None


class _Videos(_Part):
    paths: dict[str, Path] = {}


class _Result(_Part):
    protocol: _Protocol = _Protocol()
    coverage: _Coverage = _Coverage()
    setup: _Setup = _Setup()
    metrics: _Cells = {}
    postprocessed: dict[str, _Postprocessed] = {}
    groups: dict[str, _Group] = {}
    pairs: dict[str, _Pairs | None] = {}
    breakdowns: dict[str, Annotated[list[_Group], Rows]] = {}
    similarity: _Similarity = _Similarity()
    rank_histogram: _Histogram = _Histogram()
    examples: dict[str, Annotated[list[_Example], Objects]] = {}
    videos: _Videos = _Videos()
    files: dict[str, Any] = {}


def result_bytes(document: Mapping[str, Any]) -> bytes:
    """Returns a document as the bytes of a `result.json`, checked as a reader will check it."""
    require_result(document, source=RESULT_FILE)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def read_result(file: pathlib.Path) -> dict[str, Any]:
    """Reads a `result.json`.

    Raises:
        ConfigError: It is missing, damaged, or no result of this schema.
    """
    document = read_json(file, needed="a result; name a folder that `vtr eval` wrote")
    if document.get("kind") != KIND:
        raise ConfigError(
            f"{file} is no result: its kind is {document.get('kind', 'not given')!r}, that of a "
            f"result {KIND!r}. Name a folder that `vtr eval` wrote"
        )
    schema = document.get("schema")
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        remedy = "A newer vtr wrote it: update this one, or evaluate again" if newer else "Evaluate"
        raise ConfigError(
            f"{file} has schema {schema!r}; this vtr reads schema {SCHEMA}. {remedy} with this "
            "version"
        )
    if not isinstance(document.get("metrics"), dict) or not document["metrics"]:
        raise ConfigError(f"{file} has no metrics; evaluate again")
    for key, entry in document["metrics"].items():
        value = entry.get("value") if isinstance(entry, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{file}: metric {key!r} has no number; evaluate again")
    require_result(document, source=file)
    return document


def require_result(document: Mapping[str, Any], *, source: object, for_card: bool = False) -> None:
    """Checks the types of what is there; `for_card` all that a model card states, with intervals.

    Raises:
        ConfigError: Names the first wrong field of `source`, its value and what is allowed.
    """
    try:
        _Result.model_validate(dict(document))
    except pydantic.ValidationError as failure:
        wrong = failure.errors(include_url=False)[0]
        place = wrong["loc"]
        allowed = wrong["msg"] if wrong["type"] == "allowed" else "an object"
        if wrong["type"] == "missing":
            allowed, place = f"an object with {place[-1]}", place[:-1]
        raise _refusal(source, ": ".join(map(str, place)), wrong["input"], allowed) from None
    if for_card:
        _require_card(document, source)


def _require_card(document: Mapping[str, Any], source: object) -> None:
    metrics = document.get("metrics", {})
    for way in {key.partition("/")[0] for key in metrics} or {"t2v"}:
        if f"{way}/R@1" not in metrics:
            raise _refusal(source, "metrics", list(metrics), f"an object with {way}/R@1")
    for key, cell in metrics.items():
        if not {"value", "low", "high", "n"} <= cell.keys():
            raise _refusal(source, f"metrics: {key}", cell, "an object with value, low, high, n")
    for section, names in _CARD.items():
        held = document.get(section, {})
        for name in names:
            if name not in held:
                raise _refusal(source, section, held, f"an object with {', '.join(names)}")


def _refusal(source: object, name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{source}: {name} is {value!r:.60}; allowed: {allowed}. Evaluate again")
