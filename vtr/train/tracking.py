"""TensorBoard, one call per epoch. metrics.jsonl is written whatever is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vtr.errors import ConfigError


def require_tensorboard() -> type:
    """Returns TensorBoard's writer; called before a run begins, so that none is left half begun."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "--tensorboard needs the package tensorboard: pip install 'vtr[tensorboard]'. "
            "metrics.jsonl in the run folder holds the same numbers without it"
        ) from None
    writer: type = SummaryWriter
    return writer


@contextmanager
def tensorboard(folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields what writes a line of metrics.jsonl into the run folder, as TensorBoard's events."""
    writer = require_tensorboard()(str(folder))

    def record(row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, float(value), int(row["epoch"]))

    try:
        yield record
    finally:
        writer.close()
