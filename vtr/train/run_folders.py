"""Folders of runs: where a new one goes, which one is resumed and whether it can be."""

from __future__ import annotations

import fcntl
import glob
import itertools
import json
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from vtr.errors import ConfigError, StoreWriteError
from vtr.files import beside, is_begun, make_folder, take_place
from vtr.json_files import as_fields, flat
from vtr.progress import note
from vtr.remote import as_path
from vtr.train.model import ModelSpec
from vtr.train.presets import TrainSettings
from vtr.train.run import CONFIG, TOWERS, list_runs, read_config, read_outcome, recency


class Target(NamedTuple):
    """Where one training goes."""

    folder: Path  # Of the run
    work: Path  # Where it is trained: there, or beside it where it holds a run to be replaced
    begun: bool  # Whether to go on with what is there

    @property
    def replaces(self) -> bool:
        """Whether it takes the place of another run at the end."""
        return self.work != self.folder


def find_run(runs: Path, name: str | Path) -> Path:
    """Returns the folder that a name means: the run there or, below `runs`, of that name.

    Where neither is a run it is what the message should be about.
    """
    folder = as_path(name)
    if (folder / CONFIG).is_file():
        return folder
    # The path of a flag starts at the current folder by now, that of vtr.toml at its own.
    is_bare = not folder.exists() and folder.parent in (Path(), Path.cwd(), runs.parent)
    if is_bare:
        return runs / folder.name
    return runs / folder if (runs / folder / CONFIG).is_file() else folder


def names_of(name: str, seeds: Sequence[int]) -> list[str]:
    """Returns the names of the folders of one command: with several seeds one for each."""
    return [name] if len(seeds) == 1 else [f"{name}-seed{seed}" for seed in seeds]


def require_free(runs: Path, name: str, seeds: Sequence[int]) -> None:
    """Refuses a name under which there is a run."""
    for folder in (runs / one for one in names_of(name, seeds)):
        if _is_taken(folder):
            raise ConfigError(
                f"the run {folder} exists: continue it with --resume, replace it with --overwrite, "
                "or choose another --name"
            )


def free_name(runs: Path, name: str, seeds: Sequence[int]) -> str:
    """Returns a name under which none of these seeds has a run: this one, or with a number."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(
        base
        for base in itertools.chain([name], numbered)
        if not any(_is_taken(runs / one) for one in names_of(base, seeds))
    )


def _is_taken(folder: Path) -> bool:
    return (folder / CONFIG).exists() or is_begun(folder)


def workplace(folder: Path) -> Path:
    """Returns where a run is unfinished: beside the one that it replaces, or in its own folder."""
    return beside(folder) if _is_resumable(folder) else folder


def _is_resumable(folder: Path) -> bool:
    return is_begun(folder) and (beside(folder) / CONFIG).exists()


def targets_of(folders: Sequence[Path], *, resume: bool, overwrite: bool) -> list[Target]:
    """Returns where each of the runs of one command is trained, and whether it is begun there.

    Runs that replace others are all trained beside them and take their places together, the first
    one first: the first that is still beside says which ones are done.
    """
    there = [(folder / CONFIG).exists() for folder in folders]
    begun = [_is_resumable(folder) for folder in folders]
    if resume and any(begun):
        first = begun.index(True)
        done = [Target(folder, folder, True) for folder in folders[:first]]
        rest = zip(folders[first:], begun[first:], strict=True)
        return [*done, *(Target(folder, beside(folder), is_there) for folder, is_there in rest)]
    if overwrite and not resume and any(there):
        return [Target(folder, beside(folder), False) for folder in folders]
    return [
        Target(folder, folder, resume and is_there)
        for folder, is_there in zip(folders, there, strict=True)
    ]


@contextmanager
def advising(folder: Path, command: str) -> Iterator[None]:
    """Says how to go on where a training is stopped, by its user or by a full disk."""
    try:
        yield
    except (KeyboardInterrupt, StoreWriteError):
        if (folder / CONFIG).exists():
            note(f"to go on with this training: {command}")
        raise


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Holds a run's folder, made if absent, for one training; the kernel lets go when it ends."""
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
    """Returns a name for the folder: head, what else is trained, preset where named."""
    trained = TOWERS if spec.vision is not None else spec.text.mode
    parts = [spec.head, *(part for part in (trained, preset) if part and part != "frozen")]
    return re.sub(r"[^\w.=+-]+", "-", "-".join(parts)).strip("-")


def find_interrupted(runs: Path, name: str | None) -> Path:
    """Returns the run to resume: the named one, else the one last at work that has not finished."""
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


def seed_folders(runs: Path, name: str) -> list[Path]:
    """Returns the runs that `--seeds` made under a name, by their seeds."""
    pattern = re.compile(re.escape(name) + r"-seed(\d+)")
    by_seed = {
        int(match[1]): folder
        for folder in list_runs(runs)
        if (match := pattern.fullmatch(folder.name))
    }
    return [by_seed[seed] for seed in sorted(by_seed)]


_DECISIVE = (
    ("model",),
    ("settings",),
    ("text_model", "weights_sha256"),
    ("features", "fingerprint"),
    ("features", "sampler"),
    ("data", "train_digest"),
    ("teacher",),
)


def begun_settings(folder: Path) -> TrainSettings | None:
    """Returns how a run was begun, which its version's presets decided; None where unknown."""
    place = workplace(folder)
    record = read_config(place).get("settings") if (place / CONFIG).is_file() else None
    if record is None:
        return None
    return as_fields(TrainSettings, record, source=f"{place / CONFIG}: settings")


def check_resumable(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses to go on with other features, training data or model than a run began with."""
    before, now = read_config(folder), json.loads(json.dumps(dict(config)))
    for path in _DECISIVE:
        ours: Any = before
        theirs: Any = now
        for key in path:
            ours = ours.get(key) if isinstance(ours, dict) else None
            theirs = theirs.get(key)
        name, was, now_is = _first_difference(".".join(path), _completed(path, ours), theirs)
        if was != now_is:
            raise ConfigError(
                f"{folder} cannot go on: {name} is not what it was "
                f"({was!s:.80}, now {now_is!s:.80}). Start a new run"
            )


def _first_difference(name: str, ours: Any, theirs: Any) -> tuple[str, Any, Any]:
    """Returns the place of what differs, and the two values; of objects the first such field."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return name, ours, theirs
    before, now = (dict(flat(values, f"{name}.")) for values in (ours, theirs))
    places = (place for place in before | now if before.get(place) != now.get(place))
    place = next(places, name)
    return place, before.get(place), now.get(place)


_KINDS: Mapping[tuple[str, ...], Any] = {("model",): ModelSpec, ("settings",): TrainSettings}


def _completed(path: tuple[str, ...], values: Any) -> Any:
    """Returns what a run began with, beside it what its version did not know, by its default."""
    if path not in _KINDS or not isinstance(values, dict):
        return values
    made = as_fields(_KINDS[path], values, source="the run", error=ConfigError)
    return json.loads(json.dumps(asdict(made)))


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Returns mean, standard deviation (n - 1), least and greatest of every metric.

    >>> summarise([{"t2v/R@1": 40.0}, {"t2v/R@1": 44.0}])["t2v/R@1"]["mean"]
    42.0
    """
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {
        name: {
            "mean": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
            "min": min(values),
            "max": max(values),
        }
        for name in names
        for values in [[float(row[name]) for row in rows]]
    }


def take_places(targets: Sequence[Target], documents: Sequence[Mapping[str, Any]]) -> None:
    """Puts trainings that replace others in their places, with all that belonged to those gone."""
    for target in targets:
        if target.replaces:
            stem, runs = target.folder.name.rpartition("-seed")[0], target.folder.parent
            others = runs.glob(f"{glob.escape(stem)}-seeds-*.json")
            for summary in (summary_file(documents, runs), *others):
                summary.unlink(missing_ok=True)
            take_place(target.folder)


def summary_file(documents: Sequence[Mapping[str, Any]], runs: Path) -> Path:
    """Returns where mean and spread of several seeds stand."""
    return runs / f"{Path(documents[0]['run']).name}-to-{documents[-1]['seed']}.json"
