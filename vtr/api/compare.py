"""`vtr compare`: is one result better than another, and on which queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.evaluate.compare import Change, Comparison, compare, sides_of
from vtr.evaluate.reporting.results import Result, load_result
from vtr.files import make_folder, publish
from vtr.foreign import printable
from vtr.settings import takes
from vtr.verbs.compare import Options


@takes(Options)
def compare_results(
    first: Result | str | Path, *others: Result | str | Path, **options: Any
) -> tuple[Comparison, ...]:
    """Sets every further result against the first, query by query; `vtr compare`.

    >>> import vtr
    >>> (comparison,) = vtr.compare_results(
    ...     "demo-world/features/zero-shot/demo", "demo-world/runs/meanP/eval/demo", resamples=100
    ... )
    >>> comparison.metrics[0].metric, comparison.metrics[0].n
    ('t2v/R@1', 30)

    Args:
        first: A result, or its folder.
        others: One or more of the same protocol, queries and coverage.
        options: Fields of `vtr.verbs.compare.Options`: `seeds=True` groups results that differ in
            their seed alone, `k=5` is the depth at which queries are gained or lost.

    Raises:
        ConfigError: Results that cannot be compared; names the first key that differs.
    """
    return compare_sides([first, *others], Options.of(**options))


def compare_sides(
    results: Sequence[Result | str | Path], options: Options
) -> tuple[Comparison, ...]:
    """Compares results; writes the document to `options.out`, whose folder is made beforehand."""
    if options.out is not None:
        if options.out.suffix != ".json":
            raise ConfigError(f"--out is {options.out}; its name must end in .json")
        make_folder(options.out.parent, option="--out")
    sides = sides_of([as_result(one) for one in results], by_seed=options.seeds)
    comparisons = compare(sides, k=options.k, seed=options.seed, num_resamples=options.resamples)
    if options.out is not None:
        text = json.dumps(as_document(comparisons, options), indent=1, ensure_ascii=False)
        publish(options.out, text.encode("utf-8", "backslashreplace"))
    return comparisons


def as_result(given: Result | str | Path) -> Result:
    """Returns a result, read where its folder is given."""
    if not isinstance(given, str | Path | Result):
        raise ConfigError(
            f"a result is {given!r:.60} ({type(given).__name__}); it must be what vtr.evaluate_run "
            "returns, or its folder"
        )
    return given if isinstance(given, Result) else load_result(given)


def as_document(comparisons: Sequence[Comparison], options: Options) -> dict[str, Any]:
    """Returns comparisons as JSON values; results by their folders."""
    return {
        "kind": "vtr-comparison",
        "schema": 1,
        "k": comparisons[0].k,
        "options": options.as_dict(),
        "comparisons": [
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
        ],
    }


def how_many(what: str, changes: Sequence[Change]) -> str:
    """Says how many queries changed; in parts where only some seeds, or ties, find them.

    >>> how_many("gained", [])
    '0 queries'
    """
    total = sum(abs(change.found_b - change.found_a) for change in changes)
    queries = counted(len(changes), "query")
    if abs(total - len(changes)) < 1e-6:
        return queries
    more = "more" if what == "gained" else "less"
    return f"{total:,.1f} queries in the mean over ties and seeds; {queries} found {more} often"


def setting_lines(comparison: Comparison) -> list[str]:
    """Says which settings differ, one line each; those of a training that one side lacks in one."""
    trained = [row for row in comparison.settings if "." in row[0]]
    one_sided = any(all(row[side] is None for row in trained) for side in (1, 2))
    shown = [row for row in comparison.settings if not (one_sided and row in trained)]
    lines = [f"{printable(k)}: {printable(repr(a))}, {printable(repr(b))}" for k, a, b in shown]
    if one_sided and trained:
        whose = comparison.b if trained[0][1] is None else comparison.a
        number = counted(len(trained), "setting")
        lines.append(
            f"and {number} of the training of {printable(whose.title)}; the other has none "
            "(--json lists them)"
        )
    return lines
