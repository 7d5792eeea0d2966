"""`vtr extract`: the frames of a dataset's videos, chosen, embedded and cached."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vtr.api import _changed, _check_names
from vtr.api.stores import read_dataset
from vtr.arithmetic import prepare_arithmetic, uncollected, usable_cores
from vtr.choices import check_names
from vtr.clip.device import find_devices
from vtr.clip.hub import find_model, require_model
from vtr.clip.preprocess import preprocessing_from_config
from vtr.counts import counted
from vtr.datasets.files import require_folder
from vtr.datasets.registry import VideoSurvey, survey_videos, unique_videos
from vtr.errors import ConfigError, DatasetError, StoreError
from vtr.extract import pipeline
from vtr.extract.encoders import EncoderGroup
from vtr.extract.limits import Limits
from vtr.extract.pipeline import ExtractReport, Progress, to_decode
from vtr.extract.pool import WorkerPool
from vtr.extract.reembed import reembed
from vtr.extract.resume import (
    Check,
    ExtractMode,
    Input,
    has_changed,
    require_same_pictures,
    wants_again,
)
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import Encoder, ExtractSettings, chosen_fields
from vtr.features.pictures import WEBP_SHARE, PictureFormat
from vtr.features.shard import list_shards
from vtr.features.spec import FeatureSpec
from vtr.features.store import FeatureStore, require_same, stored_picture_format
from vtr.files import publish
from vtr.progress import note, progress, warn_of_unreadable
from vtr.remote import as_path
from vtr.settings import flag_of, resolved, takes
from vtr.verbs.extract import OF_DECODING, OF_VIDEOS, Options, statuses
from vtr.workspace import Workspace

if TYPE_CHECKING:
    from vtr.clip.backbone import Backbone

CONFIG_FILE = "extract.json"


@takes(Workspace, Options, but=("root",))
def extract_features(workspace: Workspace, *, quiet: bool = True, **options: Any) -> ExtractReport:
    """Embeds the frames of all videos that the store does not hold yet; `vtr extract`.

    >>> import vtr
    >>> report = vtr.extract_features(vtr.open_workspace("demo-world"), device="cpu")
    >>> report.ok, report.done_now  # all were there already
    (26, 0)

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
    _check_names("setting", options, {*Workspace.model_fields, *Options.model_fields})
    check_names({**options, "model": None})
    own = {name: value for name, value in options.items() if name in Options.model_fields}
    asked = Options.of(**own)
    changed = _changed(workspace, {n: value for n, value in options.items() if n not in own})
    return extract(changed, asked, quiet=quiet)


def extract(workspace: Workspace, options: Options, *, quiet: bool = False) -> ExtractReport:
    """As `extract_features`, with checked options."""
    options.check_ray(workspace)
    if options.from_crops is not None:
        return embed_pictures(workspace, options, quiet=quiet)
    survey = _survey(workspace, quiet=quiet)
    if options.ray is not None:
        from vtr.api import extract_on_ray

        return extract_on_ray.run(workspace, survey, options, quiet=quiet)
    if not quiet:
        note(f"loading {workspace.model}")
    return run(workspace, survey, options, quiet=quiet)


def run(
    workspace: Workspace, survey: VideoSurvey, options: Options, *, quiet: bool = False
) -> ExtractReport:
    """Extracts what `find_inputs` found, and writes the resolved options beside the shards."""
    prepare_arithmetic()
    settings = settings_of(workspace, survey, options)
    inputs = present(survey)
    new = _new(workspace, inputs, options)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(decoding_pool(workspace, settings))
        if new or options.retry:  # retried ones come first
            pool.start([] if options.retry else to_decode(new))
        backbones = load_backbones_of(workspace, options)
        backbone = backbones[0]
        if settings.pictures and backbone.window > 1:
            raise ConfigError(
                f"--crops {settings.pictures} keeps one picture for each embedding, and "
                f"{backbone.model_id} sees windows of {backbone.window}: leave out --crops"
            )
        if settings.pictures:
            check_room(workspace, settings, backbone.preprocessing.size, len(new))
        mode = replace(_mode(options), pool=pool, check=check_of(workspace, backbone))
        encoders = stack.enter_context(encoder_group(backbones))
        report = _extract(inputs, workspace.features, encoders, settings, mode, quiet)
    devices = ",".join(str(one.device) for one in backbones)
    used = {"device": devices, "dtype": backbone.describe()["compute_dtype"]}
    publish(workspace.features / CONFIG_FILE, resolved(workspace, options, **used))
    return report


def decoding_pool(workspace: Workspace, settings: ExtractSettings) -> WorkerPool:
    """Returns what decodes; once started it imports for seconds, while the model is loaded."""
    folder = find_model(workspace.model).path
    made = preprocessing_from_config(folder, route=workspace.route).as_dict()
    return WorkerPool(pipeline.pool_settings(settings, made))


def _extract(
    inputs: Sequence[Input],
    store: Path,
    encoders: Encoder,
    settings: ExtractSettings,
    mode: ExtractMode,
    quiet: bool,
) -> ExtractReport:
    """Runs the pipeline, with its progress shown."""
    with progress("extracting", quiet=quiet) as update:
        if mode.pool is None or mode.pool.started:
            some = "es" * (settings.workers != 1)
            update(0, len(inputs), f"starting {settings.workers} decoding process{some}")

        def show(now: Progress) -> None:
            rate = f"{now.frames / now.seconds:.0f} frames/s" if now.seconds > 0 else ""
            failed = f", {now.failed} failed" if now.failed else ""
            update(now.done, now.total, f"{rate}{failed}")

        return pipeline.extract(inputs, store, encoders, settings, mode=mode, progress=show)


def load_backbones_of(workspace: Workspace, options: Options) -> list[Backbone]:
    """Returns the model on each device of the run."""
    with uncollected():
        from vtr.clip.backbone import load_backbone  # torch: not before `prepare_arithmetic`

    how: dict[str, Any] = {"dtype": options.dtype, "engine": options.engine}
    devices = ["cpu"] if options.on_cpu else find_devices(options.device)
    return [load_backbone(workspace.model, device=d, route=workspace.route, **how) for d in devices]


def encoder_group(backbones: Sequence[Backbone]) -> EncoderGroup:
    """Returns what shares a run's batches among models, two at a time on each GPU."""
    return EncoderGroup([lane for one in backbones for lane in one.lanes()])


def check_of(workspace: Workspace, backbone: Backbone) -> Check | None:
    """Returns what compares a run's first frames with float32; None where that is what runs."""
    from vtr.clip.backbone import load_backbone
    from vtr.clip.fidelity import check
    from vtr.searching.encoder import unrelated_sentences

    if backbone.is_exact:
        return None

    def measure(frames: NDArray[np.uint8]) -> Mapping[str, Any]:
        exact = load_backbone(workspace.model, device=str(backbone.device), route=workspace.route)
        return check(backbone, exact, frames, unrelated_sentences().splitlines())

    return measure


@uncollected()
def plan(workspace: Workspace, options: Options, *, quiet: bool = False) -> dict[str, Any]:
    """Returns what `extract` would do, without model or decoder, as JSON values."""
    options.check_ray(workspace)
    if options.from_crops is not None:
        return _plan_of_pictures(workspace, options)
    survey = _survey(workspace, quiet=quiet)
    settings, retry = settings_of(workspace, survey, options), statuses(options.retry)
    held = {}
    if list_shards(workspace.features)[0] and not options.overwrite:
        store = FeatureStore(workspace.features, skip_damaged="damaged" in retry)
        route = {**store.spec.preprocessing, "route": workspace.route}
        how = {"engine": options.engine, "compute_dtype": options.dtype}
        decided = {**how, **chosen_fields(settings, engine=options.engine)}
        asked = replace(store.spec, preprocessing=route, **decided)
        require_same(store.spec, asked, what=str(workspace.features))
        held = {row.id: row for row in store.ledger}
    mine = [video for video, _ in present(survey)][options.part[0] - 1 :: options.part[1]]
    known = [(held[video.id], video) for video in mine if video.id in held]
    again = [row for row, video in known if wants_again(row, video, retry, options.hash)]
    folder = as_path(workspace.model)
    if settings.pictures and folder.is_dir():  # another one might have to be fetched first
        size = preprocessing_from_config(folder).size
        check_room(workspace, settings, size, len(mine) - len(known))
    return {
        "inputs": len(mine),
        "new": len(mine) - len(known),
        "again": len(again),
        "changed": [row.id for row, video in known if has_changed(row, video, hashed=options.hash)],
        "store": str(workspace.features),
        "settings": {**workspace.as_dict(), **options.as_dict()},
    }


def _plan_of_pictures(workspace: Workspace, options: Options) -> dict[str, Any]:
    source = _source(workspace, options)
    held: frozenset[str] = frozenset()
    with contextlib.suppress(StoreError):
        held = frozenset(FeatureStore(workspace.features).input_ids)
    return {
        "inputs": len(source.input_ids),
        "new": len(set(source.input_ids) - held),
        "again": 0,
        "changed": [],
        "store": str(workspace.features),
        "settings": {**workspace.as_dict(), **options.as_dict()},
    }


def find_inputs(workspace: Workspace) -> VideoSurvey:
    """Returns the dataset's videos on this disk and those that are missing."""
    dataset = read_dataset(workspace)
    survey = survey_videos(dataset, workspace.require_videos())
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
    with uncollected():
        survey = find_inputs(workspace)
    warn_of_unreadable(survey.listing.unreadable)
    present = sum(video.path is not None for video in survey.videos)
    rate = "every frame" if workspace.fps == "native" else f"{workspace.fps:g} frames/s"
    kept = f"{rate} kept"
    if workspace.sampler != "dense":
        kept = f"{workspace.frames} of the candidates at {rate}"
    missing = len(survey.videos) - present
    absent = (
        f" ({counted(missing, 'more is', 'more are')} missing from the disk)" if missing else ""
    )
    skipped = f"; skipped: {survey.listing.skipped}" if survey.listing.skipped else ""
    note(
        f"{counted(present, 'video')}{absent} of dataset {workspace.dataset!r}; sampler "
        f"{workspace.sampler}, {kept}; "
        f"{workspace.model} -> {workspace.features}{skipped}"
    )
    return survey


def present(survey: VideoSurvey) -> Sequence[Input]:
    """Returns the inputs: the videos that are there, each with an id of its own."""
    return unique_videos(video for video in survey.videos if video.path is not None)


def _mode(options: Options) -> ExtractMode:
    return ExtractMode(options.part, statuses(options.retry), options.overwrite)


def settings_of(workspace: Workspace, survey: VideoSurvey, options: Options) -> ExtractSettings:
    """Returns the pipeline's settings; never more workers than videos."""
    pictures, budget = _kept_pictures(workspace.features, options), options.crops_budget
    if budget is not None and pictures is None:
        raise ConfigError("--crops-budget is about pictures, and none are kept: add --crops raw")
    if options.crops is not None and not options.overwrite and list_shards(workspace.features)[0]:
        require_same_pictures(FeatureStore(workspace.features, skip_damaged=True), pictures)
    samplers = parse_samplers(workspace.sampler)
    if options.thumbnails and not any(choice.name == "dense" for choice in samplers):
        options.refuse_typed(
            ("thumbnails",), f"is about --sampler dense, not {workspace.sampler}. Leave it out"
        )
    limits = Limits() if options.max_pixels is None else Limits(max_pixels=options.max_pixels)
    return ExtractSettings(
        samplers=samplers,
        num_frames=workspace.frames,
        candidate_fps=workspace.candidate_fps,
        seed=workspace.seed,
        shard_videos=workspace.shard_videos,
        workers=workspace.workers or min(usable_cores(), len(survey.videos)),
        timeout_seconds=workspace.timeout_seconds,
        memory_bytes=int(options.memory * (1 << 30)),
        batch_size=workspace.batch_size,
        limits=limits,
        thumbnails=options.thumbnails,
        hash_files=options.hash,
        pictures=pictures,
        picture_bytes=None if budget is None else int(budget * 1e9),
    )


def _kept_pictures(folder: Path, options: Options) -> PictureFormat | None:
    """Returns how pictures are kept: as asked, else as the store that is there does."""
    if options.crops is not None:
        return None if options.crops == "none" else options.crops
    return None if options.overwrite else stored_picture_format(folder)


def _new(workspace: Workspace, inputs: Sequence[Input], options: Options) -> Sequence[Input]:
    """Returns those of this run's part that the store does not hold."""
    part, parts = options.part
    held: frozenset[str] = frozenset()
    with contextlib.suppress(StoreError):  # none, or nothing sound in it
        if not options.overwrite:
            held = frozenset(FeatureStore(workspace.features, skip_damaged=True).input_ids)
    return [item for item in inputs[part - 1 :: parts] if item[0].id not in held]


def check_room(
    workspace: Workspace, settings: ExtractSettings, size: tuple[int, int], num_videos: int
) -> None:
    """Says what the pictures will take, and refuses what there is no room for."""
    one = size[0] * size[1] * 3 * (WEBP_SHARE if settings.pictures == "webp" else 1.0)
    place = workspace.features.resolve()
    free = shutil.disk_usage(next(one for one in (place, *place.parents) if one.exists())).free
    frames = settings.num_frames * len(settings.samplers)
    dense = any(choice.name == "dense" for choice in settings.samplers)
    total = num_videos * frames * one
    amount = f"{one / 1e3:.3g} kB a frame"
    if dense:
        amount += ", for every candidate: how many is known when a video is decoded"
        if settings.picture_bytes is not None:
            amount += f"; the run ends before more than {settings.picture_bytes / 1e9:.3g} GB"
    else:
        at_most = f"at most {counted(num_videos * frames, 'frame')}"
        amount += f", {at_most}: about {total / 1e9:.3g} GB"
    note(f"pictures: {settings.pictures}, {amount} ({free / 1e9:.3g} GB are free)")
    limit = min(free, free if settings.picture_bytes is None else settings.picture_bytes)
    if not dense and total > limit:
        what = "the disk has" if limit == free else "--crops-budget allows"
        raise ConfigError(
            f"the pictures take about {total / 1e9:.3g} GB, and {what} {limit / 1e9:.3g}. Use "
            "--crops webp (a third of raw), fewer --frames, or another disk (--features DIR)"
        )


def embed_pictures(workspace: Workspace, options: Options, *, quiet: bool = False) -> ExtractReport:
    """Embeds the pictures that a store keeps with the workspace's model, into its own store."""
    source = _source(workspace, options)
    prepare_arithmetic()
    note(
        f"{counted(len(source.input_ids), 'video')} of {source.folder}, frames as chosen there "
        f"({', '.join(source.spec.samplers)}); {workspace.model} -> {workspace.features}"
    )
    backbones = load_backbones_of(workspace, options)
    with progress("embedding", quiet=quiet) as update, encoder_group(backbones) as encoders:
        return reembed(
            source,
            workspace.features,
            encoders,
            batch_size=workspace.batch_size,
            mode=ExtractMode(check=check_of(workspace, backbones[0])),
            progress=lambda now: update(now.done, now.total, ""),
        )


def _chosen_otherwise(workspace: Workspace, spec: FeatureSpec) -> list[str]:
    """Returns the options about frames of which the store was made with another value."""
    labels = tuple(sorted(choice.label for choice in parse_samplers(workspace.sampler)))
    asked = {
        "sampler": (labels, spec.samplers),
        "frames": (workspace.frames, spec.num_frames),
        "fps": (workspace.candidate_fps, spec.candidate_fps),
        "seed": (workspace.seed, spec.seed),
        "route": (workspace.route, spec.preprocessing.get("route")),
    }
    return [name for name, (wanted, held) in asked.items() if wanted != held]


def _source(workspace: Workspace, options: Options) -> FeatureStore:
    """Returns the store whose pictures are embedded anew, into another one."""
    assert options.from_crops is not None
    why = (
        "has no meaning with --from-crops, which embeds every picture that "
        f"{options.from_crops} keeps, as it was chosen and made there. Leave it out"
    )
    options.refuse_typed(OF_VIDEOS, why)
    source = FeatureStore(options.from_crops)
    source.require_pictures()
    workspace.refuse_typed(_chosen_otherwise(workspace, source.spec), why)
    if idle := [flag_of(n, Workspace.model_fields[n]) for n in OF_DECODING if n in workspace.typed]:
        note(f"not heeded with --from-crops, which decodes no videos: {', '.join(idle)}")
    if workspace.features.resolve() == source.folder.resolve():
        raise StoreError(
            f"{source.folder} holds the pictures; name another folder for the new embeddings with "
            "--features DIR"
        )
    return source
