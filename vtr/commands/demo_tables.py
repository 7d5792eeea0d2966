"""What the rows of `vtr demo` look like in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vtr.commands.compare import SURE
from vtr.commands.console import say
from vtr.commands.tables import interval_text, new_table, print_table

_LEGEND = """\
95 % intervals; best epoch chosen on validation; CPU s: to train, to evaluate
content: one frame tells the clip; brief: five clips alike but for 0.3 to 0.6 s
order: twins of the same frames in two orders, for a mean of frames the same"""


def print_results(results: Sequence[Mapping[str, Any]], warnings: Sequence[str]) -> None:
    """Prints one row per result: R@1 by group with intervals, the choice within twins, the cost."""
    first = results[0]["groups"]
    counts = ", ".join(f"{name} {group['n']}" for name, group in first.items())
    table = new_table(
        f"t2v R@1 by group, and order within twins (chance 50 %); queries: {counts}",
        ("head, text, frames", *first, "within twins", "CPU s"),
        caption=_LEGEND,
    )
    for result in results:
        setup, pair = result["setup"], result["pairs"]["order"]
        cells = [interval_text(result["groups"][name]["metrics"]["t2v/R@1"]) for name in first]
        text = "zero-shot" if setup["zero_shot"] else setup["text"]
        seed = f", seed {setup['seed']}" if setup["seed"] else ""
        order = interval_text({**pair, "value": pair["accuracy"]})
        table.add_row(
            f"{setup['head']}\n{text}, {setup['sampler']}{seed}", *cells, order, _cost(result)
        )
    print_table(table)
    for line in warnings:
        say(f"not worth it: {line}")


def _cost(row: Mapping[str, Any]) -> str:
    cost = row["cost"]
    return f"{cost['train_cpu_seconds']:.1f}\n{cost['evaluate_cpu_seconds']:.1f}"


def print_gains(gains: Sequence[Mapping[str, Any]]) -> None:
    """Prints what each head gives over meanP and what it costs, by the text and frames it has."""
    for text, sampler in dict.fromkeys((row["text"], row["sampler"]) for row in gains):
        table = new_table(
            f"Which head is worth its cost? t2v R@1 over all queries, against meanP's\n"
            f"(text: {text}; frames: {sampler}; the same queries, paired)",
            ("head", "R@1", "more than meanP", "p", "CPU s"),
            caption=f"95 % interval; p after Holm's correction, * below {SURE}",
        )
        for row in gains:
            if (row["text"], row["sampler"]) == (text, sampler):
                table.add_row(*_gain_cells(row))
        print_table(table)


def _gain_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    cost = _cost(row).replace("\n", " + ")
    if row["p"] is None:
        return row["head"], f"{row['r1']:.1f}", "", "", cost
    difference = f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
    p = f"{row['p']:.3f}{'*' if row['p'] < SURE else ' '}"
    return row["head"], f"{row['r1']:.1f}", difference, p, cost
