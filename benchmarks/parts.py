"""Parts of the pipeline alone: the encoder, the sparse fetch, the preprocessing."""

from __future__ import annotations

from pathlib import Path

import av
import clips
import numpy as np
import torch
from common import Bench, Cost, emit, goal, in_turn, median, ratios, timed
from encoders import BATCH, clip_preprocessing, random_clip, random_crops
from numpy.typing import NDArray

from vtr.clip.backbone import load_backbone
from vtr.clip.preprocess import resize_crop
from vtr.extract.frames import to_rgb, upright
from vtr.extract.sample import FrameRequest, sample_video
from vtr.extract.samplers.base import parse_samplers


def bench_encoder(bench: Bench) -> None:
    """The vision tower alone."""
    import reference

    folder = random_clip(bench.folder)
    backbone, tower = load_backbone(str(folder), device="cpu"), reference.EagerTower(folder)
    crops = random_crops(BATCH)
    pixels = torch.stack([reference.preprocess(crop) for crop in crops])
    difference = float(np.abs(backbone.encode_frames(crops) - tower.encode(pixels).numpy()).max())
    answers = in_turn(
        bench.rounds + 2,
        ours=lambda: timed(lambda: backbone.encode_frames(crops)),
        reference=lambda: timed(lambda: tower.encode(pixels)),
    )
    ours: list[Cost] = answers["ours"]
    theirs: list[Cost] = answers["reference"]
    each = ratios([cost.wall for cost in theirs], [cost.wall for cost in ours])
    emit(
        "encoder",
        model="ViT-B/32, random weights",
        dtype="float32",
        threads=torch.get_num_threads(),
        batch=BATCH,
        ratio=median(each),
        ratios=each,
        ours_images_per_second=BATCH / median([cost.wall for cost in ours]),
        reference_images_per_second=BATCH / median([cost.wall for cost in theirs]),
        ours_cpu_ms_per_image=median([cost.cpu for cost in ours]) / BATCH * 1e3,
        reference_cpu_ms_per_image=median([cost.cpu for cost in theirs]) / BATCH * 1e3,
        max_difference=difference,
        how="uint8 crops to embeddings, against normalised float32 to embeddings",
    )


def bench_sparse(bench: Bench) -> None:
    """Fetching 12 frames of a clip against decoding all of it and keeping those 12."""
    targets = {clips.H264_240: 0.8, clips.H264_720: 0.6, clips.HEVC_720: 0.6}
    for recipe in (*targets, clips.HEVC_720_OPEN):
        sparse: list[Cost] = []
        full: list[Cost] = []
        for path in bench.paths(recipe):
            request = FrameRequest(path, "clip", parse_samplers("uniform"), 12, None)
            fetched = sample_video(request, np.array)
            wanted = frozenset(fetched.pts_seconds.tolist())
            if len(wanted) != 12 or not np.array_equal(fetched.crops, decode_all(path, wanted)):
                raise AssertionError(f"{path}: not the 12 frames that decoding everything gives")
            answers = in_turn(
                bench.rounds,
                sparse=lambda request=request: timed(lambda: sample_video(request, np.array)),
                full=lambda path=path, wanted=wanted: timed(lambda: decode_all(path, wanted)),
            )
            sparse += answers["sparse"]
            full += answers["full"]
        each = ratios([cost.wall for cost in sparse], [cost.wall for cost in full])
        most = targets.get(recipe)
        emit(
            "sparse",
            clips=recipe.name,
            frames=12,
            route=fetched.decode_route,
            bit_identical=True,
            ratio=median(each) if most is None else goal(median(each), at_most=most),
            ratio_cpu=median(ratios([cost.cpu for cost in sparse], [cost.cpu for cost in full])),
            ratios=each,
            sparse_ms=median([cost.wall for cost in sparse]) * 1e3,
            full_ms=median([cost.wall for cost in full]) * 1e3,
            how="12 uniform ones of all frames, as RGB of their own size; full: a plain PyAV loop "
            "over every frame, the same 12 converted the same way; one thread each",
        )


def decode_all(path: Path, wanted: frozenset[float]) -> NDArray[np.uint8]:
    """Returns the frames of these times by decoding everything, nothing clever."""
    pictures = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        for frame in container.decode(stream):
            if frame.time in wanted:
                pictures[frame.time] = to_rgb(frame, upright(frame))
    return np.stack([pictures[time] for time in sorted(pictures)])


def bench_preprocessing(bench: Bench) -> None:
    """The default route against Pillow's, one thread, pictures from the clips."""
    import reference

    fast, exact = clip_preprocessing("fast"), clip_preprocessing("exact")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for recipe in (clips.H264_240, clips.H264_720):
        pictures = sample_pictures(bench.paths(recipe))
        gap = np.stack([resize_crop(picture, fast) for picture in pictures]).astype(np.int16)
        gap -= np.stack([resize_crop(picture, exact) for picture in pictures])
        answers = in_turn(
            bench.rounds + 4,
            fast=lambda p=pictures: timed(lambda: [resize_crop(one, fast) for one in p]),
            exact=lambda p=pictures: timed(lambda: [resize_crop(one, exact) for one in p]),
            reference=lambda p=pictures: timed(lambda: [reference.preprocess(one) for one in p]),
        )
        cpu = {name: [cost.cpu for cost in costs] for name, costs in answers.items()}
        each = ratios(cpu["exact"], cpu["fast"])
        emit(
            "preprocessing",
            clips=recipe.name,
            frames=len(pictures),
            ratio=goal(median(each), at_least=2),
            ratios=each,
            **{f"{name}_us": median(cpu[name]) / len(pictures) * 1e6 for name in cpu},
            max_difference=goal(int(np.abs(gap).max()), at_most=2),
            mean_difference=goal(float(np.abs(gap).mean()), at_most=0.01),
            how="CPU time, RGB picture to uint8 crop; differences in grey levels; `exact` is "
            "Pillow; `reference` also normalises",
        )
    torch.set_num_threads(threads)


def sample_pictures(paths: list[Path], each: int = 12) -> list[NDArray[np.uint8]]:
    """Returns `each` pictures of every clip at their own size."""
    pictures: list[NDArray[np.uint8]] = []
    for path in paths:
        request = FrameRequest(path, "clip", parse_samplers("uniform"), each, None)
        pictures.extend(sample_video(request, np.array).crops)
    return pictures
