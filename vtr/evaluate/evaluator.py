"""One evaluation: a score source, a gallery and its queries in; ranks, numbers, evidence out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vtr.errors import DatasetError
from vtr.evaluate.counting import Rows, Scores, computed
from vtr.evaluate.coverage import Coverage
from vtr.evaluate.metrics import DEFAULT_KS
from vtr.evaluate.observe import KeptScores, Observer
from vtr.evaluate.protocol import QuerySet
from vtr.evaluate.ranks import Blocks, Layout, RetrievalRanks
from vtr.evaluate.trec import later_first, lines_per_query

Matrix = NDArray[np.float32]
PostProcess = Callable[[Matrix], tuple[Scores, Scores | None]]
PairScores = Callable[[NDArray[np.int64], NDArray[np.int64]], Scores]


@dataclass(frozen=True)
class Task:
    """What is scored: the distinct texts of the queries against the videos that are there."""

    queries: QuerySet  # The queries, with those of absent videos left out where the policy says so
    coverage: Coverage  # Which columns exist
    # T distinct captions; equal words are scored once, so that they tie exactly.
    texts: tuple[str, ...]
    query_text: NDArray[np.int64]  # (Q,) int64 row of each query
    video_ids: tuple[str, ...]  # The ids of the present videos, in the gallery's order

    @property
    def columns(self) -> NDArray[np.int64]:
        """(P,) place in the gallery of each present video."""
        return np.flatnonzero(self.coverage.present)


@dataclass(frozen=True)
class Evaluation:
    """The outcome."""

    task: Task  # What was scored
    ranks: RetrievalRanks  # Of both directions
    kept: KeptScores  # Scores for the report and the run file
    ks: tuple[int, ...]  # The recall depths asked for
    postprocessed: Mapping[str, RetrievalRanks]  # Name of a post-processing to its ranks


def plan(queries: QuerySet, coverage: Coverage) -> Task:
    """Returns what must be scored."""
    if coverage.policy == "restrict":
        queries, coverage = _restricted(queries, coverage)
    if not len(queries.texts):
        raise DatasetError(f"no query of {queries.protocol!r} is left to evaluate")
    rows: dict[str, int] = {}
    query_text = np.array([rows.setdefault(text, len(rows)) for text in queries.texts], np.int64)
    video_ids = tuple(queries.video_ids[v] for v in np.flatnonzero(coverage.present))
    return Task(queries, coverage, tuple(rows), query_text, video_ids)


def _restricted(queries: QuerySet, coverage: Coverage) -> tuple[QuerySet, Coverage]:
    """Leaves out the absent videos and their queries."""
    kept = np.flatnonzero(coverage.present)
    place = np.full(len(coverage.present), -1, np.int64)
    place[kept] = np.arange(len(kept))
    asked = np.flatnonzero(coverage.present[queries.query_video])
    left = replace(
        queries,
        video_ids=tuple(queries.video_ids[v] for v in kept),
        texts=tuple(queries.texts[q] for q in asked),
        text_ids=tuple(queries.text_ids[q] for q in asked),
        query_video=place[queries.query_video[asked]],
    )
    return left, replace(coverage, present=np.ones(len(kept), np.bool_))


def evaluate(
    task: Task,
    blocks: Blocks,
    *,
    score_pairs: PairScores | None = None,
    v2t_blocks: Blocks | None = None,
    ks: Sequence[int] = DEFAULT_KS,
    postprocess: Mapping[str, PostProcess] | None = None,
) -> Evaluation:
    """Ranks both directions and keeps what a report needs.

    Args:
        task: From `plan`.
        blocks: Called once or more; yields (first row, scores (b, P)) over `task.texts` in order
            and `task.video_ids`, the same each time.
        score_pairs: (rows (n,), columns (n,)) to the same scores of chosen pairs but for rounding;
            with it one round of blocks is enough.
        v2t_blocks: Other scores for the direction from video to text (re-ranking has them).
        ks: Recall depths.
        postprocess: Name to a function from the whole (Q, P) matrix of all queries to the scores
            of t2v and of v2t (None: that direction has none), so that no batch size has a say.
    """
    queries = task.queries
    place = {video_id: v for v, video_id in enumerate(queries.video_ids)}
    rivals = [place.get(queries.rivals.get(video_id, ""), -1) for video_id in queries.video_ids]
    observer = Observer(
        queries.query_video, task.query_text, np.array(rivals, np.int64),
        ties=later_first(queries.video_ids), num_listed=lines_per_query(len(queries.texts)),
    )  # fmt: skip
    own = None if score_pairs is None else _own_scores(task, score_pairs)
    layout = Layout(queries.query_video, len(queries.video_ids), task.query_text)
    ranks = layout.ranks(
        _whole_gallery(task, blocks), own_scores=own, both=v2t_blocks is None, look=observer.look
    )
    if v2t_blocks is not None:
        ranks = replace(layout.ranks(_whole_gallery(task, v2t_blocks)), t2v=ranks.t2v)
    changed = {}
    if postprocess:
        matrix = score_matrix(task, blocks)
        changed = {name: _changed(task, *change(matrix)) for name, change in postprocess.items()}
    return Evaluation(task, ranks, observer.kept(), tuple(ks), changed)


def _own_scores(task: Task, score_pairs: PairScores) -> Scores:
    """(Q,) the score of each query with its own video; -inf where that is absent."""
    place = np.full(len(task.coverage.present), -1, np.int64)
    place[task.columns] = np.arange(len(task.columns))
    columns = place[task.queries.query_video]
    there = columns >= 0
    own = np.full(len(columns), -np.inf)
    own[there] = score_pairs(task.query_text[there], columns[there])
    return own


def _changed(task: Task, t2v: Scores, v2t: Scores | None) -> RetrievalRanks:
    layout = Layout(task.queries.query_video, len(task.queries.video_ids), None)
    first = layout.ranks(_whole_gallery(task, lambda: [(0, t2v)]), both=v2t is t2v)
    if v2t is None or v2t is t2v:
        return first
    return replace(layout.ranks(_whole_gallery(task, lambda: [(0, v2t)])), t2v=first.t2v)


def score_matrix(task: Task, blocks: Blocks) -> Matrix:
    """Returns the (Q, P) scores of every query, duplicates included, with the present videos."""
    distinct = np.empty((len(task.texts), len(task.video_ids)), np.float32)
    for start, later in blocks():
        scores = computed(later)
        distinct[start : start + len(scores)] = scores
    return distinct[task.query_text]


def _whole_gallery(task: Task, blocks: Blocks) -> Blocks:
    """Returns the blocks with a column of -inf, a recorded miss, for every absent video."""
    if task.coverage.present.all():
        return blocks

    def widen(rows: Rows) -> Scores:
        scores = computed(rows)
        wide = np.full((len(scores), len(task.coverage.present)), -np.inf, scores.dtype)
        wide[:, task.columns] = scores
        return wide

    return lambda: ((start, partial(widen, rows)) for start, rows in blocks())
