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
        None, group="Index", metavar="ID",
        unset="the one that the index was made with, at first openai/clip-vit-base-patch32",
    )  # fmt: skip
    """The backbone: an image-text model by hub id, short name or folder."""
    index: Path | None = option(
        None, group="Index", metavar="DIR", unset="hidden in the folder, or in the user's cache"
    )
    """Where the features lie; in a workspace, their index."""
    device: DeviceName = option("auto", group="Index", metavar="DEVICE")
    """Where the model runs: auto, cpu, cuda, cuda:1."""
    workers: int | None = option(None, group="Index", unset="one per core", ge=1)
    """Decoding processes."""


def _from_the_start(seconds: tuple[float, ...]) -> tuple[float, ...]:
    if any(one < 0 for one in seconds):
        raise ValueError
    return seconds


class _Asked(Settings):
    """What is looked for, where, and how."""

    image: tuple[Path, ...] = option((), group="Query", metavar="FILE", file_key="-")
    """A picture to look for; may be given several times."""
    video: tuple[Path, ...] = option((), group="Query", metavar="FILE", file_key="-")
    """A clip to look for; may be given several times."""
    at: Annotated[tuple[float, ...], pydantic.AfterValidator(_from_the_start)] = option(
        (), group="Query", metavar="SECONDS", file_key="-", allowed="a number of seconds, 0 or more"
    )
    """Second of --video to look for, one for each."""
    like: tuple[str, ...] = option((), group="Query", metavar="ID@SECONDS", file_key="-")
    """A frame of the searched videos themselves, such as cats/one.mp4@12.5."""
    without: tuple[str, ...] = option(
        (), group="Query", flag="--not", metavar="SENTENCE", file_key="-"
    )
    """A sentence to turn away from; may be given several times."""
    top: int = option(10, group="Answer", short="-k", ge=1)
    """How many moments."""
    inside: str | None = option(None, group="Answer", flag="--in", metavar="PATTERN")
    """Only videos in this sub-folder, or whose name fits a pattern: 'beach-??.mp4'."""
    min_length: float | None = option(None, group="Answer", metavar="SECONDS", ge=0)
    """Only videos of at least so many seconds."""
    max_length: float | None = option(None, group="Answer", metavar="SECONDS", ge=0)
    """Only videos of at most so many seconds."""
    all_moments: bool = option(False, group="Answer")
    """Several moments of a video, where it has them."""
    run: str | None = option(
        None, group="Answer", metavar="NAME", unset="the frames decide", file_key="-"
    )
    """In a workspace: a trained run whose head decides the order."""
    rerank: int = option(50, group="Answer", metavar="N", ge=1)
    """With --run: how many videos a head without one vector per video looks at."""
    export: Path | None = option(
        None, group="Output", metavar="DIR", unset="no clips", file_key="-"
    )
    """Cut the hits out as clips: copied where a key frame allows it, else encoded anew."""
    cut_list: Path | None = option(
        None, group="Output", metavar="FILE", unset="no list", file_key="-"
    )
    """List of the hits for an editing program: .edl, .fcpxml, .otio or .csv."""
    contact_sheet: Path | None = option(
        None, group="Output", metavar="FILE.png", unset="no picture", file_key="-"
    )
    """One picture with the best frame of every hit."""


class Options(Indexed, _Asked):
    """All of it: of the bases' options, the later base's come first."""

    rebuild: bool = option(False, group="Index", file_key="-")
    """Make the features and the index anew."""
