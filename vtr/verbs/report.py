"""The options of `vtr report`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """What the page shows, and where it goes."""

    out: Path = option(
        Path("report"), "Folder for report.html and the pictures.", group="Output", metavar="DIR"
    )
    title: str = option("Video-text retrieval report", "Heading of the page.", group="Output")
    pictures: bool = option(True, "Draw PNG files beside the page.", group="Output")
    k: int = option(
        1, "Recall depth of the breakdowns.", group="Content", bounds={"ge": 1}, short="-k"
    )
    bins: str | None = option(
        None,
        "Query lengths in words, such as 1-5,6-10,11+.",
        group="Content", unset="as evaluated", metavar="BIN,...",
    )  # fmt: skip
    frames: Path | None = option(
        None,
        "JSON of `vtr simulate`: adds recall against the number of frames.",
        group="Content", metavar="FILE",
    )  # fmt: skip
    videos: Path | None = option(
        None,
        "Where the video files are now, if they have moved.",
        group="Content", metavar="DIR",
    )  # fmt: skip
    examples: int = option(8, "Success and failure cases, each.", group="Content", bounds={"ge": 0})
