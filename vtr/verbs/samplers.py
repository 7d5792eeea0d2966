"""Options of `vtr samplers study`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """What is compared on a dense store."""

    sampler: str = option("all", "Which samplers.", metavar="SAMPLER")
    frames: int | None = option(
        None, "Frames per sampler.", unset="the workspace's", metavar="N", bounds={"ge": 1}
    )
    seed: int = option(0, "Seed of the random samplers.", metavar="N", bounds={"ge": 0})
    costs: int = option(
        3,
        "Videos to decode and embed for the cost columns; 0 leaves them out.",
        bounds={"ge": 0},
        allowed="0 or more videos",
        metavar="N",
    )
    plot: Path | None = option(None, "Also draw the figures, a .png file.", metavar="FILE")
    out: Path | None = option(None, "Also write the figures to this .json file.", metavar="FILE")
