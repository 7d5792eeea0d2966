"""H.264 files of a video's pictures: upright, of a smaller size, any rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Self

import av
import numpy as np
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from vtr.errors import DecodeError
from vtr.extract.container import FFMPEG_ERRORS, VideoSource, failure
from vtr.extract.frames import Upright, as_seen, upright
from vtr.foreign import shown

# Seconds between key frames: a seek decodes some small pictures at most.
KEY_FRAME_SECONDS = 10
# The output's clock ticks at least so often in a second.
_LEAST_TICKS = 12_000


def repeatable(options: Mapping[str, str]) -> dict[str, Any]:
    """Returns options of libx264 with which the same pictures give the same bytes everywhere.

    Else its macroblock tree, which spreads bits over frames, is reckoned with the processor's own
    approximations, and on one with AVX-512 with whatever lies in memory behind a row: measured,
    one file in some hundreds came out with other bytes than before.
    """
    own = filter(None, [options.get("x264-params"), "cpu-independent=1"])
    return {**options, "x264-params": ":".join(own)}


def scaled_size(width: int, height: int, *, size: int, upscale: bool = False) -> tuple[int, int]:
    """Returns the size of a copy: shorter side `size`, aspect kept, both sides even.

    A picture whose shorter side is below `size` keeps its own size, cut to even numbers.

    >>> scaled_size(640, 360, size=224), scaled_size(360, 640, size=224)
    ((398, 224), (224, 398))
    >>> scaled_size(121, 81, size=224), scaled_size(1, 1, size=224)
    ((120, 80), (2, 2))
    """
    short = min(width, height)
    if short < size and not upscale:
        return max(2, width // 2 * 2), max(2, height // 2 * 2)
    return tuple(max(2, 2 * round(side * size / short / 2)) for side in (width, height))  # type: ignore[return-value]


@dataclass(frozen=True)
class Look:
    """What the pictures of a file are like."""

    fps: Fraction  # Instants per second
    size: int = 224  # Shorter side in pixels, even
    crf: int = 23  # Quality, 0 (lossless) to 51
    upscale: bool = False  # Enlarge videos whose shorter side is below `size`
    preset: str = "medium"  # Of libx264: how much time it takes


class H264Writer:
    """An MP4 file that grows by one frame at a time; use as a context manager.

    The first frame of the video says how all are turned.
    """

    def __init__(self, file: BinaryIO, video: VideoSource, first: VideoFrame, look: Look) -> None:
        fps = look.fps
        self._turn = upright(first)
        self._log = video.log
        self.width, self.height = scaled_size(
            *self._turn.size(first), size=look.size, upscale=look.upscale
        )
        self.num_frames = 0
        self.duration_seconds = 0.0
        scale = max(1, math.ceil(_LEAST_TICKS / fps.numerator))
        self._ticks_per_instant = fps.denominator * scale
        self._clock = Fraction(1, fps.numerator * scale)
        self._held: Packet[VideoStream] | None = None
        self.container = av.open(file, "w", format="mp4")
        self._stream = self.container.add_stream("libx264", rate=fps)
        self._stream.options = repeatable({"crf": str(look.crf), "preset": look.preset})
        self._configure(video, as_seen(first))
        # A seek decodes a few seconds of small pictures at most.
        self._stream.codec_context.gop_size = max(1, round(KEY_FRAME_SECONDS * fps))

    def _configure(self, video: VideoSource, seen: VideoFrame) -> None:
        stream, context = self._stream, self._stream.codec_context
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        stream.time_base = context.time_base = self._clock
        context.thread_count = 1
        # Without B-frames presentation and decoding order agree and no edit list is needed, so
        # every reader gets the times right; at a few frames per second they save little.
        context.max_b_frames = 0
        # The numbers of the pixels keep their meaning, but for the range (see _scaled).
        context.color_range = ColorRange.MPEG
        context.colorspace = Colorspace.ITU601 if seen.format.is_rgb else seen.colorspace
        context.color_primaries = video.stream.codec_context.color_primaries
        context.color_trc = video.stream.codec_context.color_trc
        shape = video.pixel_shape
        context.sample_aspect_ratio = 1 / shape if self._turn.transposed else shape

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error the file is thrown away; closing must not hide the error.
        with suppress(*(FFMPEG_ERRORS if kind else ())):
            self.container.close()

    def add(self, instant: int, frame: VideoFrame) -> None:
        """Encodes one frame, shown from instant / fps on."""
        picture = self._scaled(frame)
        picture.pts = instant * self._ticks_per_instant
        picture.time_base = self._clock
        # Else the encoder would repeat the original's key frames.
        picture.pict_type = PictureType.NONE
        self._encode(picture)
        self.num_frames += 1
        self.duration_seconds = float(picture.pts * self._clock)

    def finish(self, end_seconds: float) -> None:
        """Writes what the encoder still holds; the last frame is shown until `end_seconds`."""
        self._encode(None)
        assert self._held is not None
        assert self._held.pts is not None
        self._held.duration = max(1, round(end_seconds / self._clock) - self._held.pts)
        self.duration_seconds = float((self._held.pts + self._held.duration) * self._clock)
        self.container.mux(self._held)

    def _scaled(self, frame: VideoFrame) -> VideoFrame:
        """Returns an upright picture of the copy's size, 4:2:0 with 8 bits, limited range."""
        width, height = self.width, self.height
        if self._turn.transposed:
            width, height = height, width
        try:
            # Left to itself, swscale keeps the numbers of a full-range picture, not their meaning.
            small = as_seen(frame).reformat(
                width, height, "yuv420p", interpolation="BICUBIC", dst_color_range="MPEG", threads=1
            )
        except FFMPEG_ERRORS as error:
            raise failure(error, self._log) from None
        return small if self._turn == Upright() else _turned(small, self._turn)

    def _encode(self, picture: VideoFrame | None) -> None:
        try:
            packets = self._stream.encode(picture)
        except FFMPEG_ERRORS as error:
            raise DecodeError("encode-error", shown(f"libx264: {error}")) from None
        for packet in packets:
            # The muxer takes all durations but the last from the times that follow.
            if self._held is not None:
                self.container.mux(self._held)
            self._held = packet


def _turned(frame: VideoFrame, turn: Upright) -> VideoFrame:
    """Returns a 4:2:0 picture with even sides, turned."""
    rows = np.asarray(frame.to_ndarray(), np.uint8)  # (3/2 height, width): luma, then chroma
    luma, chroma = np.split(rows, [frame.height])
    planes = [luma, *chroma.reshape(2, frame.height // 2, frame.width // 2)]
    turned = [turn(plane) for plane in planes]
    height, width = turned[0].shape
    flat = np.concatenate([plane.ravel() for plane in turned])
    return VideoFrame.from_ndarray(flat.reshape(height * 3 // 2, width), format="yuv420p")
