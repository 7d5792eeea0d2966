"""Decoded frames as a viewer sees them: upright RGB pictures and small brightness thumbnails."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from vtr.extract.limits import THUMBNAIL_SIZE

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Upright:
    """How a stored picture is turned and mirrored to stand upright."""

    transposed: bool = False  # Rows and columns change places, before the mirroring
    rows_flipped: bool = False
    columns_flipped: bool = False
    pixel_shape: Fraction = Fraction(1)  # Width of a stored pixel over its height

    def __call__(self, picture: Picture) -> Picture:
        """Returns the (H, W, ...) picture turned, contiguous."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.rows_flipped else 1)
        columns = slice(None, None, -1 if self.columns_flipped else 1)
        return np.ascontiguousarray(picture[rows, columns])

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """Returns (width, height) of the frame once it stands upright, in square pixels."""
        width = self.square_width(frame)
        return (frame.height, width) if self.transposed else (width, frame.height)

    def square_width(self, frame: VideoFrame) -> int:
        """Returns the width of the stored picture in pixels as wide as they are high."""
        return max(1, round(frame.width * self.pixel_shape))

    @property
    def degrees(self) -> int:
        """The turn counter-clockwise: 0, 90, 180 or 270; of a mirrored picture, before that."""
        if self.transposed:
            return 90 if self.rows_flipped else 270
        return 180 if self.rows_flipped and self.columns_flipped else 0


def upright(frame: VideoFrame, pixel_shape: Fraction = Fraction(1)) -> Upright:
    """Reads from a frame's display matrix how to turn it; `pixel_shape` is told by the stream.

    The matrix maps the stored (x, y) to (a x + c y, b x + d y), y pointing down. What is not a
    multiple of 90 degrees, and the nonsense some files carry, is ignored.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # Beside data of a kind that PyAV has no name for (Apple's spatial video) only the angle is
        # told, and not whether the picture is mirrored.
        turns = round(frame.rotation / 90) % 4
        return Upright(bool(turns % 2), turns in (1, 2), turns in (2, 3), pixel_shape)
    if not isinstance(data, SideData) or data.buffer_size < 36:
        return Upright(pixel_shape=pixel_shape)
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32, 5).tolist()
    along, across = min(abs(a), abs(d)), min(abs(b), abs(c))
    # 1 degree of slack, as FFmpeg's own player allows.
    if along > 50 * max(abs(b), abs(c)):
        return Upright(False, d < 0, a < 0, pixel_shape)
    if across > 50 * max(abs(a), abs(d)):
        return Upright(True, b < 0, c < 0, pixel_shape)
    return Upright(pixel_shape=pixel_shape)


class _Scalers(threading.local):
    """One scaler per thread and purpose: building one per frame costs more than the scaling."""

    def __init__(self) -> None:
        self.rgb = VideoReformatter()
        self.luma = VideoReformatter()
        self.alpha = VideoReformatter()


_scalers = _Scalers()


def as_seen(frame: VideoFrame) -> VideoFrame:
    """Returns the frame without what no viewer sees: combs of two fields, colours behind alpha.

    Of an interlaced picture one field is kept, the other's lines are the mean of their neighbours:
    half the lines are more than any vision tower looks at. Transparency lies over black.
    """
    if frame.interlaced_frame:
        frame = _one_field(frame)
    return _over_black(frame) if _may_be_transparent(frame.format.name) else frame


def to_rgb(frame: VideoFrame, turn: Upright) -> Picture:
    """Returns the frame as (H, W, 3) uint8 RGB in square pixels, upright; its height is kept."""
    seen, width = as_seen(frame), turn.square_width(frame)
    smooth = Interpolation.BICUBIC if width != frame.width else None
    rgb = _scalers.rgb.reformat(seen, width, format="rgb24", interpolation=smooth, threads=1)
    return turn(_array(rgb))


def to_luma(frame: VideoFrame, turn: Upright) -> Picture:
    """Returns the frame's brightness as (32, 32) uint8, area-averaged, upright."""
    side, area = THUMBNAIL_SIZE, Interpolation.AREA
    seen = as_seen(frame)
    return turn(
        _array(_scalers.luma.reformat(seen, side, side, "gray", interpolation=area, threads=1))
    )


@functools.cache
def _may_be_transparent(pix_fmt: str) -> bool:
    kind = VideoFormat(pix_fmt)
    return kind.has_palette or any(component.is_alpha for component in kind.components)


def _over_black(frame: VideoFrame) -> VideoFrame:
    rgba = _array(_scalers.alpha.reformat(frame, format="rgba", threads=1))
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return frame
    colours = (rgba[..., :3].astype(np.uint16) * alpha + 127) // 255
    return _timed_as(frame, VideoFrame.from_ndarray(colours.astype(np.uint8), "rgb24"))


def _one_field(frame: VideoFrame) -> VideoFrame:
    """Returns the frame with the lines of its second field made from those around them."""
    kind = frame.format
    if kind.has_palette or kind.is_big_endian or min(p.line_size for p in frame.planes) <= 0:
        return frame  # no such video is known, and means of these numbers would be wrong
    seen = VideoFrame(frame.width, frame.height, kind.name)
    for stored, plane in zip(frame.planes, seen.planes, strict=True):
        rows, lines = (_lines(each, kind.components[0].bits) for each in (stored, plane))
        width = min(rows.shape[1], lines.shape[1])
        kept, num_made = rows[0::2, :width], len(rows) // 2
        above, below = kept[:num_made], np.concatenate([kept[1:], kept[-1:]])[:num_made]
        lines[0::2, :width] = kept
        lines[1::2, :width] = (above & below) + ((above ^ below) >> 1)  # the mean, without carry
    seen.colorspace, seen.color_range = frame.colorspace, frame.color_range
    return _timed_as(frame, seen)


def _lines(plane: VideoPlane, bits: int) -> NDArray[Any]:
    samples = np.frombuffer(memoryview(plane), np.uint16 if bits > 8 else np.uint8)
    return samples.reshape(plane.height, -1)


def _timed_as(frame: VideoFrame, seen: VideoFrame) -> VideoFrame:
    seen.pts, seen.duration = frame.pts, frame.duration
    if frame.time_base:
        seen.time_base = frame.time_base
    return seen


def _array(frame: VideoFrame) -> Picture:
    return np.asarray(frame.to_ndarray(), np.uint8)


def opaque(file: Image) -> Image:
    """Returns an opened picture as a viewer sees it: upright, in RGB, transparency over black."""
    from PIL import Image, ImageOps

    seen = ImageOps.exif_transpose(file)
    if not seen.has_transparency_data:
        return seen.convert("RGB")
    black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, seen.convert("RGBA")).convert("RGB")
