"""`vtr extract`: the frames of a dataset's videos, chosen, embedded and cached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vtr.api import _changed
from vtr.arithmetic import prepare_arithmetic
from vtr.choices import check_names
from vtr.clip.hub import require_model
from vtr.counts import counted
from vtr.datasets.files import require_folder
from vtr.datasets.registry import VideoSurvey, load_dataset, survey_videos, unique_videos
from vtr.errors import DatasetError, UnknownNameError
from vtr.extract import pipeline
from vtr.extract.container import Limits
from vtr.extract.pipeline import ExtractReport, Progress
from vtr.extract.resume import ExtractMode, Input, has_changed, wants_again
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings, chosen_fields, usable_cores
from vtr.features.shard import list_shards
from vtr.features.store import FeatureStore, require_same
from vtr.files import publish
from vtr.progress import note, progress, warn_of_unreadable
from vtr.verbs.extract import Options, statuses
from vtr.workspace import Workspace

CONFIG_FILE = "extract.json"


def extract_features(workspace: Workspace, *, quiet: bool = True, **options: Any) -> ExtractReport:
    """Embeds the frames of all videos that the store does not hold yet; `vtr extract`.

    Args:
        workspace: Where everything is.
        quiet: No progress on stderr.
        options: Those of `vtr extract` with `_` for `-`, such as `device="cpu"` and
            `retry="failed"`, and settings as for `open_workspace`, such as `sampler="uniform,head"`
            and `frames=8`.

    Returns:
        The counts: `ok + partial + failed == inputs`.

    Raises:
        DatasetError: Not one of the videos is there.
        FingerprintError: The store was made with other settings.
        StoreWriteError: The disk refused; what was published is intact.
    """
    known = {*Workspace.model_fields, *Options.model_fields} - {"root"}
    for name in options:
        if name not in known:
            raise UnknownNameError("setting", name, known)
    check_names({**options, "model": None})
    own = {name: value for name, value in options.items() if name in Options.model_fields}
    asked = Options.of(**own)
    changed = _changed(workspace, {n: value for n, value in options.items() if n not in own})
    return extract(changed, asked, quiet=quiet)


def extract(workspace: Workspace, options: Options, *, quiet: bool = False) -> ExtractReport:
    """As `extract_features`, with checked options."""
    survey = _survey(workspace, quiet=quiet)
    if not quiet:
        note(f"loading {workspace.model}")
    return run(workspace, survey, options, quiet=quiet)


def run(
    workspace: Workspace, survey: VideoSurvey, options: Options, *, quiet: bool = False
) -> ExtractReport:
    """Extracts what `find_inputs` found, and writes the resolved options beside the shards."""
    prepare_arithmetic()
    from vtr.clip.backbone import load_backbone  # torch: not before the line above

    device, dtype = options.device, options.dtype
    backbone = load_backbone(workspace.model, device=device, dtype=dtype, route=workspace.route)
    settings = _settings(workspace, survey, options)
    with progress("extracting", quiet=quiet) as update:
        some = "es" * (settings.workers != 1)
        inputs = _present(survey)
        update(0, len(inputs), f"starting {settings.workers} decoding process{some}")

        def show(now: Progress) -> None:
            rate = f"{now.frames / now.seconds:.0f} frames/s" if now.seconds > 0 else ""
            failed = f", {now.failed} failed" if now.failed else ""
            update(now.done, now.total, f"{rate}{failed}")

        store, mode = workspace.features, _mode(options)
        report = pipeline.extract(inputs, store, backbone, settings, mode=mode, progress=show)
    used = {"device": str(backbone.device), "dtype": str(backbone.dtype)}
    record = {**workspace.as_dict(), **options.as_dict(), **used}
    publish(store / CONFIG_FILE, json.dumps(record, indent=2).encode())
    return report


def plan(workspace: Workspace, options: Options, *, quiet: bool = False) -> dict[str, Any]:
    """Returns what `extract` would do, without model or decoder, as JSON values.

    Raises:
        FingerprintError: It would be refused: the store was made with other settings.
    """
    survey = _survey(workspace, quiet=quiet)
    settings, retry = _settings(workspace, survey, options), statuses(options.retry)
    held = {}
    if list_shards(workspace.features)[0] and not options.overwrite:
        store = FeatureStore(workspace.features, skip_damaged="damaged" in retry)
        route = {**store.spec.preprocessing, "route": workspace.route}
        asked = replace(store.spec, preprocessing=route, **chosen_fields(settings))
        require_same(store.spec, asked, what=str(workspace.features))
        held = {row.id: row for row in store.ledger}
    mine = [video for video, _ in _present(survey)][options.part[0] - 1 :: options.part[1]]
    known = [(held[video.id], video) for video in mine if video.id in held]
    again = [row for row, video in known if wants_again(row, video, retry, options.hash)]
    return {
        "inputs": len(mine),
        "new": len(mine) - len(known),
        "again": len(again),
        "changed": [row.id for row, video in known if has_changed(row, video, hashed=options.hash)],
        "store": str(workspace.features),
        "settings": {**workspace.as_dict(), **options.as_dict()},
    }


def find_inputs(workspace: Workspace) -> VideoSurvey:
    """Returns the dataset's videos on this disk and those that are missing.

    Raises:
        ConfigError: Neither a workspace nor a flag says where the videos are.
        DatasetError: Not one of the videos is there.
    """
    videos = workspace.require_videos()
    dataset = load_dataset(workspace.dataset, annotations=workspace.annotations, videos=videos)
    survey = survey_videos(dataset, videos)
    if not any(video.path for video in survey.videos):
        raise DatasetError(
            f"none of the {counted(len(survey.videos), 'video')} of dataset {dataset.name!r} is in "
            f"{workspace.videos}. Check --videos and --dataset"
        )
    return survey


def _survey(workspace: Workspace, *, quiet: bool) -> VideoSurvey:
    """Looks for what is needed, the quick things first, and says what was found."""
    require_folder(workspace.require_videos(), what="--videos")
    if not quiet:
        note(f"looking for {workspace.model} and for the videos in {workspace.videos}")
    require_model(workspace.model)
    survey = find_inputs(workspace)
    warn_of_unreadable(survey.listing.unreadable)
    present = sum(video.path is not None for video in survey.videos)
    rate = "every frame" if workspace.fps == "native" else f"{workspace.fps:g} frames/s"
    missing = len(survey.videos) - present
    absent = f" ({missing} more are missing from the disk)" if missing else ""
    skipped = f"; skipped: {survey.listing.skipped}" if survey.listing.skipped else ""
    note(
        f"{counted(present, 'video')}{absent} of dataset {workspace.dataset!r}; sampler "
        f"{workspace.sampler}, {workspace.frames} of the candidates at {rate}; "
        f"{workspace.model} -> {workspace.features}{skipped}"
    )
    return survey


def _present(survey: VideoSurvey) -> Sequence[Input]:
    return unique_videos(video for video in survey.videos if video.path is not None)


def _mode(options: Options) -> ExtractMode:
    return ExtractMode(options.part, statuses(options.retry), options.overwrite)


def _settings(workspace: Workspace, survey: VideoSurvey, options: Options) -> ExtractSettings:
    """Returns the pipeline's settings; never more workers than videos."""
    limits = Limits() if options.max_pixels is None else Limits(max_pixels=options.max_pixels)
    return ExtractSettings(
        samplers=parse_samplers(workspace.sampler),
        num_frames=workspace.frames,
        candidate_fps=None if workspace.fps == "native" else float(workspace.fps),
        seed=workspace.seed,
        shard_videos=workspace.shard_videos,
        workers=workspace.workers or min(usable_cores(), len(survey.videos)),
        timeout_seconds=workspace.timeout_seconds,
        memory_bytes=int(options.memory * (1 << 30)),
        batch_size=workspace.batch_size,
        limits=limits,
        thumbnails=options.thumbnails,
        hash_files=options.hash,
    )
