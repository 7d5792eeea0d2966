"""Dual softmax and QB-Norm against loops over Python numbers."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate import postprocess
from vtr.evaluate.postprocess import dual_softmax, querybank_norm
from vtr.evaluate.ranks import rank_rows


def cosines(num_rows: int, num_videos: int, seed: int, levels: int = 0) -> NDArray[np.float32]:
    scores = np.random.default_rng(seed).uniform(-1, 1, (num_rows, num_videos))
    if levels:
        scores = np.round(scores * levels) / levels
    return scores.astype(np.float32)


def plain_dual(scores: NDArray[Any]) -> NDArray[np.float64]:
    result = np.zeros(scores.shape)
    for video in range(scores.shape[1]):
        column = [float(s) / 0.01 for s in scores[:, video]]
        total = math.fsum(math.exp(s) for s in column)
        for text, logit in enumerate(column):
            result[text, video] = float(scores[text, video]) * math.exp(logit) / total
    return result


def plain_bank(
    scores: NDArray[Any], bank: NDArray[Any], beta: float
) -> tuple[list[list[float]], list[bool]]:
    """Rows as the paper writes them, and which of them were normalised."""
    num_videos = scores.shape[1]
    sums = [math.fsum(math.exp(beta * float(row[v])) for row in bank) for v in range(num_videos)]
    hubs = {v for row in bank for v in range(num_videos) if row[v] == max(row)}
    rows, normalised = [], []
    for row in scores:
        best = {v for v in range(num_videos) if row[v] == max(row)}
        normalised.append(bool(best & hubs))
        if normalised[-1]:
            rows.append([math.exp(beta * float(row[v])) / sums[v] for v in range(num_videos)])
        else:
            rows.append([float(s) for s in row])
    return rows, normalised


sizes = st.integers(1, 8)
seeds = st.integers(0, 2**32 - 1)


@given(sizes, sizes, seeds, st.sampled_from([0, 3]), st.sampled_from([0.01, 0.2, 1.0]))
def test_dual_softmax(
    num_texts: int, num_videos: int, seed: int, levels: int, scale: float
) -> None:
    scores = cosines(num_texts, num_videos, seed, levels) * np.float32(scale)
    np.testing.assert_allclose(dual_softmax(scores), plain_dual(scores), rtol=1e-9, atol=1e-300)


@given(sizes, sizes, sizes, seeds, st.sampled_from([0, 3]))
def test_querybank_norm(
    num_texts: int, num_videos: int, num_bank: int, seed: int, levels: int
) -> None:
    scores = cosines(num_texts, num_videos, seed, levels)
    bank = cosines(num_bank, num_videos, seed + 1, levels)
    rows, normalised = plain_bank(scores, bank, 20.0)
    for ours, theirs, changed in zip(querybank_norm(scores, bank), rows, normalised, strict=True):
        wanted = np.log(theirs) / 20 if changed else np.array(theirs)
        np.testing.assert_allclose(ours, wanted, atol=1e-12)


def test_querybank_norm_takes_a_hub_down() -> None:
    """Video 0 draws everything; the bank knows it."""
    scores = np.array([[0.32, 0.30, 0.1], [0.33, 0.1, 0.31]])
    bank = np.array([[0.4, 0.1, 0.1], [0.39, 0.12, 0.1]])
    assert rank_rows(scores, np.array([1, 2])).better.tolist() == [1, 1]
    assert rank_rows(querybank_norm(scores, bank), np.array([1, 2])).better.tolist() == [0, 0]
    elsewhere = np.array([[0.1, 0.1, 0.4]])  # never best for these queries: nothing changes
    np.testing.assert_array_equal(querybank_norm(scores, elsewhere), scores)


def test_part_sizes_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, bank = cosines(30, 17, 0), cosines(40, 17, 1)
    whole = dual_softmax(scores), querybank_norm(scores, bank)
    monkeypatch.setattr(postprocess, "CELLS", 64)
    np.testing.assert_array_equal(dual_softmax(scores), whole[0])
    np.testing.assert_allclose(querybank_norm(scores, bank), whole[1], atol=1e-14)


def test_querybank_norm_treats_each_query_alone() -> None:
    scores, bank = cosines(30, 17, 0), cosines(40, 17, 1)
    alone = np.concatenate([querybank_norm(row[None], bank) for row in scores])
    np.testing.assert_array_equal(alone, querybank_norm(scores, bank))


def test_extreme_scales_stay_finite() -> None:
    logits = 100 * cosines(6, 5, 0)
    assert np.isfinite(dual_softmax(logits)).all()
    assert np.isfinite(querybank_norm(logits, logits)).all()


def test_recorded_misses_stay_misses() -> None:
    scores, bank = cosines(6, 4, 0), cosines(3, 4, 1)
    scores[:, 2] = bank[:, 2] = -np.inf
    keep = [0, 1, 3]
    for changed, without in (
        (dual_softmax(scores), dual_softmax(scores[:, keep])),
        (querybank_norm(scores, bank), querybank_norm(scores[:, keep], bank[:, keep])),
    ):
        assert np.isneginf(changed[:, 2]).all()
        np.testing.assert_allclose(changed[:, keep], without, atol=1e-14)


def test_a_bank_of_other_videos_or_of_none_is_refused() -> None:
    scores = cosines(3, 4, 0)
    for bank in (scores[:0], scores[:, :3]):
        with pytest.raises(ConfigError, match="does not fit scores of"):
            querybank_norm(scores, bank)
