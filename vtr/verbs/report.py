"""The options of `vtr report`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """What the page shows, and where it goes."""

    out: Path = option(Path("report"), group="Output", metavar="DIR")
    """Folder for report.html and the pictures."""
    title: str = option("Video-text retrieval report", group="Output", metavar="TITLE")
    """Heading of the page."""
    pictures: bool = option(True, group="Output")
    """Draw PNG files beside the page."""
    k: int = option(1, group="Content", ge=1, short="-k")
    """Recall depth of the breakdowns."""
    bins: str | None = option(None, group="Content", unset="as evaluated", metavar="BIN,...")
    """Query lengths in words, such as 1-5,6-10,11+."""
    frames: Path | None = option(None, group="Content", metavar="FILE")
    """JSON of `vtr simulate`: adds recall against the number of frames."""
    videos: Path | None = option(None, group="Content", metavar="DIR")
    """Where the video files are now, if they have moved."""
    examples: int = option(8, group="Content", ge=0)
    """Success and failure cases, each."""
