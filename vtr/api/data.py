"""What there is of a dataset: what its reader says, what its files say, which videos are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from vtr.api.on_ray import on_ray
from vtr.arithmetic import usable_cores
from vtr.datasets.base import Dataset, split_queries
from vtr.datasets.registry import (
    VideoSurvey,
    dataset_info,
    dataset_names,
    load_dataset,
    survey_videos,
)
from vtr.errors import ConfigError, UnknownNameError
from vtr.evaluate.protocol import load_protocol, protocol_names
from vtr.extract.pool import PoolSettings, WorkerPool
from vtr.foreign import json_values
from vtr.progress import progress
from vtr.verbs._scale import OnRay
from vtr.workspace import Workspace, find_file

_PROBE = "vtr.extract.probe:make_handler"


def list_datasets() -> list[dict[str, Any]]:
    """Returns what every reader says before a file is read: splits, captions, files, source."""
    facts = []
    for name in dataset_names():
        summary, info = dataset_info(name)
        facts.append({
            "name": name,
            "summary": summary,
            "splits": dict(info.splits),
            "captions": info.captions,
            "files": [{"name": file, "what": what} for file, what in info.files],
            "source": info.source,
        })  # fmt: skip
    return facts


def list_protocols() -> list[dict[str, Any]]:
    """Returns every protocol as JSON values; see `vtr.evaluate.protocol.Protocol`."""
    return [asdict(load_protocol(name)) for name in protocol_names()]


def of_dataset(workspace: Workspace, name: str | None) -> Workspace:
    """Returns where a dataset is: the workspace, which lends another dataset only what is typed."""
    if name is not None and name not in dataset_names():
        raise UnknownNameError("dataset", name, dataset_names())
    has_file = find_file(Path.cwd()) is not None
    if name is None and not has_file:
        raise ConfigError(
            f"name a dataset ({', '.join(dataset_names())}), or run this in a workspace; "
            "`vtr data list` says what they are"
        )
    if name is None or (has_file and name == workspace.dataset):
        return workspace
    typed = {flag: getattr(workspace, flag) for flag in workspace.typed}
    return Workspace.at(Path.cwd(), dataset=name, **typed)


def show_dataset(workspace: Workspace) -> dict[str, Any]:
    """Returns what the annotation files say, as JSON values; see `read_dataset` for errors."""
    dataset = read_dataset(workspace)
    splits = {}
    for name, members in dataset.splits.items():
        queries = split_queries(dataset, name)
        splits[name] = {
            "videos": len(members),
            "captions": len(queries),
            "captions_per_video": round(len(queries) / len(members), 2) if members else 0.0,
            "fixed_queries": name in dataset.queries,
            "first_ids": members[:3],
        }
    facts: dict[str, Any] = json_values({
        "dataset": dataset.name,
        "annotation_files": dataset.annotation_files,
        "videos": len(dataset.video_ids),
        "captions": len(dataset.captions),
        "first_ids": dataset.video_ids[:3],
        "splits": splits,
        "categories": len(set(dataset.categories.values())),
        "notes": dataset.notes,
    })  # fmt: skip
    return facts


def read_dataset(workspace: Workspace) -> Dataset:
    """Returns the workspace's dataset; the published ones need no videos for that."""
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


def verify_dataset(
    workspace: Workspace, *, fast: bool = False, quiet: bool = False, scale: OnRay | None = None
) -> dict[str, Any]:
    """Returns which of the expected videos are missing, undecodable, damaged or there twice."""
    scale = scale or OnRay()
    if fast and scale.ray is not None:
        raise ConfigError(
            "--ray shares out the decoding, and --fast decodes nothing: leave one out"
        )
    scale.check_ray(workspace)
    if workspace.videos is None:
        raise ConfigError("name the folder of the videos with --videos")
    dataset = read_dataset(workspace)
    survey = survey_videos(dataset, workspace.videos)
    bad, damaged = ({}, {}) if fast else _decode(survey, workspace, scale, quiet=quiet)
    names = [video.id for video in survey.videos]
    missing, undecodable = set(survey.missing), {names[place] for place in bad}

    def counts(members: Sequence[str]) -> dict[str, int]:
        absent = sum(name in missing for name in members)
        return {
            "expected": len(members),
            "present": len(members) - absent,
            "missing": absent,
            "undecodable": sum(name in undecodable for name in members),
            "duplicate": sum(name in survey.duplicates for name in members),
        }

    facts: dict[str, Any] = json_values({
        "dataset": dataset.name,
        "videos": survey.listing.root,
        "all": counts(names),
        "splits": {name: counts(members) for name, members in dataset.splits.items()},
        "missing": [name for name in names if name in missing],
        "undecodable": {names[place]: why for place, why in bad.items()},
        "damaged": {names[place]: why for place, why in damaged.items()},
        "duplicates": survey.duplicates,
        "contested": survey.contested,
        "unexpected": len(survey.unexpected),
        "notes": dataset.notes,
        "decoded": not fast,
    })  # fmt: skip
    return facts


def _decode(
    survey: VideoSurvey, workspace: Workspace, scale: OnRay, *, quiet: bool
) -> tuple[Mapping[int, str], Mapping[int, str]]:
    """Decodes every file that is there; returns why of (undecodable, damaged) ones, by place."""
    places = [place for place, video in enumerate(survey.videos) if video.path is not None]
    jobs = [path for video in survey.videos if (path := video.path) is not None]
    workers = min(workspace.workers or usable_cores(), max(1, len(jobs)))
    settings = PoolSettings(
        _PROBE, None, workers=workers, timeout_seconds=workspace.timeout_seconds
    )
    bad: dict[int, str] = {}
    damaged: dict[int, str] = {}
    make_pool: Callable[[PoolSettings], AbstractContextManager[Any]] = WorkerPool
    if scale.ray is not None and jobs:
        make_pool = partial(on_ray, scale, source=survey.listing.root, files=jobs)
    with make_pool(settings) as pool, progress("decoding", quiet=quiet) as update:
        for done, (place, outcome) in enumerate(zip(places, pool.run(jobs), strict=True), start=1):
            if outcome.failure is not None:
                bad[place] = ": ".join(outcome.failure)
            elif outcome.header["trouble"]:
                damaged[place] = outcome.header["trouble"]
            update(done, len(jobs), f"{len(bad)} undecodable")
    return bad, damaged
