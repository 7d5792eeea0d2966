"""`vtr extract`: videos in, cached features out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import AsJson, Quiet, Terminal, print_json, say
from vtr.commands.flags import Only, with_options
from vtr.counts import counted, human_seconds
from vtr.errors import SOME_FAILED
from vtr.progress import listening, note
from vtr.verbs.extract import Options
from vtr.workspace import Workspace


@with_options("extract")
def extract(
    workspace: Annotated[
        Workspace,
        Only(
            "sampler", "frames", "fps", "videos", "dataset", "annotations", "model", "features",
            "route", "seed", "batch_size", "workers", "timeout_seconds", "shard_videos",
        ),
    ],
    options: Options,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; decode nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Decode videos, choose frames, embed them with CLIP and cache the features.

    Run it again to go on after an interruption or to add new videos. Exit code 3: finished, but
    some videos failed; the store lists them (`vtr inspect`).
    """
    prepare_arithmetic()
    from vtr.api import extract as api

    if dry_run:
        plan = api.plan(workspace, options, quiet=quiet)
        again = f"{counted(plan['new'], 'new video')} and {plan['again']} again"
        _print(plan, [f"would extract {again}"], as_json=as_json)
        return
    with listening(Terminal(quiet=quiet or as_json)):
        report = api.extract(workspace, options, quiet=quiet)
    facts = {**vars(report), "store": str(workspace.features)}
    _print(facts, _lines(facts), as_json=as_json)
    if report.failed or report.partial:
        raise typer.Exit(SOME_FAILED)


def _lines(facts: dict[str, Any]) -> list[str]:
    counts = f"{facts['ok']} ok + {facts['partial']} partial + {facts['failed']} failed"
    lines = [
        f"{counted(facts['inputs'], 'video')} = {counts} in {facts['store']}",
        f"this run: {counted(facts['done_now'], 'video')}, "
        f"{counted(facts['frames_now'], 'frame')} in {human_seconds(facts['seconds'])} (decoding "
        f"{human_seconds(facts['decode_cpu_seconds'])} of CPU, encoding "
        f"{human_seconds(facts['encode_seconds'])})",
        *(f"  {count:>6} {reason}" for reason, count in facts["reasons"].items()),
    ]
    if facts["reasons"]:
        lines.append(f"which and why: vtr inspect {facts['store']} --failures")
    return lines


def _print(facts: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for line in lines:
        say(line)
    if changed := facts["changed"]:
        one = len(changed) == 1
        note(
            f"warning: {len(changed)} {'video has' if one else 'videos have'} another size or date "
            f"than when {'it was' if one else 'they were'} read, such as {changed[0]!r}; the store "
            f"holds what was read then. --retry changed does {'it' if one else 'them'} again"
        )
