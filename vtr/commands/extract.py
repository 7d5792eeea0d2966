"""`vtr extract`: videos in, cached features out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import print_json, say
from vtr.counts import counted, human_seconds
from vtr.progress import note, progress, warn_of_unreadable

if TYPE_CHECKING:
    from vtr.clip.backbone import Backbone
    from vtr.datasets.registry import VideoSurvey
    from vtr.extract.pipeline import ExtractMode, ExtractReport, Progress
    from vtr.extract.settings import ExtractSettings
    from vtr.workspace import Workspace

PARTLY_FAILED = 3
CONFIG_FILE = "extract.json"
RETRIES = frozenset({"failed", "partial", "changed", "damaged"})


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("extract")(extract)


def extract(
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Which frames to keep: names separated by commas, options as NAME:key=value, "
            "'all', or 'dense' for every candidate. (default: uniform)",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames to keep per video. (default: 12)", show_default=False)
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(
            help="Candidate frames per second, or 'native' for every frame. (default: 1.0)",
            show_default=False,
        ),
    ] = None,
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Reader of the annotations.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Folder of the annotations.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Hub id or folder of the image-text model.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Folder of the store. (default: features)", show_default=False),
    ] = None,
    route: Annotated[
        Literal["fast", "exact"] | None,
        typer.Option(help="Preprocessing; exact is bit-exact Pillow. (default: fast)"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random samplers.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="Arithmetic of the model.")
    ] = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(help="Frames per forward pass. (default: 32 on CPU, 256 on GPU)"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Decoding processes. (default: one per core)")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds a single video may take. (default: 300)")
    ] = None,
    memory: Annotated[
        float, typer.Option(help="GiB that a decoding process may take; 0 is no limit.")
    ] = 4.0,
    max_pixels: Annotated[
        int | None, typer.Option(help="Largest picture to decode, in pixels. (default: 8K)")
    ] = None,
    thumbnails: Annotated[
        bool,
        typer.Option(help="With the dense sampler, keep small pictures for choosing frames later."),
    ] = True,
    shard: Annotated[
        str, typer.Option(help="Work on part i of n of the videos, as i/n: one per machine.")
    ] = "1/1",
    retry: Annotated[
        str,
        typer.Option(
            help="Do these again: failed, partial, changed (another file is there now), "
            "damaged (all videos of shards whose bytes changed), or several, separated by commas.",
            show_default=False,
        ),
    ] = "",
    hash_files: Annotated[
        bool,
        typer.Option(
            "--hash", help="Tell changed files by their content too; every file is read once more."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew; the old store goes when all is done.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; decode nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Decode videos, choose frames, embed them with CLIP and cache the features.

    Run it again to go on after an interruption or to add new videos. Exit code 3: finished, but
    some videos failed; the store lists them (`vtr inspect`).
    """
    prepare_arithmetic()
    from vtr.clip.hub import require_model

    # Names first, then what takes long: torch, the decoder and the annotations.
    workspace = resolve(
        sampler=sampler,
        frames=frames,
        fps=fps,
        videos=videos,
        dataset=dataset,
        annotations=annotations,
        model=model,
        features=features,
        route=route,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        timeout_seconds=timeout,
    )
    part, again = read_part(shard), read_retry(retry)
    _check_limits(memory, max_pixels)
    from vtr.datasets.files import require_folder
    from vtr.extract.pipeline import ExtractMode

    mode = ExtractMode(part=part, retry=again, overwrite=overwrite)
    assert workspace.videos is not None
    require_folder(workspace.videos, what="--videos")
    tell = note if not quiet else lambda _line: None
    tell(f"looking for {workspace.model} and for the videos in {workspace.videos}")
    require_model(workspace.model)
    survey = find_inputs(workspace)
    warn_of_unreadable(survey.listing.unreadable)
    settings = replace(
        extract_settings(workspace, survey, memory_gib=memory, max_pixels=max_pixels),
        thumbnails=thumbnails,
        hash_files=hash_files,
    )
    note(_announcement(workspace, survey))
    if dry_run:
        _finish(_plan(workspace, survey, settings, mode), as_json=as_json)
        return
    tell(f"loading {workspace.model}")
    from vtr.clip.backbone import load_backbone

    backbone = load_backbone(workspace.model, device=device, dtype=dtype, route=workspace.route)
    report = run(workspace, survey, settings, backbone=backbone, mode=mode, quiet=quiet or as_json)
    _finish({**vars(report), "store": str(workspace.features)}, as_json=as_json)
    if report.failed or report.partial:
        raise typer.Exit(PARTLY_FAILED)


def resolve(**flags: Any) -> Workspace:
    """Returns the settings of the workspace around the current folder, flags on top.

    Raises:
        ConfigError: Neither a workspace nor --videos says where the videos are.
    """
    from vtr.errors import ConfigError
    from vtr.workspace import find_workspace, settings

    workspace = settings(find_workspace(Path.cwd()), **flags)
    if workspace.videos is None:
        raise ConfigError(
            f"no videos named: there is no vtr.toml in {Path.cwd()} or above it. "
            "Run `vtr init --videos DIR` first, or give --videos DIR"
        )
    return workspace


def find_inputs(workspace: Workspace) -> VideoSurvey:
    """Returns the dataset's videos on this disk and those that are missing.

    Raises:
        DatasetError: Not one of the videos is there.
    """
    from vtr.datasets.registry import load_dataset, survey_videos
    from vtr.errors import DatasetError

    assert workspace.videos is not None
    dataset = load_dataset(
        workspace.dataset, annotations=workspace.annotations, videos=workspace.videos
    )
    survey = survey_videos(dataset, workspace.videos)
    if not any(video.path for video in survey.videos):
        raise DatasetError(
            f"none of the {counted(len(survey.videos), 'video')} of dataset {dataset.name!r} is in "
            f"{workspace.videos}. Check --videos and --dataset"
        )
    return survey


def _check_limits(memory_gib: float, max_pixels: int | None) -> None:
    """Refuses limits that nothing could meet, or that are no number."""
    from vtr.errors import ConfigError

    if not 0 <= memory_gib < float("inf"):
        raise ConfigError(f"--memory is {memory_gib:g}; it must be GiB above 0, or 0 for no limit")
    if max_pixels is not None and max_pixels < 1:
        raise ConfigError(f"--max-pixels is {max_pixels}; it must be a whole number, 1 or more")


def extract_settings(
    workspace: Workspace,
    survey: VideoSurvey,
    *,
    memory_gib: float = 4.0,
    max_pixels: int | None = None,
) -> ExtractSettings:
    """Returns the pipeline's settings; never more workers than videos."""
    from vtr.extract.container import Limits
    from vtr.extract.samplers.base import parse_samplers
    from vtr.extract.settings import ExtractSettings, usable_cores

    return ExtractSettings(
        samplers=parse_samplers(workspace.sampler),
        num_frames=workspace.frames,
        candidate_fps=None if workspace.fps == "native" else float(workspace.fps),
        seed=workspace.seed,
        shard_videos=workspace.shard_videos,
        workers=workspace.workers or min(usable_cores(), len(survey.videos)),
        timeout_seconds=workspace.timeout_seconds,
        memory_bytes=int(memory_gib * (1 << 30)),
        batch_size=workspace.batch_size,
        limits=Limits() if max_pixels is None else Limits(max_pixels=max_pixels),
    )


def run(
    workspace: Workspace,
    survey: VideoSurvey,
    settings: ExtractSettings,
    *,
    backbone: Backbone,
    mode: ExtractMode,
    quiet: bool = False,
) -> ExtractReport:
    """Extracts, and writes the resolved settings beside the shards."""
    from vtr.datasets.registry import unique_videos
    from vtr.extract import pipeline
    from vtr.files import publish

    inputs = unique_videos(video for video in survey.videos if video.path is not None)
    with progress("extracting", quiet=quiet) as update:
        some = "es" * (settings.workers != 1)
        update(0, len(inputs), f"starting {settings.workers} decoding process{some}")

        def tell(now: Progress) -> None:
            rate = f"{now.frames / now.seconds:.0f} frames/s" if now.seconds > 0 else ""
            failed = f", {now.failed} failed" if now.failed else ""
            update(now.done, now.total, f"{rate}{failed}")

        report = pipeline.extract(
            inputs, workspace.features, backbone, settings, mode=mode, progress=tell
        )
    record = {**workspace.as_dict(), "device": str(backbone.device), "dtype": str(backbone.dtype)}
    publish(workspace.features / CONFIG_FILE, json.dumps(record, indent=2).encode())
    return report


def read_part(text: str) -> tuple[int, int]:
    """Reads `i/n`.

    >>> read_part("2/4")
    (2, 4)

    Raises:
        ConfigError: Not two whole numbers with 1 <= i <= n <= 999.
    """
    from vtr.errors import ConfigError

    part, slash, parts = text.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts) <= 999:
        return int(part), int(parts)
    raise ConfigError(f"--shard is {text!r}; write i/n with 1 <= i <= n <= 999, such as 2/4")


def read_retry(text: str, *, allowed: frozenset[str] = RETRIES) -> frozenset[str]:
    """Reads `--retry`: words separated by commas.

    Raises:
        UnknownNameError: Not something that can be done again.
    """
    from vtr.errors import UnknownNameError

    names = {name.strip() for name in text.split(",") if name.strip()}
    for name in sorted(names - allowed):
        raise UnknownNameError("status to retry", name, allowed)
    return frozenset(names)


def _announcement(workspace: Workspace, survey: VideoSurvey) -> str:
    present = sum(video.path is not None for video in survey.videos)
    rate = "every frame" if workspace.fps == "native" else f"{workspace.fps:g} frames/s"
    missing = len(survey.videos) - present
    absent = f" ({missing} more are missing from the disk)" if missing else ""
    return (
        f"{counted(present, 'video')}{absent} of dataset {workspace.dataset!r}; sampler "
        f"{workspace.sampler}, "
        f"{workspace.frames} of the candidates at {rate}; {workspace.model} -> {workspace.features}"
        f"{f'; skipped: {survey.listing.skipped}' if survey.listing.skipped else ''}"
    )


def _plan(
    workspace: Workspace, survey: VideoSurvey, settings: ExtractSettings, mode: ExtractMode
) -> dict[str, Any]:
    """Returns what a run would do, without model or decoder.

    Raises:
        FingerprintError: A run would be refused: the store was made with other settings.
    """
    from vtr.datasets.registry import unique_videos
    from vtr.extract.pipeline import has_changed, wants_again
    from vtr.extract.settings import chosen_fields
    from vtr.features import FeatureStore
    from vtr.features.shard import list_shards
    from vtr.features.store import require_same

    held = {}
    if list_shards(workspace.features)[0] and not mode.overwrite:
        store = FeatureStore(workspace.features, skip_damaged="damaged" in mode.retry)
        route = {**store.spec.preprocessing, "route": workspace.route}
        asked = replace(store.spec, preprocessing=route, **chosen_fields(settings))
        require_same(store.spec, asked, what=str(workspace.features))
        held = {row.id: row for row in store.ledger}
    inputs = unique_videos(video for video in survey.videos if video.path is not None)
    mine = [video for video, _ in inputs][mode.part[0] - 1 :: mode.part[1]]
    known = [(held[video.id], video) for video in mine if video.id in held]
    return {
        "inputs": len(mine),
        "new": len(mine) - len(known),
        "again": sum(
            wants_again(row, video, mode.retry, hashed=settings.hash_files) for row, video in known
        ),
        "changed": [
            row.id for row, video in known if has_changed(row, video, hashed=settings.hash_files)
        ],
        "store": str(workspace.features),
        "settings": workspace.as_dict(),
    }


def _finish(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    if "settings" in facts:
        say(f"would extract {counted(facts['new'], 'new video')} and {facts['again']} again")
        _warn_of_changes(facts)
        return
    counts = f"{facts['ok']} ok + {facts['partial']} partial + {facts['failed']} failed"
    say(f"{counted(facts['inputs'], 'video')} = {counts} in {facts['store']}")
    say(
        f"this run: {counted(facts['done_now'], 'video')}, "
        f"{counted(facts['frames_now'], 'frame')} in "
        f"{human_seconds(facts['seconds'])} (decoding {human_seconds(facts['decode_cpu_seconds'])} "
        f"of CPU, encoding {human_seconds(facts['encode_seconds'])})"
    )
    for reason, count in facts["reasons"].items():
        say(f"  {count:>6} {reason}")
    if facts["reasons"]:
        say(f"which and why: vtr inspect {facts['store']} --failures")
    _warn_of_changes(facts)


def _warn_of_changes(facts: dict[str, Any]) -> None:
    changed = facts["changed"]
    if changed:
        one = len(changed) == 1
        note(
            f"warning: {len(changed)} {'video has' if one else 'videos have'} another size or date "
            f"than when {'it was' if one else 'they were'} read, such as {changed[0]!r}; the store "
            f"holds what was read then. --retry changed does {'it' if one else 'them'} again"
        )
