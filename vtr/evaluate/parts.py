"""Numbers of a part of the queries, each among all videos: by length, category or label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.intervals import Clusters, bootstrap, cell
from vtr.evaluate.metrics import summary
from vtr.evaluate.ranks import Ranks

_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Bin:
    """Texts of `low` to `high` words; `high` None has no end."""

    low: int
    high: int | None

    @property
    def name(self) -> str:
        """Such as "1-10", "5" or "21+"."""
        if self.high is None:
            return f"{self.low}+"
        return f"{self.low}-{self.high}" if self.high > self.low else f"{self.low}"

    def holds(self, words: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns which numbers of words lie in it."""
        highest = np.inf if self.high is None else self.high
        return np.asarray((words >= self.low) & (words <= highest))


WORD_BINS = (Bin(1, 10), Bin(11, 20), Bin(21, None))


def parse_bins(text: str) -> tuple[Bin, ...]:
    """Returns bins of lengths, in words.

    >>> [b.name for b in parse_bins("1-10,11-20,21+")]
    ['1-10', '11-20', '21+']
    """
    bins = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        is_open = not dash and low.endswith("+")
        numbers = [low[:-1]] if is_open else [low, high if dash else low]
        if not all(_NUMBER.fullmatch(n) for n in numbers):
            raise ConfigError(f"--bins has {part.strip()!r:.60}; write bins like 1-10,11-20,21+")
        bins.append(Bin(int(numbers[0]), None if is_open else int(numbers[1])))
    ascend = all(b.high is None or b.low <= b.high for b in bins)
    if not ascend or not all(a.high is not None and a.high < b.low for a, b in pairwise(bins)):
        raise ConfigError(f"--bins is {text!r:.60}; the bins must ascend and not overlap")
    return tuple(bins)


def part_numbers(
    ranks: Ranks, chosen: NDArray[np.int64], owners: Clusters, ks: Sequence[int], *, seed: int
) -> dict[str, Any]:
    """Returns `n` and the t2v `metrics` of chosen queries (n,), each with its interval.

    Queries of one video, `owners` (Q,) of all, are drawn together.
    """
    some = take(ranks, chosen)
    ends = bootstrap(some, ks, seed=seed, clusters=owners[chosen])
    cells = {f"t2v/{name}": cell(value, ends[name]) for name, value in summary(some, ks).items()}
    return {"n": len(chosen), "metrics": cells}


def numbers_by_words(
    ranks: Ranks,
    words: NDArray[np.int64],
    owners: Clusters,
    ks: Sequence[int],
    *,
    bins: Sequence[Bin] = WORD_BINS,
    seed: int,
) -> list[dict[str, Any]]:
    """Returns name and `part_numbers` of every bin of words (Q,) that has queries."""
    parts = ((b.name, np.flatnonzero(b.holds(words))) for b in bins)
    return [
        {"name": name, **part_numbers(ranks, chosen, owners, ks, seed=seed)}
        for name, chosen in parts
        if len(chosen)
    ]


def take(ranks: Ranks, chosen: NDArray[np.integer]) -> Ranks:
    """Returns the ranks of some of the queries."""
    correct = None if ranks.correct is None else ranks.correct[chosen]
    return Ranks(ranks.better[chosen], ranks.tied[chosen], ranks.num_candidates, correct)
