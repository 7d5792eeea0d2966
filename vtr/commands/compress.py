"""`vtr compress`: smaller copies of big videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vtr.commands.console import AsJson, Quiet, Terminal, print_json, say
from vtr.commands.flags import with_options
from vtr.counts import counted, human_bytes, human_seconds
from vtr.errors import SOME_FAILED
from vtr.progress import listening, note
from vtr.verbs.compress import Options

MAX_LISTED = 20


@with_options("compress")
def compress(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder of the videos, nested or not.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="Folder of the copies; sub-folders are kept.")
    ],
    options: Options,
    *,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Copy videos as small silent H.264 files: 3 frames a second, shorter side 224 pixels.

    Run it again to go on after an interruption or to add new videos. Exit code 3: finished, but
    some videos failed; DST/compress-ledger.jsonl says which and why.
    """
    from vtr.api import compress as api

    with listening(Terminal(quiet=quiet or as_json)):
        facts = api.compress(source, target, options)
    if as_json:
        print_json(facts)
    else:
        _print(facts)
    if facts["partial"] or facts["failed"]:
        raise typer.Exit(SOME_FAILED)


def _print(facts: dict[str, Any]) -> None:
    counts = f"{facts['ok']} ok + {facts['partial']} partial + {facts['failed']} failed"
    say(f"{counted(facts['inputs'], 'video')} = {counts} in {facts['target']}")
    say(
        f"this run: {counted(facts['done_now'], 'video')} in {human_seconds(facts['seconds'])}, "
        f"{human_bytes(facts['source_bytes_now'])} -> {human_bytes(facts['target_bytes_now'])}"
    )
    if facts["skipped"]:
        say(f"skipped: {facts['skipped']}")
    for reason, count in facts["reasons"].items():
        say(f"  {reason}: {count}")
    for failure in facts["failures"][:MAX_LISTED]:
        note(f"{failure['status']} {failure['name']}: {failure['error']}")
    if len(facts["failures"]) > MAX_LISTED:
        note(f"and {len(facts['failures']) - MAX_LISTED} more in {facts['ledger']}")
