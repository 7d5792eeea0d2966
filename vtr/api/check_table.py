"""`vtr check-table`: printed recalls that no count of queries rounds to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtr.evaluate.check_table import Verdict, check_csv, check_number, fitting_sizes
from vtr.verbs.check_table import Options


def check_table(numbers: Sequence[str], options: Options) -> dict[str, list[Verdict]]:
    """Checks recalls in percent as printed, or those in one .csv file.

    Returns:
        A verdict per number by the name of each well-known test size; by "" for the size given.
    """
    if len(numbers) == 1 and numbers[0].lower().endswith(".csv"):
        return {"": check_csv(Path(numbers[0]), options.n)}
    if options.n is None:
        return fitting_sizes(numbers)
    return {"": [check_number(number, options.n) for number in numbers]}


def fits(checked: Mapping[str, Sequence[Verdict]]) -> bool:
    """Returns whether there is a test size of which all numbers can be."""
    return any(all(verdict.possible for verdict in row) for row in checked.values())


def as_document(checked: Mapping[str, Sequence[Verdict]]) -> Any:
    """Returns the verdicts as JSON values: a list, or one for each size."""
    rows = {name: [_facts(verdict) for verdict in row] for name, row in checked.items()}
    return rows.get("", rows)


def _facts(verdict: Verdict) -> dict[str, Any]:
    return {
        "place": verdict.place,
        "printed": verdict.printed,
        "n": verdict.num_queries,
        "possible": verdict.possible,
        "counts": [verdict.counts[0], verdict.counts[-1]] if verdict.possible else [],
        "nearest": list(verdict.nearest),
        "telling": verdict.telling,
    }
