"""The pipeline from Python: each function is one command, with a workspace as its first argument.

A command's settings come from the workspace (`vtr.toml`); keyword arguments stand for its flags and
win over it. Everything lands where the command would put it, so that a notebook and a shell can
work on the same folders. What a user can mend is a `VtrError`: its message says what and how.

>>> import vtr
>>> workspace = vtr.open_workspace(".", frames=8)
>>> workspace.frames
8
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.choices import check_names
from vtr.errors import ConfigError, UnknownNameError
from vtr.remote import as_path
from vtr.settings import takes
from vtr.workspace import Workspace, find_workspace
from vtr.workspace import settings as merged

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
    if not isinstance(folder, str | Path):
        raise ConfigError(f"folder is {_shown(folder)}; it must be a path")
    place = as_path(str(folder))
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

    if not isinstance(sampler, str | None):
        raise ConfigError(f"sampler is {_shown(sampler)}; it must be a text, or None")
    return open_store(_checked(workspace), sampler)


def _changed(workspace: Workspace, settings: Mapping[str, Any]) -> Workspace:
    """Returns the workspace with some settings changed; relative paths start where Python runs."""
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
    """Returns what should be a workspace."""
    if not isinstance(workspace, Workspace):
        raise ConfigError(
            f"the workspace is {_shown(workspace)}; it must be what vtr.open_workspace(FOLDER) "
            "returns"
        )
    return workspace


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text:.60}{'...' if len(text) > 60 else ''} ({type(value).__name__})"


def _check_names(kind: str, given: Mapping[str, object], allowed: Iterable[str]) -> None:
    """Refuses an unknown name; suggests the nearest."""
    known = [name for name in allowed if name != "root"]
    for name in given:
        if name not in known:
            raise UnknownNameError(kind, name, known)
