"""`vtr compare`: is one result better than another, and on which queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtr.commands.console import AsJson, print_json, say, say_folded
from vtr.commands.flags import with_options
from vtr.commands.tables import print_table
from vtr.counts import counted
from vtr.foreign import printable
from vtr.verbs.compare import Options

if TYPE_CHECKING:
    from vtr.evaluate.compare import Comparison, MetricDifference

SURE = 0.05
NAME_WIDTH = 10  # of a column


@with_options("compare")
def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Result folders; all others are compared with the first.")
    ],
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Compare results query by query: difference, 95 % interval, paired permutation test.

    Refuses results of different protocols, queries or missing videos.
    """
    from vtr.api.compare import as_document, compare_sides

    comparisons = compare_sides(results, options)
    if as_json:
        print_json(as_document(comparisons, options))
        return
    for comparison in comparisons:
        _print(comparison, options.show, of=len(comparisons))


def _print(comparison: Comparison, show: int, *, of: int) -> None:
    """Prints one of so many comparisons with the first side."""
    from vtr.api.compare import how_many, setting_lines

    a, b = comparison.a.title, comparison.b.title
    is_short = max(len(printable(a)), len(printable(b))) <= NAME_WIDTH and a != b
    names = (printable(a), printable(b)) if is_short else ("A", "B")
    say()
    say_folded(f"{b} against {a}")
    for letter, title in () if is_short else (("A", a), ("B", b)):
        say_folded(f"{letter}: {title}")
    for line in comparison.notes:
        say_folded(line, err=True)
    corrected = ("p (Holm)",) if of > 1 else ()
    headings = ("metric", *names, "difference", "95 % interval", "p", *corrected, "N")
    _print_table(headings, [_row(metric, corrected=of > 1) for metric in comparison.metrics])
    for line in _footnotes(comparison, of):
        say_folded(line)
    if comparison.settings:
        say("settings that differ:")
        for line in setting_lines(comparison):
            say_folded(line, indent=2)
    for what, changes in (("gained", comparison.gained), ("lost", comparison.lost)):
        say_folded(f"{what} at {comparison.k}: {how_many(what, changes)}")
        for c in changes[:show]:
            text = printable(c.text)
            words = text if len(text) <= 80 else f"{text[:79]}…"
            ranks = f"rank {c.rank_a:g} -> {c.rank_b:g}"
            say_folded(f"{printable(c.query_id)}: {ranks}: {words}", indent=2)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table whose columns stay whole, however narrow the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        width = max(len(cell) for cell in (heading, *(row[number] for row in rows)))
        table.add_column(Text(heading), justify="right" if number else "left", width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    print_table(table)


def _row(metric: MetricDifference, *, corrected: bool) -> tuple[str, ...]:
    values = ((metric.a, metric.sd_a), (metric.b, metric.sd_b))
    return (
        metric.metric,
        *(f"{v:.2f}" if sd is None else f"{v:.2f} ± {sd:.2f}" for v, sd in values),
        f"{metric.difference:+.2f}",
        f"[{metric.low:+.2f}, {metric.high:+.2f}]",
        *([f"{metric.p_value:.4f}"] if corrected else []),
        f"{metric.p_adjusted:.4f}{' *' if metric.p_adjusted < SURE else '  '}",
        f"{metric.n:,}",
    )


def _footnotes(comparison: Comparison, of: int) -> list[str]:
    """What the figures of the table are, in lines of at most 80 characters."""
    spread = any(m.sd_a is not None or m.sd_b is not None for m in comparison.metrics)
    lines = [
        "R@k and MRR in %, MeanR a rank" + ("; mean ± standard deviation of the seeds" * spread),
        "p: paired permutation test over the queries, for each metric by itself",
    ]
    others = f"{counted(of, 'result')} that are set against the first"
    corrected = [f"p (Holm): corrected for the {others}"] if of > 1 else []
    return [*lines, *corrected, f"* {'p (Holm)' if of > 1 else 'p'} below {SURE}"]
