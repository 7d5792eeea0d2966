"""What `vtr eval` runs, beside the similarity product in it, and counting beside sorting.

    python benchmarks/evaluate.py [--rounds 5] [--only eval,counting,large,intervals] [--large]

`eval` is the command's own path from embeddings to ranks, kept scores and the run file's lines:
`vtr.train.scoring.Scorer` and `vtr.evaluate.evaluator.evaluate`, over the bare product of the same
round. Rounds are interleaved; figures are medians, ratios are medians of each round's ratio. Where
one call takes milliseconds, a turn has several, so that none pays for what the other left in the
caches. `large` is 200,000 texts against 5,000 videos, in the memory of a few blocks; without
--large only the first 30,000 texts of it. Prints one JSON line per measurement, with the share of
all cores that other processes took meanwhile. Set OMP_NUM_THREADS to what the machine has.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.evaluate.counting import Rows, computed, num_threads
from vtr.evaluate.coverage import Coverage
from vtr.evaluate.evaluator import Evaluation, Task, evaluate, plan
from vtr.evaluate.intervals import bootstrap
from vtr.evaluate.protocol import QuerySet
from vtr.evaluate.ranks import Ranks, rank_rows
from vtr.features import PackedFrames
from vtr.train.model import zero_shot_model
from vtr.train.scoring import Scorer
from vtr.train.texts import TextFeatures

DIM = 512
ROWS = 1024  # of the bare product, per call
FRAMES = 12  # of each video
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


def made_up_task(num_texts: int, num_videos: int) -> Task:
    """As many captions for each video, all words different."""
    queries = QuerySet(
        protocol="benchmark",
        part="test",
        video_ids=tuple(f"video{v}" for v in range(num_videos)),
        texts=tuple(f"text {q}" for q in range(num_texts)),
        text_ids=tuple(f"text{q}" for q in range(num_texts)),
        query_video=np.arange(num_texts) * num_videos // num_texts,
    )
    return plan(queries, Coverage("miss", np.ones(num_videos, np.bool_), ()))


class Case:
    """One size: embeddings, and the two ways through them."""

    def __init__(self, num_texts: int, num_videos: int) -> None:
        self.task = made_up_task(num_texts, num_videos)
        ids = self.task.queries.text_ids
        self.texts = TextFeatures(ids=ids, pooled=vectors(num_texts, 0))
        frames = vectors(num_videos * FRAMES, 1)
        offsets = np.arange(num_videos + 1) * FRAMES
        times = np.zeros(len(frames))
        self.videos = PackedFrames(self.task.video_ids, frames, times, offsets)
        self.buffer = np.empty((min(ROWS, num_texts), num_videos), np.float32)
        self.blocks = 0

    def bare(self) -> None:
        """The product alone, in one buffer."""
        columns = self.videos.frames[::FRAMES].T
        for start in range(0, len(self.texts.pooled), ROWS):
            part = self.texts.pooled[start : start + ROWS]
            np.matmul(part, columns, out=self.buffer[: len(part)])

    def scored(self) -> None:
        """What the model does alone: the same blocks, thrown away."""
        with ThreadPoolExecutor(num_threads()) as pool:
            stream = Scorer(zero_shot_model(1.0), self.texts, self.videos).stream()
            for _ in pool.map(lambda block: computed(block[1])[0, 0], stream):
                pass

    def eval(self) -> Evaluation:
        """What `vtr eval` does."""
        scorer = Scorer(zero_shot_model(1.0), self.texts, self.videos)

        def counted() -> Iterator[tuple[int, Rows]]:
            self.blocks += 1
            return scorer.stream()

        return evaluate(self.task, counted, score_pairs=scorer.score_pairs)


def product_path(
    rounds: int, num_texts: int, num_videos: int, goal: float | None = None
) -> dict[str, Any]:
    """The command's path against the bare product."""
    case = Case(num_texts, num_videos)
    calls = max(1, 5_000_000 // (num_texts * num_videos))
    seconds = in_turn(rounds, calls=calls, bare=case.bare, scored=case.scored, eval=case.eval)
    overhead = ratio(seconds["eval"], seconds["bare"])
    return {
        "texts": num_texts,
        "videos": num_videos,
        "rounds_of_blocks": case.blocks / (calls * rounds),
        **{f"{name}_ms": 1000 * statistics.median(values) for name, values in seconds.items()},
        "quickest_over_quickest": min(seconds["eval"]) / min(seconds["bare"]),
        "scored_over_bare": ratio(seconds["scored"], seconds["bare"]),
        "eval_over_bare": overhead,
        **({"goal": f"eval_over_bare <= {goal}", "met": overhead <= goal} if goal else {}),
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


def large(num_texts: int, num_videos: int = 5_000) -> dict[str, Any]:
    """One round of a large case, and how much memory it took beyond its embeddings."""
    case = Case(num_texts, num_videos)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = in_turn(1, bare=case.bare, eval=case.eval)
    overhead = seconds["eval"][0] / seconds["bare"][0]
    return {
        "texts": num_texts,
        "videos": num_videos,
        "rounds_of_blocks": case.blocks,
        "seconds": seconds["eval"][0],
        "eval_over_bare": overhead,
        "matrix_megabytes": num_texts * num_videos * 4 / 1e6,
        "more_megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3,
        "goal": "eval_over_bare <= 2",
        "met": overhead <= 2,
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
    parser.add_argument("--only", default="large,eval,counting,intervals")
    parser.add_argument("--large", action="store_true", help="all 200,000 texts (minutes)")
    args = parser.parse_args()
    for name in args.only.split(","):  # the large case first: peak memory only grows
        for group, action in groups(args)[name]:
            measured(group, action)


def groups(args: argparse.Namespace) -> dict[str, list[tuple[str, Callable[[], dict[str, Any]]]]]:
    num_texts = 200_000 if args.large else 30_000
    return {
        "large": [("large", lambda: large(num_texts))],
        "eval": [
            ("eval", lambda: product_path(args.rounds, 1_000, 1_000)),
            ("eval", lambda: product_path(args.rounds, 59_800, 2_990, 1.5)),
        ],
        "counting": [
            ("counting", lambda: counting(4 * args.rounds, 1_000, 1_000)),
            ("counting", lambda: counting(args.rounds, 59_800, 2_990)),
        ],
        "intervals": [("intervals", lambda: intervals(args.rounds))],
    }


if __name__ == "__main__":
    main()
