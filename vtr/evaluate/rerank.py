"""Re-ranking: a cheap head orders everything, a costly one reorders the head of each list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.counting import Scores
from vtr.evaluate.evaluator import PairScores


@dataclass(frozen=True)
class Reranked:
    """Scores of both directions; each may only be ranked along its own axis."""

    t2v: NDArray[np.float32]  # (T, V) to be ranked along rows
    v2t: NDArray[np.float32]  # (T, V) to be ranked along columns
    num_pairs: int  # How many pairs the costly head scored


def rerank(scores: Scores, k: int, score_pairs: PairScores) -> Reranked:
    """Reorders the best k of every row, and for v2t of every column, by another head.

    What ties with the k-th is among them, so that the order of the gallery has no say. What is not
    reordered keeps its place below; an item outside the first k can never enter. `scores` (T, V)
    are the cheap head's; `score_pairs` takes rows (P,) and columns (P,), each pair once.
    """
    if k < 1:
        raise ConfigError(f"--rerank is {k}; it must be 1 or more, such as 50")
    of_rows, of_columns = _best(scores, k), _best(scores.T, k)
    pairs = np.nonzero(of_rows | of_columns.T)
    costly = np.full(scores.shape, -np.inf, np.float32)
    costly[pairs] = score_pairs(*pairs)
    rows = _merged(scores, costly, of_rows)
    columns = _merged(scores.T, costly.T, of_columns).T
    return Reranked(rows, np.ascontiguousarray(columns), len(pairs[0]))


def _best(scores: Scores, k: int) -> NDArray[np.bool_]:
    """(R, C) True for the k best of each row and what equals the last: no order chooses of ties."""
    place = max(0, scores.shape[1] - k)
    least = np.partition(scores, place, axis=1)[:, place, None]
    return np.asarray(~(scores < least))  # NaN is chosen, to be told of when it is ranked


def _merged(cheap: Scores, costly: Scores, first: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Costly scores where `first`, shifted above every other score of the row.

    The shift takes place on ranks, not on values: float32 would round scores of another scale.
    """
    merged = np.array(cheap, np.float32)
    for row, marks in enumerate(first):
        if marks.all():
            merged[row] = costly[row]
            continue
        others = cheap[row][~marks]
        _, place = np.unique(costly[row][marks], return_inverse=True)
        merged[row][marks] = _above(float(others.max()), int(place.max()) + 1)[place]
    return merged


def _above(floor: float, count: int) -> NDArray[np.float32]:
    """`count` ascending distinct float32 values above `floor`."""
    step = max(1.0, abs(floor)) * 1e-3
    return (floor + step * np.arange(1, count + 1)).astype(np.float32)
