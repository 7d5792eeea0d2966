"""Options declared once: a model per verb, filled from flags, Python keywords and TOML files.

A verb's model names every option with its type, default and range; the text below it is its help.
The command line, the Python functions, the sections of `vtr.toml` and the resolved configuration
all come from it. A value that is not allowed is a ConfigError that says where it stands; of an
unknown name an UnknownNameError suggests the nearest.

>>> class Wash(Settings):
...     cycles: int = option(2, ge=1)
...     "How often."
>>> merge(Wash, [flags({"cycles": 3}), Source({"cycles": 1}, str)]).cycles
3
>>> merge(Wash, [flags({"cycles": 0})])
Traceback (most recent call last):
vtr.errors.ConfigError: --cycles is 0; it must be a whole number, 1 or more
"""

from __future__ import annotations

import inspect
import json
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypedDict, TypeVar, Unpack

import pydantic
from pydantic.fields import FieldInfo

from vtr.errors import ConfigError, UnknownNameError
from vtr.remote import as_path, located, url_of

_GREATEST = 2**63 - 1
"""Of all whole numbers: what NumPy, torch and the files of results hold."""


class Settings(pydantic.BaseModel):
    """Options of one verb, each checked; build one with `merge`, `of` or `changed`."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False,
        use_attribute_docstrings=True,
    )  # fmt: skip
    _typed: frozenset[str] = frozenset()

    def __eq__(self, other: object) -> bool:
        """Whether the same is set, whoever said it."""
        return type(other) is type(self) and other.__dict__ == self.__dict__

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Returns the settings from Python keywords; relative paths start at the current folder."""
        return merge(cls, [Source(values, str, base=Path.cwd())])

    def changed(self, **values: Any) -> Self:
        """Returns these settings with some changed and checked; see `of`."""
        changed = merge(type(self), [Source(values, str, base=Path.cwd()), Source(self.given, str)])
        changed._typed |= self._typed
        return changed

    @property
    def typed(self) -> frozenset[str]:
        """The options that the command line or the call itself named; not those of a file."""
        return self._typed

    def refuse_typed(self, names: Sequence[str], why: str) -> None:
        """Refuses options that are typed and would not be heeded: they would pass for followed."""
        for name in names:
            if name in self._typed:
                raise ConfigError(f"{flag_of(name, type(self).model_fields[name])} {why}")

    @property
    def given(self) -> dict[str, Any]:
        """The options that were set, by flag, keyword or file."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}

    def as_dict(self) -> dict[str, Any]:
        """Returns all options for JSON; paths as text, tuples as lists."""
        return self.model_dump(mode="json")

    @pydantic.field_validator("*", mode="wrap")
    @classmethod
    def _convert(
        cls, value: Any, check: Callable[[Any], Any], info: pydantic.ValidationInfo
    ) -> Any:
        """Takes what stands for the declared type, such as text for a path; keeps our errors."""
        declared = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and not value.strip():
            raise ValueError("empty")
        if isinstance(value, str | Path) and "\0" in str(value):
            raise ValueError("no operating system takes it")
        if isinstance(value, int) and abs(value) > _GREATEST:
            raise ValueError("too large")
        taken = _as_declared(value, declared)
        try:
            return check(taken)
        except ConfigError as error:  # pydantic lets only ValueError pass with its place
            raise ValueError(error) from None
        except pydantic.ValidationError:
            if isinstance(taken, tuple) and not isinstance(value, list | tuple):
                raise ValueError("one alone that is not allowed") from None  # shown as it was given
            raise


def rooted(value: str | Path, base: Path) -> Path:
    """Returns a path that starts at `base`; a URL, and what no path can be, as it was given."""
    path = as_path(value)
    if url_of(path):
        return located(path)
    return path if "\0" in str(path) else base / path


def _as_declared(value: Any, declared: Any) -> Any:
    kinds = plain_types(declared)
    if isinstance(value, str) and Path in kinds and value.strip():
        return as_path(value)
    if isinstance(value, Path) and str in kinds and Path not in kinds:
        return str(value)
    if several := [typing.get_args(kind)[0] for kind in kinds if typing.get_origin(kind) is tuple]:
        return _as_several(value, several[0])
    if isinstance(value, int | float):  # True and False too: they are no numbers here
        return value
    if isinstance(value, numbers.Integral):  # NumPy's numbers
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _as_several(value: Any, kind: type) -> Any:
    """Returns a list as a tuple, each as its kind wants it, and one alone as a tuple of it."""
    alone: tuple[type, ...] = (str, Path) if kind in (str, Path) else (int, float)
    if isinstance(value, alone) and (kind in (str, Path, float) or type(value) is int):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    return tuple(_as_declared(one, kind) for one in value)


def plain_types(declared: Any) -> tuple[Any, ...]:
    """Returns the alternatives of a declared type without None.

    >>> plain_types(int | None)
    (<class 'int'>,)
    """
    if isinstance(declared, types.UnionType) or typing.get_origin(declared) is typing.Union:
        return tuple(kind for kind in typing.get_args(declared) if kind is not types.NoneType)
    return (declared,)


class Facts(TypedDict, total=False):
    """What may be declared of an option beside its type, default and help."""

    group: str  # heading in `--help`
    unset: str  # what happens where it is None, for help ("one per core")
    allowed: str  # what it must be, for errors; without, made from type and range
    file_key: str  # "section.key" of vtr.toml where it is not the verb's section; "-": no file's
    flag: str  # where it is not the name
    short: str  # a second flag of one letter ("-k")
    metavar: str  # the value in help ("DIR")


def option(
    default: Any,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    **facts: Unpack[Facts],
) -> Any:
    """Declares an option of a `Settings` model; the text below it is its help."""
    extra: Any = dict(facts)
    return pydantic.Field(default, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra=extra)


def resolved(*settings: Settings, **used: Any) -> bytes:
    """Returns all options with their values as JSON, for the file beside what they made.

    Of several settings a later one wins, and over all `used`: what "auto" came to.
    """
    values = {name: value for one in settings for name, value in one.as_dict().items()}
    return json.dumps({**values, **used}, indent=2).encode()


Function = TypeVar("Function", bound=Callable[..., Any])


def takes(*models: type[Settings], but: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Gives a function with `**options` the signature that its models declare.

    What inspect.signature, editors and notebooks show, and what `vtr/__init__.pyi` is made from:
    the models' fields are keywords, `but` some are not; of two of a name the first model's counts.
    """

    def signed(function: Function) -> Function:
        plain = inspect.signature(function)
        own = [p for p in plain.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = {
            name: field for model in models[::-1] for name, field in model.model_fields.items()
        }
        more = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=field.default,
                annotation=_keyword_type(field.annotation),
            )
            for name, field in fields.items()
            if name not in {*but, *plain.parameters}
        ]  # fmt: skip
        function.__signature__ = plain.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return function

    return signed


def _keyword_type(declared: Any) -> str:
    """Returns the type of a keyword as source; a text stands for a path, a list for a tuple."""
    if declared in (None, types.NoneType):
        return "None"
    if isinstance(declared, types.UnionType) or typing.get_origin(declared) is typing.Union:
        return " | ".join(dict.fromkeys(map(_keyword_type, typing.get_args(declared))))
    if typing.get_origin(declared) is Annotated:
        return _keyword_type(typing.get_args(declared)[0])
    if typing.get_origin(declared) is tuple:
        return f"Sequence[{_keyword_type(typing.get_args(declared)[0])}]"
    if typing.get_origin(declared) is Literal:
        return f"Literal[{', '.join(map(repr, typing.get_args(declared)))}]"
    return "str | Path" if declared is Path else str(declared.__name__)


def fact(field: FieldInfo, name: str) -> str:
    """Returns what `option` was given under a name; empty where nothing."""
    extra = field.json_schema_extra
    return str(extra.get(name, "")) if isinstance(extra, dict) else ""


def meaning(field: FieldInfo) -> str:
    """Returns the help of an option, in one line."""
    return " ".join((field.description or "").split())


def flag_of(name: str, field: FieldInfo) -> str:
    """Returns the flag of an option."""
    return fact(field, "flag") or f"--{name.replace('_', '-')}"


class Source(NamedTuple):
    """Values from one place; names that are None were not given."""

    values: Mapping[str, Any]
    label: Callable[[str], str] | None
    """Name of an option to how messages call it, such as "vtr.toml:3: frames in [extract]"; None
    calls it by its flag."""
    base: Path | None = None
    """Where relative paths start."""


def flags(values: Mapping[str, Any], *, base: Path | None = None) -> Source:
    """Returns the values that flags gave; paths start at the current folder."""
    return Source(values, None, base or Path.cwd())


Model = TypeVar("Model", bound=Settings)


def merge(model: type[Model], sources: Sequence[Source]) -> Model:
    """Returns the settings of several sources; the first that names an option wins.

    What the first one names is `typed`.
    """
    values: dict[str, Any] = {}
    origin: dict[str, Source] = {}
    for source in reversed(sources):
        for name, value in source.values.items():
            if name not in model.model_fields:
                raise UnknownNameError("option", name, model.model_fields)
            if value is not None:
                values[name], origin[name] = _anchored(model, name, value, source.base), source
    try:
        merged = model(**values)
    except pydantic.ValidationError as failure:
        wrong = failure.errors(include_url=False)[0]
        name = str(wrong["loc"][0]) if wrong["loc"] else ""
        field = model.model_fields.get(name)
        where = name
        if field is not None and name in origin:
            label = origin[name].label
            where = flag_of(name, field) if label is None else label(name)
        raise ConfigError(_message(where, wrong, field)) from None
    first = sources[0].values if sources else {}
    merged._typed = frozenset(name for name, value in first.items() if value is not None)
    return merged


def _message(where: str, wrong: Any, field: FieldInfo | None) -> str:
    cause = (wrong.get("ctx") or {}).get("error")
    if isinstance(cause, ValueError) and cause.args and isinstance(cause.args[0], ConfigError):
        return f"{where}: {cause.args[0]}" if where else str(cause.args[0])
    if field is None:
        return str(wrong["msg"])
    value = wrong["input"]
    too_large = isinstance(value, int) and abs(value) > _GREATEST
    limit = f", at most {_GREATEST}" if too_large else ""
    return f"{where} is {_shown(value)}; it must be {allowed_values(field)}{limit}"


def _shown(value: object) -> str:
    text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def allowed_values(field: FieldInfo) -> str:
    """Returns what an option must be, in words.

    >>> class Wash(Settings):
    ...     speed: Literal["slow", "fast"] | None = option(None)
    >>> allowed_values(Wash.model_fields["speed"])
    '"slow" or "fast"'
    """
    if text := fact(field, "allowed"):
        return text
    return type_in_words(field.annotation, _bounds(field))


def type_in_words(declared: Any, bounds: str = "") -> str:
    """Returns what a value of a declared type is; of a list, what each in it is.

    >>> type_in_words(int | None), type_in_words(list[Literal["slow", "fast"]])
    ('a whole number', '"slow" or "fast"')
    """
    if typing.get_origin(declared) is list:
        declared = typing.get_args(declared)[0]
    return " or ".join(_kind(kind, bounds) for kind in plain_types(declared))


def _kind(kind: Any, bounds: str) -> str:
    if typing.get_origin(kind) is Literal:
        *first, last = (f'"{value}"' for value in typing.get_args(kind))
        return f"{', '.join(first)} or {last}" if first else last
    names = {
        bool: "true or false",
        int: f"a whole number{bounds}",
        float: f"a number{bounds}",
        str: "a text that is not empty",
        Path: "a path, as text",
    }
    return names.get(kind, "a list")


def _bounds(field: FieldInfo) -> str:
    limits = {type(part).__name__.lower(): part for part in field.metadata}
    low, high = [], []
    for key, words in (("ge", "{:g} or more"), ("gt", "above {:g}")):
        if key in limits:
            low.append(words.format(getattr(limits[key], key)))
    for key, words in (("le", "{:g} or less"), ("lt", "below {:g}")):
        if key in limits:
            high.append(words.format(getattr(limits[key], key)))
    parts = [*low, *high]
    return f", {' and '.join(parts)}" if parts else ""


def _anchored(model: type[Settings], name: str, value: Any, base: Path | None) -> Any:
    """Returns a path as an absolute one, and an id or folder that begins as one (./x, ../x)."""
    field = model.model_fields[name]
    kinds = plain_types(field.annotation)
    if base is None:
        return value
    if isinstance(value, str | Path) and Path in kinds and str(value).strip():
        return rooted(value, base)
    may_be_path = {"DIR", "ID"} & set(fact(field, "metavar").split("|"))
    if may_be_path and isinstance(value, str) and value.startswith(("./", "../")):
        return str(rooted(value, base))
    return value
