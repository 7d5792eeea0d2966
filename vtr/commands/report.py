"""`vtr report`: results in, one HTML page and pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtr.commands.console import print_json, say
from vtr.progress import note

if TYPE_CHECKING:
    from vtr.evaluate.reporting.results import Result


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("report")(report)


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Result folders, or their result.json. (default: all of the workspace)"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and the pictures.")] = Path(
        "report"
    ),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = (
        "Video-text retrieval report"
    ),
    k: Annotated[int, typer.Option("--k", "-k", help="Recall depth of the breakdowns.")] = 1,
    bins: Annotated[
        str | None,
        typer.Option(help="Query lengths in words, such as 1-5,6-10,11+. (default: as evaluated)"),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(help="JSON of `vtr simulate`: adds recall against the number of frames."),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(help="Where the video files are now, if they have moved."),
    ] = None,
    examples: Annotated[int, typer.Option(help="Success and failure cases, each.")] = 8,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw PNG files beside the page.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Draw results as one self-contained HTML page, and as PNG files.

    Every figure is read from result.json and the tables beside it; nothing is evaluated again.
    """
    from vtr.evaluate.report import ReportOptions, write_files
    from vtr.evaluate.reporting.figures import parse_bins
    from vtr.files import read_json

    loaded = _load(results)
    options = ReportOptions(
        title=title,
        k=k,
        bins=None if bins is None else parse_bins(bins),
        simulation=None
        if frames is None
        else read_json(frames, needed="the JSON of `vtr simulate`"),
        videos=videos,
        num_examples=examples,
        pictures=pictures,
    )
    *drawn, page = write_files(loaded, out, options=options)
    if as_json:
        folders = [str(result.folder) for result in loaded]
        files = sorted(map(str, drawn))
        print_json({"page": str(page), "pictures": files, "results": folders})
    else:
        say(page)


def _load(paths: list[Path] | None) -> list[Result]:
    from vtr.counts import counted
    from vtr.errors import ConfigError
    from vtr.evaluate.reporting.results import load_result

    found = list(paths or workspace_results())
    if not found:
        raise ConfigError(
            "there is no result to report: name one, or run `vtr eval` in this workspace first"
        )
    if not paths:
        note(f"{counted(len(found), 'result')} of this workspace")
    loaded = [load_result(path) for path in found]
    for result in loaded:
        if result.outdated:
            note(f"{result.folder}: {result.outdated}")
    return loaded if paths else sorted(loaded, key=lambda result: not result.is_zero_shot)


def workspace_results() -> list[Path]:
    """Returns the results that `vtr eval` and `vtr demo` wrote into this workspace."""
    from vtr.workspace import find_workspace, settings

    workspace = settings(find_workspace(Path()))
    zero_shot = sorted(workspace.features.glob("zero-shot/*/result.json"))
    of_runs = sorted(workspace.runs.glob("*/eval/*/result.json"))
    return [*zero_shot, *of_runs, *sorted(workspace.root.glob("results/*/result.json"))]
