"""Options of `vtr eda`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option
from vtr.verbs._device import DeviceName


class Options(Settings):
    """What to look at, and what to draw."""

    out: Path = option(Path("eda"), group="Output", metavar="DIR")
    """Folder for eda.json, eda.html and plots."""
    bins: str = option("1-10,11-20,21+", group="Figures", metavar="A-B,...")
    """Caption lengths in words."""
    probe: int = option(0, group="Figures", ge=0)
    """Decode so many videos whole, to count their frame rates."""
    text: bool = option(True, group="Figures")
    """Count tokens, and embed captions for the gap."""
    tsne: bool = option(True, group="Output")
    """Draw t-SNE of the gap."""
    pictures: bool = option(True, group="Output")
    """Draw PNG and SVG files."""
    device: DeviceName = option("auto", group="Figures", metavar="DEVICE")
    """auto, cpu, cuda, cuda:1."""
