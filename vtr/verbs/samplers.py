"""Options of `vtr samplers study`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """What is compared on a dense store."""

    sampler: str = option("all", metavar="SAMPLER")
    """Which samplers."""
    frames: int | None = option(None, unset="the workspace's", metavar="N", ge=1)
    """Frames per sampler."""
    seed: int = option(0, metavar="N", ge=0)
    """Seed of the random samplers."""
    costs: int = option(3, ge=0, allowed="0 or more videos", metavar="N")
    """Videos to decode and embed for the cost columns; 0 leaves them out."""
    plot: Path | None = option(None, metavar="FILE")
    """Also draw the figures, a .png file."""
    out: Path | None = option(None, metavar="FILE")
    """Also write the figures to this .json file."""
