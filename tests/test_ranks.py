"""Ranks by counting, whole and streamed, against counting one by one."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.errors import ModelError
from vtr.evaluate.ranks import Ranks, RetrievalRanks, rank_rows, stream_ranks, with_misses
from vtr.evaluate.tiles import TiledScores, product_scores

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


def make_vectors(num_texts: int, num_videos: int, seed: int) -> tuple[F32, F32]:
    rng = np.random.default_rng(seed)
    texts = rng.standard_normal((num_texts, 48), dtype=np.float32)
    videos = rng.standard_normal((num_videos, 48), dtype=np.float32)
    for vectors in (texts, videos):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return texts, videos


def test_equal_words_tie_in_real_products() -> None:
    """Caption 3i repeats at 3i + 1 for another video; each distinct text is scored once.

    Matrix products of repeated rows differ in the last bit by place (OpenBLAS, seen at edges of
    tiles), so ties must come from `query_text`, and the tiles of `own` must repeat to the bit.
    """
    texts, videos = make_vectors(200, 301, 0)
    query_text = np.repeat(np.arange(200), 3)[:599]
    rng = np.random.default_rng(1)
    query_video = np.sort(rng.integers(0, 301, 599))
    rounds = []

    def fill(rows: slice, columns: slice, out: F32) -> None:
        rounds.append(columns.start)
        np.matmul(texts[rows], videos[columns].T, out=out)

    tiles = TiledScores(fill, 200, 301, rows_per_tile=64, videos_per_tile=32)
    whole = np.concatenate([block.copy() for _, block in tiles()])
    rounds.clear()
    own = tiles.own(query_video, query_text)
    np.testing.assert_array_equal(own, whole[query_text, query_video])
    assert len(rounds) < 30
    rounds.clear()
    ranks = stream_ranks(tiles, query_video, 301, query_text=query_text, own_scores=own)
    assert len(rounds) == 40  # one round: the guess was exact
    assert all_rows(ranks) == plain(whole[query_text], query_video)
    assert ranks.v2t is not None
    assert ranks.v2t.tied.min() >= 2  # every caption is given thrice, the last twice


def test_product_scores_are_products() -> None:
    texts, videos = make_vectors(1100, 300, 3)
    scores = np.concatenate([block.copy() for _, block in product_scores(texts, videos)()])
    np.testing.assert_allclose(scores, texts @ videos.T, atol=1e-6)


def test_shuffled_captions_rank_as_sorted_ones() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 50, (400, 40)).astype(np.float32) / 50
    video = np.sort(rng.integers(0, 40, 400))
    order = rng.permutation(400)
    ranks = stream_ranks(blocks_of(scores, 64), video, 40)
    shuffled = stream_ranks(blocks_of(scores[order], 64), video[order], 40)
    assert all_rows(ranks)["v2t"] == all_rows(shuffled)["v2t"]
    assert all_rows(ranks)["v2t_groups"] == all_rows(shuffled)["v2t_groups"]


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


def test_missing_queries_are_misses() -> None:
    present = Ranks(np.array([0, 2]), np.array([2, 1]), 3)
    missing = np.array([True, False, False, True])
    ranks = with_misses(present, missing, 5)
    assert as_rows(ranks) == [(5, 1, 1), (0, 2, 1), (2, 1, 1), (5, 1, 1)]
    assert ranks.num_candidates == 5
    assert as_rows(with_misses(present, np.array([False, True]))) == [(0, 2, 1), (3, 1, 1)]
    with pytest.raises(ValueError, match="2 ranks for 3 queries, 1 of them not missing"):
        with_misses(present, np.array([True, True, False]))


def test_a_missing_video_is_a_miss_in_both_directions() -> None:
    scores = np.array([[1, 0, -np.inf], [0, 1, -np.inf], [0.5, 0.2, -np.inf]], np.float32)
    ranks = stream_ranks(blocks_of(scores, 2), np.arange(3), 3)
    expected = [(0, 1, 1), (0, 1, 1), (3, 1, 1)]
    assert all_rows(ranks) == dict.fromkeys(("t2v", "v2t", "v2t_groups"), expected)


def test_rank_bounds_of_several_correct() -> None:
    ranks = Ranks(np.array([3]), np.array([5]), 10, np.array([2]))
    assert (ranks.optimistic[0], ranks.expected[0], ranks.pessimistic[0]) == (4, 5.0, 7)
