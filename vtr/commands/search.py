"""`vtr search`: find moments in videos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import near, print_json, say
from vtr.commands.flags import with_options
from vtr.commands.tables import new_table, print_table
from vtr.progress import note
from vtr.verbs.search import Options


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("search")(search)


@with_options("search")
def search(
    folder: Annotated[Path, typer.Argument(help="The folder of the videos.")],
    texts: Annotated[list[str], typer.Argument(help="What is to be seen.")],
    *,
    options: Options,
    play: Annotated[
        bool, typer.Option("--open", help="Play the first hit: mpv, VLC or the desktop's opener.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find the moments of videos that show what a sentence says."""
    prepare_arithmetic()
    from vtr.api import search as api
    from vtr.api import search_output as output

    output.check_outputs(options)
    query = api.Query(texts=tuple(texts))
    answer = api.answer(api.open_library(folder, options), query, options)
    if as_json:
        output.write_outputs(" + ".join(texts), answer.hits, options)
        print_json(asdict(answer))
        return
    if not answer.match:
        say("no match")
        return
    table: Any = new_table("", ("video", "start", "end", "score", "level"))
    for hit in answer.hits:
        table.add_row(
            hit.video_id, f"{hit.start_seconds:.1f}", f"{hit.end_seconds:.1f}",
            f"{hit.score:.3f}", f"{100 * hit.level:.0f}",
        )  # fmt: skip
    print_table(table)
    title = " + ".join(texts)
    for path in output.write_outputs(title, answer.hits, options):
        note(f"written: {near(path)}")
    if play:
        note(output.play_first(answer.hits))
