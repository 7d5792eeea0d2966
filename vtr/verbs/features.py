"""The options of `vtr features import`."""

from __future__ import annotations

from vtr.settings import Settings, option


class Options(Settings):
    """How features of others are to be understood."""

    name: str | None = option(
        None, "What to call the backbone.", metavar="NAME", unset="the folder's name"
    )
    fps: float = option(
        1.0, "Rows per second of video, where no file of times says more.",
        metavar="RATE", allowed="from 0.001 to 1000", bounds={"ge": 0.001, "le": 1000},
    )  # fmt: skip
    dim: int | None = option(
        None, "D; arrays (D, n) are then turned.", unset="what the shapes tell", bounds={"ge": 1}
    )
