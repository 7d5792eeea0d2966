"""`vtr init`: writes `vtr.toml` and says what is there to work on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vtr.commands.console import AsJson, print_json, say
from vtr.counts import counted
from vtr.foreign import first_few, printable

MAX_LISTED = 5


def init(
    dataset: Annotated[
        str, typer.Argument(help="Reader of the annotations; 'folder' needs none.")
    ] = "folder",
    *,
    videos: Annotated[Path, typer.Option(help="Folder of the videos, nested or not.")],
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder of the dataset's published annotation files, or a caption file."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub id, short name (vtr models) or folder of the image-text model. "
            "(default: openai/clip-vit-base-patch32)",
            metavar="ID|DIR",
            show_default=False,
        ),
    ] = None,
    path: Annotated[Path, typer.Option(help="Folder of the workspace.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing vtr.toml.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a workspace: write vtr.toml and report which videos are present and missing."""
    from vtr.api.init import make_workspace

    facts = make_workspace(
        dataset, videos, annotations=annotations, model=model, path=path, force=force
    )
    print_json(facts) if as_json else _print(facts)


def _print(facts: Mapping[str, Any]) -> None:
    files, missing = [Path(name).name for name in facts["annotation_files"]], facts["missing"]
    recognised = f"{counted(len(files), 'file')} recognised: {first_few(files, MAX_LISTED)}"
    unexpected = f"{facts['unexpected']:,} more video files belong to no id"
    rows = [
        ("workspace", printable(facts["workspace"])),
        ("dataset", facts["dataset"]),
        ("model", facts["model"]),
        ("annotations", recognised if files else "none read"),
        ("captions", f"{facts['captions']:,}" if facts["captions"] else ""),
        ("splits", ", ".join(f"{name} {count:,}" for name, count in facts["splits"].items())),
        (
            "videos",
            f"{facts['present']:,} of {facts['expected']:,} present in "
            f"{printable(facts['videos'])}",
        ),
        *(("note", remark) for remark in facts["notes"]),
        ("missing", f"{len(missing):,}: {first_few(missing, MAX_LISTED)}" if missing else ""),
        ("unexpected", unexpected if facts["unexpected"] else ""),
        ("skipped", facts["skipped"]),
        ("next", facts["next"]),
    ]
    for label, text in rows:
        if text:
            say(f"{label:<12} {text}")
