"""Re-ranking against a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.rerank import rerank


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    k=st.integers(1, 8),
)
def test_the_first_k_follow_the_costly_head_and_the_rest_the_cheap_one(
    seed: int, shape: tuple[int, int], k: int
) -> None:
    rng = np.random.default_rng(seed)
    cheap = rng.permutation(shape[0] * shape[1]).reshape(shape).astype(np.float32) / 50 - 0.5
    costly = rng.permutation(shape[0] * shape[1]).reshape(shape).astype(np.float32) * 10 - 200
    chosen: list[tuple[int, int]] = []

    def score(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        chosen.extend(zip(rows.tolist(), columns.tolist(), strict=True))
        return costly[rows, columns]

    found = rerank(cheap, k, score)
    for merged, a, b in ((found.t2v, cheap, costly), (found.v2t.T, cheap.T, costly.T)):
        for row in range(len(a)):
            first = sorted(range(a.shape[1]), key=lambda c: -a[row, c])[:k]
            rest = [
                c for c in sorted(range(a.shape[1]), key=lambda c: -a[row, c]) if c not in first
            ]
            wanted = sorted(first, key=lambda c: -b[row, c]) + rest
            assert np.argsort(-merged[row], kind="stable").tolist() == wanted
    assert found.num_pairs == len(chosen) == len(set(chosen))
    assert len(chosen) <= k * (shape[0] + shape[1])


def test_ties_of_the_costly_head_stay_ties() -> None:
    cheap = np.array([[4, 3, 2, 1]], np.float32)
    found = rerank(cheap, 3, lambda rows, columns: np.array([7.0, 7.0, 7.0, 7.0])[columns])
    assert len(set(found.t2v[0, :3].tolist())) == 1
    assert found.t2v[0, 3] < found.t2v[0, 0]


@given(seed=st.integers(0, 999), k=st.integers(1, 7))
def test_the_order_of_the_gallery_has_no_say_in_ties(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    cheap = rng.integers(0, 3, (6, 6)).astype(np.float32)
    costly = rng.normal(size=(6, 6)).astype(np.float32)
    order = rng.permutation(6)

    def ranks(cheap: NDArray[np.float32], costly: NDArray[np.float32]) -> NDArray[np.int64]:
        found = rerank(cheap, k, lambda rows, columns: costly[rows, columns])
        above = found.t2v[:, None, :] > found.t2v[:, :, None]
        below = found.v2t.T[:, None, :] > found.v2t.T[:, :, None]
        return np.stack([above.sum(axis=2), below.sum(axis=2).T])

    moved = ranks(cheap[:, order][order], costly[:, order][order])
    assert (moved == ranks(cheap, costly)[:, order][:, :, order]).all()


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="--rerank is 0"):
        rerank(np.zeros((2, 2), np.float32), 0, lambda rows, _: rows)
