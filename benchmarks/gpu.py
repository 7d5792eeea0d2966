"""What a machine with GPUs does, in one command that ends with a table.

    python benchmarks/gpu.py [--device cuda] [--workers 1,2,4,8,16] [--frames 10000000]
    python benchmarks/gpu.py --device cpu --tiny      (the same with next to nothing to do)

Decode: choosing and preprocessing all frames at one a second with an encoder that costs nothing.
Encode: crops in memory to embeddings through the group of all devices. Bare: the model alone, on
one device, pictures already there, in the same dtype. Whole: the pipeline; its wall time is held
against the slower half, max(decoding CPU / workers, encoding alone). Heads: seconds for 180,000
pairs, from one step of 128. Search: a query over random frames, on the processor. One JSON line
per measurement comes before the table. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vtr.arithmetic import prepare_arithmetic

prepare_arithmetic()  # as `vtr extract` does, before torch is imported

import clips
import common
import heads
import numpy as np
import search
import torch
from encoders import NullEncoder, random_clip
from numpy.typing import NDArray

from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.device import find_devices
from vtr.clip.preprocess import normalise
from vtr.demo import demo_model_folder
from vtr.extract.encoders import EncoderGroup
from vtr.train.headlist import build_head, head_names, parse_head

PAIRS = 180_000  # MSR-VTT's 9k split
Row = tuple[str, str, str, str]  # what, with what, figure, goal


class _Nothing(NullEncoder):
    """Takes the pictures of a backbone and answers at once."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.describe, self.dim = backbone.describe, backbone.embedding_dim  # type: ignore[method-assign]

    def encode_frames(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns (B, D) ones."""
        return np.ones((len(crops), self.dim), np.float32)

    def pad_embedding(self) -> NDArray[np.float32]:
        """Returns (D,) ones."""
        return np.ones(self.dim, np.float32)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=Path, default=root / "bench-data", help="clips and model")
    parser.add_argument("--device", default="cuda", help="cuda (every GPU), cuda:1, cpu")
    parser.add_argument("--tiny", action="store_true", help="next to nothing of everything")
    parser.add_argument("--workers", default="1,2,4,8,16", help="decoding processes, one by one")
    parser.add_argument("--dtypes", default="float32,float16,bfloat16")
    parser.add_argument("--heads", default=",".join(head_names()))
    parser.add_argument("--videos", type=int, default=2_000, help="inputs of a run")
    parser.add_argument("--frames", type=int, default=10_000_000, help="that are searched")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    if args.tiny:
        args.workers, args.dtypes, args.videos, args.frames, args.rounds = (
            "1,2",
            "float32",
            4,
            2_400,
            1,
        )
    return args


def bare_seconds(backbone: Backbone, crops: NDArray[np.uint8], count: int) -> float:
    """Returns the seconds of the model alone for so many pictures that are there already."""
    there = torch.from_numpy(crops).to(backbone.device)
    pixels = normalise(there, backbone.preprocessing, dtype=backbone.dtype)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(0, count, len(crops)):
                backbone.model.visual(pixels)

    run()
    return heads.seconds_of(run, backbone.device)


def group_seconds(group: EncoderGroup, crops: NDArray[np.uint8], count: int) -> float:
    """Returns the seconds from crops in memory to embeddings in memory, over all devices."""

    def run() -> None:
        for answer in [group.submit(crops) for _ in range(0, count, len(crops))]:
            answer.result()

    run()
    return common.timed(run).wall


def bench_extraction(args: argparse.Namespace, dtype: str) -> Iterator[Row]:
    """Decode, encode and the whole, with ever more decoding processes."""
    folder = demo_model_folder() if args.tiny else random_clip(args.data)
    recipe = clips.TINY if args.tiny else clips.H264_240
    files = clips.make_clips(recipe, args.data, 4 if args.tiny else 8)
    videos = common.listed(files, -(-args.videos // len(files)))[: args.videos]
    how: Any = {"dtype": dtype}
    backbones = [load_backbone(str(folder), device=d, **how) for d in find_devices(args.device)]
    first, devices = backbones[0], len(backbones)
    batch = 4 if args.tiny else 256 if first.device.type == "cuda" else 32
    crops = np.random.default_rng(0).integers(
        0, 256, (batch, *first.preprocessing.size, 3), dtype=np.uint8
    )
    with EncoderGroup([lane for one in backbones for lane in one.lanes()]) as group:
        count = batch * (2 if args.tiny else 40) * devices
        times = common.in_turn(
            args.rounds,
            encode=lambda: group_seconds(group, crops, count) / count,
            bare=lambda: bare_seconds(first, crops, count) / count / devices,
        )
        encode = common.median(times["encode"])
        share = common.goal(
            common.median(common.ratios(times["bare"], times["encode"])), at_least=0.9
        )
        what = f"{dtype}, {devices} device{'s' * (devices > 1)}"
        common.emit(
            "encode", dtype=dtype, devices=devices, frames_per_second=1 / encode, share=share
        )
        yield "encode, frames/s", what, f"{1 / encode:.0f}", ""
        yield "encode over the bare model", what, *_shown(share)
        for workers in map(int, args.workers.split(",")):
            yield from bench_workers(args, workers, videos, files[0], (group, first, encode, what))


def bench_workers(
    args: argparse.Namespace, workers: int, videos: list[Any], clip: Path, using: Any
) -> Iterator[Row]:
    """Decode and the whole with so many decoding processes."""
    group, backbone, encode, what = using
    bench = common.Bench(args.data, args.rounds, workers, 1, {})

    def run(encoder: Any) -> common.Run:
        return common.run_pipeline(videos, encoder, bench.settings("dense"), first=clip)

    answers = common.in_turn(
        args.rounds, decode=lambda: run(_Nothing(backbone)), whole=lambda: run(group)
    )
    decode, whole = answers["decode"], answers["whole"]
    frames = whole[0].report.frames_now
    each = [
        w.wall / max(d.report.decode_cpu_seconds / workers, encode * frames)
        for d, w in zip(decode, whole, strict=True)
    ]
    over = common.goal(common.median(each), at_most=1.1)
    rates = {
        name: frames / common.median([one.wall for one in runs]) for name, runs in answers.items()
    }
    common.emit(
        "whole", with_=what, workers=workers, frames=frames, rates=rates, wall_over_bound=over
    )
    how = f"{what}, {workers} workers"
    yield "decode, frames/s", how, f"{rates['decode']:.0f}", ""
    yield "whole, frames/s", how, f"{rates['whole']:.0f}", ""
    yield "whole over its slower half", how, *_shown(over)


def bench_heads(args: argparse.Namespace) -> Iterator[Row]:
    """Seconds of an epoch for every head."""
    device = torch.device(find_devices(args.device)[0])
    batch = 2 if args.tiny else heads.BATCH
    for word in args.heads.split(","):
        head = build_head(parse_head(word), dim=heads.DIM, clip=None, seed=0).to(device)
        step = heads.training_step(head, device, batch=batch)
        try:
            step()
        except torch.OutOfMemoryError:
            yield "epoch of 180,000 pairs, s", f"{word}, steps of {batch}", "no room", ""
            continue
        taken = [heads.seconds_of(step, device) for _ in range(args.rounds)]
        seconds = common.median(taken) * PAIRS / batch
        common.emit("epoch", head=word, batch=batch, step_seconds=taken, epoch_seconds=seconds)
        yield "epoch of 180,000 pairs, s", f"{word}, steps of {batch}", f"{seconds:.3g}", ""


def bench_search(args: argparse.Namespace) -> Iterator[Row]:
    """A query over all frames."""
    with tempfile.TemporaryDirectory(prefix="frames-", dir=args.data) as folder:
        indexing = search.build(Path(folder), args.frames)
        start = time.perf_counter()
        seconds = search.query_seconds(Path(folder), args.rounds + 4)
        opened = time.perf_counter() - start - sum(seconds)
    milliseconds = 1e3 * common.median(seconds)
    common.emit(
        "search", frames=args.frames, milliseconds=milliseconds, index_seconds=indexing, open=opened
    )
    yield "search, ms a query", f"{args.frames:,} frames", f"{milliseconds:.1f}", ""


def _shown(value: Any) -> tuple[str, str]:
    return f"{value['value']:.3g}", f"{value['goal']}{'' if value['met'] else ': not met'}"


def table(rows: list[Row]) -> str:
    """Returns rows as Markdown, for docs/speed.md."""
    lines = [("what", "with", "figure", "goal"), ("---",) * 4, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    args.data.mkdir(parents=True, exist_ok=True)
    find_devices(args.device)  # refuses what is not there
    cuda = args.device != "cpu" and torch.cuda.is_available()
    card = torch.cuda.get_device_name() if cuda else "no GPU"
    common.emit(
        "machine", card=card, cores=os.cpu_count(), load=os.getloadavg()[0], torch=torch.__version__
    )
    dtypes = args.dtypes.split(",")
    parts: list[Callable[[], Iterator[Row]]] = [
        *(lambda dtype=dtype: bench_extraction(args, dtype) for dtype in dtypes),
        lambda: bench_heads(args),
        lambda: bench_search(args),
    ]
    rows = [row for part in parts for row in part()]
    print(f"\n{card}, {os.cpu_count()} cores, torch {torch.__version__}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
