"""`vtr check-table`: printed recalls that no count of queries rounds to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vtr.commands.console import AsJson, print_json, say, say_folded
from vtr.commands.flags import with_options
from vtr.counts import counted
from vtr.errors import SOME_FAILED
from vtr.progress import note
from vtr.verbs.check_table import Options

if TYPE_CHECKING:
    from vtr.evaluate.check_table import Verdict


@with_options("check-table")
def check_table(
    numbers: Annotated[
        list[str], typer.Argument(help="Recalls in percent, as printed; or one .csv file.")
    ],
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Check that R@K times N is a whole number, within the rounding of the printed digits.

    Exit code 3 if a number cannot be; without --n, if the numbers fit no well-known test size.
    """
    from vtr.api import check_table as api

    checked = api.check_table(numbers, options)
    if as_json:
        print_json(api.as_document(checked))
    for name, row in {} if as_json else checked.items():
        if name:
            say(_guess(name, row))
        else:
            _print(row)
    if not api.fits(checked):
        raise typer.Exit(SOME_FAILED)


def _print(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        say_folded(describe(verdict))
    if blind := sum(not verdict.telling for verdict in verdicts):
        note(
            f"{blind} of {counted(len(verdicts), 'number')} could not have failed: their last "
            "digit is coarser than one query"
        )
    if any(not verdict.possible for verdict in verdicts):
        note("a mean over several runs or over ties is no count: then this check says nothing")


def describe(verdict: Verdict) -> str:
    """Returns one line: the number, and the counts that round to it or the recalls around it."""
    where = f"{verdict.place}: " if verdict.place else ""
    size = f"{verdict.num_queries:,}"
    if verdict.possible:
        first, last = verdict.counts[0], verdict.counts[-1]
        count = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        return f"{where}{verdict.printed} ok: {count} of {size}"
    low, high = verdict.nearest
    return (
        f"{where}{verdict.printed} CANNOT BE: no count of "
        f"{counted(verdict.num_queries, 'query')} rounds to it "
        f"(the nearest recalls are {low:.4f} and {high:.4f})"
    )


def _guess(name: str, verdicts: Sequence[Verdict]) -> str:
    wrong = ", ".join(verdict.printed for verdict in verdicts if not verdict.possible)
    blind = "" if any(verdict.telling for verdict in verdicts) else " (every number would)"
    answer = f"no: {wrong} cannot be" if wrong else f"fits{blind}"
    return f"N = {verdicts[0].num_queries:>6,}  {name}: {answer}"
