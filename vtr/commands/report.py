"""`vtr report`: results in, one HTML page and pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtr.commands.console import AsJson, near, print_json, say
from vtr.commands.flags import with_options
from vtr.verbs.report import Options


@with_options("report")
def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Result folders, or their result.json. (default: all of the workspace)"
        ),
    ] = None,
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Draw results as one self-contained HTML page, and as PNG files.

    Every figure is read from result.json and the tables beside it; nothing is evaluated again.
    """
    from vtr.api.report import load_results, write_report

    loaded = load_results(results)
    page, pictures = write_report(loaded, options)
    if as_json:
        folders = [str(result.folder) for result in loaded]
        files = sorted(map(near, pictures))
        print_json({"page": near(page), "pictures": files, "results": folders})
    else:
        say(near(page))
