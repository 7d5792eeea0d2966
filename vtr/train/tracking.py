"""Experiment trackers behind one call per epoch. metrics.jsonl is written whatever is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr.errors import ConfigError


class Tracker:
    """Hands each line of metrics.jsonl to TensorBoard.

    Args:
        writer: A `SummaryWriter`, or anything with its `add_scalar` and `close`.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Records every number of one epoch."""
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, float(value), int(row["epoch"]))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def require_tensorboard() -> type:
    """Returns TensorBoard's writer; called before a run begins, so that none is left half begun.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "--tensorboard needs the package tensorboard: pip install 'vtr[tensorboard]'. "
            "metrics.jsonl in the run folder holds the same numbers without it"
        ) from None
    writer: type = SummaryWriter
    return writer


def open_tracker(folder: Path) -> Tracker:
    """Returns a tracker that writes TensorBoard events into the run folder.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    return Tracker(require_tensorboard()(str(folder)))
