"""`vtr init`: writes `vtr.toml` and says what is there to work on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.commands.console import print_json, say
from vtr.counts import counted
from vtr.progress import note, warn_of_unreadable

if TYPE_CHECKING:
    from vtr.datasets.base import Dataset
    from vtr.datasets.registry import VideoSurvey
    from vtr.workspace import Workspace

MAX_LISTED = 5


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("init")(init)


def init(
    dataset: Annotated[
        str, typer.Argument(help="Reader of the annotations; 'folder' needs none.")
    ] = "folder",
    *,
    videos: Annotated[Path, typer.Option(help="Folder of the videos, nested or not.")],
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder of the dataset's published annotation files, or a caption file."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub id or folder of the image-text model. "
            "(default: openai/clip-vit-base-patch32)",
            show_default=False,
        ),
    ] = None,
    path: Annotated[Path, typer.Option(help="Folder of the workspace.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing vtr.toml.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a workspace: write vtr.toml and report which videos are present and missing."""
    from vtr.datasets.files import require_folder
    from vtr.datasets.registry import load_dataset, survey_videos
    from vtr.workspace import Workspace, settings, write_workspace

    require_folder(videos, what="--videos")
    if annotations is not None:
        if not annotations.is_file():  # a file of captions is named as it is
            require_folder(annotations, what="--annotations")
        annotations = annotations.absolute()
    videos = videos.absolute()
    found = load_dataset(dataset, annotations=annotations, videos=videos)
    workspace = settings(
        Workspace.at(path),
        dataset=dataset,
        videos=videos,
        annotations=annotations,
        model=_local_model(model),
    )
    survey = survey_videos(found, videos)
    _require_videos(found, survey)
    file = write_workspace(workspace, force=force)
    facts = _facts(file, workspace, found, survey)
    warn_of_unreadable(survey.listing.unreadable)
    for warning in _warnings(facts):
        note(f"warning: {warning}")
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _local_model(model: str | None) -> str | None:
    """Returns a model given as a folder as an absolute path, valid from wherever vtr is called."""
    return str(Path(model).absolute()) if model and Path(model).is_dir() else model


def _require_videos(dataset: Dataset, survey: VideoSurvey) -> None:
    """Raises ConfigError where a plain folder holds no video: there is nothing to work on."""
    from vtr.errors import ConfigError
    from vtr.foreign import printable
    from vtr.names import VIDEO_EXTENSIONS

    if dataset.video_ids:
        return
    listing = survey.listing
    raise ConfigError(
        f"--videos is {printable(str(listing.root))}, but no video is in it or in a folder below "
        f"it{f' ({listing.skipped})' if listing.skipped else ''}. "
        f"Looked for: {' '.join(sorted(VIDEO_EXTENSIONS))}"
    )


def _facts(
    file: Path, workspace: Workspace, dataset: Dataset, survey: VideoSurvey
) -> dict[str, Any]:
    """Returns everything `vtr init` says, as JSON values without undecodable characters."""
    from vtr.datasets.registry import unique_videos
    from vtr.foreign import escape_undecodable

    there = "" if workspace.root == Path.cwd() else f"cd {shlex.quote(str(workspace.root))} && "
    checked = unique_videos(survey.videos)
    return {
        "workspace": str(file),
        "dataset": dataset.name,
        "videos": str(workspace.videos),
        "annotations": None if workspace.annotations is None else str(workspace.annotations),
        "model": workspace.model,
        "annotation_files": [escape_undecodable(str(path)) for path in dataset.annotation_files],
        "captions": len(dataset.captions),
        "splits": {name: len(ids) for name, ids in dataset.splits.items()},
        "expected": len(survey.videos),
        "present": len(survey.videos) - len(survey.missing),
        "missing": [escape_undecodable(identity) for identity in survey.missing],
        "duplicates": {
            escape_undecodable(identity): [escape_undecodable(str(path)) for path in paths]
            for identity, paths in survey.duplicates.items()
        },
        "contested": {escape_undecodable(i): str(path) for i, path in survey.contested.items()},
        "unexpected": len(survey.unexpected),
        "skipped": survey.listing.skipped,
        "unreadable": {escape_undecodable(name): why for name, why in survey.listing.unreadable},
        "notes": [escape_undecodable(text) for text in dataset.notes],
        "problems": {video.id: problem for video, problem in checked if problem},
        "next": f"{there}vtr extract",
    }


def _warnings(facts: dict[str, Any]) -> list[str]:
    from vtr.foreign import printable

    warnings = []
    if not facts["present"]:
        warnings.append(f"not one of the expected videos is in {printable(facts['videos'])}")
    if facts["duplicates"]:
        warnings.append(
            f"{counted(len(facts['duplicates']), 'id has', 'ids have')} several files, of which "
            "the first "
            "is taken: " + _some(facts["duplicates"])
        )
    if facts["contested"]:
        warnings.append(
            "several ids fit one file equally well, so that none has it: "
            + _some(facts["contested"])
        )
    if facts["problems"]:
        warnings.append(
            f"{counted(len(facts['problems']), 'video')} cannot be processed under their names: "
            + _some([f"{name} ({why})" for name, why in facts["problems"].items()])
        )
    return warnings


def _print(facts: dict[str, Any]) -> None:
    from vtr.foreign import printable

    files = [Path(name).name for name in facts["annotation_files"]]
    rows = {
        "workspace": printable(facts["workspace"]),
        "dataset": facts["dataset"],
        "model": facts["model"],
        "annotations": f"{counted(len(files), 'file')} recognised: {_some(files)}"
        if files
        else "none read",
        "captions": f"{facts['captions']:,}" if facts["captions"] else "",
        "splits": ", ".join(f"{name} {count:,}" for name, count in facts["splits"].items()),
        "videos": f"{facts['present']:,} of {facts['expected']:,} present in "
        f"{printable(facts['videos'])}",
        "missing": f"{len(facts['missing']):,}: {_some(facts['missing'])}"
        if facts["missing"]
        else "",
        "unexpected": f"{facts['unexpected']:,} more video files belong to no id"
        if facts["unexpected"]
        else "",
        "skipped": facts["skipped"],
        "next": facts["next"],
    }
    for label, text in rows.items():
        if text:
            say(f"{label:<12} {text}")
            if label == "videos":
                for remark in facts["notes"]:
                    say(f"{'note':<12} {remark}")


def _some(names: Any) -> str:
    """Returns the first few names in one line, and how many more there are."""
    from vtr.foreign import printable

    listed = list(names)
    shown = ", ".join(printable(name) for name in listed[:MAX_LISTED])
    more = len(listed) - MAX_LISTED
    return f"{shown} and {more:,} more" if more > 0 else shown
