"""Folders of runs: where a new one goes, which one is resumed and whether it can be."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.progress import note

if TYPE_CHECKING:
    from vtr.api.training import Request
    from vtr.train.model import ModelSpec
    from vtr.workspace import Workspace


def run_folder(runs: Path, name: str, *, chosen: bool, overwrite: bool) -> Path:
    """Returns the folder of a new run.

    Args:
        runs: Folder of all runs.
        name: Its name.
        chosen: By the user; else a number is added where it is taken.
        overwrite: Use it although it is taken.

    Raises:
        ConfigError: The chosen name is taken.
    """
    from vtr.errors import ConfigError

    folder = runs / name
    if overwrite or not _is_taken(folder):
        return folder
    if chosen:
        raise ConfigError(
            f"the run {folder} exists: continue it with --resume, replace it with --overwrite, or "
            "choose another --name"
        )
    number = 2
    while _is_taken(runs / f"{name}-{number}"):
        number += 1
    return runs / f"{name}-{number}"


def _is_taken(folder: Path) -> bool:
    from vtr.files import is_begun
    from vtr.train.run import CONFIG

    return (folder / CONFIG).exists() or is_begun(folder)


def workplace(folder: Path) -> Path:
    """Returns where a run is unfinished: beside the one that it replaces, or in its own folder."""
    from vtr.files import beside

    return beside(folder) if _is_resumable(folder) else folder


def _is_resumable(folder: Path) -> bool:
    from vtr.files import beside, is_begun
    from vtr.train.run import CONFIG

    return is_begun(folder) and (beside(folder) / CONFIG).exists()


def workplaces(
    folders: Sequence[Path], *, resume: bool, overwrite: bool
) -> list[tuple[Path, bool]]:
    """Returns where each of the runs of one command is trained, and whether it is begun there.

    Runs that replace others are all trained beside them and take their places together, the first
    one first: which ones are done is told by the first that is still beside.

    Args:
        folders: Of the runs, in the order of their training.
        resume: Go on with what is there.
        overwrite: Replace what is there.
    """
    from vtr.files import beside
    from vtr.train.run import CONFIG

    there = [(folder / CONFIG).exists() for folder in folders]
    begun = [_is_resumable(folder) for folder in folders]
    if resume and any(begun):
        first = begun.index(True)
        done = [(folder, True) for folder in folders[:first]]
        rest = zip(folders[first:], begun[first:], strict=True)
        return [*done, *((beside(folder), is_there) for folder, is_there in rest)]
    if overwrite and not resume and any(there):
        return [(beside(folder), False) for folder in folders]
    return [(folder, resume and is_there) for folder, is_there in zip(folders, there, strict=True)]


def require_free(runs: Path, name: str, seeds: range) -> None:
    """Refuses a chosen name that is taken, before anything is loaded or embedded.

    Args:
        runs: Folder of all runs.
        name: What was chosen; with several seeds the beginning of their names.
        seeds: Of the trainings.

    Raises:
        ConfigError: It is taken.
    """
    names = [name] if len(seeds) == 1 else [f"{name}-seed{seed}" for seed in seeds]
    for one in names:
        run_folder(runs, one, chosen=True, overwrite=False)


_LONGEST_NAME = 200


def check_place(name: str | None, *, resume: bool, overwrite: bool) -> None:
    """Refuses flags on the run's folder that cannot be followed.

    Raises:
        ConfigError: A path for a name, or two flags that exclude each other.
    """
    from vtr.errors import ConfigError

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: choose one")
    if name is None:
        return
    plain = bool(name) and name not in (".", "..") and not set(name) & set("/\\\0")
    if not plain or len(os.fsencode(name)) > _LONGEST_NAME:
        raise ConfigError(
            f"--name is {_short(name)!r}; allowed: one folder name of at most {_LONGEST_NAME} "
            "bytes, without slashes. --runs says where the folder goes"
        )


def flags_from_here(workspace: Workspace, *names: str) -> str:
    """Returns the flags without which a command typed here would use other settings than these.

    Args:
        workspace: The settings of the command that was typed here.
        names: Which of them the next command takes.

    Returns:
        Such as " --features /data/h14"; empty where the workspace around us says the same.
    """
    from vtr.workspace import find_workspace, settings

    here = settings(find_workspace(Path.cwd()))
    pairs = [(name, getattr(workspace, name)) for name in names]
    return "".join(
        f" --{name} {shlex.quote(str(value))}"
        for name, value in pairs
        if value is not None and value != getattr(here, name)
    )


def eval_command(workspace: Workspace, runs: Sequence[str]) -> str:
    """Returns the command that tests a run just trained, or the runs of several seeds."""
    from vtr.train.run import read_config

    protocol = (read_config(Path(runs[0])).get("request") or {}).get("protocol")
    named, several = runs[0], ""
    if len(runs) > 1:
        named, several = named.rpartition("-seed")[0], " --seeds"
    asked = f" --protocol {shlex.quote(protocol)}" if protocol else ""
    flags = flags_from_here(workspace, "features", "dataset", "annotations", "videos")
    return f"vtr eval --run {shlex.quote(named)}{several}{asked}{flags}"


def resume_command(workspace: Workspace, name: str, *, seeds: int) -> str:
    """Returns the command that goes on with a training, or with all of several seeds."""
    several = f" --seeds {seeds}" if seeds > 1 else ""
    flags = flags_from_here(
        workspace, "runs", "features", "dataset", "annotations", "videos", "model"
    )
    return f"vtr train{several} --name {shlex.quote(name)} --resume{flags}"


@contextmanager
def telling(folder: Path, command: str) -> Iterator[None]:
    """Tells how to go on where a training is stopped, by its user or by a full disk.

    Args:
        folder: Of the run, the first one of several seeds.
        command: What goes on with it.
    """
    from vtr.errors import StoreWriteError
    from vtr.train.run import CONFIG

    try:
        yield
    except (KeyboardInterrupt, StoreWriteError):
        if (folder / CONFIG).exists():
            note(f"to go on with this training: {command}")
        raise


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Holds a run's folder, made if absent, for one training; the kernel lets go when it ends.

    Raises:
        ConfigError: Another training holds it: two would mix their epochs.
        StoreWriteError: The folder cannot be made.
    """
    from vtr.errors import ConfigError
    from vtr.files import make_folder

    make_folder(folder, option="--runs")
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another training is writing {folder}: wait for it to end, or choose another "
                "--name"
            ) from None
        except OSError:
            pass  # some network file systems lock no folders: then nothing is guarded
        yield
    finally:
        os.close(descriptor)


def default_name(spec: ModelSpec, preset: str | None) -> str:
    """Returns a name for the folder: head, text mode where not frozen, preset where named."""
    parts = [spec.head] + [
        part for part in (spec.text.mode, preset) if part not in (None, "frozen")
    ]
    return re.sub(r"[^\w.=+-]+", "-", "-".join(str(part) for part in parts)).strip("-")


def find_interrupted(runs: Path, name: str | None) -> Path:
    """Returns the run to resume: the named one, else the one last at work that has not finished.

    Raises:
        ConfigError: None is there.
    """
    from vtr.errors import ConfigError
    from vtr.train.run import CONFIG, list_runs, read_outcome, recency

    known = list_runs(runs)
    if name is not None:
        if runs / name not in known:
            there = ", ".join(sorted(folder.name for folder in known)) or "none"
            raise ConfigError(f"no run {name!r} in {runs} to resume. Runs there: {there}")
        return runs / name
    # One that replaces another is unfinished until it has taken its place.
    unfinished = {
        folder: work
        for folder in known
        for work in [workplace(folder)]
        if (work != folder or read_outcome(folder) is None) and (work / CONFIG).exists()
    }
    if not unfinished:
        raise ConfigError(f"nothing to resume: every run in {runs} has finished, or there is none")
    return max(unfinished, key=lambda folder: recency(unfinished[folder]))


def seeds_name(runs: Path, name: str, seeds: range) -> str:
    """Returns a name under which none of these seeds has a run: this one, or with a number."""

    def taken(base: str) -> bool:
        return any(_is_taken(runs / f"{base}-seed{seed}") for seed in seeds)

    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(base for base in itertools.chain([name], numbered) if not taken(base))


def seed_folders(runs: Path, name: str) -> list[Path]:
    """Returns the runs that `--seeds` made under a name, by their seeds."""
    from vtr.train.run import list_runs

    pattern = re.compile(re.escape(name) + r"-seed(\d+)")
    found = {
        int(match[1]): folder
        for folder in list_runs(runs)
        if (match := pattern.fullmatch(folder.name))
    }
    return [found[seed] for seed in sorted(found)]


def resumed_request(folder: Path, request: Request) -> Request:
    """Returns the flags with which an unfinished run was started.

    Raises:
        ConfigError: A flag given now says something else.
    """
    from vtr.errors import ConfigError
    from vtr.files import as_fields
    from vtr.train.run import CONFIG, read_config

    folder = workplace(folder)
    stored = read_config(folder).get("request") or {}
    as_fields(type(request), stored, source=f"{folder / CONFIG}: request")
    changed = [
        f"--{key.replace('_', '-')} {value} (was {stored.get(key, 'not given')})"
        for key, value in request.as_dict().items()
        if stored.get(key) != value
    ]
    if changed:
        raise ConfigError(
            f"{folder} was started with other settings: {', '.join(changed)}. A resumed run keeps "
            "its own: leave the flags out, or start a new run with --name"
        )
    return replace(request, **stored)


def check_resumable(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses to go on with other data than a run began with.

    Raises:
        ConfigError: The features, the training data or the model changed since.
    """
    from vtr.errors import ConfigError
    from vtr.train.run import read_config

    before = json.loads(json.dumps(read_config(folder)))
    now = json.loads(json.dumps(dict(config)))
    decisive = (
        ("model",),
        ("settings",),
        ("text_model", "weights_sha256"),
        ("features", "fingerprint"),
        ("features", "sampler"),
        ("data", "train_digest"),
        ("teacher",),
    )
    for path in decisive:
        ours, theirs = before, now
        for key in path:
            ours = ours.get(key) if isinstance(ours, dict) else None
            theirs = theirs.get(key)
        if ours != theirs:
            raise ConfigError(
                f"{folder} cannot go on: {'.'.join(path)} is not what it was "
                f"({_short(ours)}, now {_short(theirs)}). Start a new run"
            )


def _short(value: object, limit: int = 80) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
