"""The options of `vtr search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pydantic

from vtr.clip.device import check_device_name
from vtr.settings import Settings, option


def _device(name: str) -> str:
    check_device_name(name)
    return name


class Options(Settings):
    """What is looked for, where, and how."""

    top: int = option(10, "How many moments.", group="Answer", short="-k", bounds={"ge": 1})
    inside: str | None = option(
        None, "Only videos in this sub-folder, or whose name fits a pattern such as '*beach*'.",
        group="Answer", flag="--in", metavar="PATTERN",
    )  # fmt: skip
    min_length: float | None = option(
        None, "Only videos of at least so many seconds.", group="Answer", metavar="SECONDS",
        bounds={"ge": 0},
    )  # fmt: skip
    max_length: float | None = option(
        None, "Only videos of at most so many seconds.", group="Answer", metavar="SECONDS",
        bounds={"ge": 0},
    )  # fmt: skip
    all_moments: bool = option(
        False, "Several moments of a video, where it has them.", group="Answer"
    )
    export: Path | None = option(
        None, "Cut the hits out as clips: copied where a key frame allows it, else encoded anew.",
        group="Output", metavar="DIR", unset="no clips", file_key="-",
    )  # fmt: skip
    cut_list: Path | None = option(
        None, "List of the hits for an editing program: .edl, .fcpxml, .otio or .csv.",
        group="Output", metavar="FILE", unset="no list", file_key="-",
    )  # fmt: skip
    contact_sheet: Path | None = option(
        None, "One picture with the best frame of every hit.",
        group="Output", metavar="FILE.png", unset="no picture", file_key="-",
    )  # fmt: skip
    model: str | None = option(
        None, "The backbone: an image-text model by hub id, or a local folder.",
        group="Index", metavar="ID",
        unset="the one that the index was made with, at first openai/clip-vit-base-patch32",
    )  # fmt: skip
    index: Path | None = option(
        None, "Where the features lie.", group="Index", metavar="DIR",
        unset="hidden in the folder, or in the user's cache",
    )  # fmt: skip
    rebuild: bool = option(
        False, "Make the features and the index anew.", group="Index", file_key="-"
    )
    device: Annotated[str, pydantic.AfterValidator(_device)] = option(
        "auto", "Where the model runs: auto, cpu, cuda, cuda:1.", group="Index", metavar="DEVICE"
    )
    workers: int | None = option(
        None, "Decoding processes.", group="Index", unset="one per core", bounds={"ge": 1}
    )
