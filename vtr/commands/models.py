"""`vtr models`: the models that have a short name, and what is known of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vtr.commands.console import print_json, say


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command()(models)


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the models that have a short name: what they take, their licence, known figures.

    Any other of these families is read by its hub id or folder just as well. The name or the hub
    id goes behind --model.
    """
    from vtr.clip.models import known_models

    known = known_models()
    if as_json:
        print_json([{"name": name, **asdict(model)} for name, model in known.items()])
        return
    from rich.table import Table

    from vtr.commands.tables import print_table

    columns = ("D", "pixels", "frames", "tokens", "R@1")
    table = Table(box=None, pad_edge=False)
    for column in ("name", "hub id", *columns, "languages", "licence"):
        table.add_column(column, justify="right" if column in columns else "left", no_wrap=True)
    for name, model in known.items():
        facts = (model.dim, model.pixels, model.frames, model.context, model.r1)
        row = (name, model.hub, *facts, model.languages, model.licence)
        table.add_row(*("unknown" if fact is None else str(fact) for fact in row))
    print_table(table)
    sources = {model.source: name for name, model in reversed(known.items()) if model.source}
    say()
    say("R@1: text to video, MSR-VTT 1k-A, in %, without training. Sources:")
    for source in reversed(sources):
        names = [name for name, model in known.items() if model.source == source]
        say(f"  {', '.join(names)}: {source}")
