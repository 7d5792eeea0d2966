"""A smaller copy of one video: few frames per second, a short side of 224 pixels, no sound.

What the reference's preprocessing script does, with its faults repaired: portrait videos keep their
aspect (it squashes 360x640 to 224x126, here it is 224x398), rotation is applied to the pixels,
frames are chosen by presentation time, and a copy is either whole or absent.

Time. Instants stand at k / fps after the first frame. Each is given the nearest frame, the earlier
of two equally near, which for a steady video is the candidate rule of extraction: a copy at 3 fps
holds the very frames that sampling the original at 3 or 1 fps gives. A frame is never repeated: one
that is nearest to several instants (a video slower than fps, a held picture) is written once, at
the instant nearest to its own time, and shown until the next. The copy lasts as long as the video.
"""

from __future__ import annotations

import errno
import heapq
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeVar

from av.video.frame import VideoFrame

from vtr.errors import DecodeError, StoreWriteError
from vtr.extract.container import VideoSource, header_rate, open_video
from vtr.extract.h264 import H264Writer, Look
from vtr.extract.limits import Limits
from vtr.extract.packets import PacketTable, time_base
from vtr.extract.readers import (
    Decoding,
    decoding_pass,
    emptiness,
    expected_ticks,
    output_order_wins,
    shortfall,
    timed,
)
from vtr.extract.timeline import SLACK_SECONDS
from vtr.files import TEMPORARY_PREFIX, open_shared, sync_folder
from vtr.foreign import shown

T = TypeVar("T")

# Decoded frames held back to put their times in order; no codec reorders by more than 16.
LOOKAHEAD_FRAMES = 16


@dataclass(frozen=True)
class CompressSettings:
    """What a copy is like; the ranges are those of `vtr.verbs.compress`."""

    fps: float = 3.0  # Frames per second, 0.001 to 1000
    size: int = 224  # Shorter side in pixels, even
    crf: int = 23  # Quality of the H.264 encoder, 0 (lossless) to 51; 23 is its default
    upscale: bool = False  # Enlarge videos whose shorter side is below `size`
    limits: Limits = field(default_factory=Limits)  # Caps on what is decoded


@dataclass(frozen=True)
class CompressedVideo:
    """What a copy holds."""

    error: str  # "class: detail" where the copy holds what could be decoded of a damaged video
    num_frames: int
    duration_seconds: float  # How long the copy plays
    width: int  # Pixels
    height: int
    num_bytes: int


def compress_video(
    source: Path, target: Path, settings: CompressSettings, *, scratch: Path | None = None
) -> CompressedVideo:
    """Writes a small H.264 copy of one video, an MP4 file that replaces what is there.

    Raises:
        DecodeError: No frame can be decoded, or the target's name is too long; it is not touched.
        StoreWriteError: The file system refused; the target is not touched.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _place_copy(source, target, settings, scratch or target.parent)
        except FileNotFoundError:  # one who cannot see our lock took it for a leftover, once
            return _place_copy(source, target, settings, scratch or target.parent)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DecodeError("bad-name", "the copy's name would be too long") from None
        raise StoreWriteError(
            f"cannot write {target}: {error.strerror or error}. What is finished is intact; free "
            "some space or choose another folder, then run the same command again: it resumes"
        ) from None


def _place_copy(
    source: Path, target: Path, settings: CompressSettings, scratch: Path
) -> CompressedVideo:
    temporary = scratch / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-compress.mp4"
    try:
        with open_shared(temporary) as file:
            copy = _write_copy(source, file, settings)
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return copy


def place_frames(
    frames: Iterable[tuple[float, float, T]], *, fps: Fraction
) -> Iterator[tuple[int, T]]:
    """Yields (k, frame): the frame that stands at instant k / fps; k ascends strictly.

    See the module's docstring for the rule. `frames` are (seconds, duration_seconds, frame),
    ascending from 0.0; only the last duration counts, and only if it is not longer than the
    interval before it.
    """
    free = 0
    before = math.inf
    held: tuple[float, float, T] | None = None
    for upcoming in chain(frames, (None,)):
        if held is not None:
            seconds, duration, frame = held
            if upcoming is not None:
                end = (seconds + upcoming[0]) / 2
                before = upcoming[0] - seconds
            else:
                end = seconds + min(duration, before) / 2
            last = math.floor((end + SLACK_SECONDS) * fps)
            if last >= free:
                nearest = math.ceil((seconds - SLACK_SECONDS) * fps - 0.5)
                yield min(max(nearest, free), last), frame
            free = max(free, last + 1)
        held = upcoming


def put_in_order(
    frames: Iterable[tuple[float, T]], *, relabel: bool, lookahead: int = LOOKAHEAD_FRAMES
) -> Iterator[tuple[float, T]]:
    """Puts (seconds, frame) in the order of their times, as far as `lookahead` frames reach.

    With `relabel` the frames keep their order and the times alone are sorted: the n-th frame gets
    the n-th smallest time.
    """
    times: list[tuple[float, int]] = []
    waiting: dict[int, T] = {}  # in order of arrival

    def leave() -> tuple[float, T]:
        seconds, serial = heapq.heappop(times)
        return seconds, waiting.pop(next(iter(waiting)) if relabel else serial)

    for serial, (seconds, frame) in enumerate(frames):
        heapq.heappush(times, (seconds, serial))
        waiting[serial] = frame
        if len(times) > lookahead:
            yield leave()
    while times:
        yield leave()


def _write_copy(source: Path, file: BinaryIO, settings: CompressSettings) -> CompressedVideo:
    with open_video(source, limits=settings.limits) as video, ExitStack() as stack:
        reader = _Reader(video)
        fps = Fraction(settings.fps).limit_denominator(1001)
        look = Look(fps, settings.size, settings.crf, settings.upscale)
        writer: H264Writer | None = None
        for instant, frame in place_frames(reader.frames(), fps=fps):
            if writer is None:
                writer = stack.enter_context(H264Writer(file, video, frame, look))
            writer.add(instant, frame)
        trouble = reader.trouble()
        if writer is None:
            raise emptiness(reader.table, damage=reader.damage)
        writer.finish(reader.end_seconds)
    file.flush()
    return CompressedVideo(
        error=f"damaged: {trouble}" if trouble else "",
        num_frames=writer.num_frames,
        duration_seconds=writer.duration_seconds,
        width=writer.width,
        height=writer.height,
        num_bytes=os.fstat(file.fileno()).st_size,
    )


class _Reader:
    """The frames of a video in presentation order, and what went wrong with the others."""

    def __init__(self, video: VideoSource) -> None:
        self._video = video
        self.table = PacketTable(video)
        self._tick = time_base(video.stream)
        self._usual = 1 / (header_rate(video.stream) or 25.0)  # seconds from frame to frame
        self._latest_seconds = -math.inf
        self.damage = ""
        self.end_seconds = 0.0

    def trouble(self) -> str:
        """Returns why frames are missing or not sound, by the count that extraction makes."""
        expected = expected_ticks(self.table)[-1:] * float(self._tick)
        unseen = max(0.0, float((expected - self._latest_seconds).max(initial=0.0)))
        return shown(self.damage or shortfall(self.table, unseen_seconds=unseen))

    def frames(self) -> Iterator[tuple[float, float, VideoFrame]]:
        """Yields (seconds since the first frame, duration in seconds, frame)."""
        origin: float | None = None
        latest, interval = 0.0, self._usual
        for seconds, frame in put_in_order(self._timed(), relabel=output_order_wins(self._video)):
            origin = seconds if origin is None else origin
            now = max(latest, seconds - origin)
            interval = now - latest or interval
            latest = now
            duration = float((frame.duration or 0) * self._tick) or interval
            self.end_seconds = now + duration
            yield now, duration, frame

    def _timed(self) -> Iterator[tuple[float, VideoFrame]]:
        with decoding_pass(self.table, reuse=True) as (video, packets):
            decoding = Decoding(video, packets, self.table)
            for seconds, frame in timed(decoding, video):
                self._latest_seconds = max(self._latest_seconds, seconds)
                yield seconds, frame
            self.damage = decoding.damage
