"""`vtr data`: which datasets there are, what their files say, which videos are really there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.commands.console import print_json, say
from vtr.counts import counted
from vtr.progress import note, progress

if TYPE_CHECKING:
    from vtr.datasets.base import Dataset
    from vtr.datasets.registry import VideoSurvey
    from vtr.extract.worker import Answer, Handler
    from vtr.workspace import Workspace

FINISHED_WITH_FAILURES = 3
MAX_LISTED = 10
HANDLER = "vtr.commands.data:make_handler"

group = typer.Typer(no_args_is_help=True)

DatasetArgument = Annotated[
    str | None,
    typer.Argument(help="Which dataset; in a workspace its own.", show_default=False),
]
VideosOption = Annotated[
    Path | None, typer.Option(help="Folder of the videos.", show_default=False)
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the published annotation files.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.add_typer(group, name="data", help="List, show and verify datasets.")


@group.command("list")
def list_datasets(as_json: JsonOption = False) -> None:
    """List the datasets: splits, captions, the files they are read from and where to get them."""
    from vtr.commands.tables import echo_wrapped

    facts = [_about(name) for name in _names()]
    if as_json:
        print_json(facts)
        return
    for fact in facts:
        echo_wrapped(f"{fact['name']}: ", fact["summary"], width=len(fact["name"]) + 2)
        counts = (
            name if count is None else f"{name} {count:,}" for name, count in fact["splits"].items()
        )
        rows = {
            "splits": ", ".join(counts) or "those you give",
            "captions": fact["captions"],
            "files": "\n".join(f"{file['name']}: {file['what']}" for file in fact["files"]),
            "from": fact["source"],
        }
        for label, text in rows.items():
            echo_wrapped(f"  {label}", text, width=15)
        say()


@group.command()
def show(
    dataset: DatasetArgument = None,
    *,
    videos: VideosOption = None,
    annotations: AnnotationsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the annotation files say: files, splits, captions, first ids, remarks."""
    workspace = _resolve(dataset, videos, annotations)
    found = _load(workspace)
    facts = describe(found)
    if as_json:
        print_json(facts)
    else:
        _print_description(facts)


@group.command()
def verify(
    dataset: DatasetArgument = None,
    *,
    videos: VideosOption = None,
    annotations: AnnotationsOption = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Only look for the files; decode nothing.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding processes. (default: one per core)")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every video that the annotations expect: present, missing, undecodable, duplicate.

    Every file is decoded whole, unless --fast. Exit code 3 if a video is missing or undecodable.
    """
    from vtr.datasets.registry import survey_videos
    from vtr.errors import ConfigError

    workspace = _resolve(dataset, videos, annotations)
    if workspace.videos is None:
        raise ConfigError("name the folder of the videos with --videos")
    found = _load(workspace)
    survey = survey_videos(found, workspace.videos)
    bad: Mapping[int, str] = {}
    damaged: Mapping[int, str] = {}
    if not fast:
        bad, damaged = _decode(survey, workspace, workers, quiet=as_json)
    facts = verdict(found, survey, bad, damaged)
    facts["decoded"] = not fast
    if as_json:
        print_json(facts)
    else:
        _print_verdict(facts)
    if facts["missing"] or facts["undecodable"]:
        raise typer.Exit(FINISHED_WITH_FAILURES)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Returns everything `vtr data show` says, as JSON values."""
    from vtr.datasets.base import split_queries
    from vtr.foreign import escape_undecodable

    splits = {}
    for name, members in dataset.splits.items():
        queries = split_queries(dataset, name)
        splits[name] = {
            "videos": len(members),
            "captions": len(queries),
            "captions_per_video": round(len(queries) / len(members), 2) if members else 0.0,
            "fixed_queries": name in dataset.queries,
            "first_ids": [escape_undecodable(identity) for identity in members[:3]],
        }
    return {
        "dataset": dataset.name,
        "annotation_files": [escape_undecodable(str(path)) for path in dataset.annotation_files],
        "videos": len(dataset.video_ids),
        "captions": len(dataset.captions),
        "first_ids": [escape_undecodable(identity) for identity in dataset.video_ids[:3]],
        "splits": splits,
        "categories": len(set(dataset.categories.values())),
        "notes": [escape_undecodable(text) for text in dataset.notes],
    }


def verdict(
    dataset: Dataset, survey: VideoSurvey, bad: Mapping[int, str], damaged: Mapping[int, str]
) -> dict[str, Any]:
    """Returns everything `vtr data verify` says, as JSON values.

    Args:
        dataset: As read.
        survey: What the disk has of it.
        bad: Place in `survey.videos` to why it cannot be decoded.
        damaged: Place to why frames are missing of a video that can.
    """
    from vtr.foreign import escape_undecodable

    names = [video.id for video in survey.videos]
    missing = {video.id for video in survey.videos if video.path is None}
    undecodable = {names[place] for place in bad}

    def counts(members: Sequence[str]) -> dict[str, int]:
        absent = sum(name in missing for name in members)
        return {
            "expected": len(members),
            "present": len(members) - absent,
            "missing": absent,
            "undecodable": sum(name in undecodable for name in members),
            "duplicate": sum(name in survey.duplicates for name in members),
        }

    return {
        "dataset": dataset.name,
        "videos": escape_undecodable(str(survey.listing.root)),
        "all": counts(names),
        "splits": {name: counts(members) for name, members in dataset.splits.items()},
        "missing": [escape_undecodable(name) for name in names if name in missing],
        "undecodable": {escape_undecodable(names[place]): why for place, why in bad.items()},
        "damaged": {escape_undecodable(names[place]): why for place, why in damaged.items()},
        "duplicates": {
            escape_undecodable(name): [escape_undecodable(str(path)) for path in paths]
            for name, paths in survey.duplicates.items()
        },
        "contested": {escape_undecodable(i): str(path) for i, path in survey.contested.items()},
        "unexpected": len(survey.unexpected),
        "notes": [escape_undecodable(text) for text in dataset.notes],
    }


def make_handler(_config: None) -> Handler:
    """Returns the job of a decoding process: probe one file; see `vtr.extract.worker`."""
    from vtr.extract.probe import probe

    def handle(path: Path) -> Answer:
        return {"trouble": probe(path).trouble}, b""

    return handle


# ---- what to work on


def _names() -> list[str]:
    from vtr.datasets.registry import dataset_names

    return dataset_names()


def _about(name: str) -> dict[str, Any]:
    from vtr.datasets.registry import dataset_info

    summary, info = dataset_info(name)
    return {
        "name": name,
        "summary": summary,
        "splits": dict(info.splits),
        "captions": info.captions,
        "files": [{"name": file, "what": what} for file, what in info.files],
        "source": info.source,
    }


def _resolve(dataset: str | None, videos: Path | None, annotations: Path | None) -> Workspace:
    """Returns the settings: flags, then the workspace where it is of the same dataset.

    Raises:
        ConfigError: No dataset is named and the current folder is in no workspace.
        UnknownNameError: No such dataset.
    """
    from vtr.errors import ConfigError, UnknownNameError
    from vtr.workspace import find_workspace, settings

    if dataset is not None and dataset not in _names():
        raise UnknownNameError("dataset", dataset, _names())
    workspace = find_workspace(Path.cwd())
    if workspace is None and dataset is None:
        raise ConfigError(
            f"name a dataset ({', '.join(_names())}), or run this in a workspace; "
            "`vtr data list` says what they are"
        )
    if workspace is not None and dataset not in (None, workspace.dataset):
        workspace = None  # its folders belong to another dataset
    return settings(workspace, dataset=dataset, videos=videos, annotations=annotations)


def _load(workspace: Workspace) -> Dataset:
    """Reads the dataset; the published ones need no videos for that.

    Raises:
        ConfigError: A folder that the reader needs is not named.
    """
    from vtr.datasets.registry import load_dataset
    from vtr.errors import ConfigError

    videos = workspace.videos
    if videos is None and (workspace.dataset == "folder" or workspace.annotations is None):
        what = "--videos" if workspace.dataset == "folder" else "--annotations"
        raise ConfigError(
            f"where is the dataset {workspace.dataset!r}? Name its folder with {what}, or run this "
            "in a workspace"
        )
    return load_dataset(
        workspace.dataset,
        annotations=workspace.annotations,
        videos=videos or workspace.root / "videos",
    )


def _decode(
    survey: VideoSurvey, workspace: Workspace, workers: int | None, *, quiet: bool
) -> tuple[dict[int, str], dict[int, str]]:
    """Decodes every file that is there; returns (undecodable, damaged), by place."""
    from vtr.extract.pool import PoolSettings, WorkerPool
    from vtr.extract.settings import usable_cores

    places = [place for place, video in enumerate(survey.videos) if video.path is not None]
    jobs = [survey.videos[place].path for place in places]
    pool_settings = PoolSettings(
        HANDLER,
        None,
        workers=min(workers or workspace.workers or usable_cores(), max(1, len(jobs))),
        timeout_seconds=workspace.timeout_seconds,
    )
    bad: dict[int, str] = {}
    damaged: dict[int, str] = {}
    with WorkerPool(pool_settings) as pool, progress("decoding", quiet=quiet) as update:
        for done, (place, outcome) in enumerate(zip(places, pool.run(jobs), strict=True), start=1):
            if outcome.failure is not None:
                bad[place] = ": ".join(outcome.failure)
            elif outcome.header["trouble"]:
                damaged[place] = outcome.header["trouble"]
            update(done, len(jobs), f"{len(bad)} undecodable")
    return bad, damaged


# ---- printing


def _echo_row(label: str, text: str) -> None:
    from vtr.commands.tables import echo_wrapped

    if text:
        echo_wrapped(label, text, width=13)


def _print_description(facts: Mapping[str, Any]) -> None:
    from vtr.foreign import printable

    files = [printable(Path(name).name) for name in facts["annotation_files"]]
    _echo_row("dataset", facts["dataset"])
    _echo_row("files", f"{len(files)} recognised: {', '.join(files)}" if files else "none read")
    _echo_row("videos", f"{facts['videos']:,}, first {_some(facts['first_ids'])}")
    _echo_row("captions", f"{facts['captions']:,}")
    if facts["categories"]:
        _echo_row("categories", f"{facts['categories']:,}")
    for name, split in facts["splits"].items():
        fixed = " (fixed by the protocol)" if split["fixed_queries"] else ""
        _echo_row(
            printable(name),
            f"{counted(split['videos'], 'video')}, {counted(split['captions'], 'caption')}{fixed}, "
            f"{split['captions_per_video']:g} a video; first {_some(split['first_ids'])}",
        )
    _print_notes(facts["notes"])


def _print_verdict(facts: Mapping[str, Any]) -> None:
    from vtr.foreign import printable

    _echo_row("dataset", facts["dataset"])
    _echo_row("videos", printable(facts["videos"]))
    decoded = facts["decoded"]
    heads = ["expected", "present", "missing", "duplicate"] + ["undecodable"] * decoded
    say(f"{'split':<12} " + " ".join(f"{head:>11}" for head in heads))
    for name, counts in {"all": facts["all"], **facts["splits"]}.items():
        say(f"{printable(name):<12} " + " ".join(f"{counts[head]:>11,}" for head in heads))
    if not decoded:
        note("nothing was decoded: leave out --fast to find files that cannot be read")
    _echo_row("missing", _some(facts["missing"]))
    for what in ("undecodable", "damaged"):
        for name, why in list(facts[what].items())[:MAX_LISTED]:
            _echo_row(what, f"{printable(name)}: {printable(why)}")
        if len(facts[what]) > MAX_LISTED:
            _echo_row("", f"and {len(facts[what]) - MAX_LISTED:,} more: --json lists them all")
    _echo_row("duplicate", _some(facts["duplicates"]))
    _echo_row("contested", _some(facts["contested"]))
    if facts["unexpected"]:
        _echo_row("unexpected", f"{facts['unexpected']:,} more video files belong to no id")
    _print_notes(facts["notes"])


def _print_notes(notes: Iterable[str]) -> None:

    from vtr.foreign import printable

    for text in notes:
        _echo_row("note", printable(text))


def _some(names: Iterable[str]) -> str:
    from vtr.foreign import printable

    listed = [printable(name) for name in names]
    more = len(listed) - MAX_LISTED
    shown = ", ".join(listed[:MAX_LISTED])
    return f"{shown} and {more:,} more" if more > 0 else shown
