"""A drawing for a file: text with known widths, pictures, marks; as SVG, or from it as PNG.

The letters are Inter's, which come with vtr: the same drawing gives the same bytes on any machine,
one without fonts included. Letters that Inter lacks are taken from the fonts of the machine.
"""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vtr.foreign import escaped
from vtr.pages import source

if TYPE_CHECKING:
    from PIL import ImageFont

Picture = NDArray[np.uint8]

FONTS = {
    bold: Path(__file__).parent / "fonts" / f"Inter-{name}.otf"
    for bold, name in ((False, "Regular"), (True, "SemiBold"))
}
_RULES = """
.ink{fill:var(--ink)}.good{fill:var(--good)}.paper{fill:var(--paper)}.stripe{fill:var(--panel)}
.base{stroke:var(--faint);stroke-width:1.5}
.shade{stroke:none;fill-opacity:.2}.outline{fill:none;stroke-width:1.5}
"""
_MEASURED_AT = 100  # pixels


@cache
def style_sheet() -> str:
    """Returns the rules of chart.css with the colours of light paper in place of variables."""
    rules = source("chart.css")
    colours = dict(re.findall(r"(--[\w-]+):([^;}\s]+)", rules))
    return re.sub(r"var\((.*?)\)", lambda m: colours[m[1]], rules.partition("}")[2] + _RULES)


def width_of(words: str, size: float, *, bold: bool = False) -> float:
    """Returns how wide a line is, in pixels."""
    return size * sum(_letter_width(letter, bold) for letter in words)


@cache
def _letter_width(letter: str, bold: bool) -> float:
    """In letter heights; Chinese letters and emoji are as wide as high."""
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    return float(_font(bold).getlength(letter)) / _MEASURED_AT


@cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(FONTS[bold], _MEASURED_AT, layout_engine=ImageFont.Layout.BASIC)


def wrapped(words: str, width: float, size: float) -> list[str]:
    """Returns the lines of a text, each at most `width` pixels wide; at least one line."""
    lines = [""]
    for word in re.findall(r"\S+\s*", words):
        if lines[-1] and width_of(lines[-1] + word.rstrip(), size) > width:
            lines.append("")
        for letter in word:  # a word that is longer than a line is broken
            if lines[-1] and width_of(lines[-1] + letter.rstrip(), size) > width:
                lines.append("")
            lines[-1] += letter
    return [line.rstrip() for line in lines]


def cut(words: str, width: float, size: float, *, bold: bool = False) -> str:
    """Returns a text whose middle is left out where it is wider than `width` pixels."""
    if width_of(words, size, bold=bold) <= width:
        return words
    half = len(words) // 2
    while half and width_of(f"{words[:half]}…{words[-half:]}", size, bold=bold) > width:
        half -= 1
    return f"{words[:half]}…{words[-half:]}" if half else "…"


class Drawing:
    """Collects marks on white paper; places are pixels from the left and the top."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.height = 0.0  # grows with what is drawn
        self._parts: list[str] = []

    def add(self, markup: str, *, bottom: float) -> None:
        """Draws SVG elements that end at `bottom`."""
        self._parts.append(markup)
        self.height = max(self.height, bottom)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12,
        kind: str = "",
        anchor: str = "start",
    ) -> None:
        """Writes a line whose feet stand at `y`; `x` is of its `anchor` (start, middle, end).

        `kind` are classes: "ink", "good" or a series' own; "bold". Sizes are pixels.
        """
        weight = ' font-weight="600"' if "bold" in kind else ""
        letters = f"font-size:{size:g}px;stroke:none"
        self.add(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" style="{letters}" '
            f'text-anchor="{anchor}"{weight}>{escaped(words)}</text>',
            bottom=y + size / 3,
        )

    def inset(self, box: tuple[float, float, float, float], marks: str, *, kind: str = "") -> None:
        """Draws marks in percent into a box (left, top, width, height)."""
        x, y, width, height = box
        self.add(
            f'<svg x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'overflow="visible" class="{kind}">{marks}</svg>',
            bottom=y + height,
        )

    def box(self, box: tuple[float, float, float, float], *, kind: str) -> None:
        """Fills a box (left, top, width, height)."""
        self.inset(box, f'<rect width="100%" height="100%" class="{kind}"/>')

    def picture(self, box: tuple[float, float, float, float], picture: Picture) -> None:
        """Draws a picture (h, w, 3) into a box (left, top, width, height)."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
        data = base64.b64encode(buffer.getvalue()).decode()
        fit = 'width="100%" height="100%" preserveAspectRatio="none"'
        self.inset(box, f'<image {fit} href="data:image/png;base64,{data}"/>')

    def svg(self) -> bytes:
        """Returns the drawing as an SVG file."""
        width, height = round(self.width), round(self.height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="Inter vtr, Inter, system-ui, sans-serif">'
            f'<style>{style_sheet()}</style><rect width="{width}" height="{height}" class="paper"/>'
            f"{''.join(self._parts)}</svg>\n"
        ).encode("utf-8", "replace")

    def png(self, *, zoom: float = 2) -> bytes:
        """Returns the drawing as a PNG file of `zoom` times its size in pixels."""
        from resvg_py import svg_to_bytes

        fonts = [str(path) for path in FONTS.values()]
        return bytes(svg_to_bytes(svg_string=self.svg().decode(), zoom=zoom, font_files=fonts))
