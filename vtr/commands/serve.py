"""`vtr serve`: the page, until Ctrl-C."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from vtr.commands.console import say
from vtr.commands.flags import with_options
from vtr.progress import note
from vtr.verbs.serve import Options


@with_options("serve")
def serve(
    folder: Annotated[
        Path | None,
        typer.Argument(help="The folder of the videos, or a workspace. (default: the workspace)"),
    ] = None,
    *,
    options: Options,
) -> None:
    """Search in the browser: a page that finds moments and plays them.

    In a workspace the page also shows its runs and results with their reports. It is seen by this
    machine only, unless --host is given; then whoever has the printed address sees it.
    """
    from vtr.api.serve import serve as run

    def started(address: str) -> None:
        say(address)
        note("Ctrl-C ends it")
        if options.open_browser:
            webbrowser.open(address)

    if not run(folder, options, started=started):
        sys.stderr.flush()
        os._exit(0)  # threads of torch that are still at work would abort the process
