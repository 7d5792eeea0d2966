"""Frame strips: the pictures of a video at given times, small, for a page or a plot."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr.errors import DecodeError

MAX_FRAMES = 6
HEIGHT = 96  # pixels; drawn at half of it or more on dense screens
_EVEN_PARTS = 4

Picture = NDArray[np.uint8]
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One picture."""

    pts_seconds: float  # its presentation time as stored in the file
    picture: Picture  # (h, w, 3) uint8

    @property
    def data_uri(self) -> str:
        """The picture as a JPEG that a page can carry in itself."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.picture).save(buffer, "JPEG", quality=78, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class Strip:
    """Some frames of one video, or why there are none."""

    video: str  # its id
    frames: tuple[Frame, ...]  # in presentation order; empty where the file cannot be shown
    problem: str = ""  # one line, empty where there are frames
    chosen: bool = True  # whether the times were given (else they are evenly spread)


def read_strip(
    video: str, path: Path | None, pts_seconds: Sequence[float], *, max_frames: int = MAX_FRAMES
) -> Strip:
    """Decodes the frames nearest to given times.

    Args:
        video: Id, for the strip.
        path: The file; None where it is not known.
        pts_seconds: Presentation times as stored in the file; none of them means evenly spread
            ones. More than `max_frames` are thinned to the middles of equal parts.
        max_frames: At least 1.
    """
    if path is None or not path.is_file():
        return Strip(video, (), "the video file is not here")
    try:
        frames = _decode(path, thinned(pts_seconds, max_frames))
    except DecodeError as error:
        return Strip(video, (), f"cannot be decoded: {error}")
    return Strip(video, frames, chosen=bool(len(pts_seconds)))


def thinned(pts_seconds: Sequence[float], limit: int) -> Seconds:
    """Returns at most `limit` of the times: the middles of equal parts.

    >>> thinned([0, 1, 2, 3, 4, 5], 3).tolist()
    [1.0, 3.0, 5.0]
    """
    times = np.sort(np.asarray(list(pts_seconds), np.float64))
    if len(times) <= limit:
        return times
    return times[(2 * np.arange(limit) + 1) * len(times) // (2 * limit)]


def _decode(path: Path, wanted: Seconds) -> tuple[Frame, ...]:
    from vtr.extract.bitstream import UnprovenError
    from vtr.extract.container import open_video
    from vtr.extract.packets import read_packets
    from vtr.extract.readers import FullReader, SparseReader

    with open_video(path) as source:
        table = read_packets(source)
        try:
            return _read(SparseReader(source, table), wanted)
        except UnprovenError as reason:
            fresh = not source.stream.codec_context.is_open
            return _read(FullReader(source, table, why=str(reason), fresh=fresh), wanted)


def _read(reader: object, wanted: Seconds) -> tuple[Frame, ...]:
    """Reads twice where the first pass only finds out which frames there are."""
    from av.video.frame import VideoFrame

    from vtr.extract.frames import to_rgb, upright
    from vtr.extract.readers import FullReader, SparseReader

    assert isinstance(reader, FullReader | SparseReader)
    pictures: dict[int, Picture] = {}

    def keep(key: int, frame: VideoFrame) -> None:
        pictures[key] = _small(to_rgb(frame, upright(frame)))

    reader.read(_nearest(reader.pts_seconds, wanted), keep)
    indices = _nearest(reader.pts_seconds, wanted)
    missing = [
        i for i, key in zip(indices, reader.keys(indices), strict=True) if key not in pictures
    ]
    if missing:
        reader.read(np.array(missing), keep)
    return tuple(
        Frame(float(reader.pts_seconds[i]), pictures[key])
        for i, key in zip(indices.tolist(), reader.keys(indices).tolist(), strict=True)
        if key in pictures
    )


def _nearest(pts: Seconds, wanted: Seconds) -> NDArray[np.int64]:
    if not len(pts):
        return np.zeros(0, np.int64)
    if not len(wanted):
        middles = (2 * np.arange(_EVEN_PARTS) + 1) * len(pts) // (2 * _EVEN_PARTS)
        return np.unique(middles)
    return np.unique(np.abs(pts[None, :] - wanted[:, None]).argmin(axis=1))


def _small(picture: Picture) -> Picture:
    from PIL import Image

    height, width = picture.shape[:2]
    wide = min(max(round(width * HEIGHT / height), HEIGHT // 3), 3 * HEIGHT)
    return np.asarray(Image.fromarray(picture).resize((wide, HEIGHT), Image.Resampling.LANCZOS))
