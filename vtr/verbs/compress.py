"""The options of `vtr compress`."""

from __future__ import annotations

from typing import Annotated

import pydantic

from vtr.settings import option
from vtr.verbs._scale import OnRay
from vtr.verbs.extract import check_retry


def _even(size: int) -> int:
    if size < 2 or size % 2:
        raise ValueError("odd")
    return size


def _retry(text: str | None) -> str | None:
    return check_retry(text, allowed=("failed", "partial"))


class Options(OnRay):
    """What the copies are like, and how they are made."""

    fps: float = option(
        3.0, group="Copies", metavar="RATE", allowed="from 0.001 to 1000", ge=0.001, le=1000
    )
    """Frames per second."""
    size: Annotated[int, pydantic.AfterValidator(_even)] = option(
        224, group="Copies", metavar="PIXELS", allowed="an even number, 2 or more"
    )
    """Shorter side in pixels."""
    crf: int = option(23, group="Copies", allowed="0 (lossless) to 51 (coarse)", ge=0, le=51)
    """H.264 quality: 0 is lossless, 51 coarse."""
    upscale: bool = option(False, group="Copies")
    """Enlarge videos that are smaller than --size."""
    workers: int | None = option(None, group="Speed and limits", unset="one per core", ge=1)
    """Processes."""
    timeout: float = option(3600.0, group="Speed and limits", metavar="SECONDS", gt=0)
    """Seconds a single video may take."""
    retry: Annotated[str | None, pydantic.AfterValidator(_retry)] = option(
        None, group="Which videos", metavar="STATUS,...", file_key="-", unset="none"
    )
    """Do these again: failed, partial, or failed,partial."""
    overwrite: bool = option(False, group="Which videos", file_key="-")
    """Do all again, and replace whatever is in DST."""
