"""Frames of a video from a time on, without decoding what comes long before it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from av.video.frame import VideoFrame

from vtr.errors import DecodeError
from vtr.extract.compress import put_in_order
from vtr.extract.container import FFMPEG_ERRORS, VideoSource, open_video
from vtr.extract.packets import time_base
from vtr.extract.readers import MAX_FAILURES_IN_A_ROW, output_order_wins, timed, until_error

Timed = tuple[float, VideoFrame]

# Where an index points behind what was asked for, a second try begins so much earlier.
_BACK_SECONDS = (0.0, 12.0)
_SLACK_SECONDS = 0.02


def origin_seconds(video: VideoSource) -> float:
    """Returns the presentation time of the first frame, as far as the header says."""
    return float((video.stream.start_time or 0) * time_base(video.stream))


def frames_from(video: VideoSource, seconds: float) -> Iterator[Timed]:
    """Yields (seconds since the first frame, frame) in order, from one at or before a time on.

    A file that cannot seek is read from its beginning.

    Raises:
        DecodeError: No frame comes.
    """
    origin = origin_seconds(video)
    for back in _BACK_SECONDS:
        frames = _after_seek(video, origin, seconds - back) if seconds > back else None
        first = next(frames, None) if frames else None
        if frames and first and first[0] <= seconds + _SLACK_SECONDS:
            yield from chain([first], frames)
            return
    with open_video(video.path, limits=video.limits) as anew:
        frames = _decoded(anew, origin)
        first = next(frames, None)
        if first is None:
            raise DecodeError("no-frames", "none decodes")
        yield from chain([first], frames)


def frames_at(video: VideoSource, instants: list[float]) -> Iterator[VideoFrame]:
    """Yields the frame on screen at each of some ascending times; after the end the last one."""
    frames = frames_from(video, instants[0])
    held = next(frames)[1]
    upcoming = next(frames, None)
    for seconds in instants:
        while upcoming is not None and upcoming[0] <= seconds + _SLACK_SECONDS:
            held, upcoming = upcoming[1], next(frames, None)
        yield held


def shown_between(
    video: VideoSource, start: float, end: float, *, slack: float = 0.0
) -> Iterator[tuple[float, float, VideoFrame]]:
    """Yields (seconds since `start`, seconds until `end`, frame) of a part.

    The first is at 0: what is on screen when it begins, or comes at most `slack` seconds behind.
    """
    held: VideoFrame | None = None
    for seconds, frame in frames_from(video, start):
        if seconds >= end:
            break
        if seconds <= start + slack:
            held = frame
            continue
        if held is not None:
            yield 0.0, end - start, held
            held = None
        yield seconds - start, end - seconds, frame
    if held is not None:
        yield 0.0, end - start, held


def _after_seek(video: VideoSource, origin: float, seconds: float) -> Iterator[Timed] | None:
    stream = video.stream
    try:
        video.container.seek(int((origin + seconds) / time_base(stream)), stream=stream)
    except FFMPEG_ERRORS:
        return None
    return _decoded(video, origin)


def _decoded(video: VideoSource, origin: float) -> Iterator[Timed]:
    """Yields what decodes, past damage: a picture with a flaw is better than none here."""
    frames = ((seconds - origin, frame) for seconds, frame in timed(_past_damage(video), video))
    return put_in_order(frames, relabel=output_order_wins(video))


def _past_damage(video: VideoSource) -> Iterator[VideoFrame]:
    failures = 0
    for packet in chain(until_error(video), [None]):
        try:
            frames = video.decode(packet)
            failures = 0
        except DecodeError as error:
            failures += 1
            if error.kind != "decode-error" or failures > MAX_FAILURES_IN_A_ROW:
                raise
            continue
        yield from frames
