"""Run and qrels files that trec_eval and its relatives read.

A line of a run is "query Q0 item rank score tag", of qrels "query 0 item 1". The tools split at
blanks, so ids are percent-encoded as UTF-8 (RFC 3986); an empty id is a lone "%". trec_eval
ignores the rank column and breaks ties by item id, later ids first; files are written in that
order. An item at -inf is a recorded miss and is left out, as not retrieved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError, DatasetError
from vtr.evaluate.ranks import Scores
from vtr.foreign import escape_id, unescape_id

TOP_K = 50


def run_lines(
    blocks: Iterable[tuple[int, Scores]],
    query_ids: Sequence[str],
    item_ids: Sequence[str],
    *,
    top_k: int = TOP_K,
    tag: str = "vtr",
) -> bytes:
    """Returns a run file: the best items of every query.

    Args:
        blocks: (first query, scores (b, C)), as for `vtr.evaluate.ranks.stream_ranks`.
        query_ids: One per query.
        item_ids: (C,) what is ranked.
        top_k: How many per query; R@k of the file is R@k of the evaluation for k up to this.
        tag: The run's name, the last word of each line.

    Raises:
        ConfigError: An id twice, `top_k` below 1, or an empty tag.
    """
    if top_k < 1 or not tag:
        raise ConfigError(f"a run needs top_k >= 1 and a tag, not {top_k} and {tag!r}")
    queries = _unique(query_ids, "query")
    items = _unique(item_ids, "item")
    later_first = np.empty(len(items), np.int64)
    later_first[sorted(range(len(items)), key=items.__getitem__, reverse=True)] = np.arange(
        len(items)
    )
    ending = f" {escape_id(tag)}\n"
    payload = bytearray()
    for start, block in blocks:
        for query, scores in zip(queries[start : start + len(block)], block, strict=True):
            best = _best(scores, later_first, top_k)
            lines = [
                f"{query} Q0 {items[item]} {rank} {score}{ending}"
                for rank, (item, score) in enumerate(
                    zip(best.tolist(), _digits(scores[best]), strict=True), start=1
                )
            ]
            payload += "".join(lines).encode("ascii")
    return bytes(payload)


def qrels_lines(relevant: Iterable[tuple[str, str]]) -> bytes:
    """Returns a qrels file: which items are correct.

    Args:
        relevant: (query id, item id) of every correct pair; a query may have several.
    """
    lines = [f"{escape_id(query)} 0 {escape_id(item)} 1\n" for query, item in relevant]
    return "".join(lines).encode("ascii")


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Returns the scores by query id and item id.

    Raises:
        DatasetError: A line that is not of six words, or whose score is no number.
    """
    run: dict[str, dict[str, float]] = {}
    for number, words in _lines(path, 6):
        try:
            score = float(words[4])
        except ValueError:
            raise DatasetError(f"{path}, line {number}: {words[4]!r} is no score") from None
        run.setdefault(unescape_id(words[0]), {})[unescape_id(words[2])] = score
    return run


def read_qrels(path: Path) -> dict[str, set[str]]:
    """Returns the correct items by query id; lines whose last word is 0 are skipped.

    Raises:
        DatasetError: A line that is not of four words.
    """
    qrels: dict[str, set[str]] = {}
    for _, (query, _, item, grade) in _lines(path, 4):
        if grade != "0":
            qrels.setdefault(unescape_id(query), set()).add(unescape_id(item))
    return qrels


def _best(scores: Scores, later_first: NDArray[np.int64], top_k: int) -> NDArray[np.int64]:
    """The first `top_k` in trec_eval's order; everything tied at the cut is sorted too."""
    count = min(top_k, len(scores))
    edge = np.partition(scores, len(scores) - count)[len(scores) - count]
    near = np.flatnonzero((scores >= edge) & ~np.isneginf(scores))
    order = np.lexsort((later_first[near], -scores[near]))
    return near[order[:count]]


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


def _lines(path: Path, num_words: int) -> Iterable[tuple[int, list[str]]]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if len(words) != num_words:
            raise DatasetError(
                f"{path}, line {number} has {len(words)} words, expected {num_words}: {line[:80]!r}"
            )
        yield number, words
