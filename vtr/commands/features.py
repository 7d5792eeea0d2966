"""`vtr features`: stores from features that somebody else extracted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtr.commands.console import note, print_json, say

PARTLY_FAILED = 3
_NAMED = 5


def register(app: typer.Typer) -> None:
    """Adds the group to the app."""
    group = typer.Typer(no_args_is_help=True, help="Bring features of others into a store.")
    group.command("import")(import_features)
    group.callback()(_group)
    app.add_typer(group, name="features")


def _group() -> None:
    """Bring features of others into a store."""


def import_features(
    source: Annotated[Path, typer.Argument(help="Folder of {video_id}.npy files, each (n, D).")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the store to make.")],
    name: Annotated[
        str | None, typer.Option(help="What to call the backbone. (default: the folder's name)")
    ] = None,
    fps: Annotated[
        float, typer.Option(help="Rows per second of video; the files do not say.")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a store of a folder of {video_id}.npy arrays, such as clip-features-vit-h14.

    The text side then needs --text projection: no text tower is known to share their space.
    """
    from vtr.features.importing import import_arrays

    report = import_arrays(source, out, name=name, fps=fps)
    if as_json:
        print_json({**vars(report), "store": str(out)})
    else:
        say(f"{report.ok:,} videos, {report.frames:,} frames of {report.dim} dimensions in {out}")
        for video_id, reason in list(report.failed.items())[:_NAMED]:
            say(f"  failed: {video_id}: {reason}")
        note(f"train on it: vtr train --features {out} --text projection --model MODEL")
    if report.failed:
        raise typer.Exit(PARTLY_FAILED)
