"""The options of `vtr search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pydantic

from vtr.settings import Settings, option
from vtr.verbs._device import DeviceName


class Indexed(Settings):
    """With what videos are embedded, and where that is kept; `vtr serve` has the same."""

    model: str | None = option(
        None, "The backbone: an image-text model by hub id, short name or folder.",
        group="Index", metavar="ID",
        unset="the one that the index was made with, at first openai/clip-vit-base-patch32",
    )  # fmt: skip
    index: Path | None = option(
        None, "Where the features lie; in a workspace, their index.", group="Index", metavar="DIR",
        unset="hidden in the folder, or in the user's cache",
    )  # fmt: skip
    device: DeviceName = option(
        "auto", "Where the model runs: auto, cpu, cuda, cuda:1.", group="Index", metavar="DEVICE"
    )
    workers: int | None = option(
        None, "Decoding processes.", group="Index", unset="one per core", bounds={"ge": 1}
    )


def _from_the_start(seconds: tuple[float, ...]) -> tuple[float, ...]:
    if any(one < 0 for one in seconds):
        raise ValueError
    return seconds


class _Asked(Settings):
    """What is looked for, where, and how."""

    image: tuple[Path, ...] = option(
        (), "A picture to look for; may be given several times.",
        group="Query", metavar="FILE", file_key="-",
    )  # fmt: skip
    video: tuple[Path, ...] = option(
        (), "A clip to look for; may be given several times.",
        group="Query", metavar="FILE", file_key="-",
    )  # fmt: skip
    at: Annotated[tuple[float, ...], pydantic.AfterValidator(_from_the_start)] = option(
        (), "Second of --video to look for, one for each.",
        group="Query", metavar="SECONDS", file_key="-", allowed="a number of seconds, 0 or more",
    )  # fmt: skip
    like: tuple[str, ...] = option(
        (), "A frame of the searched videos themselves, such as cats/one.mp4@12.5.",
        group="Query", metavar="ID@SECONDS", file_key="-",
    )  # fmt: skip
    without: tuple[str, ...] = option(
        (), "A sentence to turn away from; may be given several times.",
        group="Query", flag="--not", metavar="SENTENCE", file_key="-",
    )  # fmt: skip
    top: int = option(10, "How many moments.", group="Answer", short="-k", bounds={"ge": 1})
    inside: str | None = option(
        None, "Only videos in this sub-folder, or whose name fits a pattern: 'beach-??.mp4'.",
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
    run: str | None = option(
        None, "In a workspace: a trained run whose head decides the order.",
        group="Answer", metavar="NAME", unset="the frames decide", file_key="-",
    )  # fmt: skip
    rerank: int = option(
        50, "With --run: how many videos a head without one vector per video looks at.",
        group="Answer", metavar="N", bounds={"ge": 1},
    )  # fmt: skip
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


class Options(Indexed, _Asked):
    """All of it: of the bases' options, the later base's come first."""

    rebuild: bool = option(
        False, "Make the features and the index anew.", group="Index", file_key="-"
    )
