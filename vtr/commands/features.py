"""`vtr features`: stores from features that somebody else extracted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtr.commands.console import AsJson, print_json, say
from vtr.commands.flags import with_options
from vtr.counts import counted
from vtr.errors import SOME_FAILED
from vtr.progress import note
from vtr.verbs.features import Options

if TYPE_CHECKING:
    from vtr.features.importing import ImportReport

_NAMED = 5


group = typer.Typer(no_args_is_help=True)


@group.callback()
def features() -> None:
    """Bring features of others into a store."""


@group.command("import")
@with_options("features")
def import_features(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of files named by video, each (n, D), or one file of such arrays: .npy, "
            ".npz, .h5, .pt, .pkl. Sub-folders are read too. Or what `vtr export` made of a store."
        ),
    ],
    options: Options,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of the store to make.")],
    as_json: AsJson = False,
) -> None:
    """Make a store of arrays named by video, such as those of clip-features-vit-h14.

    The text side then needs --text projection: no text tower is known to share their space. What
    `vtr export` wrote as parquet, WebDataset or Lance becomes the store that it was.
    """
    from vtr.api.features import import_features as run

    report = run(source, out, options)
    if as_json:
        print_json({**vars(report), "store": str(out)})
    else:
        say(
            f"{counted(report.ok, 'video')}, {counted(report.frames, 'frame')} of {report.dim} "
            f"dimensions in {out}, as {report.dtype}"
        )
        for line in _details(report):
            say(f"  {line}")
        if report.failed_before is None:
            note(f"train on it: vtr train --features {out} --text projection --model MODEL")
    if report.failed:
        raise typer.Exit(SOME_FAILED)


def _details(report: ImportReport) -> Iterator[str]:
    if report.crops:
        yield f"the mean of {report.crops} crops of each video"
    if report.padded:
        yield f"rows of zeros or NaN at the end left out: {report.padded:,} videos"
    if report.timed:
        yield f"times read from files: {report.timed:,} videos"
    if report.failed_before:
        yield f"failed when they were extracted: {counted(report.failed_before, 'video')}"
    if report.skipped:
        yield f"not looked at: {report.skipped:,} files with other endings"
    for video_id, reason in list(report.failed.items())[:_NAMED]:
        yield f"failed: {video_id}: {reason}"
    if len(report.failed) > _NAMED:
        yield f"failed: {len(report.failed) - _NAMED:,} more; vtr inspect --failures lists them"
