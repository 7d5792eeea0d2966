"""What a video file really holds: everything decoded and counted, nothing taken from headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vtr.extract.container import header_rate, open_video
from vtr.extract.frames import Upright, upright
from vtr.extract.limits import Limits
from vtr.extract.packets import PacketTable
from vtr.extract.readers import FullReader
from vtr.extract.timeline import duration_seconds
from vtr.extract.worker import Answer, Handler
from vtr.remote import fetched


@dataclass(frozen=True)
class VideoInfo:
    """A decoded and counted video."""

    # (F,) float64, presentation times of the frames that decode, as stored, ascending, F >= 1.
    pts_seconds: NDArray[np.float64]
    width: int  # Of the upright picture
    height: int  # Of the upright picture
    rotation_degrees: int  # Counter-clockwise turn that makes the stored picture upright
    duration_seconds: float  # From the first frame's start to the last one's end
    trouble: str  # Why frames are missing, empty if none are known to be


def probe(path: Path | str, *, limits: Limits | None = None) -> VideoInfo:
    """Decodes a whole file and tells what came out.

    Raises:
        DecodeError: Not a single frame; see `vtr.extract.limits.FAILURES`.
    """
    first: list[tuple[VideoFrame, Upright]] = []

    def keep_first(key: int, frame: VideoFrame) -> None:
        if not first:
            first.append((frame, upright(frame, source.pixel_shape)))

    with open_video(path, limits=limits) as source:
        reader = FullReader(PacketTable(source))
        reader.read(np.arange(len(reader.pts_seconds)), keep_first)
        if not first:
            reader.read(np.array([0]), keep_first)
        pts = reader.pts_seconds
        frame, turn = first[0]
        width, height = turn.size(frame)
        return VideoInfo(
            pts_seconds=pts,
            width=width,
            height=height,
            rotation_degrees=turn.degrees,
            duration_seconds=duration_seconds(pts, rate=header_rate(source.stream)),
            trouble=reader.damage or reader.cut,
        )


def make_handler(_config: None) -> Handler:
    """Returns the job of a worker process: decode one file whole; see `vtr.extract.worker`."""

    def handle(path: Path) -> Answer:
        with fetched(path) as file:
            return {"trouble": probe(file).trouble}, b""

    return handle
