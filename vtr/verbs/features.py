"""The options of `vtr features import`."""

from __future__ import annotations

from vtr.settings import Settings, option


class Options(Settings):
    """How features of others are to be understood."""

    name: str | None = option(None, metavar="NAME", unset="the folder's name")
    """What to call the backbone."""
    fps: float = option(1.0, metavar="RATE", allowed="from 0.001 to 1000", ge=0.001, le=1000)
    """Rows per second of video, where no file of times says more."""
    dim: int | None = option(None, unset="what the shapes tell", ge=1)
    """D; arrays (D, n) are then turned."""
