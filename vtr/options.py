"""Plug-ins and how users write one: `NAME`, or `NAME:key=value:key=value`.

One file is one plug-in. Its name is the option name, with `_` shown as `-`. Modules whose name
starts with `_`, and those a package names in its `HELPERS`, are not plug-ins.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from vtr.errors import ConfigError, UnknownNameError

OptionValue = bool | int | float | str

_READ: Mapping[str, Callable[[str], OptionValue]] = {
    "bool": lambda word: {"true": True, "false": False}[word.lower()],
    "int": int,
    "float": float,
    "str": str,
}


def plugin_names(package: ModuleType) -> list[str]:
    """Returns the option names of all plug-ins in `package`, sorted."""
    helpers = set(getattr(package, "HELPERS", ()))
    return sorted(
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_") and module.name not in helpers
    )


def load_plugin(package: ModuleType, name: str, *, kind: str) -> ModuleType:
    """Imports the plug-in called `name`; where there is none, the nearest name is suggested."""
    names = plugin_names(package)
    if name not in names:
        raise UnknownNameError(kind, name, names)
    return importlib.import_module(f"{package.__name__}.{name.replace('-', '_')}")


@dataclass(frozen=True)
class NamedChoice:
    """One plug-in with its options, as typed by a user."""

    name: str  # Option name ("uniform")
    # Only the options whose value is not the default.
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The canonical spelling, which reads back to the same choice.

        >>> NamedChoice("seqTransf", {"layers": 2, "heads": 8}).label
        'seqTransf:heads=8:layers=2'
        """
        pairs = [f"{key}={value}" for key, value in sorted(self.options.items())]
        return ":".join([self.name, *pairs])


def split_choice(text: str, names: Iterable[str], *, kind: str) -> tuple[str, list[str]]:
    """Returns the name of a plug-in and its "key=value" texts.

    >>> split_choice("motion:global_share=0.5", ["motion"], kind="sampler")
    ('motion', ['global_share=0.5'])
    """
    name, *pairs = text.strip().split(":")
    names = list(names)
    if not name:
        raise ConfigError(f"--{kind} is empty. Known: {', '.join(names)}")
    if name not in names:
        raise UnknownNameError(kind, name, names)
    return name, pairs


def read_options(
    pairs: Sequence[str], types: Mapping[str, str], *, owner: tuple[str, str]
) -> list[tuple[str, OptionValue]]:
    """Returns the options of a plug-in with their values, in the order typed.

    `pairs` are as `split_choice` gives them, `owner` is kind and name of the plug-in, for errors.

    >>> read_options(["layers=2"], {"layers": "int"}, owner=("head", "seqTransf"))
    [('layers', 2)]

    Raises:
        UnknownNameError: No such option.
        ConfigError: An option without a value, or with one of another type.
    """
    kind, name = owner
    given = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if key not in types:
            raise UnknownNameError(f"option of {kind} {name!r}", key, types)
        if not equals:
            raise ConfigError(f"{kind} option {pair!r} has no value; write {key}=VALUE")
        try:
            given.append((key, _READ[types[key]](text)))
        except (ValueError, KeyError):
            raise ConfigError(
                f"{kind} {name!r}: {key}={text!r} is not of type {types[key]}"
            ) from None
    return given


def types_of(defaults: Mapping[str, OptionValue]) -> dict[str, str]:
    """Returns the name of the type of each option.

    >>> types_of({"layers": 4, "dropout": 0.0})
    {'layers': 'int', 'dropout': 'float'}
    """
    return {key: type(value).__name__ for key, value in defaults.items()}
