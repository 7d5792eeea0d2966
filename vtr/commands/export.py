"""`vtr export`: a run as a folder to give away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtr.commands.console import print_json, say


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("export")(export)


def export(
    run: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    onnx: Annotated[
        bool,
        typer.Option("--onnx", help="Also the text side as text.onnx; needs the extra vtr[onnx]."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export a run: safetensors, configuration and a model card with its results.

    The card gives every number with its protocol, N and interval, as `vtr eval --run` measured it:
    evaluate first.
    """
    from vtr.train.exporting import export_run

    card = export_run(run, out, onnx=onnx)
    if as_json:
        print_json({"out": str(out), "files": sorted(path.name for path in out.iterdir())})
        return
    say(f"{run} -> {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    say(f"read {card} before giving it away")
