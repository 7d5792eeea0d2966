"""Extraction against the reference systems' way, on the same generated clips, in one run.

Prints one JSON line per measurement. Everything that is compared runs in turn, round by round, in
this one process; a `ratio` is the median of the rounds' ratios. The clips and a ViT-B/32 of random
weights are made once and kept in --data. Let nothing else run meanwhile: the lines of the group
`others` tell what share of the cores other processes took.

    python benchmarks/extract.py [--quick] [--only feeder,whole] [--memory]

Needs the `bench` extra (OpenCV) for the reference's side.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from vtr.arithmetic import prepare_arithmetic

prepare_arithmetic()  # as `vtr extract` does, before torch is imported; it serves the reference too

import clips
import torch
from common import Bench, Others, emit
from parts import bench_encoder, bench_preprocessing, bench_sparse
from pipelines import bench_feeder, bench_gpu, bench_memory, bench_whole

from vtr.arithmetic import usable_cores

GROUPS: dict[str, Callable[[Bench], None]] = {
    "feeder": bench_feeder,
    "encoder": bench_encoder,
    "whole": bench_whole,
    "sparse": bench_sparse,
    "preprocessing": bench_preprocessing,
    "gpu": bench_gpu,
}


def describe_machine(bench: Bench) -> None:
    """Says what the figures were measured on and with."""
    names = ("av", "numpy", "opencv-python-headless", "pillow", "torch", "transformers")
    emit(
        "machine",
        processor=processor(),
        cores=usable_cores(),
        torch_threads=torch.get_num_threads(),
        gomp_spincount=os.environ.get("GOMP_SPINCOUNT"),
        load_before=os.getloadavg()[0],
        rounds=bench.rounds,
        versions={name: installed(name) for name in names},
    )


def processor() -> str:
    """Returns the processor's name as the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def installed(name: str) -> str | None:
    """Returns a distribution's version, None where it is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=Path, default=root / "bench-data", help="clips and model")
    parser.add_argument("--clips-240", type=int, default=8)
    parser.add_argument("--clips-720", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=4, help="inputs per clip of the feeder")
    parser.add_argument("--quick", action="store_true", help="2 clips of each kind, 1 round")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, separated by commas")
    parser.add_argument("--memory", action="store_true", help="memory over --videos, nothing else")
    parser.add_argument("--videos", type=int, default=5000, help="of --memory")
    args = parser.parse_args()
    unknown = set(args.only.split(",")) - set(GROUPS)
    if unknown:
        parser.error(f"no group {', '.join(sorted(unknown))}; known: {', '.join(GROUPS)}")
    if not args.memory and importlib.util.find_spec("cv2") is None:
        parser.error("OpenCV is missing: pip install -e '.[bench]'")
    return args


def main() -> None:
    args = parse()
    small, large = (2, 2) if args.quick else (args.clips_240, args.clips_720)
    bench = Bench(
        args.data,
        rounds=1 if args.quick else args.rounds,
        workers=args.workers,
        repeat=2 if args.quick else args.repeat,
        num_clips={
            clips.H264_240: small,
            clips.H264_720: large,
            clips.HEVC_720: 1,
            clips.HEVC_720_OPEN: 1,
        },
    )
    describe_machine(bench)
    if args.memory:
        bench_memory(bench, count=args.videos)
        return
    for recipe in bench.num_clips:
        emit("clip", clips=recipe.name, **clips.facts(bench.paths(recipe)[0]))
    for name in args.only.split(","):
        others = Others()
        GROUPS[name](bench)
        emit("others", during=name, cpu_share=others.share())


if __name__ == "__main__":
    sys.exit(main())
