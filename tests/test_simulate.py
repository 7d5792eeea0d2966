"""Pooling rules against a slow loop, and against each other where they must agree."""

from itertools import pairwise

import numpy as np
import pytest
from builders import query_set
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.coverage import Coverage
from vtr.evaluate.evaluator import plan
from vtr.evaluate.simulate import (
    RULES,
    PoolingOptions,
    frame_counts,
    rule_blocks,
    simulate,
    thinned,
)
from vtr.extract.samplers.segment import middles
from vtr.features import PackedFrames
from vtr.verbs.simulate import Options


def scores_of(
    rule: str, packed: PackedFrames, frames: int, texts: NDArray[np.float32], **more: float
) -> NDArray[np.float32]:
    options = PoolingOptions(**{"top": 2, **more})  # type: ignore[arg-type]
    blocks = rule_blocks(rule, texts, thinned(packed, frames), options)
    return np.concatenate([np.asarray(rows) for _, rows in blocks()])


def packed_frames(lengths: list[int], dim: int = 5, seed: int = 0) -> PackedFrames:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((sum(lengths), dim)).astype(np.float32) * 3
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = tuple(f"v{v}" for v in range(len(lengths)))
    return PackedFrames(ids, rows, np.arange(len(rows), dtype=np.float64), offsets)


def slow_score(rule: str, text: NDArray[np.float64], frames: NDArray[np.float64]) -> float:
    """One pair, in double, straight from the formulas."""
    t = text / np.linalg.norm(text)
    unit = [f / np.linalg.norm(f) for f in frames]
    sims = [float(f @ t) for f in unit]
    if rule == "mean":
        pooled = sum(unit) / len(unit)
    elif rule == "maxP":
        pooled = np.array([max(f[d] for f in unit) for d in range(len(t))])
    elif rule == "max-sim":
        return max(sims)
    elif rule == "top-k":
        best = sorted(sims, reverse=True)[:2]
        return sum(best) / len(best)
    else:
        weights = np.array([np.exp(s / 0.1) for s in sims])
        pooled = sum(w * f for w, f in zip(weights / weights.sum(), frames, strict=True))
    return float(pooled @ t / np.linalg.norm(pooled))


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    frames=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_every_rule_equals_the_plain_formula(lengths: list[int], frames: int, seed: int) -> None:
    packed = packed_frames(lengths, seed=seed)
    texts = np.random.default_rng(seed + 1).standard_normal((3, 5)).astype(np.float32)
    for rule in RULES:
        scores = scores_of(rule, packed, frames, texts)
        for v, length in enumerate(lengths):
            rows = packed.offsets[v] + middles(length, frames)
            for n, text in enumerate(texts):
                wanted = slow_score(
                    rule, text.astype(np.float64), packed.frames[rows].astype(np.float64)
                )
                assert scores[n, v] == pytest.approx(wanted, abs=2e-5), (rule, n, v)


def test_one_frame_makes_all_rules_equal() -> None:
    packed = packed_frames([1, 4, 3])
    texts = np.random.default_rng(2).standard_normal((4, 5)).astype(np.float32)
    first, *others = [scores_of(rule, packed, 1, texts) for rule in RULES]
    for other in others:
        assert other == pytest.approx(first, abs=1e-5)


def test_the_order_of_frames_changes_no_score_at_all_under_mean() -> None:
    packed = packed_frames([7], dim=64)
    turned = PackedFrames(packed.ids, packed.frames[::-1], packed.pts_seconds, packed.offsets)
    texts = np.random.default_rng(3).standard_normal((20, 64)).astype(np.float32)
    one, other = (scores_of("mean", p, 7, texts) for p in (packed, turned))
    assert np.array_equal(one, other)


@given(length=st.integers(1, 300), wanted=st.integers(1, 80))
def test_thinning_keeps_middles_of_equal_parts(length: int, wanted: int) -> None:
    kept = middles(length, wanted)
    assert len(kept) == min(length, wanted)
    assert len(set(kept.tolist())) == len(kept)
    assert kept.tolist() == [int((i + 0.5) * length / len(kept)) for i in range(len(kept))]


@given(longest=st.integers(1, 400))
def test_frame_counts_double_and_end_with_all(longest: int) -> None:
    counts = frame_counts(longest)
    assert counts[0] == 1
    assert counts[-1] == longest
    assert all(b <= 2 * a for a, b in pairwise(counts))
    assert counts == sorted(set(counts))


def test_simulation_finds_the_rule_that_fits() -> None:
    """One frame of many shows what the caption says: the mean loses it, the maximum does not."""
    rng = np.random.default_rng(0)
    dim, num_videos, num_frames = 16, 30, 8
    texts = rng.standard_normal((num_videos, dim)).astype(np.float32)
    frames = rng.standard_normal((num_videos, num_frames, dim))
    frames[np.arange(num_videos), rng.integers(0, num_frames, num_videos)] = texts
    packed = PackedFrames(
        tuple(f"v{v}" for v in range(num_videos)),
        frames.reshape(-1, dim).astype(np.float32),
        np.zeros(num_videos * num_frames),
        np.arange(num_videos + 1) * num_frames,
    )
    queries = query_set(range(num_videos), num_videos)
    task = plan(queries, Coverage("miss", np.ones(num_videos, np.bool_), ()))
    told: list[tuple[int, int]] = []
    rows = simulate(
        task,
        texts,
        packed,
        options=PoolingOptions(),
        tell=lambda done, total: told.append((done, total)),
    )
    found = {(row["rule"], row["frames"]): row["metrics"]["t2v/R@1"]["value"] for row in rows}
    assert found["max-sim", 8] == 100
    assert found["mean", 8] < 90
    assert found["max-sim", 1] < 50
    assert told[-1] == (len(rows), len(rows)) == (20, 20)
    assert {row["mean_frames"] for row in rows} == {1.0, 2.0, 4.0, 8.0}


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="top is 0; it must be a whole number, 1 or more"):
        Options.of(top=0)
    for temperature in (0.0, 1e-300, float("nan"), -1.0):
        with pytest.raises(ConfigError, match=r"temperature is .*; it must be .*1e-06 or more"):
            Options.of(temperature=temperature)


def test_the_coldest_attention_is_the_best_frame_alone() -> None:
    packed = packed_frames([5, 2])
    texts = np.random.default_rng(5).standard_normal((4, 5)).astype(np.float32)
    best, cold = (
        scores_of(rule, packed, 5, texts, temperature=1e-6) for rule in ("max-sim", "attention")
    )
    assert cold == pytest.approx(best, abs=1e-5)
