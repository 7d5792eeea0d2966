"""JSON documents of ours, read back within limits and as typed fields."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vtr.errors import ConfigError, VtrError
from vtr.files import read_regular

MAX_NESTING = 32
_T = TypeVar("_T")


def read_json(path: Path, *, needed: str, error: type[VtrError] = ConfigError) -> dict[str, Any]:
    """Returns the JSON object that a file of ours holds; see `read_regular` and `parse_json`."""
    return parse_json(
        read_regular(path, needed=needed, error=error), source=path, needed=needed, error=error
    )


def parse_json(
    text: str | bytes, *, source: object, needed: str, error: type[VtrError] = ConfigError
) -> dict[str, Any]:
    """Returns a JSON object such as vtr writes: no key twice, no NaN, not deeply nested.

    For anything else `error` is raised, which names the `source` and what was `needed`.
    """
    try:
        document = json.loads(
            text if isinstance(text, str) else text.decode(),
            object_pairs_hook=_object,
            parse_constant=_number,
            parse_float=_number,
        )
    except UnicodeDecodeError as fault:
        detail = f"no UTF-8: {fault.reason} at byte {fault.start:,}"
    except RecursionError:
        detail = "nested too deeply"
    except ValueError as fault:
        detail = str(fault)
    else:
        if not isinstance(document, dict):
            raise error(f"{source} holds a {type(document).__name__}; needed: {needed}")
        if _nesting(document) <= MAX_NESTING:
            return document
        detail = "nested too deeply"
    raise error(f"{source} is not whole JSON ({detail}); needed: {needed}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.80} twice in one object")
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.80} is no finite number")
    return value


def _nesting(document: Any) -> int:
    level, depth = [document], 0
    while level and depth <= MAX_NESTING:
        depth += 1
        level = [
            value
            for container in level
            for value in (container.values() if isinstance(container, dict) else container)
            if isinstance(value, dict | list)
        ]
    return depth


def as_fields(
    cls: type[_T], values: Any, *, source: object, error: type[VtrError] = ConfigError
) -> _T:
    """Returns a dataclass of JSON values, each checked against the type of its field.

    Fields may be plain values, mappings, tuples and such dataclasses; those with a default may be
    absent. Where one is absent, unknown or of another type, `error` is raised, which names the
    `source`, the field and its value.
    """
    if not isinstance(values, dict):
        raise error(f"{source} is {values!r:.80}; allowed: an object")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    required = {name for name, f in fields.items() if _has_no_default(f)}
    for what, names in (
        ("lacks", required - values.keys()),
        ("has unknown", values.keys() - fields.keys()),
    ):
        if names:
            raise error(f"{source} {what} {', '.join(sorted(map(repr, names)))[:200]}")
    hints = _type_hints(typing.cast(typing.Hashable, cls))
    return cls(
        **{
            name: _typed(value, hints[name], source=f"{source}: {name}", error=error)
            for name, value in values.items()
        }
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every value of nested mappings with its place ("preprocessing.route")."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@functools.cache
def _type_hints(cls: Any) -> dict[str, Any]:
    """Evaluated once: a ledger has a million such objects."""
    return typing.get_type_hints(cls)


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _typed(value: Any, hint: Any, *, source: str, error: type[VtrError]) -> Any:
    """Returns the value as its field holds it: a list as a tuple, an object as a dataclass."""
    several = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if several else (hint,)
    inner = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    if inner is not None and not (value is None and types.NoneType in kinds):
        return as_fields(typing.cast("type[Any]", inner), value, source=source, error=error)
    if not _fits(value, hint):
        wanted = getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint)
        raise error(f"{source} is {value!r:.80}; allowed: {wanted.replace('typing.', '')}")
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is not None:
        return isinstance(value, dict) and all(_fits(one, arguments[1]) for one in value.values())
    if hint is Any:
        return True
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)
