"""The cache against memory itself: opening, loading everything, random batches.

10,000 videos of 12 frames, 512 dimensions, float16 (123 MB), in a folder of their own. Rounds are
interleaved; figures are medians. Prints one JSON line.

    python benchmarks/store.py [--videos 10000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vtr.features import FeatureSpec, FeatureStore, LedgerRow, VideoRow
from vtr.features.shard import write_shard

FRAMES, DIM, SHARD, BATCH = 12, 512, 256, 128


def build(folder: Path, num_videos: int) -> float:
    spec = FeatureSpec(
        "random", "local", "0" * 64, DIM, "float32", "float16", {}, 1.0, FRAMES, ("uniform",), 0
    )
    rng = np.random.default_rng(0)
    pts, every = np.arange(FRAMES) * 1.0, {"uniform": np.arange(FRAMES)}
    start = time.perf_counter()
    for sequence, first in enumerate(range(0, num_videos, SHARD)):
        rows = [
            VideoRow(
                LedgerRow(f"video{v}", "ok"),
                rng.standard_normal((FRAMES, DIM), np.float32).astype(np.float16),
                pts,
                every,
            )
            for v in range(first, min(first + SHARD, num_videos))
        ]
        write_shard(
            folder, rows, spec=spec, slot=(1, 1, sequence), revision=0, pad_embedding=np.zeros(DIM)
        )
    return time.perf_counter() - start


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_seconds = build(folder, args.videos)
        store = FeatureStore(folder)
        everything = store.packed().frames
        rng = np.random.default_rng(1)
        figures: dict[str, list[float]] = {"open": [], "load_all": [], "copy": [], "batch": []}
        for _ in range(args.rounds):
            ids = [store.ids[i] for i in rng.integers(0, len(store), BATCH)]
            figures["open"].append(timed(lambda: FeatureStore(folder)))
            figures["load_all"].append(timed(store.packed))
            figures["copy"].append(timed(everything.copy))
            figures["batch"].append(timed(lambda ids=ids: store.packed(ids)))
        median = {key: statistics.median(values) for key, values in figures.items()}
        print(
            json.dumps(
                {
                    "benchmark": "store",
                    "videos": args.videos,
                    "megabytes": round(everything.nbytes / 1e6),
                    "write_seconds": round(write_seconds, 3),
                    "open_seconds": round(median["open"], 4),
                    "load_all_seconds": round(median["load_all"], 4),
                    "memory_copy_seconds": round(median["copy"], 4),
                    "load_rate_over_copy_rate": round(median["copy"] / median["load_all"], 2),
                    "random_batch_us_per_video": round(median["batch"] / BATCH * 1e6, 1),
                }
            )
        )


if __name__ == "__main__":
    main()
