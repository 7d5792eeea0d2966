"""A part of a video as a file of its own: copied where a key frame allows it, else encoded anew.

This is also the job of a worker (`make_handler`): a hit of a search becomes a clip.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from vtr.errors import DecodeError
from vtr.extract.container import FFMPEG_ERRORS, VideoSource, failure, header_rate, open_video
from vtr.extract.frames import to_rgb, upright
from vtr.extract.h264 import repeatable
from vtr.extract.packets import time_base
from vtr.extract.seeking import origin_seconds, shown_between
from vtr.extract.worker import Answer
from vtr.files import TEMPORARY_PREFIX, sync_folder

HANDLER = "vtr.extract.cutting:make_handler"
_CLOCK = Fraction(1, 90_000)
_DISK = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.ENOENT)
_QUALITY = "18"  # of H.264: no loss that is seen


@dataclass(frozen=True)
class Cut:
    """What is to be cut out."""

    source: Path
    folder: Path  # Where the clip goes; it exists
    stem: str  # The clip's name without its ending
    start_seconds: float  # From the file's first frame
    end_seconds: float  # Exclusive


@dataclass(frozen=True)
class Clip:
    """What was cut out."""

    path: str
    copied: bool  # Packets as they were; else encoded anew as H.264
    sound: bool  # Whether it has sound
    start_seconds: float  # Of its first frame in the source
    num_bytes: int


def make_handler(_config: None) -> Callable[[Cut], Answer]:
    """Returns the job handler of a worker; it answers with a `Clip`, or with what was refused."""

    def handle(job: Cut) -> Answer:
        try:
            return asdict(cut(job)), b""
        except OSError as error:  # the disk's, and no fault of the video
            return {"refused": error.strerror or str(error)}, b""

    return handle


def cut(job: Cut) -> Clip:
    """Writes the part of a video; the file appears whole or not at all.

    Where a key frame stands within half a frame of the start, the packets are copied, video and
    sound, into MP4 or, where that cannot hold them, Matroska; the last picture may then be shown a
    little past the end. Elsewhere the pictures are encoded, upright and in square pixels.

    Raises:
        DecodeError: No frame can be had there.
        OSError: The disk refused.
    """
    with open_video(job.source) as video:
        _require_there(video, job)
        half = 0.5 / (header_rate(video.stream) or 25.0)
        key = _key_frame_near(video, origin_seconds(video) + job.start_seconds, half)
        for suffix in (".mp4", ".mkv"):
            temporary = job.folder / f"{TEMPORARY_PREFIX}{os.getpid()}-cut{suffix}"
            try:
                sound, first = _write(video, temporary, job, key=key, half=half)
            except DecodeError:
                raise
            except ValueError:  # this container holds no such codec
                continue
            except FFMPEG_ERRORS as error:
                if isinstance(error, OSError) and error.errno in _DISK:
                    raise OSError(error.errno, os.strerror(error.errno), str(job.folder)) from None
                raise failure(error, video.log) from None
            else:
                target = job.folder / f"{job.stem}{suffix}"
                num_bytes = temporary.stat().st_size
                temporary.replace(target)
                sync_folder(job.folder)
                return Clip(str(target), key is not None, sound, first, num_bytes)
            finally:
                temporary.unlink(missing_ok=True)
    raise DecodeError("decode-error", "neither MP4 nor Matroska holds its codec")


def _require_there(video: VideoSource, job: Cut) -> None:
    """Refuses a part behind the end of a file that was longer when it was searched (DecodeError).

    The header tells: the last frame would not be shown then.
    """
    length = (video.container.duration or 0) / av.time_base
    if length and job.start_seconds >= length:
        raise DecodeError(
            "no-frames", f"no frame from {job.start_seconds:g} s on: it lasts {length:.2f} s"
        )


def _write(
    video: VideoSource, target: Path, job: Cut, *, key: int | None, half: float
) -> tuple[bool, float]:
    """Writes the file; returns whether it has sound, and the time of its first frame."""
    origin = origin_seconds(video)
    options = {"movflags": "faststart"} if target.suffix == ".mp4" else {}
    with av.open(str(target), "w", options=options) as out:
        if key is None:
            return _encode(video, out, job, origin=origin, half=half)
        sound = _copy(video, out, key, end_seconds=origin + job.end_seconds)
        return sound, float(key * time_base(video.stream)) - origin


def _key_frame_near(video: VideoSource, seconds: float, half: float) -> int | None:
    """Returns the time, in ticks, of the key frame within half a frame; None where none is."""
    container, stream, tick = video.container, video.stream, time_base(video.stream)
    container.seek(int((seconds + half) / tick), stream=stream, backward=True)
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None:
            continue
        if packet.is_keyframe and abs(float(packet.pts * tick) - seconds) <= half:
            return packet.pts
        if float(packet.dts * tick) > seconds + half:
            return None
    return None


def _copy(video: VideoSource, out: OutputContainer, key: int, *, end_seconds: float) -> bool:
    """Copies packets from a key frame on; returns whether there is sound."""
    container, stream, tick = video.container, video.stream, time_base(video.stream)
    targets: dict[int, Any] = {stream.index: out.add_stream_from_template(stream)}
    sound = next(iter(container.streams.audio), None)
    if sound is not None:
        targets[sound.index] = out.add_stream_from_template(sound)
    begin = float(key * tick)
    container.seek(key, stream=stream, backward=True)
    begun, open_streams = False, set(targets)
    for packet in container.demux([stream, *([sound] if sound else [])]):
        index = packet.stream.index
        if packet.pts is None or packet.dts is None or index not in open_streams:
            continue
        base = packet.time_base
        if float(packet.dts * base) >= end_seconds:
            open_streams.discard(index)
            if not open_streams:
                break
            continue
        if index == stream.index:
            begun = begun or (packet.is_keyframe and packet.pts == key)
            if not begun or packet.pts < key:  # leading pictures refer to what is before
                continue
        elif float(packet.pts * base) < begin:
            continue
        shift = round(begin / base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = targets[index]
        out.mux(packet)
    return sound is not None


def _encode(
    video: VideoSource, out: OutputContainer, job: Cut, *, origin: float, half: float
) -> tuple[bool, float]:
    """Encodes the pictures, with the sound as it is; returns whether it has any, and its start."""
    rate = Fraction(header_rate(video.stream) or 25.0).limit_denominator(1001)
    target: Any = out.add_stream("libx264", rate=rate, options=repeatable({"crf": _QUALITY}))
    target.codec_context.time_base = target.time_base = _CLOCK
    target.pix_fmt, target.codec_context.max_b_frames = "yuv420p", 0
    sound = next(iter(video.container.streams.audio), None)
    sound_target = None if sound is None else out.add_stream_from_template(sound)
    turn, held = None, None
    length = job.end_seconds - job.start_seconds
    for seconds, _, frame in shown_between(video, job.start_seconds, job.end_seconds, slack=half):
        is_first, turn = turn is None, turn or upright(frame, video.pixel_shape)
        picture = to_rgb(frame, turn)
        if is_first:
            target.height, target.width = (side // 2 * 2 or 2 for side in picture.shape[:2])
        made = VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            target.width, target.height, "yuv420p",
            dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
        )  # fmt: skip
        made.pts, made.time_base = round(seconds / _CLOCK), _CLOCK
        held = _mux(out, target.encode(made), held)
    if turn is None:
        raise DecodeError("no-frames", f"no frame from {job.start_seconds:g} s on")
    if last := _mux(out, target.encode(None), held):
        last.duration = max(1, round(length / _CLOCK) - last.pts)  # else that of one frame
        out.mux(last)
    if sound_target is not None:
        begin = origin + job.start_seconds
        _copy_sound(video, out, sound_target, begin=begin, end=origin + job.end_seconds)
    return sound is not None, job.start_seconds


def _copy_sound(
    video: VideoSource, out: OutputContainer, target: Any, *, begin: float, end: float
) -> None:
    """Copies the packets of sound, from the file opened anew: the decoder left it anywhere."""
    with open_video(video.path, limits=video.limits) as again:
        sound = again.container.streams.audio[0]
        again.container.seek(int(begin / time_base(sound)), stream=sound)
        for packet in again.container.demux(sound):
            if packet.pts is None or float(packet.pts * packet.time_base) < begin:
                continue
            if float(packet.pts * packet.time_base) >= end:
                return
            shift = round(begin / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, (packet.dts or packet.pts) - shift
            packet.stream = target
            out.mux(packet)


def _mux(out: OutputContainer, packets: Sequence[Any], held: Any) -> Any:
    """Writes the packet that was held and all of these but the last, which is held now."""
    for packet in packets:
        if held is not None:
            out.mux(held)
        held = packet
    return held
