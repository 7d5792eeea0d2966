"""The names that users choose from: refused before torch is loaded, completed by the shell.

Keyed by the name of the parameter, which is the same on the command line, in Python and in
`vtr.toml`. Nothing here reads a dataset or imports torch.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vtr.clip.device import DEVICES, check_device_name
from vtr.errors import UnknownNameError


@dataclass(frozen=True)
class Choice:
    """One kind of name."""

    listed: Callable[[], Iterable[str]]
    """All names, for the shell."""

    check: Callable[[str], object]
    """Raises a VtrError for a name that does not exist."""

    separator: str = ""
    """Between several names in one value."""

    def complete(self, incomplete: str) -> list[str]:
        """Returns the values that begin so."""
        done, mark, part = incomplete.rpartition(self.separator) if self.separator else ("", "", "")
        part = part if self.separator else incomplete
        return [f"{done}{mark}{name}" for name in self.listed() if name.startswith(part)]


def check_names(values: Mapping[str, object]) -> None:
    """Refuses names that do not exist, before anything is loaded; passes over what is no name.

    Raises:
        UnknownNameError: No such name; the nearest is suggested.
        ConfigError: Nothing named, or an option without a value.
        ModelError: A model that cannot exist.
    """
    for parameter, value in values.items():
        if parameter in CHOICES and isinstance(value, str):
            CHOICES[parameter].check(value)


def _among(kind: str, listed: Callable[[], Iterable[str]]) -> Choice:
    def check(value: str) -> None:
        if value not in (known := list(listed())):
            raise UnknownNameError(kind, value, known)

    return Choice(listed, check)


def _plugins(package: str) -> Callable[[], list[str]]:
    def listed() -> list[str]:
        from vtr.options import plugin_names

        return plugin_names(importlib.import_module(package))

    return listed


def _presets() -> list[str]:
    from vtr.train.presets import PRESETS

    return list(PRESETS)


def _text_modes() -> tuple[str, ...]:
    from vtr.train.presets import TEXT_MODES

    return TEXT_MODES


def _check_head(value: str) -> None:
    """Refuses a head, or an option of one, that does not exist."""
    from vtr.options import read_options, split_choice

    name, pairs = split_choice(value, _plugins("vtr.train.heads")(), kind="head")
    read_options(pairs, head_options(name), owner=("head", name))


def head_options(name: str) -> dict[str, str]:
    """Returns the options of a head and their types.

    Read from the source: a head is one file, and importing its module imports torch.
    """
    module = _source(f"vtr.train.heads.{name.replace('-', '_')}")
    options = _fields(module, "Options")
    named = {
        target.id
        for item in module.body
        if isinstance(item, ast.Assign | ast.AnnAssign)
        for target in (item.targets if isinstance(item, ast.Assign) else [item.target])
        if isinstance(target, ast.Name)
    }
    return {**options, "preset": "str"} if "PRESETS" in named else options


def _source(name: str) -> ast.Module:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _fields(module: ast.Module, name: str) -> dict[str, str]:
    """Returns the fields of a dataclass and their types, those of its bases first."""
    found: dict[str, str] = {}
    for item in module.body:
        if isinstance(item, ast.ImportFrom) and name in {alias.name for alias in item.names}:
            return _fields(_source(str(item.module)), name)
        if isinstance(item, ast.ClassDef) and item.name == name:
            for base in item.bases:
                found |= _fields(module, ast.unparse(base))
            found |= {
                field.target.id: ast.unparse(field.annotation)
                for field in item.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            }
    return found


def _check_samplers(value: str) -> None:
    from vtr.extract.samplers.base import parse_samplers

    parse_samplers(value, embedded=True)


def _check_model(value: str) -> None:
    from vtr.clip.hub import check_model_name

    check_model_name(value)


def _runs() -> list[str]:
    """The folders of the workspace's runs, as they are named from here."""
    from vtr.workspace import workspace_here

    here = Path.cwd()
    found = sorted(path.parent for path in workspace_here().runs.glob("*/config.json"))
    return [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in found]


def _models() -> list[str]:
    from vtr.clip.models import known_models

    return [*known_models(), *(model.hub for model in known_models().values())]


_POLICIES = ("miss", "restrict", "fail")
_RUN = Choice(_runs, lambda _: None)
_SAMPLERS = _plugins("vtr.extract.samplers")
_MODEL = Choice(_models, _check_model)

CHOICES: Mapping[str, Choice] = {
    "protocol": _among("protocol", _plugins("vtr.evaluate.protocols")),
    "dataset": _among("dataset", _plugins("vtr.datasets")),
    "head": Choice(_plugins("vtr.train.heads"), _check_head),
    "sampler": Choice(lambda: [*_SAMPLERS(), "all"], _check_samplers, separator=","),
    "preset": _among("preset", _presets),
    "text": _among("text mode", _text_modes),
    "missing": _among("policy for missing videos", lambda: _POLICIES),
    "gallery": _among("gallery", lambda: ("folder", "captioned")),
    "device": Choice(lambda: DEVICES, check_device_name),
    "model": _MODEL,
    "clip": _MODEL,
    "run": _RUN,
    "teacher": _RUN,
}
