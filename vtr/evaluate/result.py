"""A result as it lands on the disk: `result.json`, a table per query, TREC files.

Schema 1 is documented in docs/format.md. A reader ignores keys it does not know; a key that is
there never changes its meaning without another schema number.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from vtr.errors import StoreWriteError
from vtr.evaluate.evaluator import Evaluation
from vtr.evaluate.intervals import RESAMPLES, cell, percentile_ends, retrieval_intervals
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.observe import KeptScores, pair_accuracy
from vtr.evaluate.parts import numbers_by_words, part_numbers
from vtr.evaluate.protocol import Protocol, QuerySet
from vtr.evaluate.ranks import Ranks, RetrievalRanks
from vtr.features import PackedFrames
from vtr.files import Payload, make_folder, publish_all
from vtr.foreign import csv_table
from vtr.result_schema import KIND, PER_QUERY, PER_VIDEO, RESULT_FILE, SCHEMA, result_bytes

COMPANIONS = {
    "run": "run.trec", "qrels": "qrels.trec", "similarity": "similarity.npz",
    "options": "eval.json", "mteb": "mteb.json",
}  # fmt: skip
"""What `vtr eval` may write beside it, by its key in `files`."""
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

    Of the frames `packed` the examples have their time stamps, of `paths`, which are by video id,
    their files.
    """
    task, queries, seed = evaluation.task, evaluation.task.queries, setup.seed
    examples = _examples(evaluation, packed)
    shown = {hit["video"] for kind in examples.values() for e in kind for hit in e["retrieved"]}
    shown |= {e["video"] for kind in examples.values() for e in kind}
    modules = ("numpy", "torch", "transformers", "av")
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "vtr": _version("vtr"),
        "versions": {"python": platform.python_version(), **{m: _version(m) for m in modules}},
        "protocol": _protocol(protocol, queries),
        "coverage": {
            "present": len(task.video_ids),
            "videos": len(task.video_ids) + len(task.coverage.absent),
            "policy": task.coverage.policy,
            "absent": [{"id": i, "reason": reason} for i, reason in task.coverage.absent],
        },
        "setup": asdict(setup),
        "metrics": numbers(evaluation.ranks, evaluation.ks, seed=seed),
        "postprocessed": {
            name: {
                "transductive": name == "dual-softmax",
                "metrics": numbers(ranks, evaluation.ks, seed=seed),
            }
            for name, ranks in evaluation.postprocessed.items()
        },
        "groups": dict(_parts(evaluation, queries.groups, seed)),
        "pairs": _pairs(evaluation),
        "breakdowns": _breakdowns(evaluation, seed),
        "similarity": _similarity(evaluation.kept),
        "rank_histogram": _rank_histogram(evaluation.ranks.t2v),
        "examples": examples,
        "videos": {"paths": {i: str(p) for i, p in (paths or {}).items() if i in shown}},
        "files": {"per_query": PER_QUERY, "per_video": PER_VIDEO},
    }


def _protocol(protocol: Protocol, queries: QuerySet) -> dict[str, Any]:
    return {
        "name": protocol.name,
        "dataset": protocol.dataset,
        "part": queries.part,
        "digest": queries.digest,
        "published": not queries.problems,
        "problems": list(queries.problems),
        "num_videos": len(queries.video_ids),
        "num_queries": len(queries.texts),
        **{name: getattr(protocol, name) for name in ("captions", "gallery", "source")},
    }


def numbers(
    ranks: RetrievalRanks, ks: Sequence[int], *, seed: int
) -> dict[str, dict[str, float | int]]:
    """Returns every number with its interval, its bounds under ties and N."""
    metrics = retrieval_metrics(ranks, ks)
    intervals = retrieval_intervals(ranks, ks, seed=seed)
    return {
        key: {
            **cell(value, intervals[key]),
            "optimistic": metrics.optimistic[key],
            "pessimistic": metrics.pessimistic[key],
            "n": metrics.num_queries[key.partition("/")[0]],
        }
        for key, value in metrics.expected.items()
    }


def _parts(
    evaluation: Evaluation, labels: Mapping[str, str], seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each label of videos with the numbers of their queries, alphabetically."""
    queries, ranks, ks = evaluation.task.queries, evaluation.ranks.t2v, evaluation.ks
    own = np.array([labels.get(i, "") for i in queries.video_ids])[queries.query_video]
    for label in np.unique(own[own != ""]).tolist():
        chosen = np.flatnonzero(own == label)
        yield label, part_numbers(ranks, chosen, queries.query_video, ks, seed=seed)


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
    low, high = percentile_ends(sums[draws].sum(1) / sizes[draws].sum(1), len(sums))
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
    words = np.array([len(text.split()) for text in queries.texts])
    ranks, owners = evaluation.ranks.t2v, queries.query_video
    bins = numbers_by_words(ranks, words, owners, evaluation.ks, seed=seed)
    if not queries.categories:
        return {"query_words": bins}
    named = _parts(evaluation, queries.categories, seed)
    return {"query_words": bins, "category": [{"name": name, **part} for name, part in named]}


def _similarity(kept: KeptScores) -> dict[str, Any]:
    own = kept.own[np.isfinite(kept.own)]
    return {
        **{name: getattr(kept, name).tolist() for name in ("edges", "matching", "other")},
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
    ranks, kept, task = evaluation.ranks.t2v, evaluation.kept, evaluation.task
    own = task.queries.query_video
    top, scores = kept.top[task.query_text], kept.top_scores[task.query_text]
    best_other = np.where(top[:, 0] == own, scores[:, min(1, top.shape[1] - 1)], scores[:, 0])
    seen = np.isfinite(kept.own)
    found = {}
    for kind, asked, worth in (
        ("success", (ranks.better == 0) & (ranks.tied == 1), kept.own - best_other),
        ("failure", ranks.better > 0, ranks.better),
    ):
        chosen = np.flatnonzero(seen & asked)
        by_video: dict[int, int] = {}
        for query in chosen[np.argsort(-worth[chosen], kind="stable")].tolist():
            by_video.setdefault(int(own[query]), query)
            if len(by_video) == NUM_EXAMPLES:
                break
        found[kind] = [_example(evaluation, packed, query) for query in by_video.values()]
    return found


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
    (by their keys in `COMPANIONS`) that the new one lacks are deleted: they hold other scores.
    """
    make_folder(folder, option="--out")
    path, given = folder / RESULT_FILE, companions or {}
    publish_all(
        {
            **{folder / COMPANIONS[key]: payload for key, payload in given.items()},
            folder / PER_QUERY: _per_query(evaluation),
            folder / PER_VIDEO: _per_video(evaluation),
            path: result_bytes(document),
        }
    )
    for key in COMPANIONS.keys() - given:
        old = folder / COMPANIONS[key]
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            raise StoreWriteError(
                f"cannot delete {old}, which is of an earlier result: {error.strerror or error}. "
                "Delete it yourself, or choose another folder with --out"
            ) from None
    return path


def _per_query(evaluation: Evaluation) -> bytes:
    queries, kept, ranks = evaluation.task.queries, evaluation.kept, evaluation.ranks.t2v
    header = ["query_id", "video_id", "words", "category", "group", "better", "tied", "rank"]
    rows = []
    columns = (queries.query_video, evaluation.task.query_text, ranks.better, ranks.tied)
    numbers = zip(*(c.tolist() for c in (*columns, ranks.expected, kept.own)), strict=True)
    for q, (video, row, better, tied, rank, own) in enumerate(numbers):
        video_id, text, there = queries.video_ids[video], queries.texts[q], kept.present[row]
        labels = (some.get(video_id, "") for some in (queries.categories, queries.groups))
        top = [queries.video_ids[v] for v in kept.top[row, there]]
        scores = [float(f"{score:.6g}") for score in kept.top_scores[row, there]]
        facts = [queries.text_ids[q], video_id, len(text.split()), *labels, better, tied, rank]
        rows.append([*facts, top, scores, float(f"{own:.6g}"), text])
    return csv_table([*header, "top_ids", "top_scores", "own_score", "text"], rows)


def _per_video(evaluation: Evaluation) -> bytes:
    ranks = evaluation.ranks
    v2t, groups = ranks.v2t, ranks.v2t_groups
    assert ranks.videos is not None
    assert v2t is not None
    assert groups is not None
    header = ["video_id", "better", "tied", "correct", "group_better", "group_tied"]
    names = (evaluation.task.queries.video_ids[video] for video in ranks.videos.tolist())
    counts = (v2t.better, v2t.tied, v2t.num_correct, groups.better, groups.tied)
    return csv_table(header, [*zip(names, *(c.tolist() for c in counts), strict=True)])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
