"""`vtr train`: a head and the text side, trained on cached features."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Any

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import AsJson, Quiet, print_json, say
from vtr.commands.flags import Only, with_options
from vtr.commands.tables import echo_wrapped
from vtr.counts import counted, human_seconds
from vtr.progress import Listener, listening, note
from vtr.verbs.train import Options
from vtr.workspace import Workspace

_FOLDERS = Only(
    "runs",
    features="Folder of the store.",
    dataset="Reader of the annotations.",
    annotations="Folder of the annotations.",
    videos="Folder of the videos.",
    model="Text tower: hub id or folder.",
)


@with_options("train")
def train(
    *,
    options: Options,
    workspace: Annotated[Workspace, _FOLDERS],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a head on cached features, and the towers if asked.

    The best epoch is chosen on validation data, never on test. Interrupted, it loses at most the
    current epoch: go on with --resume. Several processes: torchrun --nproc-per-node N -m vtr train.
    """
    workspace.require_videos()
    quiet = quiet or as_json
    with nullcontext() if _is_first() else listening(Listener()):
        if not quiet:
            note(f"reading the annotations of dataset {workspace.dataset!r}")
        prepare_arithmetic()
        from vtr.api.dry_run import described
        from vtr.api.next_commands import eval_command
        from vtr.api.train import train as train_runs

        document = train_runs(workspace, options, quiet=quiet)
    if document is None or not _is_first():
        return
    if as_json:
        print_json(document)
    elif options.dry_run:
        for key, value in described(document).items():
            echo_wrapped(key, value, width=27)
    else:
        print_result(document)
        say(f"test: {eval_command(workspace, document.get('runs') or [document['run']])}")


def _is_first() -> bool:
    """Returns whether this is the first of several processes: the others would say the same."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def print_result(document: Mapping[str, Any]) -> None:
    """Prints what came out of one training or of several seeds."""
    if "seeds" in document:
        line = f"{counted(len(document['seeds']), 'seed')}; {document['selection']}"
        echo_wrapped("", line, width=0)
        for key, spread in document["metrics"].items():
            if "/R@" in key:
                say(
                    f"  {key:<16} {spread['mean']:5.1f} +- {spread['sd']:.1f} "
                    f"({spread['min']:.1f} to {spread['max']:.1f})"
                )
        say("runs: " + ", ".join(document["runs"]))
        return
    best = document["best_epoch"]
    epochs = counted(document["epochs"], "epoch")
    begun = "head-first" in document or document.get("start")
    origin = "what it began with" if begun else "the untrained model"
    when = f"best is epoch {best} of {document['epochs']}"
    if best == 0:
        when = f"no epoch is better than {origin}, after {epochs}"
    if document["stopped_early"]:
        when += f", stopped early: none of the last {document['epochs'] - best:,} was better"
    echo_wrapped("", f"{document['run']}: {when}; chosen by: {document['selection']}", width=0)
    first = document.get("head-first")
    if first is not None:
        say(f"validation of the head alone, trained first: {_numbers(first)}")
    if document["metrics"]:
        say(f"validation: {_numbers(document)}")
    from vtr.api.dry_run import event_line

    for event in document["events"]:
        say(f"note: {event_line(event)}")


def _numbers(document: Mapping[str, Any]) -> str:
    numbers = [
        f"{key} {document['metrics'][key]:.1f}"
        for key in ("t2v/R@1", "t2v/R@5", "t2v/R@10", "v2t/R@1")
        if key in document["metrics"]
    ]
    return f"{', '.join(numbers)} ({human_seconds(document['seconds'])})"
