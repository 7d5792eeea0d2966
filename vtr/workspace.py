"""The workspace: a folder with `vtr.toml`, so that daily commands need no flags.

The dataclass below is the only place that holds a default. A flag wins over the file, the file over
the default; the outcome (`Workspace.as_dict`) is written beside every artefact.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr.datasets.registry import dataset_names
from vtr.errors import ConfigError, UnknownNameError
from vtr.files import make_folder, publish, read_regular
from vtr.foreign import is_undecodable, printable

FILE_NAME = "vtr.toml"
ROUTES = ("exact", "fast")

Check = Callable[[Any], Any]


class _Wrong(Exception):
    """A value that a check refuses; the message says what is allowed."""


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and not is_undecodable(value):
        return value
    raise _Wrong("a text that is not empty")


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if isinstance(value, str) and value.strip() and "\0" not in value:
        # Unlike Path.expanduser, this leaves "./~x" and the home of nobody as they are.
        return Path(os.path.expanduser(value))  # noqa: PTH111
    raise _Wrong("a path, as text")


def _whole(minimum: int) -> Check:
    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= minimum:
            return value
        raise _Wrong(f"a whole number, {minimum} or more")

    return check


def _seconds(value: object) -> float:
    if _is_positive(value):
        return float(value)  # type: ignore[arg-type]
    raise _Wrong("a number of seconds above 0")


def _fps(value: object) -> float | str:
    if value == "native":
        return "native"
    if isinstance(value, str):  # a flag arrives as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if _is_positive(value):
        return float(value)  # type: ignore[arg-type]
    raise _Wrong('frames per second above 0, or "native" for every frame')


def _is_positive(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]


def _route(value: object) -> str:
    if isinstance(value, str) and value in ROUTES:
        return value
    raise _Wrong(" or ".join(f'"{name}"' for name in ROUTES))


def _dataset(value: object) -> str:
    name = _text(value)
    if name not in dataset_names():
        raise UnknownNameError("dataset", name, dataset_names())
    return name


def _sampler(value: object) -> str:
    from vtr.extract.samplers.base import parse_samplers  # reads every sampler module

    name = _text(value)
    parse_samplers(name)
    return name


def _model(value: object) -> str:
    name = _text(value)
    return str(Path(name).expanduser()) if name.startswith("~/") else name


@dataclass(frozen=True)
class Workspace:
    """The settings of every command, each checked.

    Args:
        root: The folder of `vtr.toml`; relative paths of the other settings start here.
        dataset: Name of the reader.
        videos: Folder of the videos.
        annotations: Folder of the published annotations.
        model: Hub id or folder of the backbone.
        features: Folder of the cached features.
        runs: Folder of the training runs.
        fps: Candidate frames per second, or "native".
        frames: Frames that a sampler keeps of a video.
        sampler: One sampler or several, as `--sampler` takes them.
        seed: Seed of all random choices.
        route: Preprocessing, "fast" or "exact".
        shard_videos: Videos per shard.
        workers: Decoding processes; None is one per core.
        timeout_seconds: Wall-clock limit per video.
        batch_size: Frames per forward pass; None leaves it to the device.

    Raises:
        ConfigError: A value of the wrong type or out of range.
    """

    root: Path
    dataset: str = "folder"
    videos: Path | None = None
    annotations: Path | None = None
    model: str = "openai/clip-vit-base-patch32"
    features: Path = Path("features")
    runs: Path = Path("runs")
    fps: float | str = 1.0
    frames: int = 12
    sampler: str = "uniform"
    seed: int = 0
    route: str = "fast"
    shard_videos: int = 256
    workers: int | None = None
    timeout_seconds: float = 300.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.absolute())
        for name in _SETTINGS:
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                value = _anchored(_checked(name, value, label=name), self.root)
            object.__setattr__(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """Returns all settings for JSON; paths are absolute."""
        values = dataclasses.asdict(self)
        return {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}


@dataclass(frozen=True)
class _Setting:
    """Where a setting stands in the file and what it may be."""

    section: str
    key: str
    check: Check


_SETTINGS = {
    "dataset": _Setting("data", "dataset", _dataset),
    "videos": _Setting("data", "videos", _path),
    "annotations": _Setting("data", "annotations", _path),
    "model": _Setting("model", "id", _model),
    "features": _Setting("folders", "features", _path),
    "runs": _Setting("folders", "runs", _path),
    "fps": _Setting("extract", "fps", _fps),
    "frames": _Setting("extract", "frames", _whole(1)),
    "sampler": _Setting("extract", "sampler", _sampler),
    "seed": _Setting("extract", "seed", _whole(0)),
    "route": _Setting("extract", "route", _route),
    "shard_videos": _Setting("extract", "shard_videos", _whole(1)),
    "workers": _Setting("extract", "workers", _whole(1)),
    "timeout_seconds": _Setting("extract", "timeout_seconds", _seconds),
    "batch_size": _Setting("extract", "batch_size", _whole(1)),
}
_OPTIONAL = frozenset({"videos", "annotations", "workers", "batch_size"})  # None is allowed
_FLAGS = {"timeout_seconds": "--timeout"}  # where it is not the setting's name


def find_workspace(start: Path) -> Workspace | None:
    """Returns the workspace that `start` lies in: the nearest `vtr.toml` there or above.

    Raises:
        ConfigError: The file cannot be read, or says something that is not allowed.
    """
    here = start.resolve()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return read_workspace(folder / FILE_NAME)
    return None


def read_workspace(path: Path) -> Workspace:
    """Returns the settings in one `vtr.toml`.

    Raises:
        ConfigError: It cannot be read, is not TOML, or names an unknown section, an unknown key or
            a value that is not allowed; the message carries the line.
    """
    try:
        text = read_regular(path, needed="settings of `vtr init`").decode("utf-8-sig")
        content = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and a number of too many digits
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return Workspace(path.parent, **_read_sections(content, _Source(path, text)))


def settings(
    workspace: Workspace | None, *, root: Path | None = None, **flags: object
) -> Workspace:
    """Returns the settings of one command: flags over the workspace over the defaults.

    Args:
        workspace: From `find_workspace`, or None outside of any.
        root: Where relative paths of the flags start; default the current folder. Without a
            workspace also the root of the default folders.
        flags: Settings by the names of `Workspace`; None means that the flag was not given.

    Raises:
        ConfigError: A flag's value is not allowed, or names what does not exist.
    """
    base = (root or Path()).absolute()
    given: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None:
            continue
        label = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        given[name] = _anchored(_checked(name, value, label=label), base)
    return dataclasses.replace(workspace or Workspace(base), **given)


def write_workspace(workspace: Workspace, *, force: bool = False) -> Path:
    """Writes `vtr.toml` with a comment on every setting; returns its path.

    Args:
        workspace: The settings; `workspace.root` is made where it does not exist.
        force: Replace an existing file.

    Raises:
        ConfigError: The file exists, or a path cannot be written as UTF-8 text.
        StoreWriteError: The file system refused.
    """
    path = workspace.root / FILE_NAME
    if not force and (path.exists() or path.is_symlink()):
        raise ConfigError(
            f"{path} exists already. Edit it, choose another folder with --path, or replace it "
            "with --force"
        )
    payload = _render(workspace).encode()
    make_folder(workspace.root, option="--path")
    publish(path, payload)
    return path


# ---- reading


@dataclass(frozen=True)
class _Source:
    """The text that settings come from, to name the line of one."""

    path: Path
    text: str

    def place(self, section: str, key: str | None = None) -> str:
        """Returns "path:line" of a key or a section; "path" where the line is not plain to see."""
        current = ""
        for number, line in enumerate(self.text.split("\n"), start=1):
            if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
                current = header.group(1).strip("\"'")
                if key is None and current == section:
                    return f"{self.path}:{number}"
            if key is None:
                found = not current and _defines(line, section)
            else:
                found = current == section and _defines(line, key)
            if found:
                return f"{self.path}:{number}"
        return str(self.path)


def _defines(line: str, key: str) -> bool:
    return re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line) is not None


def _read_sections(content: Mapping[str, object], source: _Source) -> dict[str, Any]:
    names: dict[str, dict[str, str]] = {}
    for name, setting in _SETTINGS.items():
        names.setdefault(setting.section, {})[setting.key] = name
    values: dict[str, Any] = {}
    for section, table in content.items():
        place = source.place(section)
        if section not in names:
            raise ConfigError(f"{place}: {UnknownNameError('section', section, names)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{place}: write [{section}] with its keys on the lines below it")
        for key, value in table.items():
            place = source.place(section, key)
            if key not in names[section]:
                unknown = UnknownNameError(f"key in [{section}]", key, names[section])
                raise ConfigError(f"{place}: {unknown}")
            name = names[section][key]
            values[name] = _checked(name, value, label=f"{place}: {key} in [{section}]")
    return values


def _checked(name: str, value: object, *, label: str) -> Any:
    try:
        return _SETTINGS[name].check(value)
    except _Wrong as allowed:
        raise ConfigError(f"{label} is {value!r}; it must be {allowed}") from None
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from None


def _anchored(value: Any, root: Path) -> Any:
    """Returns paths, and a model given as a path (./x, ../x), as absolute ones."""
    if isinstance(value, Path):
        return root / value
    if isinstance(value, str) and value.startswith(("./", "../")):
        return str(root / value)
    return value


# ---- writing

_TEMPLATE = """\
# A vtr workspace. Commands typed in this folder, or below it, take their settings from here;
# a flag on the command line wins. Relative paths start at this file's folder.

[data]
# The reader of the annotation files; "folder" is a plain folder of videos.
dataset = {dataset}
# Where the videos are, in sub-folders or not, in any container.
{videos}
# Where the dataset's published annotation files are.
{annotations}

[model]
# The backbone: a Hugging Face dual encoder by hub id, or a local folder.
id = {model}

[folders]
# Cached features and training runs.
features = {features}
runs = {runs}

[extract]
# Candidate frames per second of video, or "native" for every frame.
fps = {fps}
# Frames that a sampler keeps of each video.
frames = {frames}
# Which frames to keep; several names, separated by commas, share one decode.
sampler = {sampler}
# Seed of all random choices.
seed = {seed}
# Preprocessing: "fast", or "exact" for the reference's pixels bit by bit.
route = {route}
# Videos per shard of the cache: what is lost at most when a run is stopped.
shard_videos = {shard_videos}
# Decoding processes; one per core unless set.
{workers}
# A video that takes longer than this, in seconds, is given up.
timeout_seconds = {timeout_seconds}
# Frames per forward pass of the backbone; what suits the device unless set.
{batch_size}
"""

# What stands behind the comment sign where an optional setting is not set.
_EXAMPLES = {
    "videos": '"videos"',
    "annotations": '"annotations"',
    "workers": "4",
    "batch_size": "256",
}


def _render(workspace: Workspace) -> str:
    values = {
        name: _render_path(value, workspace.root)
        if isinstance(value, Path)
        else _render_value(value)
        for name in _SETTINGS
        if (value := getattr(workspace, name)) is not None
    }
    for name, example in _EXAMPLES.items():
        values[name] = f"{name} = {values[name]}" if name in values else f"# {name} = {example}"
    return _TEMPLATE.format(**values)


def _render_path(path: Path, root: Path) -> str:
    inside = path.is_relative_to(root)
    text = str(path.relative_to(root) if inside else path)
    if is_undecodable(text):
        raise ConfigError(
            f"the path {printable(text)} is not valid Unicode and cannot be written to "
            f"{FILE_NAME}. Rename the folder or give a link to it"
        )
    # A folder that is really called "~" must not become the home folder.
    return _render_value(f"./{text}" if text.startswith("~") else text)


def _render_value(value: object) -> str:
    """Returns a number or a text as TOML; JSON's escapes are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
