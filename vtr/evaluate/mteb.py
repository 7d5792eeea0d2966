"""An evaluation as mteb (the Massive Text Embedding Benchmark, 2.x) writes its results.

The schema is mteb's `TaskResult`, whose `from_disk` reads it; the package is not needed for that.
Numbers are shares from 0 to 1 over the queries, text to video, as mteb counts and rounds them: of
equal scores the larger id stands first, where `result.json` has the mean over all orders. The
confidence curves that mteb adds (nauc_...) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.evaluate.counting import computed
from vtr.evaluate.evaluator import Evaluation, Task
from vtr.evaluate.metrics import hits, mean_worth, ndcg
from vtr.evaluate.ranks import Blocks, Ranks
from vtr.evaluate.trec import later_first

DEPTHS = (1, 3, 5, 10, 20, 100, 1000)
MAIN_SCORE = "ndcg_at_10"
LANGUAGE = "eng-Latn"
_DIGITS = 5


def task_name(protocol: str) -> str:
    """Returns what a protocol is called as a task.

    >>> task_name("msrvtt-1kA")
    'vtr-msrvtt-1kA-t2v'
    """
    return f"vtr-{protocol}-t2v"


def task_result(evaluation: Evaluation, blocks: Blocks) -> dict[str, Any]:
    """Returns the fields of a `TaskResult`; the revision is the digest of what was asked.

    `blocks` are those that were evaluated; they are asked again where there are ties.
    """
    queries = evaluation.task.queries
    scores = retrieval_scores(ranks_by_id(evaluation.task, evaluation.ranks.t2v, blocks))
    return {
        "dataset_revision": queries.digest,
        "task_name": task_name(queries.protocol),
        "mteb_version": None,
        "scores": {
            queries.part: [
                {
                    **scores,
                    "main_score": scores[MAIN_SCORE],
                    "hf_subset": "default",
                    "languages": [LANGUAGE],
                }
            ]
        },
        "evaluation_time": None,
        "kg_co2_emissions": None,
    }


def larger_first(ids: Sequence[str]) -> NDArray[np.int64]:
    """Returns (C,) the place of each id where the larger, byte by byte, stands first."""
    return later_first(ids, lambda name: name.encode("utf-8", "surrogatepass"))


def ranks_by_id(task: Task, ranks: Ranks, blocks: Blocks) -> Ranks:
    """Returns ranks without ties: of equal scores the larger id stands first."""
    tied = np.flatnonzero(ranks.tied > 1)
    if not len(tied):
        return ranks
    place = larger_first([task.queries.video_ids[v] for v in task.columns])
    own = np.searchsorted(task.columns, task.queries.query_video)
    before = np.zeros(len(ranks), np.int64)
    rows = task.query_text[tied]
    for start, later in blocks():
        scores = computed(later)
        inside = (rows >= start) & (rows < start + len(scores))
        for q in tied[inside].tolist():
            row = scores[task.query_text[q] - start]
            same = row == row[own[q]]
            before[q] = int((place[same] < place[own[q]]).sum())
    return Ranks(ranks.better + before, np.ones_like(ranks.tied), ranks.num_candidates)


def retrieval_scores(ranks: Ranks) -> dict[str, float]:
    """Returns mteb's retrieval scores of queries with one correct item."""
    places = np.arange(1, ranks.num_candidates + 1)
    scores: dict[str, float] = {}
    for k in DEPTHS:
        found = float(hits(ranks, k).mean())
        first = float(mean_worth(ranks, np.where(places <= k, 1 / places, 0.0)).mean())
        rounded = {
            "ndcg": float(ndcg(ranks, k).mean()),
            "map": first,
            "recall": found,
            "precision": found / k,
            "hit_rate": found,
        }
        scores |= {f"{name}_at_{k}": round(value, _DIGITS) for name, value in rounded.items()}
        scores[f"mrr_at_{k}"] = first
    return scores | {"accuracy": scores["recall_at_1"]}
