"""`vtr check-table`: printed recalls that no count of queries rounds to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.commands.console import print_json, say, say_folded
from vtr.counts import counted
from vtr.progress import note

if TYPE_CHECKING:
    from vtr.evaluate.check_table import Verdict

SOME_IMPOSSIBLE = 3


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("check-table")(check_table)


def check_table(
    numbers: Annotated[
        list[str], typer.Argument(help="Recalls in percent, as printed; or one .csv file.")
    ],
    n: Annotated[
        int | None,
        typer.Option("--n", help="Queries in the test set. (default: every well-known size)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check that R@K times N is a whole number, within the rounding of the printed digits.

    Exit code 3 if a number cannot be; without --n, if the numbers fit no well-known test size.
    """
    from vtr.evaluate.check_table import check_csv, check_number

    if len(numbers) == 1 and numbers[0].lower().endswith(".csv"):
        verdicts = check_csv(Path(numbers[0]), n)
    elif n is None:
        _guess(numbers, as_json=as_json)
        return
    else:
        verdicts = [check_number(number, n) for number in numbers]
    if as_json:
        print_json([_facts(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            say_folded(describe(verdict))
        _remark(verdicts)
    if not all(verdict.possible for verdict in verdicts):
        raise typer.Exit(SOME_IMPOSSIBLE)


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


def _guess(numbers: list[str], *, as_json: bool) -> None:
    from vtr.evaluate.check_table import TEST_SIZES, fitting_sizes

    found = fitting_sizes(numbers)
    if as_json:
        print_json({name: [_facts(verdict) for verdict in row] for name, row in found.items()})
    else:
        for name, row in found.items():
            wrong = ", ".join(verdict.printed for verdict in row if not verdict.possible)
            blind = "" if any(verdict.telling for verdict in row) else " (every number would)"
            answer = f"no: {wrong} cannot be" if wrong else f"fits{blind}"
            say(f"N = {TEST_SIZES[name]:>6,}  {name}: {answer}")
    if not any(all(verdict.possible for verdict in row) for row in found.values()):
        raise typer.Exit(SOME_IMPOSSIBLE)


def _remark(verdicts: list[Verdict]) -> None:
    blind = [verdict for verdict in verdicts if not verdict.telling]
    if blind:
        note(
            f"{len(blind)} of {counted(len(verdicts), 'number')} could not have failed: their "
            "last digit is "
            "coarser than one query"
        )
    if any(not verdict.possible for verdict in verdicts):
        note("a mean over several runs or over ties is no count: then this check says nothing")


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
