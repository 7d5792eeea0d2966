"""Run and qrels files that trec_eval and its relatives read.

A line of a run is "query Q0 item rank score tag", of qrels "query 0 item 1". The tools split at
blanks, so ids are percent-encoded as UTF-8 (RFC 3986); an empty id is a lone "%". trec_eval
ignores the rank column and breaks ties by item id, later ids first; files are written in that
order. An item at -inf is a recorded miss and is left out, as not retrieved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.counting import Scores
from vtr.foreign import escape_id

_MOST_LINES = 500_000


def lines_per_query(num_queries: int) -> int:
    """Returns how many items per query a run holds, so that the file stays readable.

    >>> lines_per_query(1000), lines_per_query(59_800)
    (50, 10)
    """
    return max(10, min(50, _MOST_LINES // num_queries))


def later_first(
    item_ids: Sequence[str], key: Callable[[str], str | bytes] = escape_id
) -> NDArray[np.int64]:
    """(C,) the place of each item among those of equal score: trec_eval's order.

    >>> later_first(["b", "a", "c"]).tolist()
    [1, 2, 0]
    """
    words: list[Any] = [key(name) for name in item_ids]
    order = np.empty(len(words), np.int64)
    order[sorted(range(len(words)), key=words.__getitem__, reverse=True)] = np.arange(len(words))
    return order


def run_lines(
    query_ids: Sequence[str],
    item_ids: Sequence[str],
    *,
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    scores: Scores,
    tag: str = "vtr",
) -> Iterator[bytes]:
    """Yields a run file: the best items of every query, in this module's order.

    Args:
        query_ids: Q ids of the queries.
        item_ids: C ids of what is ranked.
        rows: (Q,) whose row of `items` and `scores` is the query's.
        items: (T, n) the best items of each row, best first and ties as `later_first` says; R@k of
            the file is R@k of the evaluation for k up to n.
        scores: (T, n) float32 or float64.
        tag: The run's name, the last word of each line.
    """
    if not tag:
        raise ConfigError("a run needs a tag, not ''")
    queries, names = _unique(query_ids, "query"), _unique(item_ids, "item")
    ending = f" {escape_id(tag)}\n"
    for query, row in zip(queries, rows.tolist(), strict=True):
        found = ~np.isneginf(scores[row])
        lines = [
            f"{query} Q0 {names[item]} {rank} {score}{ending}"
            for rank, (item, score) in enumerate(
                zip(items[row][found].tolist(), _digits(scores[row][found]), strict=True), start=1
            )
        ]
        yield "".join(lines).encode("ascii")


def qrels_lines(relevant: Iterable[tuple[str, str]]) -> bytes:
    """Returns a qrels file of the (query id, item id) of every correct pair."""
    lines = [f"{escape_id(query)} 0 {escape_id(item)} 1\n" for query, item in relevant]
    return "".join(lines).encode("ascii")


def _digits(scores: Scores) -> list[str]:
    """As many digits as bring every bit back; nine do for float32."""
    values = scores.tolist()
    if scores.dtype == np.float32:
        return [f"{value:.9g}" for value in values]
    return [repr(value) for value in values]


def _unique(names: Sequence[str], what: str) -> list[str]:
    words = [escape_id(name) for name in names]
    if len(set(words)) < len(words):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"the {what} id {twice!r} occurs twice; a run needs each id once")
    return words
