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
        3.0, "Frames per second.", group="Copies", metavar="RATE",
        allowed="from 0.001 to 1000", bounds={"ge": 0.001, "le": 1000},
    )  # fmt: skip
    size: Annotated[int, pydantic.AfterValidator(_even)] = option(
        224,
        "Shorter side in pixels.",
        group="Copies",
        metavar="PIXELS",
        allowed="an even number, 2 or more",
    )
    crf: int = option(
        23, "H.264 quality: 0 is lossless, 51 coarse.",
        group="Copies", allowed="0 (lossless) to 51 (coarse)", bounds={"ge": 0, "le": 51},
    )  # fmt: skip
    upscale: bool = option(False, "Enlarge videos that are smaller than --size.", group="Copies")
    workers: int | None = option(
        None, "Processes.", group="Speed and limits", unset="one per core", bounds={"ge": 1}
    )
    timeout: float = option(
        3600.0, "Seconds a single video may take.",
        group="Speed and limits", metavar="SECONDS", bounds={"gt": 0},
    )  # fmt: skip
    retry: Annotated[str | None, pydantic.AfterValidator(_retry)] = option(
        None, "Do these again: failed, partial, or failed,partial.",
        group="Which videos", metavar="STATUS,...", file_key="-", unset="none",
    )  # fmt: skip
    overwrite: bool = option(
        False, "Do all again, and replace whatever is in DST.",
        group="Which videos", file_key="-",
    )  # fmt: skip
