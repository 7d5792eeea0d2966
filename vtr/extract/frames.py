"""Decoded frames as upright arrays: RGB pictures and small brightness thumbnails."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

THUMBNAIL_SIZE = 32


@dataclass(frozen=True)
class Upright:
    """How a stored picture is turned and mirrored to stand upright.

    Args:
        transposed: Rows and columns change places, before the mirroring.
        rows_flipped: The last row comes first.
        columns_flipped: The last column comes first.
    """

    transposed: bool = False
    rows_flipped: bool = False
    columns_flipped: bool = False

    def __call__(self, picture: Picture) -> Picture:
        """Returns the (H, W, ...) picture turned, contiguous."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        rows = slice(None, None, -1 if self.rows_flipped else 1)
        columns = slice(None, None, -1 if self.columns_flipped else 1)
        return np.ascontiguousarray(picture[rows, columns])

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """Returns (width, height) of the frame once it stands upright."""
        return (frame.height, frame.width) if self.transposed else (frame.width, frame.height)

    @property
    def degrees(self) -> int:
        """The turn counter-clockwise: 0, 90, 180 or 270; of a mirrored picture, before that."""
        if self.transposed:
            return 90 if self.rows_flipped else 270
        return 180 if self.rows_flipped and self.columns_flipped else 0


def upright(frame: VideoFrame) -> Upright:
    """Reads from a frame's display matrix how to turn it.

    The matrix maps the stored (x, y) to (a x + c y, b x + d y), y pointing down. What is not a
    multiple of 90 degrees, and the nonsense some files carry, is ignored.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # Beside data of a kind that PyAV has no name for (Apple's spatial video) only the angle is
        # told, and not whether the picture is mirrored.
        turns = round(frame.rotation / 90) % 4
        return Upright(
            bool(turns % 2), rows_flipped=turns in (1, 2), columns_flipped=turns in (2, 3)
        )
    if not isinstance(data, SideData) or data.buffer_size < 36:
        return Upright()
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32, 5).tolist()
    along, across = min(abs(a), abs(d)), min(abs(b), abs(c))
    # 1 degree of slack, as FFmpeg's own player allows.
    if along > 50 * max(abs(b), abs(c)):
        return Upright(False, rows_flipped=d < 0, columns_flipped=a < 0)
    if across > 50 * max(abs(a), abs(d)):
        return Upright(True, rows_flipped=b < 0, columns_flipped=c < 0)
    return Upright()


class _Scalers(threading.local):
    """One scaler per thread and purpose: building one per frame costs more than the scaling."""

    def __init__(self) -> None:
        self.rgb = VideoReformatter()
        self.luma = VideoReformatter()


_scalers = _Scalers()


def to_rgb(frame: VideoFrame, turn: Upright) -> Picture:
    """Returns the frame as (H, W, 3) uint8 RGB of its own size, upright."""
    return turn(_array(_scalers.rgb.reformat(frame, format="rgb24", threads=1)))


def to_luma(frame: VideoFrame, turn: Upright) -> Picture:
    """Returns the frame's brightness as (32, 32) uint8, area-averaged, upright."""
    small = _scalers.luma.reformat(
        frame,
        width=THUMBNAIL_SIZE,
        height=THUMBNAIL_SIZE,
        format="gray",
        interpolation=Interpolation.AREA,
        threads=1,
    )
    return turn(_array(small))


def frame_bytes(frame: VideoFrame) -> int:
    """Returns the memory a decoded frame holds."""
    return sum(plane.buffer_size for plane in frame.planes)


def _array(frame: VideoFrame) -> Picture:
    return np.asarray(frame.to_ndarray(), np.uint8)
