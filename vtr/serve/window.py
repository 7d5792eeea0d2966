"""A part of a video as an MP4 file that every browser plays: H.264, and AAC where it has sound."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from itertools import chain

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet

from vtr.errors import DecodeError
from vtr.extract.compress import place_frames
from vtr.extract.container import FFMPEG_ERRORS, VideoSource, header_rate, open_video
from vtr.extract.h264 import H264Writer, Look
from vtr.extract.seeking import origin_seconds, shown_between
from vtr.extract.worker import Answer

_MOST_FPS = Fraction(30)
_SIZE = 480  # pixels of the shorter side
_CRF, _PRESET = 24, "veryfast"
_SOUND_RATE = 48_000


def make_window(video: VideoSource, start: float, end: float) -> Answer:
    """Returns an MP4 file of what is shown from `start` to `end`; its own clock begins there.

    Both are seconds after the video's first frame; what is on screen at `start` comes first.
    """
    rate = header_rate(video.stream) or 25.0
    fps = min(_MOST_FPS, Fraction(rate).limit_denominator(1001)) if rate >= 1 else Fraction(1)
    look = Look(fps, _SIZE, _CRF, preset=_PRESET)
    file = io.BytesIO()
    with ExitStack() as stack:
        placed = place_frames(shown_between(video, start, end), fps=fps)
        first = next(placed, None)
        if first is None:
            raise DecodeError("no-frames", f"none from {start:g} s to {end:g} s")
        writer = stack.enter_context(H264Writer(file, video, first[1], look))
        sound = list(_sound(video, writer, start, end))
        for instant, frame in chain([first], placed):
            writer.add(instant, frame)
            while sound and float(sound[0].pts or 0) / _SOUND_RATE <= instant / fps:
                writer.container.mux(sound.pop(0))
        writer.finish(end - start)
        writer.container.mux(sound)
    return {"seconds": writer.duration_seconds}, file.getvalue()


def _sound(
    video: VideoSource, writer: H264Writer, start: float, end: float
) -> Iterator[Packet[AudioStream]]:
    """Yields the encoded sound; none where there is none that decodes: it is the picture's page."""
    with suppress(*FFMPEG_ERRORS), open_video(video.path, limits=video.limits) as again:
        track: AudioStream | None = None
        resampler = AudioResampler("fltp", "stereo", _SOUND_RATE)
        tick = 0
        for seconds, frame in _sound_frames(again, origin_seconds(video), start, end):
            if track is None:
                track = writer.container.add_stream("aac", rate=_SOUND_RATE, layout="stereo")
                tick = max(0, round((seconds - start) * _SOUND_RATE))
            for piece in resampler.resample(frame):
                piece.pts, piece.time_base = tick, Fraction(1, _SOUND_RATE)
                tick += piece.samples
                yield from track.encode(piece)
        if track is not None:
            yield from track.encode(None)


def _sound_frames(
    video: VideoSource, origin: float, start: float, end: float
) -> Iterator[tuple[float, AudioFrame]]:
    if not video.container.streams.audio:
        return
    stream = video.container.streams.audio[0]
    video.container.seek(max(0, int((origin + start) * av.time_base)))
    for frame in video.container.decode(stream):
        seconds = (frame.time or 0.0) - origin
        if seconds >= end:
            return
        if seconds + frame.samples / frame.sample_rate > start:
            yield seconds, frame
