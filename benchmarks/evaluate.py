"""Ranks beside the similarity product they come from, and beside sorting.

    python benchmarks/evaluate.py [--rounds 5] [--only product,counting,large,intervals] [--large]

Rounds are interleaved; figures are medians, ratios are medians of each round's ratio. Where one
call takes milliseconds, a turn has several, so that none pays for what the other left in the
caches. `large` streams 1,000,000 texts against 10,000 videos in bounded memory; without --large
only the first 30,000 texts of it. Prints one JSON line per measurement, with the share of all cores
that other processes took meanwhile. 2 cores: set OMP_NUM_THREADS to what the machine has.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.evaluate.intervals import bootstrap
from vtr.evaluate.ranks import Ranks, rank_rows, stream_ranks
from vtr.evaluate.tiles import ROWS_PER_TILE, TiledScores, product_scores

DIM = 512
F32 = NDArray[np.float32]


def emit(group: str, **values: Any) -> None:
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"benchmark": "evaluate", "group": group, **rounded}), flush=True)


def vectors(count: int, seed: int) -> F32:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((count, DIM), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def in_turn(
    rounds: int, *, calls: int = 1, **actions: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of one call of each, `calls` in a row, side by side; every other round backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds):
        names = list(actions) if number % 2 == 0 else list(reversed(actions))
        for name in names:
            start = time.perf_counter()
            for _ in range(calls):
                actions[name]()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def busy_ticks() -> tuple[float, float]:
    """(CPU seconds of the machine, of this process)."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = [int(word) for word in words]
    return (sum(ticks) - ticks[3] - ticks[4]) / 100, time.process_time()


def measured(group: str, action: Callable[[], dict[str, Any]]) -> None:
    start, (busy, own) = time.perf_counter(), busy_ticks()
    values = action()
    busy_now, own_now = busy_ticks()
    cores = len(os.sched_getaffinity(0))
    wall = time.perf_counter() - start
    others = max(0.0, (busy_now - busy) - (own_now - own)) / (wall * cores)
    emit(group, **values, others_share=others)


def product(rounds: int, num_texts: int = 59_800, num_videos: int = 2_990) -> dict[str, Any]:
    """Similarity and ranks streamed together, against the bare product in the same blocks."""
    texts, videos = vectors(num_texts, 0), vectors(num_videos, 1)
    query_video = np.arange(num_texts) * num_videos // num_texts
    buffer = np.empty((ROWS_PER_TILE, num_videos), np.float32)

    def bare() -> None:
        for start in range(0, num_texts, ROWS_PER_TILE):
            part = texts[start : start + ROWS_PER_TILE]
            np.matmul(part, videos.T, out=buffer[: len(part)])

    source = product_scores(texts, videos)

    def tiled() -> None:
        for _ in source():
            pass

    starts: list[str] = []

    def counted() -> Iterator[tuple[int, F32]]:
        starts.append("round")
        return source()

    def both() -> None:
        own = source.own(query_video)
        stream_ranks(counted, query_video, num_videos, own_scores=own)

    def one() -> None:
        stream_ranks(source, query_video, num_videos, both=False)

    seconds = in_turn(rounds, bare=bare, tiled=tiled, both=both, one=one)
    overhead = ratio(seconds["both"], seconds["bare"])
    return {
        "texts": num_texts,
        "videos": num_videos,
        "rounds_of_blocks": len(starts) / rounds,
        **{f"{name}_ms": 1000 * statistics.median(values) for name, values in seconds.items()},
        "both_over_bare": overhead,
        "t2v_over_bare": ratio(seconds["one"], seconds["bare"]),
        "tiled_over_bare": ratio(seconds["tiled"], seconds["bare"]),
        "goal": "both_over_bare <= 1.5",
        "met": overhead <= 1.5,
    }


def counting(rounds: int, num_queries: int, num_videos: int) -> dict[str, Any]:
    """Counting on a ready matrix against sorting it, as the reference does."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((num_queries, num_videos), dtype=np.float32)
    targets = np.arange(num_queries) * num_videos // num_queries

    def sort() -> None:
        for start in range(0, num_queries, 2000):
            np.sort(-scores[start : start + 2000], axis=1)

    calls = max(1, 10_000_000 // scores.size)
    seconds = in_turn(rounds, calls=calls, count=lambda: rank_rows(scores, targets), sort=sort)
    gain = ratio(seconds["sort"], seconds["count"])
    return {
        "queries": num_queries,
        "videos": num_videos,
        **{f"{name}_ms": 1000 * statistics.median(values) for name, values in seconds.items()},
        "sort_over_count": gain,
        "goal": "sort_over_count >= 4 at 1000 x 1000",
        "met": gain >= 4,
    }


def large(num_texts: int, num_videos: int = 10_000) -> dict[str, Any]:
    """Both directions with texts made on the way, so that only the blocks need memory."""
    videos, base = vectors(num_videos, 1), vectors(ROWS_PER_TILE, 2)
    query_video = np.arange(num_texts) * num_videos // num_texts

    def fill(rows: slice, columns: slice, out: F32) -> None:
        part = np.roll(base, rows.start // ROWS_PER_TILE, axis=1)[: rows.stop - rows.start]
        np.matmul(part, videos[columns].T, out=out)

    source = TiledScores(fill, num_texts, num_videos)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    own = source.own(query_video)
    stream_ranks(source, query_video, num_videos, own_scores=own)
    seconds = time.perf_counter() - start
    return {
        "texts": num_texts,
        "videos": num_videos,
        "seconds": seconds,
        "pairs_per_second": num_texts * num_videos / seconds,
        "matrix_megabytes": num_texts * num_videos * 4 / 1e6,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "peak_before_megabytes": before / 1e3,
    }


def intervals(rounds: int) -> dict[str, Any]:
    """2,000 resamples of 59,800 captions of 2,990 videos."""
    rng = np.random.default_rng(0)
    better = np.minimum(rng.geometric(0.02, 59_800) - 1, 2_989)

    ranks = Ranks(better, np.ones(59_800, np.int64), 2_990)
    clusters = np.arange(59_800) // 20
    seconds = in_turn(
        rounds,
        queries=lambda: bootstrap(ranks, seed=0),
        videos=lambda: bootstrap(ranks, seed=0, clusters=clusters),
    )
    return {f"{name}_ms": 1000 * statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="large,product,counting,intervals")
    parser.add_argument("--large", action="store_true", help="all 1,000,000 texts (minutes)")
    args = parser.parse_args()
    for name in args.only.split(","):  # the large case first: peak memory only grows
        for group, action in groups(args)[name]:
            measured(group, action)


def groups(args: argparse.Namespace) -> dict[str, list[tuple[str, Callable[[], dict[str, Any]]]]]:
    num_texts = 1_000_000 if args.large else 30_000
    return {
        "large": [("large", lambda: large(num_texts))],
        "product": [("product", lambda: product(args.rounds))],
        "counting": [
            ("counting", lambda: counting(4 * args.rounds, 1_000, 1_000)),
            ("counting", lambda: counting(args.rounds, 59_800, 2_990)),
        ],
        "intervals": [("intervals", lambda: intervals(args.rounds))],
    }


if __name__ == "__main__":
    main()
