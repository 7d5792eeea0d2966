"""The workspace: a folder with `vtr.toml`, so that daily commands need no flags.

A flag wins over the file, the file over the default; the outcome (`Workspace.as_dict`) is written
beside every artefact. The file's sections `[data]`, `[model]`, `[folders]` and `[extract]` are this
model's; beside them every verb has a section of its own (`[train]`, `[eval]`, ...) in which any of
its options may stand. What cannot be used is refused by a ConfigError that names the flag, or the
file and the line.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import pydantic

from vtr.clip.models import resolve_model
from vtr.datasets.registry import dataset_names
from vtr.errors import ConfigError, UnknownNameError
from vtr.files import make_folder, publish, read_regular
from vtr.foreign import is_undecodable, printable
from vtr.remote import as_path
from vtr.settings import Settings, Source, fact, flags, meaning, merge, option, rooted
from vtr.verbs import verb_names, verb_options

FILE_NAME = "vtr.toml"


def _fps(value: object) -> float | str:
    if value == "native":
        return "native"
    if isinstance(value, str):  # a flag arrives as text
        with contextlib.suppress(ValueError):
            value = float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and value > 0:  # type: ignore[arg-type, operator]
        return float(value)  # type: ignore[arg-type]
    raise ValueError("no rate")


def _dataset(name: str) -> str:
    if name not in dataset_names():
        raise UnknownNameError("dataset", name, dataset_names())
    return name


def _samplers(text: str) -> str:
    from vtr.extract.samplers.base import parse_samplers  # reads every sampler module

    parse_samplers(text)
    return text


def _model(name: str) -> str:
    if is_undecodable(name):
        raise ValueError("not Unicode")
    return str(as_path(name)) if name.startswith("~/") else resolve_model(name)


class Workspace(Settings):
    """The settings that the commands of one folder share; made by `at` or `find_workspace`.

    >>> import vtr
    >>> world = vtr.open_workspace("demo-world")
    >>> world.dataset, world.features.name, world.frames
    ('demo', 'features', 8)
    """

    root: Path = option(Path(), file_key="-")
    """Folder of vtr.toml; relative paths start here."""
    dataset: Annotated[str, pydantic.AfterValidator(_dataset)] = option(
        "folder", group="Data", file_key="data.dataset", metavar="NAME"
    )
    """The reader of the annotation files; `folder` is a plain folder of videos."""
    videos: Path | None = option(None, group="Data", file_key="data.videos", metavar="DIR")
    """Where the videos are, in sub-folders or not, in any container."""
    annotations: Path | None = option(
        None, group="Data", file_key="data.annotations", metavar="DIR"
    )
    """Where the dataset's published annotation files are."""
    model: Annotated[str, pydantic.AfterValidator(_model)] = option(
        "openai/clip-vit-base-patch32", group="Model", file_key="model.id", metavar="ID"
    )
    """The backbone: an image-text model by hub id, short name (`vtr models`) or folder."""
    features: Path = option(
        Path("features"), group="Data", file_key="folders.features", metavar="DIR"
    )
    """Folder of the cached features."""
    runs: Path = option(
        Path("runs"), group="Output and run", file_key="folders.runs", metavar="DIR"
    )
    """Folder of the training runs."""
    fps: Annotated[float | str, pydantic.BeforeValidator(_fps)] = option(
        1.0, group="Frames", file_key="extract.fps", metavar="RATE",
        allowed='frames per second above 0, or "native" for every frame',
    )  # fmt: skip
    """Candidate frames per second of video, or `native` for every frame."""
    frames: int = option(12, group="Frames", file_key="extract.frames", ge=1)
    """Frames that a sampler keeps of each video."""
    sampler: Annotated[str, pydantic.AfterValidator(_samplers)] = option(
        "uniform", group="Frames", file_key="extract.sampler", metavar="NAME,..."
    )
    """Which frames to keep: names separated by commas, options as NAME:key=value, `all`, or
    `dense` for every candidate."""
    seed: int = option(0, group="Frames", file_key="extract.seed", ge=0)
    """Seed of all random choices."""
    route: Literal["exact", "fast"] = option("fast", group="Model", file_key="extract.route")
    """Preprocessing: `fast`, or `exact` for the reference's pixels bit by bit."""
    shard_videos: int = option(256, group="Output and run", file_key="extract.shard_videos", ge=1)
    """Videos per shard of the cache: what is lost at most when a run is stopped."""
    workers: int | None = option(
        None, group="Speed and limits", file_key="extract.workers", unset="one per core", ge=1
    )
    """Decoding processes."""
    timeout_seconds: float = option(
        300.0, group="Speed and limits", file_key="extract.timeout_seconds", flag="--timeout",
        metavar="SECONDS", allowed="a number of seconds above 0", gt=0,
    )  # fmt: skip
    """A video that takes longer than this, in seconds, is given up."""
    batch_size: int | None = option(
        None, group="Speed and limits", file_key="extract.batch_size",
        unset="32 on CPU, 256 on GPU", ge=1,
    )  # fmt: skip
    """Frames per forward pass of the backbone."""

    @classmethod
    def at(cls, root: Path, **values: Any) -> Self:
        """Returns the settings of a folder; relative paths start there."""
        return merge(cls, [Source({**values, "root": root.absolute()}, str)])

    @property
    def candidate_fps(self) -> float | None:
        """Candidate rate in frames per second; None is every frame."""
        return None if self.fps == "native" else float(self.fps)

    def require_videos(self) -> Path:
        """Returns the folder of the videos; refuses where neither the file nor a flag says it."""
        if self.videos is None:
            raise ConfigError(
                f"no videos named: there is no {FILE_NAME} in {Path.cwd()} or above it. "
                "Run `vtr init --videos DIR` first, or give --videos DIR"
            )
        return self.videos

    @pydantic.model_validator(mode="before")
    @classmethod
    def _anchor(cls, values: Any) -> Any:
        """Lets the folders, given or by default, start at the root."""
        root = Path(values.get("root", Path())).absolute()
        for name in ("videos", "annotations", "features", "runs"):
            path = values.get(name, cls.model_fields[name].default)
            if isinstance(path, Path) or (isinstance(path, str) and path.strip()):
                values = {**values, name: rooted(path, root)}
        if str(values.get("model", "")).startswith(("./", "../")):
            values = {**values, "model": str(root / values["model"])}
        return {**values, "root": root}


def find_workspace(start: Path) -> Workspace | None:
    """Returns the workspace that `start` lies in: the nearest `vtr.toml` there or above."""
    path = find_file(start)
    return None if path is None else read_workspace(path)


def need_workspace(usage: str) -> Workspace:
    """Returns the workspace around the current folder; where there is none, says what to name."""
    if (found := find_workspace(Path.cwd())) is None:
        raise ConfigError(
            f"no folder named, and there is no {FILE_NAME} in {Path.cwd()} or above it. {usage}"
        )
    return found


def find_file(start: Path) -> Path | None:
    """Returns the nearest `vtr.toml` in a folder or above it."""
    here = start.resolve()
    files = (folder / FILE_NAME for folder in (here, *here.parents))
    return next((path for path in files if path.is_file()), None)


def read_workspace(path: Path) -> Workspace:
    """Returns the settings in one `vtr.toml`."""
    source = read_source(path, Workspace)
    return merge(Workspace, [source, Source({"root": path.parent.absolute()}, str)])


def settings(workspace: Workspace, **given: object) -> Workspace:
    """Returns a workspace with what flags give changed; relative paths start at the current folder.

    A flag that is None was not given.
    """
    return merge(Workspace, [flags(given), Source(dict(workspace), str)])


def workspace_here(**given: Any) -> Workspace:
    """Returns the workspace around the current folder, or the defaults there; see `settings`."""
    here = Path.cwd()
    return settings(find_workspace(here) or Workspace.at(here), **given)


def write_workspace(workspace: Workspace, *, force: bool = False) -> Path:
    """Writes `vtr.toml` with a comment on every setting; returns its path."""
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


def file_keys(model: type[Settings], verb: str = "") -> dict[str, dict[str, str]]:
    """Returns section to key to option: where each option of a model stands in a file."""
    sections: dict[str, dict[str, str]] = {}
    for name, field in model.model_fields.items():
        place = fact(field, "file_key") or f"{verb}.{name}"
        if place != "-":
            section, _, key = place.partition(".")
            sections.setdefault(section, {})[key] = name
    return sections


def read_source(path: Path, model: type[Settings], *, verb: str = "") -> Source:
    """Returns what `vtr.toml`, or a file of `--config`, says of a model's options.

    `verb` is the model's section; options of other models are left alone.
    """
    file = _read_toml(path)
    wanted, shared = file_keys(model, verb), file_keys(Workspace)
    values, places = {}, {}
    for section, table in file.content.items():
        if section not in {*shared, *verb_names()}:
            unknown = UnknownNameError("section", section, {*shared, *verb_names()})
            raise ConfigError(f"{file.place(section)}: {unknown}")
        if not isinstance(table, dict):
            raise ConfigError(
                f"{file.place(section)}: write [{section}] with its keys on the lines below it"
            )
        for key, value in table.items():
            place = file.place(section, key)
            if name := wanted.get(section, {}).get(key):
                values[name], places[name] = value, f"{place}: {key} in [{section}]"
            else:
                _require_key(section, key, shared, place)
    return Source(values, lambda name: places.get(name, str(path)), path.parent.absolute())


def _require_key(section: str, key: str, shared: Mapping[str, Any], place: str) -> None:
    """Refuses a key that neither the workspace nor the section's verb has."""
    known = set(shared.get(section, ()))
    if key in known:
        return
    if section in verb_names():
        known |= set(file_keys(verb_options(section), section).get(section, ()))
    if key not in known:
        raise ConfigError(f"{place}: {UnknownNameError(f'key in [{section}]', key, known)}")


class _File(NamedTuple):
    """A TOML file, and its text to name the line of a key."""

    path: Path
    text: str
    content: Mapping[str, object]

    def place(self, section: str, key: str | None = None) -> str:
        """Returns "path:line" of a key or a section; "path" where the line is not plain to see."""
        current = ""
        for number, line in enumerate(self.text.split("\n"), start=1):
            if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
                current = header.group(1).strip("\"'")
                if key is None and current == section:
                    return f"{self.path}:{number}"
            if key is None:
                is_here = not current and _defines(line, section)
            else:
                is_here = current == section and _defines(line, key)
            if is_here:
                return f"{self.path}:{number}"
        return str(self.path)


def _read_toml(path: Path) -> _File:
    try:
        text = read_regular(path, needed="settings").decode("utf-8-sig")
        return _File(path, text, tomllib.loads(text))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and a number of too many digits
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _defines(line: str, key: str) -> bool:
    return re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line) is not None


# ---- writing

_HEADER = """\
# A vtr workspace. Commands typed in this folder, or below it, take their settings from here;
# a flag on the command line wins. Relative paths start at this file's folder. Any option of a
# command may stand in a section of its name, such as [train] or [eval].
"""

# What stands behind the comment sign where an optional setting is not set.
_EXAMPLES = {
    "videos": '"videos"',
    "annotations": '"annotations"',
    "workers": "4",
    "batch_size": "256",
}


def _render(workspace: Workspace) -> str:
    lines = [_HEADER]
    for section, keys in file_keys(Workspace).items():
        lines.append(f"[{section}]\n")
        for key, name in keys.items():
            value = getattr(workspace, name)
            text = _EXAMPLES[name] if value is None else _render_value(value, workspace.root)
            sign = "# " if value is None else ""
            lines.append(f"# {_comment(name)}\n{sign}{key} = {text}\n")
        lines.append("\n")
    return "".join(lines).rstrip("\n") + "\n"


def _comment(name: str) -> str:
    field = Workspace.model_fields[name]
    unset = fact(field, "unset")
    text = meaning(field)
    return f"{text.removesuffix('.')}; {unset} unless set." if unset else text


def _render_value(value: object, root: Path) -> str:
    """Returns a number or a text as TOML; JSON's escapes are TOML's, but for DEL."""
    if isinstance(value, Path):
        value = _render_path(value, root)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _render_path(path: Path, root: Path) -> str:
    inside = path.is_relative_to(root)
    text = str(path.relative_to(root) if inside else path)
    if is_undecodable(text):
        raise ConfigError(
            f"the path {printable(text)} is not valid Unicode and cannot be written to "
            f"{FILE_NAME}. Rename the folder or give a link to it"
        )
    # A folder that is really called "~" must not become the home folder.
    return f"./{text}" if text.startswith("~") else text
