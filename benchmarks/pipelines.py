"""The pipeline as a whole: feeding an encoder, waiting for one, and holding memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import clips
import torch
from common import (
    Bench,
    Cost,
    Run,
    emit,
    goal,
    in_turn,
    listed,
    median,
    ratios,
    resident_bytes,
    run_pipeline,
    timed,
)
from encoders import BATCH, NullEncoder, encode_alone, random_clip, random_crops

from vtr.arithmetic import usable_cores
from vtr.clip.backbone import load_backbone
from vtr.datasets.base import Video
from vtr.errors import ConfigError

_CLOCK = (
    "the clock starts at the first worker's first answer and stops when the store is closed; "
    "start_seconds is what came before"
)


def bench_feeder(bench: Bench) -> None:
    """Decode, choose and preprocess, no encoder, against the reference's extractor."""
    import reference

    for recipe in (clips.H264_240, clips.H264_720):
        paths = bench.paths(recipe)
        videos = listed(paths, bench.repeat)

        def ours(sampler: str, videos: list[Video] = videos) -> Run:
            settings = bench.settings(sampler)
            return run_pipeline(videos, NullEncoder(), settings, first=bench.tiny())

        def theirs(paths: list[Path] = paths) -> Cost:
            return timed(lambda: [reference.read_video(path) for path in paths])

        answers = in_turn(
            bench.rounds,
            dense=lambda ours=ours: ours("dense"),
            reference=theirs,
            uniform=lambda ours=ours: ours("uniform"),
        )
        costs: list[Cost] = answers["reference"]
        for sampler in ("dense", "uniform"):
            runs: list[Run] = answers[sampler]
            each = ratios(
                [cost.wall / len(paths) for cost in costs],
                [run.wall / len(videos) for run in runs],
            )
            emit(
                "feeder",
                clips=recipe.name,
                sampler=sampler,
                workers=bench.workers,
                ratio=goal(median(each), at_least=4),
                ratios=each,
                ours_ms_per_clip=median([run.wall for run in runs]) / len(videos) * 1e3,
                ours_cpu_ms_per_clip=median([run.cpu for run in runs]) / len(videos) * 1e3,
                reference_ms_per_clip=median([cost.wall for cost in costs]) / len(paths) * 1e3,
                reference_cpu_ms_per_clip=median([cost.cpu for cost in costs]) / len(paths) * 1e3,
                start_seconds=median([run.start_seconds for run in runs]),
                how=f"{len(videos)} inputs ({len(paths)} files); {_CLOCK}; OpenCV uses as many "
                "threads as it likes",
            )


# How the tower is run, and what its ratio should be at 240p and 720p; int8 where its extra is.
_WAYS: dict[str, tuple[dict[str, Any], float, float]] = {
    "float32": ({}, 1.25, 2.5),
    "openvino int8": ({"engine": "openvino", "dtype": "int8"}, 3, 4),
    "onnx int8": ({"engine": "onnx", "dtype": "int8"}, 3, 4),
}


def bench_whole(bench: Bench) -> None:
    """The whole pipeline against the reference's way, and against the cores' own limit."""
    import reference

    folder = random_clip(bench.folder)
    tower, towers = reference.EagerTower(folder), {}
    for way, (how, _, _) in _WAYS.items():
        try:
            towers[way] = load_backbone(str(folder), device="cpu", **how)
        except ConfigError as error:
            emit("whole", way=way, skipped=str(error))
            continue
        towers[way].encode_frames(random_crops(BATCH))
    for number, recipe in enumerate((clips.H264_240, clips.H264_720)):
        paths = bench.paths(recipe)
        frames = sum(len(reference.read_video(path)) for path in paths)

        def ours(encoder: Any, paths: list[Path] = paths) -> Run:
            settings = bench.settings("dense")
            return run_pipeline(listed(paths), encoder, settings, first=bench.tiny())

        answers = in_turn(
            bench.rounds,
            **{way: lambda ours=ours, way=way: ours(towers[way]) for way in towers},
            reference=lambda paths=paths: timed(lambda: tower.encode_videos(paths)),
            feeder=lambda ours=ours: ours(NullEncoder()),
            encoder=lambda frames=frames: timed(
                lambda: encode_alone(towers["float32"], frames, BATCH)
            ),
        )
        reference_wall = [cost.wall for cost in answers["reference"]]
        for way in towers:
            runs: list[Run] = answers[way]
            each = ratios(reference_wall, [run.wall for run in runs])
            with_start = [run.start_seconds + run.wall for run in runs]
            emit(
                "whole",
                way=way,
                clips=recipe.name,
                num_clips=len(paths),
                frames=frames,
                workers=bench.workers,
                ratio=goal(median(each), at_least=_WAYS[way][1 + number]),
                ratios=each,
                ratio_with_start=median(ratios(reference_wall, with_start)),
                ours_seconds=median([run.wall for run in runs]),
                reference_seconds=median(reference_wall),
                start_seconds=median([run.start_seconds for run in runs]),
                cpu_seconds=median([run.cpu for run in runs]),
                reference_cpu_seconds=median([cost.cpu for cost in answers["reference"]]),
                load=os.getloadavg()[0],
                how=f"{_CLOCK}; the reference encodes {BATCH} frames at a time, across videos; "
                "converting the tower for an engine comes before the clock starts",
            )
        _emit_cpu_bound(recipe, answers)


def _emit_cpu_bound(recipe: clips.Recipe, answers: dict[str, list[Any]]) -> None:
    """Says how far the wall clock is above what the cores must do at least."""
    runs: list[Run] = answers["float32"]
    wall = [run.wall for run in runs]
    own = [run.cpu / usable_cores() for run in runs]
    apart = [
        (run.report.decode_cpu_seconds + cost.cpu) / usable_cores()
        for run, cost in zip(answers["feeder"], answers["encoder"], strict=True)
    ]
    emit(
        "cpu bound",
        clips=recipe.name,
        wall_over_bound=goal(median(ratios(wall, own)), at_most=1.15),
        wall_over_bound_apart=median(ratios(wall, apart)),
        wall_seconds=median(wall),
        decode_cpu_seconds=median([run.report.decode_cpu_seconds for run in runs]),
        main_cpu_seconds=median([run.main_cpu for run in runs]),
        encode_seconds=median([run.report.encode_seconds for run in runs]),
        alone_decode_cpu_seconds=median(
            [run.report.decode_cpu_seconds for run in answers["feeder"]]
        ),
        alone_encode_seconds=median([cost.wall for cost in answers["encoder"]]),
        alone_encode_cpu_seconds=median([cost.cpu for cost in answers["encoder"]]),
        how="bound: (CPU of the workers' jobs + CPU of all threads of this process) / cores, of "
        "the same run. Threads that wait by spinning count as work there; so `apart` takes the "
        "CPU of a run that only decodes and of one that only encodes the same number of frames",
    )


def bench_gpu(bench: Bench) -> None:
    """The whole pipeline on a GPU against the slower of its two halves; nothing without one."""
    if not torch.cuda.is_available():
        emit("gpu", skipped="no CUDA device")
        return
    folder = random_clip(bench.folder)
    for dtype in ("float32", "float16"):
        backbone = load_backbone(str(folder), device="cuda", dtype=dtype)
        backbone.encode_frames(random_crops(256))
        for recipe in (clips.H264_240, clips.H264_720):
            videos = listed(bench.paths(recipe), 4 * bench.repeat)
            _bench_gpu_on(bench, recipe, videos, backbone)


def _bench_gpu_on(bench: Bench, recipe: clips.Recipe, videos: list[Video], backbone: Any) -> None:
    def run(encoder: Any) -> Run:
        return run_pipeline(videos, encoder, bench.settings("dense"), first=bench.tiny())

    frames = run(NullEncoder()).report.frames_now
    answers = in_turn(
        bench.rounds,
        ours=lambda: run(backbone),
        encoder=lambda: timed(lambda: encode_alone(backbone, frames, 256)),
    )
    runs: list[Run] = answers["ours"]
    decode = [run.report.decode_cpu_seconds / bench.workers for run in runs]
    encode = [cost.wall for cost in answers["encoder"]]
    each = ratios([run.wall for run in runs], list(map(max, decode, encode)))
    emit(
        "gpu",
        device=torch.cuda.get_device_name(),
        dtype=str(backbone.dtype),
        clips=recipe.name,
        inputs=len(videos),
        frames=frames,
        workers=bench.workers,
        wall_over_bound=goal(median(each), at_most=1.1),
        ratios=each,
        wall_seconds=median([run.wall for run in runs]),
        decode_cpu_over_workers=median(decode),
        alone_encode_seconds=median(encode),
        start_seconds=median([run.start_seconds for run in runs]),
        how=f"bound: max(CPU of the workers' jobs / workers, encoding alone); {_CLOCK}",
    )


def bench_memory(bench: Bench, *, count: int) -> None:
    """Memory of this process over thousands of videos, with a fast and with a slow encoder."""
    files = clips.make_clips(clips.TINY, bench.folder, 4)
    videos = [Video(f"video{i}", files[i % len(files)]) for i in range(count)]
    every = max(1, count // 10)
    pause = 0.0
    for name in ("instant", "slower than the feeder"):
        held: dict[int, int] = {}

        def watch(progress: Any, held: dict[int, int] = held) -> None:
            if progress.done % every == 0:
                held[progress.done] = resident_bytes()

        encoder = NullEncoder(seconds_per_frame=pause)
        run = run_pipeline(videos, encoder, bench.settings("dense"), first=files[0], watch=watch)
        pause = 1.5 * run.wall / run.report.frames_now
        later = list(held.values())[len(held) // 2 :]
        emit(
            "memory",
            encoder=name,
            videos=count,
            frames=run.report.frames_now,
            wall_seconds=run.wall,
            resident_mb={done: value / 1e6 for done, value in held.items()},
            growth_mb=goal((max(later) - later[0]) / 1e6, at_most=16),
            peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
            how="resident memory of the main process. A slow encoder's queue fills first (to 268 "
            "MB), so growth is counted from half-way on",
        )
