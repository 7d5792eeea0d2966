"""A new workspace: `vtr.toml`, and what is there to work on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from vtr.counts import counted
from vtr.datasets.base import Dataset
from vtr.datasets.files import require_folder
from vtr.datasets.registry import VideoSurvey, load_dataset, survey_videos, unique_videos
from vtr.errors import ConfigError
from vtr.foreign import first_few, json_values, printable
from vtr.names import VIDEO_EXTENSIONS
from vtr.progress import note, warn_of_unreadable
from vtr.settings import rooted
from vtr.workspace import Workspace, settings, write_workspace

MAX_LISTED = 5


def make_workspace(
    dataset: str,
    videos: Path,
    *,
    annotations: Path | None = None,
    model: str | None = None,
    path: Path = Path(),
    force: bool = False,
) -> dict[str, Any]:
    """Writes `vtr.toml` and returns which videos are present and missing, as JSON values."""
    require_folder(videos, what="--videos")
    if annotations is not None:
        if not annotations.is_file():  # a file of captions is named as it is
            require_folder(annotations, what="--annotations")
        annotations = annotations.absolute()
    if model and Path(model).is_dir():
        model = str(Path(model).absolute())  # valid from wherever vtr is called
    data = load_dataset(dataset, annotations=annotations, videos=rooted(videos, Path.cwd()))
    workspace = settings(
        Workspace.at(path), dataset=dataset, videos=videos, annotations=annotations, model=model
    )
    survey = survey_videos(data, rooted(videos, Path.cwd()))
    _require_videos(data, survey)
    file = write_workspace(workspace, force=force)
    facts = _facts(file, workspace, data, survey)
    warn_of_unreadable(survey.listing.unreadable)
    for warning in _warnings(facts):
        note(f"warning: {warning}")
    return facts


def _require_videos(dataset: Dataset, survey: VideoSurvey) -> None:
    """Raises ConfigError where a plain folder holds no video: there is nothing to work on."""
    if dataset.video_ids:
        return
    listing = survey.listing
    raise ConfigError(
        f"--videos is {printable(listing.root)}, but no video is in it or in a folder below "
        f"it{f' ({listing.skipped})' if listing.skipped else ''}. "
        f"Looked for: {' '.join(sorted(VIDEO_EXTENSIONS))}"
    )


def _facts(
    file: Path, workspace: Workspace, dataset: Dataset, survey: VideoSurvey
) -> dict[str, Any]:
    there = "" if workspace.root == Path.cwd() else f"cd {shlex.quote(str(workspace.root))} && "
    facts: dict[str, Any] = json_values({
        "workspace": file,
        "dataset": dataset.name,
        "videos": workspace.videos,
        "annotations": workspace.annotations,
        "model": workspace.model,
        "annotation_files": dataset.annotation_files,
        "captions": len(dataset.captions),
        "splits": {name: len(ids) for name, ids in dataset.splits.items()},
        "expected": len(survey.videos),
        "present": len(survey.videos) - len(survey.missing),
        "missing": survey.missing,
        "duplicates": survey.duplicates,
        "contested": survey.contested,
        "unexpected": len(survey.unexpected),
        "skipped": survey.listing.skipped,
        "unreadable": dict(survey.listing.unreadable),
        "notes": dataset.notes,
        "problems": {video.id: why for video, why in unique_videos(survey.videos) if why},
        "next": f"{there}vtr extract",
    })  # fmt: skip
    return facts


def _warnings(facts: dict[str, Any]) -> list[str]:
    problems = [f"{name} ({why})" for name, why in facts["problems"].items()]
    several = counted(len(facts["duplicates"]), "id has", "ids have")
    warnings = {
        f"not one of the expected videos is in {printable(facts['videos'])}": not facts["present"],
        f"{several} several files, of which the first is taken: "
        f"{first_few(facts['duplicates'], MAX_LISTED)}": facts["duplicates"],
        "several ids fit one file equally well, so that none has it: "
        f"{first_few(facts['contested'], MAX_LISTED)}": facts["contested"],
        f"{counted(len(problems), 'video')} cannot be processed as named: "
        f"{first_few(problems, MAX_LISTED)}": problems,
    }
    return [text for text, is_due in warnings.items() if is_due]
