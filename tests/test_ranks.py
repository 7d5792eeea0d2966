"""Ranks by counting, whole and streamed, against counting one by one."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.errors import ModelError
from vtr.evaluate import ranks as ranking
from vtr.evaluate.ranks import Ranks, RetrievalRanks, rank_rows, stream_ranks

F32 = NDArray[np.float32]


def blocks_of(scores: NDArray[Any], size: int) -> Callable[[], Iterator[tuple[int, NDArray[Any]]]]:
    return lambda: ((a, scores[a : a + size]) for a in range(0, len(scores), size))


def plain_row(scores: list[float], target: int) -> tuple[int, int]:
    own = scores[target]
    if own == -np.inf:
        return len(scores), 1
    return sum(s > own for s in scores), sum(s == own for s in scores)


def plain(scores: NDArray[Any], query_video: NDArray[Any]) -> dict[str, list[tuple[int, ...]]]:
    """Every direction by loops over Python numbers; scores has one row per query."""
    num_queries, num_videos = scores.shape
    answers: dict[str, list[tuple[int, ...]]] = {"t2v": [], "v2t": [], "v2t_groups": []}
    for query in range(num_queries):
        answers["t2v"].append((*plain_row(scores[query].tolist(), query_video[query]), 1))
    groups = [[q for q in range(num_queries) if query_video[q] == v] for v in range(num_videos)]
    present = [v for v in range(num_videos) if groups[v]]
    for place, video in enumerate(present):
        column = scores[:, video].tolist()
        best = max(column[q] for q in groups[video])
        if best == -np.inf:
            answers["v2t"].append((num_queries, 1, 1))
        else:
            correct = sum(column[q] == best for q in groups[video])
            tied = sum(s == best for s in column)
            answers["v2t"].append((sum(s > best for s in column), tied, correct))
        tops = [max(column[q] for q in groups[other]) for other in present]
        answers["v2t_groups"].append((*plain_row(tops, place), 1))
    return answers


def as_rows(ranks: Ranks) -> list[tuple[int, ...]]:
    columns = (ranks.better, ranks.tied, ranks.num_correct)
    return [tuple(row) for row in np.stack(columns, axis=1).tolist()]


def all_rows(ranks: RetrievalRanks) -> dict[str, list[tuple[int, ...]]]:
    return {name: as_rows(rows) for name, rows in ranks.directions.items()}


@st.composite
def evaluations(draw: st.DrawFn) -> tuple[F32, NDArray[np.int64], NDArray[np.int64]]:
    """Scores per text in [-1, 1] with ties and recorded misses, whose video, whose text."""
    num_videos = draw(st.integers(1, 9))
    num_queries = draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    video = rng.integers(0, num_videos, num_queries)
    if draw(st.booleans()):
        video.sort()
    text = np.arange(num_queries)
    if draw(st.booleans()):
        _, text = np.unique(rng.integers(0, num_queries, num_queries), return_inverse=True)
    levels = draw(st.sampled_from([0, 1, 2, 5, 1000]))
    shape = (text.max() + 1, num_videos)
    scores = rng.uniform(-1, 1, shape)
    if levels:
        scores = np.round(scores * levels) / levels
    missing = rng.random(num_videos) < draw(st.sampled_from([0, 0, 0.3]))
    scores[:, missing] = -np.inf
    return scores.astype(np.float32), video, text


@given(evaluations(), st.integers(1, 30), st.sampled_from(["none", "exact", "rounded", "junk"]))
@settings(max_examples=150)
def test_streamed_equals_counting_one_by_one(
    case: tuple[F32, NDArray[np.int64], NDArray[np.int64]], size: int, guess: str
) -> None:
    scores, video, text = case
    own = scores[text, video]
    guesses = {"none": None, "exact": own, "rounded": np.round(own, 1), "junk": own * np.nan}
    ranks = stream_ranks(
        blocks_of(scores, size),
        video,
        scores.shape[1],
        query_text=text,
        own_scores=guesses[guess],
    )
    assert all_rows(ranks) == plain(scores[text], video)
    alone = stream_ranks(
        blocks_of(scores, size), video, scores.shape[1], query_text=text, both=False
    )
    assert all_rows(alone) == {"t2v": all_rows(ranks)["t2v"]}
    assert as_rows(rank_rows(scores[text], video)) == all_rows(ranks)["t2v"]


@given(evaluations(), st.integers(0, 2**32 - 1))
def test_order_of_queries_and_videos_changes_nothing(
    case: tuple[F32, NDArray[np.int64], NDArray[np.int64]], seed: int
) -> None:
    scores, video, text = case
    scores = scores[text]
    rng = np.random.default_rng(seed)
    queries, videos = rng.permutation(len(video)), rng.permutation(scores.shape[1])
    place = np.argsort(videos)  # where each video went
    moved = stream_ranks(
        blocks_of(scores[queries][:, videos], 4), place[video[queries]], len(videos)
    )
    ranks = stream_ranks(blocks_of(scores, 4), video, len(videos))
    assert as_rows(moved.t2v) == [as_rows(ranks.t2v)[q] for q in queries]
    assert moved.videos is not None
    assert ranks.videos is not None
    for name in ("v2t", "v2t_groups"):
        before = dict(zip(ranks.videos.tolist(), all_rows(ranks)[name], strict=True))
        after = dict(zip(moved.videos.tolist(), all_rows(moved)[name], strict=True))
        assert after == {int(place[v]): rows for v, rows in before.items()}


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_transposing_a_square_swaps_the_directions(size: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(-3, 4, (size, size)).astype(np.float32) / 3
    every = np.arange(size)
    ranks = stream_ranks(blocks_of(scores, 3), every, size)
    swapped = stream_ranks(blocks_of(scores.T, 3), every, size)
    assert ranks.v2t is not None
    assert ranks.v2t_groups is not None
    assert as_rows(ranks.t2v) == all_rows(swapped)["v2t"] == all_rows(swapped)["v2t_groups"]
    assert as_rows(ranks.v2t) == as_rows(swapped.t2v)


@pytest.mark.parametrize("num_videos", [1, 7, 8, 2039, 2040, 2041, 5000])
def test_wide_rows(num_videos: int) -> None:
    """Byte lanes hold 255 ones, so 2,040 columns are a boundary."""
    rng = np.random.default_rng(num_videos)
    scores = (rng.integers(0, 3, (300, num_videos)) / 3).astype(np.float32)
    scores[0] = 1.0
    video = rng.integers(0, num_videos, 300)
    ranks = stream_ranks(blocks_of(scores, 300), video, num_videos)
    own = scores[np.arange(300), video][:, None]
    np.testing.assert_array_equal(ranks.t2v.better, (scores > own).sum(axis=1))
    np.testing.assert_array_equal(ranks.t2v.tied, (scores == own).sum(axis=1))


def test_float64_keeps_what_float32_would_tie() -> None:
    scores = np.array([[0.5, 0.5 + 1e-12]])
    assert as_rows(rank_rows(scores, np.array([0]))) == [(1, 1, 1)]
    ranks = stream_ranks(blocks_of(scores.T, 1), np.array([0, 0]), 1, own_scores=scores[0])
    assert all_rows(ranks)["v2t"] == [(0, 1, 1)]


@given(
    evaluations(),
    st.integers(1, 30),
    st.sampled_from([1e-7, 1e-6, 9e-6, 1e-3]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_a_guess_that_rounding_has_moved_costs_no_second_round(
    case: tuple[F32, NDArray[np.int64], NDArray[np.int64]],
    size: int,
    error: float,
    is_crowded: bool,
    seed: int,
) -> None:
    """Two products of the same vectors differ in the last bits; no rank may depend on that."""
    scores, video, text = case
    rng = np.random.default_rng(seed)
    if is_crowded:  # many scores within the doubt of a guess
        with np.errstate(invalid="ignore"):
            scores = (0.5 + 1e-6 * scores).astype(np.float32)
    guess = scores[text, video]
    guess = guess + error * rng.uniform(-1, 1, len(guess)).astype(np.float32)
    rounds = []

    def blocks() -> Iterator[tuple[int, F32]]:
        rounds.append("round")
        return blocks_of(scores, size)()

    ranks = stream_ranks(blocks, video, scores.shape[1], query_text=text, own_scores=guess)
    assert all_rows(ranks) == plain(scores[text], video)
    assert len(rounds) == 1 or error > ranking.ROUNDING


def test_more_scores_near_a_guess_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtr.evaluate.counting.MOST_NEAR", 50)
    scores = np.random.default_rng(0).integers(0, 2, (60, 5)).astype(np.float32) * 1e-7
    video = np.arange(60) // 12
    own = scores[np.arange(60), video]
    ranks = stream_ranks(blocks_of(scores, 7), video, 5, own_scores=own)
    assert all_rows(ranks) == plain(scores, video)


def test_shuffled_captions_rank_as_sorted_ones() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 50, (400, 40)).astype(np.float32) / 50
    video = np.sort(rng.integers(0, 40, 400))
    order = rng.permutation(400)
    ranks = stream_ranks(blocks_of(scores, 64), video, 40)
    shuffled = stream_ranks(blocks_of(scores[order], 64), video[order], 40)
    assert all_rows(ranks)["v2t"] == all_rows(shuffled)["v2t"]
    assert all_rows(ranks)["v2t_groups"] == all_rows(shuffled)["v2t_groups"]


@pytest.mark.parametrize("threads", ["1", "3"])
def test_blocks_computed_in_threads_count_as_one(
    monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    """Captions of a video lie in several blocks, which several threads compute and count at once.

    A thread has one piece of memory for all its blocks.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr("vtr.evaluate.counting.CACHE_BYTES", 5 * 4 * 600)  # rows of five
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4))
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 40, (120, 600)).astype(np.float32) / 40
    video, text = rng.integers(0, 60, 150), rng.permutation(150) % 120
    seen = np.zeros(120, int)

    def look(start: int, rows: F32) -> Iterator[None]:
        for part in (slice(0, 5), slice(5, 7)):
            seen[start : start + 7][part] += 1
            assert np.array_equal(rows[part], scores[start : start + 7][part])
            yield

    memory = threading.local()

    def compute(start: int) -> F32:
        memory.scores = getattr(memory, "scores", np.empty((7, 600), np.float32))
        rows: F32 = memory.scores[: len(scores[start : start + 7])]
        rows[:] = scores[start : start + 7]
        computing.add(threading.get_ident())
        return rows

    computing: set[int] = set()
    ranks = ranking.Layout(video, 600, text).ranks(
        lambda: [(start, partial(compute, start)) for start in range(0, 120, 7)],
        own_scores=scores[text, video],
        look=look,
    )
    assert all_rows(ranks) == plain(scores[text], video)
    assert seen.tolist() == [1] * 120
    assert threading.get_ident() not in computing
    assert 1 <= len(computing) <= int(threads)


def test_a_block_that_cannot_be_ranked_stops_all_threads() -> None:
    scores = np.zeros((400, 9), np.float32)
    scores[333, 4] = np.nan
    blocks = [
        (start, partial(scores.__getitem__, slice(start, start + 10)))
        for start in range(0, 400, 10)
    ]
    with pytest.raises(ModelError, match=r"row 333 .* the first in column 4"):
        stream_ranks(lambda: blocks, np.zeros(400, int), 9)
    with pytest.raises(ValueError, match="begins at row 390, expected 0"):
        stream_ranks(lambda: blocks[::-1], np.zeros(400, int), 9)


def test_memory_is_that_of_a_block() -> None:
    rng = np.random.default_rng(0)
    block = rng.random((100, 500), dtype=np.float32)
    num_queries = 40_000  # the whole matrix would be 80 MB

    def blocks() -> Iterator[tuple[int, F32]]:
        for start in range(0, num_queries, 100):
            yield start, block

    video = np.arange(num_queries) // 80
    tracemalloc.start()
    stream_ranks(blocks, video, 500, own_scores=block[np.arange(num_queries) % 100, video])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_nobody_recorded_stop_the_evaluation(bad: float) -> None:
    scores = np.zeros((700, 9), np.float32)
    scores[600, [2, 5]] = bad
    message = r"row 600 .* 2 values of 9 that are NaN or \+inf, the first in column 2"
    with pytest.raises(ModelError, match=message):
        rank_rows(scores, np.zeros(700, int))
    with pytest.raises(ModelError, match=message):
        stream_ranks(blocks_of(scores, 350), np.zeros(700, int), 9)


def test_a_second_round_that_differs_is_refused() -> None:
    rng = np.random.default_rng(0)

    def blocks() -> Iterator[tuple[int, F32]]:
        yield 0, rng.random((4, 4), dtype=np.float32)

    with pytest.raises(ModelError, match=r"changed between two rounds .* evaluation mode"):
        stream_ranks(blocks, np.arange(4), 4)


def test_what_does_not_fit_is_refused() -> None:
    scores, every = np.zeros((4, 3), np.float32), np.zeros(4, int)
    with pytest.raises(ValueError, match=r"scores are \(2, 3\), expected \(rows, 5\)"):
        stream_ranks(blocks_of(scores, 2), every, 5)
    with pytest.raises(ValueError, match="begins at row 3, expected 0"):
        stream_ranks(lambda: [(3, scores[3:])], every, 3)
    with pytest.raises(ValueError, match="2 rows of scores for 4 texts"):
        stream_ranks(lambda: [(0, scores[:2])], every, 3)
    with pytest.raises(ValueError, match="scores for row 3; the last query's row is 2"):
        stream_ranks(blocks_of(scores, 4), every[:3], 3)
    with pytest.raises(ValueError, match=r"query_video runs 0\.\.3, allowed 0\.\.3"):
        stream_ranks(blocks_of(scores, 4), np.arange(4), 3)
    with pytest.raises(ValueError, match="scores are float16; rank float32"):
        rank_rows(scores.astype(np.float16), every)
    with pytest.raises(ValueError, match="3 targets for scores"):
        rank_rows(scores, every[:3])
    with pytest.raises(ValueError, match="N >= 1"):
        rank_rows(scores[:0], every[:0])
    with pytest.raises(ValueError, match="3 texts for 4 queries"):
        stream_ranks(blocks_of(scores, 4), every, 3, query_text=np.arange(3))
    with pytest.raises(ValueError, match=r"own_scores is \(3,\) for 4 queries"):
        stream_ranks(blocks_of(scores, 4), every, 3, own_scores=np.zeros(3))
    with pytest.raises(ValueError, match="among 3 candidates"):
        Ranks(np.array([2]), np.array([2]), 3)


def test_a_missing_video_is_a_miss_in_both_directions() -> None:
    scores = np.array([[1, 0, -np.inf], [0, 1, -np.inf], [0.5, 0.2, -np.inf]], np.float32)
    ranks = stream_ranks(blocks_of(scores, 2), np.arange(3), 3)
    expected = [(0, 1, 1), (0, 1, 1), (3, 1, 1)]
    assert all_rows(ranks) == dict.fromkeys(("t2v", "v2t", "v2t_groups"), expected)


def test_rank_bounds_of_several_correct() -> None:
    ranks = Ranks(np.array([3]), np.array([5]), 10, np.array([2]))
    assert (ranks.optimistic[0], ranks.expected[0], ranks.pessimistic[0]) == (4, 5.0, 7)
