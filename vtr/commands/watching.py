"""What people see of a training while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.commands.console import human_seconds, note, progress

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
    parts = ["before training" if line["epoch"] == 0 else f"epoch {line['epoch']}"]
    if "loss" in line:
        parts.append(f"loss {line['loss']:.4f}")
    if "t2v/R@1" in line:
        parts.append(f"validation t2v R@1 {line['t2v/R@1']:.1f}")
    if "v2t/R@1" in line:
        parts.append(f"v2t R@1 {line['v2t/R@1']:.1f}")
    return ", ".join([*parts, human_seconds(line["seconds"])])
