"""A result as it lands on the disk: `result.json`, a table per query, TREC files.

Schema 1 is documented in docs/format.md. A reader ignores keys it does not know; a key that is
there never changes its meaning without another schema number.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import StoreWriteError
from vtr.evaluate.evaluator import Evaluation, group_ranks, take
from vtr.evaluate.intervals import (
    RESAMPLES,
    Interval,
    bootstrap,
    percentile_ends,
    retrieval_intervals,
)
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.observe import pair_accuracy
from vtr.evaluate.protocol import Protocol
from vtr.evaluate.ranks import Ranks, RetrievalRanks
from vtr.features import PackedFrames
from vtr.files import Payload, make_folder, publish_all
from vtr.foreign import csv_table
from vtr.result_schema import KIND, RESULT_FILE, SCHEMA, result_bytes

COMPANIONS = {
    "run": "run.trec", "qrels": "qrels.trec", "similarity": "similarity.npz",
    "options": "eval.json", "mteb": "mteb.json",
}  # fmt: skip
"""What `vtr eval` may write beside it, by its key in `files`."""
WORD_BINS = ((1, 10), (11, 20), (21, None))
NUM_EXAMPLES = 8
_RANK_EDGES = (1, 2, 3, 4, 6, 11, 21, 51, 101, 501, 1001)


@dataclass(frozen=True)
class Setup:
    """What was evaluated, in the words of the result line."""

    # SHA-256 of the run's best.safetensors; None where nothing was trained.
    weights_sha256: str | None = field(default=None, kw_only=True)
    # Of the ids and frames that were measured, see `vtr.evaluate.coverage.frames_sha256`.
    frames_sha256: str | None = field(default=None, kw_only=True)

    title: str  # A short name for tables
    head: str  # Label of the head
    text: str  # Mode of the text tower; "towers" where both were trained
    sampler: str  # Label of the frame selection
    backbone: str  # Id of the dual encoder
    fingerprint: str  # Of the feature store
    zero_shot: bool  # Nothing was trained
    run: str | None = None  # Folder of the run, or None
    selection: str = "none"  # How the run's epoch was chosen; "none" where nothing was trained
    seed: int = 0  # Of the run, or of the bootstrap alone
    # How many videos of the gallery the run was trained on; None: not known.
    trained_on_test: int | None = 0
    rerank: int | None = None  # Candidates per query that the head re-ranked, or None
    device: str = "cpu"  # Where it was computed
    frames_per_video: float = 0.0  # Mean number of frames


def build_result(
    evaluation: Evaluation,
    protocol: Protocol,
    setup: Setup,
    *,
    packed: PackedFrames,
    paths: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Returns the document of schema 1.

    Args:
        evaluation: The numbers.
        protocol: Its declaration.
        setup: What was evaluated.
        packed: The frames, for the time stamps of the examples.
        paths: Video id to its file, for the examples' pictures.
    """
    task = evaluation.task
    examples = _examples(evaluation, packed)
    shown = {hit["video"] for kind in examples.values() for e in kind for hit in e["retrieved"]}
    shown |= {e["video"] for kind in examples.values() for e in kind}
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "vtr": _version("vtr"),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("numpy", "torch", "transformers", "av")},
        },
        "protocol": {
            "name": protocol.name,
            "dataset": protocol.dataset,
            "part": task.queries.part,
            "digest": task.queries.digest,
            "published": not task.queries.problems,
            "problems": list(task.queries.problems),
            "num_videos": len(task.queries.video_ids),
            "num_queries": len(task.queries.texts),
            "captions": protocol.captions,
            "gallery": protocol.gallery,
            "source": protocol.source,
        },
        "coverage": {
            "present": len(task.video_ids),
            "videos": len(task.video_ids) + len(task.coverage.absent),
            "policy": task.coverage.policy,
            "absent": [{"id": i, "reason": reason} for i, reason in task.coverage.absent],
        },
        "setup": asdict(setup),
        "metrics": numbers(evaluation.ranks, evaluation.ks, seed=setup.seed),
        "postprocessed": {
            name: {
                "transductive": name == "dual-softmax",
                "metrics": numbers(ranks, evaluation.ks, seed=setup.seed),
            }
            for name, ranks in evaluation.postprocessed.items()
        },
        "groups": _groups(evaluation, setup.seed),
        "pairs": _pairs(evaluation),
        "breakdowns": _breakdowns(evaluation, setup.seed),
        "similarity": _similarity(evaluation),
        "rank_histogram": _rank_histogram(evaluation.ranks.t2v),
        "examples": examples,
        "videos": {"paths": {i: str(p) for i, p in (paths or {}).items() if i in shown}},
        "files": {"per_query": "per_query.csv", "per_video": "per_video.csv"},
    }


def numbers(
    ranks: RetrievalRanks, ks: Sequence[int], *, seed: int
) -> dict[str, dict[str, float | int]]:
    """Returns every number with its interval, its bounds under ties and N."""
    metrics = retrieval_metrics(ranks, ks)
    intervals = retrieval_intervals(ranks, ks, seed=seed)
    return {
        key: {
            "value": value,
            "low": intervals[key][0],
            "high": intervals[key][1],
            "optimistic": metrics.optimistic[key],
            "pessimistic": metrics.pessimistic[key],
            "n": metrics.num_queries[key.partition("/")[0]],
        }
        for key, value in metrics.expected.items()
    }


def _part(evaluation: Evaluation, chosen: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """The t2v numbers of some of the queries, among all videos."""
    ranks = take(evaluation.ranks.t2v, chosen)
    owners = evaluation.task.queries.query_video[chosen]
    clusters = owners if len(np.unique(owners)) < len(owners) else None
    intervals = bootstrap(ranks, evaluation.ks, seed=seed, clusters=clusters)
    values = retrieval_metrics({"t2v": ranks}, evaluation.ks).expected
    return {
        "n": len(chosen),
        "metrics": {
            key: _entry(value, intervals[key.partition("/")[2]]) for key, value in values.items()
        },
    }


def _entry(value: float, interval: Interval) -> dict[str, float]:
    return {"value": value, "low": interval[0], "high": interval[1]}


def _groups(evaluation: Evaluation, seed: int) -> dict[str, Any]:
    return {
        name: _part(evaluation, chosen, seed)
        for name, (chosen, _) in group_ranks(evaluation).items()
    }


def _pairs(evaluation: Evaluation) -> dict[str, Any]:
    """Within pairs that only the order of their frames tells apart: whose score is higher."""
    accuracy = pair_accuracy(evaluation.kept)
    chosen = np.flatnonzero(np.isfinite(accuracy))
    if not len(chosen):
        return {}
    queries = evaluation.task.queries
    place = {video_id: v for v, video_id in enumerate(queries.video_ids)}
    pair = np.array([min(v, place.get(queries.rivals.get(i, ""), v)) for i, v in place.items()])
    units = np.unique(pair[queries.query_video[chosen]], return_inverse=True)[1]
    sums, sizes = np.bincount(units, weights=accuracy[chosen]), np.bincount(units)
    draws = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = percentile_ends(sums[draws].sum(1) / sizes[draws].sum(1), 0.95, len(sums))
    return {
        "order": {
            "n": len(chosen),
            "pairs": len(sums),
            "accuracy": 100 * float(accuracy[chosen].mean()),
            "low": 100 * float(low),
            "high": 100 * float(high),
        }
    }


def _breakdowns(evaluation: Evaluation, seed: int) -> dict[str, Any]:
    queries = evaluation.task.queries
    found: dict[str, Any] = {}
    words = np.array([len(text.split()) for text in queries.texts])
    bins = []
    for low, high in WORD_BINS:
        chosen = np.flatnonzero((words >= low) & (words <= (high or words.max())))
        if len(chosen):
            name = f"{low}-{high}" if high else f"{low}+"
            bins.append({"name": name, **_part(evaluation, chosen, seed)})
    found["query_words"] = bins
    labels = np.array([queries.categories.get(i, "") for i in queries.video_ids])
    of_query = labels[queries.query_video]
    if queries.categories:
        found["category"] = [
            {"name": str(name), **_part(evaluation, np.flatnonzero(of_query == name), seed)}
            for name in np.unique(of_query)
            if name
        ]
    return found


def _similarity(evaluation: Evaluation) -> dict[str, Any]:
    kept = evaluation.kept
    own = kept.own[np.isfinite(kept.own)]
    return {
        "edges": kept.edges.tolist(),
        "matching": kept.matching.tolist(),
        "other": kept.other.tolist(),
        "matching_mean": float(own.mean()) if len(own) else None,
        "other_mean": None if np.isnan(kept.other_mean) else kept.other_mean,
    }


def _rank_histogram(ranks: Ranks) -> dict[str, Any]:
    edges = [edge for edge in _RANK_EDGES if edge <= ranks.num_candidates]
    edges.append(ranks.num_candidates + 1)
    if ranks.missed.any():
        edges.append(ranks.num_candidates + 2)
    counts = np.histogram(ranks.expected, np.array(edges, np.float64))[0]
    return {"edges": edges, "counts": counts.tolist()}


def _examples(evaluation: Evaluation, packed: PackedFrames) -> dict[str, list[dict[str, Any]]]:
    """Some of the surest hits and of the worst failures, one per video."""
    ranks, kept, queries = evaluation.ranks.t2v, evaluation.kept, evaluation.task.queries
    best_other = np.where(
        kept.top[evaluation.task.query_text, 0] == queries.query_video,
        kept.top_scores[evaluation.task.query_text, min(1, kept.top.shape[1] - 1)],
        kept.top_scores[evaluation.task.query_text, 0],
    )
    margin = kept.own - best_other
    seen = np.isfinite(kept.own)
    hits = np.flatnonzero(seen & (ranks.better == 0) & (ranks.tied == 1))
    failures = np.flatnonzero(seen & (ranks.better > 0))
    return {
        "success": [
            _example(evaluation, packed, q)
            for q in _one_per_video(hits[np.argsort(-margin[hits], kind="stable")], evaluation)
        ],
        "failure": [
            _example(evaluation, packed, q)
            for q in _one_per_video(
                failures[np.argsort(-ranks.better[failures], kind="stable")], evaluation
            )
        ],
    }


def _one_per_video(ordered: NDArray[np.int64], evaluation: Evaluation) -> list[int]:
    taken: dict[int, int] = {}
    for query in ordered.tolist():
        taken.setdefault(int(evaluation.task.queries.query_video[query]), query)
        if len(taken) == NUM_EXAMPLES:
            break
    return list(taken.values())


def _example(evaluation: Evaluation, packed: PackedFrames, query: int) -> dict[str, Any]:
    queries, kept = evaluation.task.queries, evaluation.kept
    place = {video_id: v for v, video_id in enumerate(packed.ids)}
    row = evaluation.task.query_text[query]
    own = queries.video_ids[queries.query_video[query]]

    def hit(video_id: str, score: float) -> dict[str, Any]:
        v = place.get(video_id)
        rows = slice(0, 0) if v is None else slice(packed.offsets[v], packed.offsets[v + 1])
        return {
            "video": video_id,
            "score": score,
            "correct": video_id == own,
            "pts_seconds": packed.pts_seconds[rows].round(3).tolist(),
        }

    retrieved = [
        hit(queries.video_ids[v], float(score))
        for v, score in zip(kept.top[row], kept.top_scores[row], strict=True)
        if np.isfinite(score)
    ]
    return {
        "query_id": queries.text_ids[query],
        "text": queries.texts[query],
        "video": own,
        "rank": float(evaluation.ranks.t2v.expected[query]),
        "own": hit(own, float(kept.own[query])),
        "retrieved": retrieved,
    }


def write_result(
    folder: Path,
    document: Mapping[str, Any],
    evaluation: Evaluation,
    *,
    companions: Mapping[str, Payload] | None = None,
) -> Path:
    """Writes a result with all its files, `result.json` last; returns the path of that.

    A result that was there before stands until all of the new one is written; companions of it
    that the new one lacks are deleted: they hold other scores.

    Args:
        folder: Where to.
        document: From `build_result`, with the names of the companions in its `files`.
        evaluation: For the tables per query and per video.
        companions: Contents by their keys in `COMPANIONS`.

    Raises:
        StoreWriteError: The file system refused.
    """
    make_folder(folder, option="--out")
    path, given = folder / RESULT_FILE, companions or {}
    publish_all(
        {
            **{folder / COMPANIONS[key]: payload for key, payload in given.items()},
            folder / "per_query.csv": _per_query(evaluation),
            folder / "per_video.csv": _per_video(evaluation),
            path: result_bytes(document),
        }
    )
    for key, name in COMPANIONS.items():
        if key not in given:
            _delete(folder / name)
    return path


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreWriteError(
            f"cannot delete {path}, which is of an earlier result: {error.strerror or error}. "
            "Delete it yourself, or choose another folder with --out"
        ) from None


def _per_query(evaluation: Evaluation) -> bytes:
    queries, kept, ranks = evaluation.task.queries, evaluation.kept, evaluation.ranks.t2v
    header = ["query_id", "video_id", "words", "category", "group", "better", "tied", "rank"]
    rows = []
    expected = ranks.expected.tolist()
    for q, video in enumerate(queries.query_video.tolist()):
        video_id, row = queries.video_ids[video], evaluation.task.query_text[q]
        rows.append(
            [
                queries.text_ids[q],
                video_id,
                len(queries.texts[q].split()),
                queries.categories.get(video_id, ""),
                queries.groups.get(video_id, ""),
                int(ranks.better[q]),
                int(ranks.tied[q]),
                expected[q],
                [queries.video_ids[v] for v in kept.top[row, kept.present[row]]],
                [float(f"{score:.6g}") for score in kept.top_scores[row, kept.present[row]]],
                float(f"{kept.own[q]:.6g}"),
                queries.texts[q],
            ]
        )
    return csv_table([*header, "top_ids", "top_scores", "own_score", "text"], rows)


def _per_video(evaluation: Evaluation) -> bytes:
    queries, ranks = evaluation.task.queries, evaluation.ranks
    assert ranks.videos is not None
    assert ranks.v2t is not None
    assert ranks.v2t_groups is not None
    header = ["video_id", "better", "tied", "correct", "group_better", "group_tied"]
    rows = [
        [
            queries.video_ids[video],
            int(ranks.v2t.better[n]),
            int(ranks.v2t.tied[n]),
            int(ranks.v2t.num_correct[n]),
            int(ranks.v2t_groups.better[n]),
            int(ranks.v2t_groups.tied[n]),
        ]
        for n, video in enumerate(ranks.videos.tolist())
    ]
    return csv_table(header, rows)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
