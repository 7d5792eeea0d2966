"""What a worker process makes for the page of one file: pictures, facts, playable windows.

No file is opened by the server itself: whatever hangs, dies or eats memory on one costs a worker.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from vtr.errors import DecodeError
from vtr.extract.container import FFMPEG_ERRORS, VideoSource, failure, header_rate, open_video
from vtr.extract.cutting import Cut
from vtr.extract.cutting import make_handler as make_cutter
from vtr.extract.frames import Picture, Upright, as_seen, opaque, upright
from vtr.extract.seeking import frames_at, origin_seconds
from vtr.extract.worker import Answer, Handler
from vtr.serve.formats import media_type
from vtr.serve.window import make_window

HANDLER = "vtr.serve.pictures:make_handler"

_QUALITY = 80
# A card is 16:9 and shows the middle of what is higher.
_STILL_SIZE, _FILM_SIZE = (480, 270), (256, 144)
_FILM_FRAMES = 8
_FILM_SECONDS = 6.0
_QUERY_FRAMES = 8
_QUERY_SIDE = 448  # pixels of the shorter side; no backbone looks closer
_MOST_PIXELS = 50_000_000


@dataclass(frozen=True)
class _OfFile:
    path: Path


@dataclass(frozen=True)
class Still(_OfFile):
    """One frame, as a JPEG."""

    seconds: float  # After its first frame


@dataclass(frozen=True)
class Film(_OfFile):
    """Eight frames of a moment side by side, as a JPEG."""

    start_seconds: float
    end_seconds: float
    best_seconds: float  # What long moments are shown around


@dataclass(frozen=True)
class Window(_OfFile):
    """A part of a video as an MP4 file that every browser plays."""

    start_seconds: float  # After its first frame
    end_seconds: float


class Facts(_OfFile):
    """What kind of file it is, as a browser asks."""


class Example(_OfFile):
    """Pictures to search by, of a picture or a clip that somebody dropped."""


def make_handler(_config: None) -> Handler:
    """Returns the job of a worker process; see `vtr.extract.worker`."""
    from PIL import Image

    Image.init()  # before the memory limit is set
    _encoded(np.zeros((8, 8, 3), np.uint8), "JPEG")
    return _handle


def _handle(job: Still | Film | Window | Facts | Example | Cut) -> Answer:
    if isinstance(job, Example):
        return _example(job.path)
    if isinstance(job, Cut):
        return make_cutter(None)(job)
    with open_video(job.path) as video:
        if isinstance(job, Facts):
            kind = media_type(video.container, video.stream)
            start = origin_seconds(video)
            return {"type": kind, "seconds": _length(video), "start": start}, b""
        if isinstance(job, Window):
            return make_window(video, job.start_seconds, job.end_seconds)
        if isinstance(job, Still):
            pictures = _pictures(video, [job.seconds], _STILL_SIZE)
        else:
            pictures = _pictures(video, _film_times(job), _FILM_SIZE)
    beside = np.concatenate(pictures, axis=1)
    return {"frames": len(pictures)}, _encoded(beside, "JPEG", quality=_QUALITY)


def _film_times(film: Film) -> list[float]:
    """Returns evenly spaced times in a moment; of a long one those around its best frame."""
    half = _FILM_SECONDS / 2
    last = max(film.start_seconds, film.end_seconds - 2 * half)
    start = min(max(film.start_seconds, film.best_seconds - half), last)
    length = min(2 * half, film.end_seconds - start)
    return [start + length * (n + 0.5) / _FILM_FRAMES for n in range(_FILM_FRAMES)]


def _pictures(video: VideoSource, instants: Sequence[float], box: tuple[int, int]) -> list[Picture]:
    """Returns the upright frames at some times, all of one size that covers the box."""
    pictures: list[Picture] = []
    turn, size = Upright(), (0, 0)
    for frame in frames_at(video, list(instants)):
        if not pictures:
            turn = upright(frame, video.pixel_shape)
            size = _covering(turn.size(frame), box)
        pictures.append(_picture(video, frame, turn, size))
    return pictures


def _covering(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Returns a size of the same shape that covers a box, but is no larger than the picture.

    >>> _covering((1920, 1080), (480, 270)), _covering((720, 1280), (480, 270))
    ((480, 270), (480, 853))
    """
    scale = min(1.0, max(box[0] / size[0], box[1] / size[1]))
    scale = min(scale, 4 * max(box) / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _picture(
    video: VideoSource, frame: VideoFrame, turn: Upright, size: tuple[int, int]
) -> Picture:
    width, height = size[::-1] if turn.transposed else size
    try:
        small = as_seen(frame).reformat(width, height, "rgb24", interpolation="AREA", threads=1)
    except FFMPEG_ERRORS as error:
        raise failure(error, video.log) from None
    return turn(np.asarray(small.to_ndarray(), np.uint8))


def _encoded(picture: Picture, kind: str, **options: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def _example(path: Path) -> Answer:
    """Returns PNG pictures one after the other, their lengths in the header."""
    picture = _read_picture(path)
    if picture is not None:
        pictures, kind = [picture], "picture"
    else:
        with open_video(path) as video:
            length = _length(video)
            times = [length * (n + 0.5) / _QUERY_FRAMES for n in range(_QUERY_FRAMES)]
            pictures = _pictures(video, times, (_QUERY_SIDE, _QUERY_SIDE))
        kind = "clip"
    parts = [_encoded(one, "PNG", compress_level=1) for one in pictures]
    return {"what": kind, "sizes": [len(part) for part in parts]}, b"".join(parts)


def _length(video: VideoSource) -> float:
    """Returns how long a clip is; as its header says, for it is to be looked at, not measured."""
    if video.container.duration:
        return video.container.duration / 1e6
    rate = header_rate(video.stream)
    return video.stream.frames / rate if rate and video.stream.frames else 0.0


def _read_picture(path: Path) -> Picture | None:
    """Returns a picture as a viewer sees it; None where the file holds none that is known."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            if getattr(file, "n_frames", 1) > 1:
                return None  # it moves
            if file.width * file.height > _MOST_PIXELS:
                raise DecodeError(
                    "too-large", f"{file.width} x {file.height}; at most {_MOST_PIXELS:,} pixels"
                )
            seen = opaque(file)
    except UnidentifiedImageError:
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeError("decode-error", f"a damaged picture: {error}") from None
    scale = _QUERY_SIDE / min(seen.size)
    if scale < 1:
        wanted = (math.ceil(seen.width * scale), math.ceil(seen.height * scale))
        seen = seen.resize(wanted, Image.Resampling.BICUBIC)
    return np.asarray(seen)


def parts(header: dict[str, Any], payload: bytes | bytearray) -> list[bytes]:
    """Returns the pictures of an `Example`'s answer."""
    ends = np.cumsum([0, *header["sizes"]]).tolist()
    return [bytes(payload[a:b]) for a, b in pairwise(ends)]
