"""What people see of a training while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.commands.console import say
from vtr.commands.tables import echo_wrapped
from vtr.counts import counted, human_seconds
from vtr.progress import note, progress

if TYPE_CHECKING:
    from vtr.train.loop import Hooks, Tick


@contextmanager
def watching(folder: Path, *, silent: bool, tensorboard: bool) -> Iterator[Hooks]:
    """Yields the loop's hooks: progress and a line per epoch, TensorBoard.

    Args:
        folder: Of the run.
        silent: Nothing for people.
        tensorboard: Write events into the folder.
    """
    from vtr.train.loop import Hooks
    from vtr.train.tracking import open_tracker

    tracker = open_tracker(folder) if tensorboard else None
    with progress("training", quiet=silent) as update:

        def tick(now: Tick) -> None:
            done = (now.epoch - 1) * now.steps + now.step
            speed = f"{now.pairs_per_second:,.0f} pairs/s"
            remark = f"epoch {now.epoch}/{now.epochs}, loss {now.loss:.3f}, {speed}"
            update(done, now.epochs * now.steps, remark)

        def row(line: Mapping[str, Any]) -> None:
            if tracker is not None:
                tracker(line)
            if not silent:
                note(_epoch_line(line))

        try:
            yield Hooks(tick, row)
        finally:
            if tracker is not None:
                tracker.close()


def _epoch_line(line: Mapping[str, Any]) -> str:
    from vtr.train.validation import selection_value

    parts = ["before training" if line["epoch"] == 0 else f"epoch {line['epoch']}"]
    if "loss" in line:
        parts.append(f"loss {line['loss']:.4f}")
    if "t2v/R@1" in line:
        parts.append(f"validation t2v R@1 {line['t2v/R@1']:.1f}")
    if "v2t/R@1" in line:
        parts.append(f"v2t R@1 {line['v2t/R@1']:.1f}")
    if any("/R@" in key for key in line):
        parts.append(f"mean recall {selection_value(line):.2f} (the best epoch has most)")
    return ", ".join([*parts, human_seconds(line["seconds"])])


def print_result(document: Mapping[str, Any], *, command: str | None = None) -> None:
    """Prints what came out of one training or of several.

    Args:
        document: What training.json holds, or the summary of several seeds.
        command: What tests the run or runs.
    """
    if "seeds" in document:
        echo_wrapped(
            "", f"{counted(len(document['seeds']), 'seed')}; {document['selection']}", width=0
        )
        for key, spread in document["metrics"].items():
            if "/R@" in key:
                say(
                    f"  {key:<16} {spread['mean']:5.1f} +- {spread['sd']:.1f} "
                    f"({spread['min']:.1f} to {spread['max']:.1f})"
                )
        say("runs: " + ", ".join(document["runs"]))
        if command is not None:
            say(f"test: {command}")
        return
    best = document["best_epoch"]
    epochs = counted(document["epochs"], "epoch")
    when = (
        f"no epoch is better than the untrained model, after {epochs}"
        if best == 0
        else f"best is epoch {best} of {document['epochs']}"
    )
    echo_wrapped("", f"{document['run']}: {when}; chosen by: {document['selection']}", width=0)
    numbers = [
        f"{key} {document['metrics'][key]:.1f}"
        for key in ("t2v/R@1", "t2v/R@5", "t2v/R@10", "v2t/R@1")
        if key in document["metrics"]
    ]
    if numbers:
        say(f"validation: {', '.join(numbers)} ({human_seconds(document['seconds'])})")
    for event in document["events"]:
        say(f"note: {event_line(event)}")
    if command is not None:
        say(f"test: {command}")


def event_line(event: Mapping[str, Any]) -> str:
    """Returns what happened on the way as a sentence.

    >>> event_line({"event": "batch larger than the data", "asked": 128, "used": 11})
    'a batch of 128 is larger than the data; each step took all 11'
    """
    if event["event"] == "batch larger than the data":
        return (
            f"a batch of {event['asked']:,} is larger than the data; each step took all "
            f"{event['used']:,}"
        )
    if event["event"] == "out of memory: batch halved":
        return (
            f"memory did not hold the batch in epoch {event['epoch']:,}; from there on it was "
            f"{event['batch_size']:,}"
        )
    return ", ".join(f"{key} {value}" for key, value in event.items())


def print_plan(document: Mapping[str, Any]) -> None:
    """Prints what a dry run says."""
    for key, value in document.items():
        echo_wrapped(key, str(value), width=27)
