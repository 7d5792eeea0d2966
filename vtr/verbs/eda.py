"""Options of `vtr eda`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option
from vtr.verbs._device import DeviceName


class Options(Settings):
    """What to look at, and what to draw."""

    out: Path = option(
        Path("eda"), "Folder for eda.json, eda.html and plots.", group="Output", metavar="DIR"
    )
    bins: str = option(
        "1-10,11-20,21+", "Caption lengths in words.", group="Figures", metavar="A-B,..."
    )
    probe: int = option(
        0,
        "Decode so many videos whole, to count their frame rates.",
        group="Figures", bounds={"ge": 0},
    )  # fmt: skip
    text: bool = option(True, "Count tokens, and embed captions for the gap.", group="Figures")
    tsne: bool = option(True, "Draw t-SNE of the gap.", group="Output")
    pictures: bool = option(True, "Draw PNG and SVG files.", group="Output")
    device: DeviceName = option("auto", "auto, cpu, cuda, cuda:1.", group="Figures")
