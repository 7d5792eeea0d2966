"""`vtr search`: find moments in videos."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import AsJson, near, print_json, say
from vtr.commands.flags import with_options
from vtr.commands.tables import print_hits
from vtr.counts import counted, percent
from vtr.errors import SOME_FAILED
from vtr.progress import note
from vtr.verbs.search import Options

if TYPE_CHECKING:
    from vtr.searching.library import Answer, Library
    from vtr.searching.query import Query


@with_options("search")
def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER|SENTENCE",
            help="The folder of the videos (without: the workspace here), then what is to be seen.",
            show_default=False,
        ),
    ] = None,
    *,
    options: Options,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Where nothing matches, show what comes nearest.")
    ] = False,
    play: Annotated[
        bool, typer.Option("--open", help="Play the first hit: mpv, VLC or the desktop's opener.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the moments that show what a sentence, a picture or a clip says.

    The first search of a folder embeds its videos, two frames a second; a later one only what is
    new or changed. Several sentences and examples are averaged.
    """
    prepare_arithmetic()
    from vtr.api import search as api
    from vtr.api import search_output as output

    output.check_outputs(options)
    folder, texts = api.split(words or [])
    query = api.make_query(texts, options)
    library, answer = api.find(folder, query, options)
    hits = answer.hits or (answer.nearest if nearest else ())
    if not as_json:
        _print(query, answer, library, nearest=nearest)
    _note_failed(api.num_failed(library), library)
    for path in output.write_outputs(texts, hits, options):
        note(f"written: {near(path)}")
    if as_json:
        print_json(api.as_document(answer, library))
    if play:
        note(output.play_first(hits))
    if api.num_failed(library) == len(library.videos):
        raise typer.Exit(SOME_FAILED)


def _print(query: Query, answer: Answer, library: Library, *, nearest: bool) -> None:
    from vtr.searching.library import MATCH_LEVEL

    if answer.num_truncated:
        cut = counted(answer.num_truncated, "sentence was", "sentences were")
        note(f"{cut} longer than the model reads, and cut")
    if answer.recall is not None:
        note(
            f"looked up by 8-bit codes, which find {answer.recall:.1%} of what all "
            f"{counted(len(library.index.pts_seconds), 'frame')} do (measured with sentences)"
        )
    if len(answer.weights) > 1:
        note("looked for: " + ", ".join(f"{share:+.2f} {part}" for part, share in answer.weights))
    if not (answer.hits or answer.nearest):
        readable = any(video.status != "failed" for video in library.videos)
        why = "that can be read is as --in and the lengths ask" if readable else "can be read"
        say(f"no video to look into: none {why}")
    elif not answer.match:
        say(
            f"no match: {percent(answer.level)} of unrelated sentences stand out less in these "
            f"videos, and {percent(MATCH_LEVEL)} must"
        )
        if not nearest:
            near_ones = counted(len(answer.nearest), "moment that comes", "moments that come")
            note(f"--nearest shows the {near_ones} nearest")
    if shown := answer.hits or (answer.nearest if nearest else ()):
        print_hits(shown, levels=not query.has_pictures)


def _note_failed(bad: int, library: Library) -> None:
    if bad:
        could = counted(bad, "video", "videos")
        store = quote(near(library.source.store))
        note(
            f"{could} of {len(library.videos):,} could not be read; which and "
            f"why: vtr inspect {store} --failures"
        )
