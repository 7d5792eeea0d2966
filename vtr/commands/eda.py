"""`vtr eda`: what a dataset, its videos and its cached features look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from vtr.commands.console import print_json, say
from vtr.commands.flags import Only, with_options
from vtr.foreign import printable
from vtr.progress import note
from vtr.verbs.eda import Options
from vtr.workspace import Workspace


@with_options("eda")
def eda(
    *,
    workspace: Annotated[
        Workspace, Only("dataset", "annotations", "videos", "features", model="Text tower.")
    ],
    options: Options,
    as_json: Annotated[bool, typer.Option("--json", help="Print eda.json.")] = False,
) -> None:
    """Look at a dataset before training: captions, duplicates, videos, features.

    Works with the annotations alone; with a feature store it adds durations, failures, feature
    norms and how far captions lie from videos.
    """
    from vtr.api.eda import explore_dataset

    facts, tables = explore_dataset(workspace, options)
    if as_json:
        print_json(facts)
        return
    for title, headings, rows in tables:
        _print_table(title, headings, rows)
    note()
    note(f"written: {options.out / 'eda.json'}, {options.out / 'eda.html'}")


def _print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=any(headings))
    for nth, heading in enumerate(headings):
        is_text = nth == 0 or not heading
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    say()
    say(title)
    Console().print(table)
