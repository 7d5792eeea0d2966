"""Can a printed recall be? R@K times N must be a whole number of queries.

A recall without ties is a count out of N queries. Printed with d decimals it stands for
everything within half a unit of its last digit; if no count falls there, the number is a typo, a
mean over several runs, or of another test set. Where the printed steps are wider than one query
every number passes, and the check says so.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vtr.errors import ConfigError, DatasetError

TEST_SIZES: Mapping[str, int] = {
    "MSVD videos": 670,
    "MSR-VTT 1k-A or 1k-B, LSMDC": 1000,
    "DiDeMo paragraphs": 1004,
    "VATEX 1k5 videos": 1500,
    "MSR-VTT full videos": 2990,
    "ActivityNet val_1 paragraphs": 4917,
    "VATEX 1k5 captions": 15000,
    "MSVD captions": 27763,
    "MSR-VTT full captions": 59800,
}

MOST_QUERIES = 10**9
MOST_DIGITS = 20
NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,12})?")
RECALL_COLUMN = re.compile(r"(.*[/ _])?(r|r@|recall@)\d+", re.IGNORECASE)
SIZE_COLUMN = "n"


@dataclass(frozen=True)
class Verdict:
    """What one printed number can mean."""

    printed: str  # As it was given, in percent
    num_queries: int  # N
    counts: range  # The whole counts that round to it; empty where it cannot be
    nearest: tuple[float, float]  # The two recalls around it, in percent
    # Whether a wrong number could have been noticed: False where printed steps are wider than one
    # query.
    telling: bool
    place: str = ""  # Where it stood, such as "row 3, R@5"; empty for the command line

    @property
    def possible(self) -> bool:
        """Whether some count of queries rounds to the number."""
        return len(self.counts) > 0


def check_number(printed: str, num_queries: int, place: str = "") -> Verdict:
    """Says which whole counts of queries round to a printed percentage, rounded either way.

    >>> check_number("44.5", 670).counts, check_number("44.55", 1000).possible
    (range(298, 299), False)
    """
    if not 1 <= num_queries <= MOST_QUERIES:
        raise ConfigError(
            f"N is {num_queries!s:.30}; a test set has at least 1 query and at most "
            f"{MOST_QUERIES:,}"
        )
    text = printed.strip().removesuffix("%").strip()
    if not NUMBER.fullmatch(text) or Fraction(text) > 100:
        raise ConfigError(f"{printed!r:.60} is no percentage; write digits such as 44.5, 0 to 100")
    value = Fraction(text)
    step = Fraction(1, 10 ** len(text.partition(".")[2]))
    low = math.ceil((value - step / 2) * num_queries / 100)
    high = math.floor((value + step / 2) * num_queries / 100)
    below = math.floor(value * num_queries / 100)
    nearest = tuple(100 * min(n, num_queries) / num_queries for n in (below, below + 1))
    return Verdict(
        printed=text,
        num_queries=num_queries,
        counts=range(max(low, 0), min(high, num_queries) + 1),
        nearest=(nearest[0], nearest[1]),
        telling=step < Fraction(100, num_queries),
        place=place,
    )


def fitting_sizes(printed: Sequence[str]) -> dict[str, list[Verdict]]:
    """Returns, by the name of every well-known test size, a verdict per number."""
    return {
        name: [check_number(number, size) for number in printed]
        for name, size in TEST_SIZES.items()
    }


def check_csv(path: Path, num_queries: int | None) -> list[Verdict]:
    """Checks every recall in a CSV file with a header.

    Columns whose name ends in R1, R@1, Recall@1 (any depth) are read, others are not; a column
    "N" holds the row's own number of queries, else it is `num_queries`. Empty cells, "-" and "n/a"
    are passed over.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from None
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return _check_rows(rows, path, num_queries)
    except csv.Error as error:
        raise DatasetError(f"{path}, after line {rows.line_num}: not CSV ({error})") from None


def _check_rows(rows: csv.DictReader[str], path: Path, num_queries: int | None) -> list[Verdict]:
    columns = [name for name in rows.fieldnames or () if RECALL_COLUMN.fullmatch(name.strip())]
    if not columns:
        raise DatasetError(
            f"{path} has no recall column; its header is {list(rows.fieldnames or ())}, expected "
            "names such as R@1, R5, t2v/R@10"
        )
    verdicts = []
    for number, row in enumerate(rows, start=1):
        cells = [(name, (row[name] or "").strip()) for name in columns]
        given = [(name, cell) for name, cell in cells if cell.lower() not in ("", "-", "n/a")]
        size, where = num_queries, f"{path}, row {number}"
        own = next((row[name] for name in row if (name or "").strip().lower() == SIZE_COLUMN), None)
        if given and own and own.strip():
            digits = own.strip().replace(",", "")
            if not (digits.isascii() and digits.isdecimal() and len(digits) <= MOST_DIGITS):
                raise ConfigError(f"{where}: N is {own!r:.60}, expected a whole number")
            size = int(digits)
        for name, cell in given:
            if size is None:
                raise ConfigError(f"{where} has no N; add a column N or give --n, such as --n 1000")
            verdicts.append(check_number(cell, size, f"row {number}, {name.strip()}"))
    return verdicts
