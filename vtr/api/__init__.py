"""The pipeline from Python: each function is one command, with a workspace as its first argument.

A command's settings come from the workspace (`vtr.toml`); keyword arguments stand for its flags and
win over it. Everything lands where the command would put it, so that a notebook and a shell can
work on the same folders.

>>> import vtr
>>> workspace = vtr.open_workspace(".", frames=8)
>>> workspace.frames
8
"""

from __future__ import annotations

import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.settings import takes
from vtr.workspace import Workspace

if TYPE_CHECKING:
    from vtr.extract.choose import FeatureStore


@takes(Workspace, but=("root",))
def open_workspace(folder: str | Path = ".", **settings: object) -> Workspace:
    """Returns the settings of the workspace in or above a folder.

    >>> import vtr
    >>> vtr.open_workspace("demo-world", frames=12).frames
    12

    Args:
        folder: Where to look for `vtr.toml`, and where features and runs go; without a file
            everything starts from the defaults. It need not exist where `videos` are named: it is
            then made by what writes there first.
        settings: What to change, by the names of `vtr.Workspace`: `videos`, `dataset`, `model`,
            `features`, `sampler`, `frames`, ... Relative paths start at the current folder, as
            those of a command's flags do; those in `vtr.toml` start at the file.

    Raises:
        ConfigError: An unknown name, a value that is not allowed, or a folder that does not exist.
    """
    from vtr.errors import ConfigError
    from vtr.workspace import find_workspace

    place: Path = _typed("folder", folder, Path).expanduser()
    if not place.is_dir() and (place.exists() or settings.get("videos") is None):
        raise ConfigError(
            f"no workspace {place}: there is no such folder below {Path.cwd()}. Name one that "
            "exists, or begin one there with videos=FOLDER"
        )
    return _changed(find_workspace(place) or Workspace.at(place), settings)


def open_features(workspace: Workspace, sampler: str | None = None) -> FeatureStore:
    """Returns the workspace's features with the frames of one sampler.

    >>> import vtr
    >>> store = vtr.open_features(vtr.open_workspace("demo-world"), "uniform")
    >>> len(store), store["test-order-000a"].frames.shape
    (26, (8, 96))

    Args:
        workspace: Where the store is, and the budget and seed of samplers.
        sampler: One sampler with its options; on a dense store any, without touching the videos.

    Raises:
        ConfigError: Several samplers, or one that the store cannot serve.
        StoreError: No store there.
    """
    from vtr.api.stores import open_store

    return open_store(_checked(workspace), _typed("sampler", sampler, str | None))


def _changed(workspace: Workspace, settings: Mapping[str, Any]) -> Workspace:
    """Returns the workspace with some settings changed; relative paths start where Python runs.

    Raises:
        ConfigError: An unknown name, a value that is not allowed, or a path that does not exist.
    """
    from vtr.choices import check_names
    from vtr.errors import ConfigError
    from vtr.workspace import settings as merged

    _check_names("setting", settings, Workspace.model_fields)
    check_names({**settings, "model": None})  # a folder may still be made
    changed = merged(_checked(workspace), **settings)
    if settings.get("videos") is not None and not (changed.videos and changed.videos.is_dir()):
        raise ConfigError(f"videos is {changed.videos}; there is no such folder")
    notes = changed.annotations
    if settings.get("annotations") is not None and not (notes and notes.exists()):
        raise ConfigError(f"annotations is {notes}; there is no such file or folder")
    return changed


def _checked(workspace: object) -> Workspace:
    """Returns what should be a workspace.

    Raises:
        ConfigError: It is none.
    """
    from vtr.errors import ConfigError

    if not isinstance(workspace, Workspace):
        raise ConfigError(
            f"the workspace is {_shown(workspace)}; it must be what vtr.open_workspace(FOLDER) "
            "returns"
        )
    return workspace


_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Returns a value of the type that a field is declared with.

    Raises:
        ConfigError: Says what would be one.
    """
    from vtr.errors import ConfigError

    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in allowed:
        return None
    (wanted,) = (kind for kind in allowed if kind is not types.NoneType)
    if wanted is Path and isinstance(value, str | Path):
        return Path(value)
    if typing.get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(name, one, typing.get_args(wanted)[0]) for one in value)
    if wanted in (str, bool) and isinstance(value, wanted):
        return value
    kinds = {int: numbers.Integral, float: numbers.Real}
    number = None if isinstance(value, bool) else kinds.get(wanted)
    if number is not None and isinstance(value, number):
        return wanted(value)
    listed = typing.get_origin(wanted) is tuple
    must = "a tuple of whole numbers" if listed else _KINDS.get(wanted, "a path")
    optional = ", or None" if types.NoneType in allowed else ""
    raise ConfigError(f"{name} is {_shown(value)}; it must be {must}{optional}")


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text:.60}{'...' if len(text) > 60 else ''} ({type(value).__name__})"


def _check_names(kind: str, given: Mapping[str, object], allowed: Iterable[str]) -> None:
    """Refuses an unknown name; suggests the nearest."""
    from vtr.errors import UnknownNameError

    known = [name for name in allowed if name != "root"]
    for name in given:
        if name not in known:
            raise UnknownNameError(kind, name, known)
