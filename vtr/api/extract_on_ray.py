"""`vtr extract --ray`: the parts of an extraction on the actors of a Ray cluster.

The store is the only state: a part publishes its own shards, and goes on where it stopped. The
driver makes the plan, sends every part its inputs, and counts the ledgers at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vtr.api import extract as plain
from vtr.arithmetic import prepare_arithmetic
from vtr.clip.hub import find_model
from vtr.clip.preprocess import preprocessing_from_config
from vtr.counts import counted
from vtr.datasets.registry import VideoSurvey
from vtr.errors import ConfigError, StoreError, StoreLockedError, WorkersLostError
from vtr.extract import pipeline
from vtr.extract.cluster import MOST_RETRIES, connected, num_parts
from vtr.extract.nodes import Sight, a_few, look, marked, other_size
from vtr.extract.pipeline import ExtractReport, Progress
from vtr.extract.resume import ExtractMode, Input, set_aside_damaged, size_of
from vtr.extract.settings import ExtractSettings
from vtr.features.shard import list_shards
from vtr.features.store import FeatureStore
from vtr.files import make_folder, publish
from vtr.foreign import first_few
from vtr.progress import progress
from vtr.settings import resolved
from vtr.verbs.extract import Options, statuses
from vtr.workspace import Workspace

_LOCK_SECONDS = 60.0  # What the actors of a driver that was killed may take to end


@dataclass(frozen=True)
class Part:
    """One job of an actor."""

    place: tuple[int, int]  # (i, n)
    inputs: Sequence[Input]
    sizes: Sequence[int]  # Bytes of each input's file as the driver sees it; -1 for none


def run(
    workspace: Workspace, survey: VideoSurvey, options: Options, *, quiet: bool = False
) -> ExtractReport:
    """Extracts what `find_inputs` found with Ray's workers; see `vtr.api.extract.run`."""
    assert options.ray is not None
    if options.device.startswith("cuda:"):
        raise ConfigError(
            f"--device {options.device} is a card of one machine; on Ray say how many each worker "
            "gets with --gpus-per-worker"
        )
    start, store = time.perf_counter(), workspace.features
    inputs, retry = plain.present(survey), statuses(options.retry)
    make_folder(store, option="--features")
    if "damaged" in retry:
        set_aside_damaged(store, owned=lambda _: True)
        retry -= {"damaged"}
    with connected(options.ray) as cluster:
        share = cluster.share(
            cpus=options.cpus_per_worker, gpus=options.gpus_per_worker,
            on_cpu=options.on_cpu,
        )  # fmt: skip
        settings = replace(plain.settings_of(workspace, survey, options), workers=share.cpus)
        parts = plan_parts(inputs, store, options, workers=sum(map(share.fits, cluster.nodes)))
        if settings.pictures:
            size = preprocessing_from_config(find_model(workspace.model).path).size
            plain.check_room(workspace, settings, size, sum(len(part.inputs) for part in parts))
        idle = options.device == "auto" and not share.gpus
        device = "cpu" if options.on_cpu or idle else options.device
        used = options.model_copy(update={"device": device})
        with marked(store) as marker:
            sight = Sight(
                survey.listing.root, _some_sizes(parts), marker, workspace.model, options.engine
            )
            cluster.require_on_every_node(look, sight, share)
        config = (workspace, used, settings, inputs if retry else None)
        jobs = parts if retry else [part for part in parts if part.inputs]
        now, missing = Progress(sum(len(part.inputs) for part in jobs)), []
        with progress("extracting", quiet=quiet) as update:
            where = counted(len({node["NodeManagerAddress"] for node in cluster.nodes}), "node")
            update(0, now.total, f"{counted(len(jobs), 'part')} on {where}")
            for number, report, problem in cluster.work(_MAKE, config, jobs, share):
                if problem:
                    missing.append(f"part {'/'.join(map(str, jobs[number].place))}: {problem}")
                    continue
                _add(now, report)
                now.seconds = time.perf_counter() - start
                update(now.done, now.total, f"{now.frames / now.seconds:.0f} frames/s")
    if missing:
        raise StoreError(
            f"{counted(len(missing), 'part')} of {len(jobs)} could not be finished; what is done "
            f"is safe, and the same command goes on. {first_few(missing, 4)}"
        )
    publish(store / plain.CONFIG_FILE, resolved(workspace, options, device=device))
    return pipeline.report_of(store, inputs, now, hashed=set())


_MAKE = f"{__name__}:make_worker"


def plan_parts(
    inputs: Sequence[Input], store: Path, options: Options, *, workers: int
) -> list[Part]:
    """Cuts what the store does not hold into parts: every n-th input, as `--shard` does."""
    held = set(FeatureStore(store).input_ids) if list_shards(store)[0] else set()
    total = options.parts or num_parts(len(inputs), workers)  # the same when it goes on
    parts = []
    for i in range(total):
        mine = [item for item in inputs[i::total] if item[0].id not in held]
        sizes = [size_of(video.path) for video, _ in mine]
        parts.append(Part((i + 1, total), mine, sizes))
    return parts


def _some_sizes(parts: Sequence[Part]) -> tuple[tuple[Path, int], ...]:
    """Returns (file, bytes) of a few inputs, for the nodes to compare."""
    planned = [
        (video.path, size)
        for part in parts
        for (video, _), size in zip(part.inputs, part.sizes, strict=True)
        if video.path is not None
    ]
    return tuple(a_few(planned))


def _add(now: Progress, report: ExtractReport) -> None:
    now.done += report.done_now
    now.frames += report.frames_now
    now.decode_cpu_seconds += report.decode_cpu_seconds
    now.encode_seconds += report.encode_seconds


# ---- on the nodes


def make_worker(
    config: tuple[Workspace, Options, ExtractSettings, Sequence[Input] | None],
) -> Callable[[Part], ExtractReport]:
    """Returns what does a part: model and decoding processes are made once and kept."""
    prepare_arithmetic()
    workspace, options, settings, every = config
    pool = plain.decoding_pool(workspace, settings)
    pool.start()
    backbones = plain.load_backbones_of(workspace, options)
    encoders = plain.encoder_group(backbones)
    mode = ExtractMode(
        is_alone=every is None, retry=statuses(options.retry) - {"damaged"}, pool=pool,
        check=plain.check_of(workspace, backbones[0]),
    )  # fmt: skip

    def work(part: Part) -> ExtractReport:
        _require_same_files(part)
        mine = replace(mode, part=part.place)
        deadline, lost = time.monotonic() + _LOCK_SECONDS, 0
        while True:
            try:
                inputs = part.inputs if every is None else every
                return pipeline.extract(inputs, workspace.features, encoders, settings, mode=mine)
            except StoreLockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
            except WorkersLostError:  # such as by the system, out of memory; the pool starts anew
                lost += 1
                if lost > MOST_RETRIES:
                    raise

    return work


def _require_same_files(part: Part) -> None:
    """Refuses a part whose files are not those that the driver saw, before any work."""
    for (video, _), size in zip(part.inputs, part.sizes, strict=True):
        if video.path is not None and (here := size_of(video.path)) != size:
            raise ConfigError(other_size(video.path, here, planned=size))
