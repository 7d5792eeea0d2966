"""The options of `vtr demo`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """Where the demo world goes, and how much is measured in it."""

    path: Path = option(Path("demo-world"), metavar="DIR")
    """Folder for the demo world."""
    workers: int | None = option(None, unset="one per core", ge=1)
    """Processes."""
    train: bool = option(True)
    """Train and evaluate heads, and write the report."""
    full: bool = option(False)
    """Every head with three samplers, and both towers trained (some 15 minutes)."""
