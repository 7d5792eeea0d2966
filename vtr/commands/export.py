"""`vtr export`: a run as a folder to give away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtr.commands.console import print_json, say
from vtr.commands.flags import with_options
from vtr.verbs.export import Options


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("export")(export)


@with_options("export")
def export(
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    options: Options,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export a run: safetensors, configuration and a model card with its results.

    The card gives every number with its protocol, N and interval, as `vtr eval --run` measured it:
    evaluate first.
    """
    from vtr.api.export import export_run

    card = export_run(run, out, options)
    files = sorted(path.name for path in out.iterdir())
    if as_json:
        print_json({"out": str(out), "files": files})
        return
    say(f"{run} -> {out}: {', '.join(files)}")
    say(f"read {card} before giving it away")
