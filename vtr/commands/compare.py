"""`vtr compare`: is one result better than another, and on which queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.commands.console import print_json, say, say_folded
from vtr.counts import counted

if TYPE_CHECKING:
    from vtr.evaluate.compare import Change, Comparison, MetricDifference

SURE = 0.05
NAME_WIDTH = 10  # of a column


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("compare")(compare)


def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Result folders; all others are compared with the first.")
    ],
    seeds: Annotated[
        bool,
        typer.Option("--seeds", help="Group results that differ in their seed alone."),
    ] = False,
    k: Annotated[
        int, typer.Option("--k", "-k", help="Depth at which queries are gained or lost.")
    ] = 1,
    show: Annotated[int, typer.Option(help="Changed queries to list of each kind.")] = 5,
    resamples: Annotated[int, typer.Option(help="Random swaps of the test.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the test.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Also write everything to this .json file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare results query by query: difference, 95 % interval, paired permutation test.

    Refuses results of different protocols, queries or missing videos.
    """
    import json

    from vtr.errors import ConfigError
    from vtr.evaluate.compare import CompareOptions, compare, sides_of
    from vtr.evaluate.reporting.results import load_result
    from vtr.files import make_folder, publish

    if out is not None:
        if out.suffix != ".json":
            raise ConfigError(f"--out is {out}; its name must end in .json")
        make_folder(out.parent, option="--out")
    if k < 1:
        raise ConfigError(f"--k is {k}; it must be 1 or more: so many places count as found")
    if show < 0:
        raise ConfigError(f"--show is {show}; it must be 0 or more")
    sides = sides_of([load_result(path) for path in results], by_seed=seeds)
    options = CompareOptions(k=k, seed=seed, num_resamples=resamples)
    found = compare(sides, options=options)
    documents = {"kind": "vtr-comparison", "schema": 1, "k": k, "comparisons": to_json(found)}
    if out is not None:
        text = json.dumps(documents, indent=1, ensure_ascii=False)
        publish(out, text.encode("utf-8", "backslashreplace"))
    if as_json:
        print_json(documents)
        return
    for comparison in found:
        _print(comparison, show, of=len(found))


def to_json(comparisons: tuple[Comparison, ...]) -> list[dict[str, Any]]:
    """Returns comparisons as JSON values; results by their folders."""
    return [
        {
            "a": {"title": c.a.title, "results": [str(r.folder) for r in c.a.results]},
            "b": {"title": c.b.title, "results": [str(r.folder) for r in c.b.results]},
            "metrics": [asdict(metric) for metric in c.metrics],
            "settings": [{"key": key, "a": a, "b": b} for key, a, b in c.settings],
            "gained": [asdict(change) for change in c.gained],
            "lost": [asdict(change) for change in c.lost],
            "notes": list(c.notes),
        }
        for c in comparisons
    ]


def _print(comparison: Comparison, show: int, *, of: int) -> None:
    """Prints one of so many comparisons with the first side."""
    from rich.table import Table
    from rich.text import Text

    from vtr.commands.tables import print_table
    from vtr.foreign import printable

    a, b = printable(comparison.a.title), printable(comparison.b.title)
    names = _columns(a, b)
    say()
    say_folded(f"{b} against {a}")
    if names != (a, b):
        say_folded(f"A: {a}")
        say_folded(f"B: {b}")
    for line in comparison.notes:
        say_folded(line, err=True)
    corrected = ("p (Holm)",) if of > 1 else ()
    headings = ("metric", *names, "difference", "95 % interval", "p", *corrected, "N")
    rows = [_row(metric, corrected=of > 1) for metric in comparison.metrics]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        width = max(len(cell) for cell in (heading, *(row[number] for row in rows)))
        table.add_column(Text(heading), justify="right" if number else "left", width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    print_table(table)
    for line in _footnotes(comparison, of):
        say_folded(line)
    if comparison.settings:
        say("settings that differ:")
        for line in _setting_lines(comparison):
            say_folded(line, indent=2)
    for what, changes in (("gained", comparison.gained), ("lost", comparison.lost)):
        say_folded(f"{what} at {comparison.k}: {_how_many(what, changes)}")
        for change in changes[:show]:
            say_folded(_change(change), indent=2)


def _columns(a: str, b: str) -> tuple[str, str]:
    """Headings of the columns: the names where they are short, else letters for them."""
    return (a, b) if max(len(a), len(b)) <= NAME_WIDTH and a != b else ("A", "B")


def _footnotes(comparison: Comparison, of: int) -> list[str]:
    """What the figures of the table are, in lines of at most 80 characters."""
    spread = any(m.sd_a is not None or m.sd_b is not None for m in comparison.metrics)
    lines = [
        "R@k and MRR in %, MeanR a rank" + ("; mean ± standard deviation of the seeds" * spread),
        "p: paired permutation test over the queries, for each metric by itself",
    ]
    if of > 1:
        lines.append(
            f"p (Holm): corrected for the {counted(of, 'result')} that are set against the first"
        )
    return [*lines, f"* {'p (Holm)' if of > 1 else 'p'} below {SURE}"]


def _how_many(what: str, changes: Sequence[Change]) -> str:
    """How many queries changed; in parts where only some seeds, or ties, find them.

    >>> _how_many("gained", [])
    '0 queries'
    """
    total = sum(abs(change.found_b - change.found_a) for change in changes)
    queries = counted(len(changes), "query")
    if abs(total - len(changes)) < 1e-6:
        return queries
    more = "more" if what == "gained" else "less"
    return f"{total:,.1f} queries in the mean over ties and seeds; {queries} found {more} often"


def _setting_lines(comparison: Comparison) -> list[str]:
    """One line per setting; in one line those of a training that the other side has none of."""
    from vtr.foreign import printable

    trained = [row for row in comparison.settings if "." in row[0]]
    one_sided = any(all(row[side] is None for row in trained) for side in (1, 2))
    shown = [row for row in comparison.settings if not (one_sided and row in trained)]
    lines = [f"{printable(k)}: {printable(repr(a))}, {printable(repr(b))}" for k, a, b in shown]
    if one_sided and trained:
        whose = comparison.b if trained[0][1] is None else comparison.a
        lines.append(
            f"and {counted(len(trained), 'setting')} of the training of "
            f"{printable(whose.title)}; the other "
            "has none (--json lists them)"
        )
    return lines


def _row(metric: MetricDifference, *, corrected: bool) -> tuple[str, ...]:
    mark = " *" if metric.p_adjusted < SURE else "  "
    p_values = [metric.p_value, metric.p_adjusted] if corrected else [metric.p_value]
    return (
        metric.metric,
        _value(metric.a, metric.sd_a),
        _value(metric.b, metric.sd_b),
        f"{metric.difference:+.2f}",
        f"[{metric.low:+.2f}, {metric.high:+.2f}]",
        *(f"{p:.4f}" for p in p_values[:-1]),
        f"{p_values[-1]:.4f}{mark}",
        f"{metric.n:,}",
    )


def _value(value: float, deviation: float | None) -> str:
    return f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}"


def _change(change: Change) -> str:
    from vtr.foreign import printable

    words = printable(change.text)
    words = words if len(words) <= 80 else f"{words[:79]}…"
    return f"{printable(change.query_id)}: rank {change.rank_a:g} -> {change.rank_b:g}: {words}"
