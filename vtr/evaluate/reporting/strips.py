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
    """Decodes the frames nearest to given times; evenly spread ones where none is given.

    More than `max_frames` times are thinned to the middles of equal parts.
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
    from vtr.extract.sample import FrameRequest, sample_video
    from vtr.extract.samplers.base import Indices, SamplerChoice, Signals

    class AtTimes(FrameRequest):
        """Asks for the frames nearest to the wanted times, instead of a sampler's."""

        def select(self, signals: Signals) -> dict[str, Indices]:
            return {"": _nearest(signals.pts_seconds, wanted)}

    uniform = (SamplerChoice("uniform"),)
    found = sample_video(AtTimes(path, path.name, uniform, MAX_FRAMES, None), _Small())
    times = found.pts_seconds.tolist()
    return tuple(Frame(*frame) for frame in zip(times, found.crops, strict=True))


def _nearest(pts: Seconds, wanted: Seconds) -> NDArray[np.int64]:
    if not len(wanted):
        middles = (2 * np.arange(_EVEN_PARTS) + 1) * len(pts) // (2 * _EVEN_PARTS)
        return np.unique(middles)
    return np.unique(np.abs(pts[None, :] - wanted[:, None]).argmin(axis=1))


class _Small:
    """Makes pictures small; one of another shape is squeezed into the first's."""

    size: tuple[int, int] | None = None

    def __call__(self, picture: Picture) -> Picture:
        from PIL import Image

        if self.size is None:
            height, width = picture.shape[:2]
            wide = min(max(round(width * HEIGHT / height), HEIGHT // 3), 3 * HEIGHT)
            self.size = (wide, HEIGHT)
        return np.asarray(Image.fromarray(picture).resize(self.size, Image.Resampling.LANCZOS))
