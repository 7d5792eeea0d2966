"""The options of `vtr compare`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """How results are compared, and what of it is shown."""

    seeds: bool = option(False, group="Test")
    """Group results that differ in their seed alone."""
    k: int = option(
        1, group="Test", short="-k", ge=1,
        allowed="a whole number, 1 or more: so many places count as found",
    )  # fmt: skip
    """Depth at which queries are gained or lost."""
    resamples: int = option(
        10_000, group="Test", allowed="a whole number from 1 to 10000000", ge=1, le=10**7
    )
    """Random swaps of the test."""
    seed: int = option(0, group="Test", ge=0)
    """Seed of the test."""
    show: int = option(5, group="Output", ge=0)
    """Changed queries to list of each kind."""
    out: Path | None = option(None, group="Output", metavar="FILE")
    """Also write everything to this .json file."""
