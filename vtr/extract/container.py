"""Opening one video file safely: local, regular, a real container, one decoder thread.

FFmpeg opens far more than video files: URLs, playlists that name other files, devices, pictures.
Here a path is looked at first (`os.stat`), handed over with the `file:` prefix, and both the
protocols and the container formats are white-listed, so that neither a name (`concat:a|b`) nor a
file's content (a playlist called `clip.mp4`) can make FFmpeg open anything else.

Every failure is a `DecodeError` whose `kind` is a key of `FAILURES` and whose detail ends with
FFmpeg's own last line, which is where the reason stands.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import av.logging
import av.stream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vtr.errors import DecodeError, VtrError
from vtr.extract.joined import Clock, Mark
from vtr.extract.limits import Limits
from vtr.foreign import shown
from vtr.names import VIDEO_CONTAINERS

# What is not here is refused: hls, concat, dash, sdp, image sequences, text art, devices.
CONTAINERS = ",".join(VIDEO_CONTAINERS)
_PLAYLISTS = frozenset({"hls", "concat", "concatf", "dash", "sdp", "rtsp", "webm_dash_manifest"})
_PROTOCOL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:/"
    r"|(async|cache|concatf?|crypto|data|fd|file|hls|lavfi|pipe|srt|subfile|tcp|udp|unix)[:,]"
)
_TOO_LARGE = re.compile(r"Picture size (\d+x\d+) exceeds specified max pixel")
_KEPT_LOG_LINES = 20
# FFmpeg applies its cap to rows rounded up to 64 pixels, of at most 16384 rows.
_ALIGNMENT_PIXELS = 64 * 16384
# Formats that FFmpeg marks so (AVFMT_TS_DISCONT).
_CLOCKS_JUMP = frozenset({"mpegts", "mpeg", "ogg", "wtv"})
# What FFmpeg tells of protection where it passes the packets on as they are: Windows Media DRM
# and WebM's ContentEncKeyID.
_PROTECTION_TAGS = {"asf": ("ASF_Protection_Type", "encryption"), "matroska,webm": ("enc_key_id",)}
_FILE_TYPES = (
    (stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "named pipe (FIFO)"), (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "character device"), (stat.S_ISBLK, "block device"),
)  # fmt: skip

# Of a file PyAV may raise anything: FFmpegError, ValueError for a number that its tables do not
# know, IndexError. So these are caught around calls into PyAV only, where nothing of ours runs, and
# none of our own faults is taken for the file's.
FFMPEG_ERRORS = (Exception,)


class DecoderLog:
    """The last error lines that FFmpeg logged for one open file."""

    def __init__(self, lines: list[tuple[int, str, str]]) -> None:
        self._lines = lines  # PyAV appends to it: (level, part of FFmpeg, text)
        self._num_forgotten = 0

    @property
    def num_lines(self) -> int:
        """How many lines came so far."""
        return self._num_forgotten + len(self._lines)

    @property
    def entries(self) -> list[tuple[str, str]]:
        """(part of FFmpeg, text) of the last lines, oldest first."""
        return [(part, text.strip()) for _, part, text in self._lines if text.strip()]

    @property
    def last_line(self) -> str:
        """The decoder's own last line as `[part] text`, or an empty text."""
        return next((f"[{part}] {text}" for part, text in reversed(self.entries)), "")

    def trim(self) -> None:
        """Forgets all but the last lines: a damaged file logs thousands."""
        surplus = len(self._lines) - _KEPT_LOG_LINES
        if surplus > 0:
            del self._lines[:surplus]
            self._num_forgotten += surplus


@dataclass(frozen=True)
class VideoSource:
    """An open video file and the one stream of it that is the video.

    All reading and decoding goes through `demux` and `decode`, which turn FFmpeg's errors into
    `DecodeError`.
    """

    path: Path
    container: InputContainer
    stream: VideoStream
    limits: Limits
    log: DecoderLog

    @property
    def pixel_shape(self) -> Fraction:
        """Width of a stored pixel over its height.

        Within 1 % it counts as square, which nobody sees and which leaves the picture sharp; beyond
        1:16 it is the nonsense that some headers hold.
        """
        shape = self.stream.sample_aspect_ratio
        if not shape or not Fraction(1, 16) <= shape <= 16 or abs(shape - 1) <= Fraction(1, 100):
            return Fraction(1)
        return Fraction(shape)

    def demux(self, *, all_streams: bool = False) -> Iterator[Packet[VideoStream]]:
        """Yields packets in the file's order, without the flush packets.

        Where the video's clock starts anew, its packets get the times of one that goes on; a
        `Mark` on them counts how often that happened before. Sound and subtitles are not even read
        unless `all_streams` are asked for.

        Raises:
            DecodeError: The container breaks off or is damaged.
        """
        if not all_streams:
            for other in self.container.streams:
                if other.index != self.stream.index:
                    other.discard = av.stream.Discard.all
        # Typed for the one stream; with all, callers tell them apart by `stream_index`.
        streams = () if all_streams else (self.stream,)
        clock = self._clock()
        packets: Iterator[Packet[VideoStream]] = self.container.demux(*streams)  # type: ignore[assignment]
        while True:
            try:
                packet = next(packets, None)
            except IndexError:
                # After the last packet, where a stream turned up late: PyAV counts the streams
                # anew for its flush packets, but knows only those of the beginning.
                return
            except FFMPEG_ERRORS as error:
                raise failure(error, self.log) from None
            if packet is None:
                return
            # An empty packet would tell the decoder that the stream ends.
            if packet.size:
                if packet.stream_index == self.stream.index:
                    _continue_clock(packet, clock)
                yield packet

    def _clock(self) -> Clock:
        second = 1 / float(self.stream.time_base or 1)
        frame = second / (header_rate(self.stream) or 25.0)
        jumps = self.container.format.name in _CLOCKS_JUMP
        return Clock(second=second, frame=frame, jumps=jumps)

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Decodes one packet; None drains the decoder.

        Raises:
            DecodeError: This packet cannot be decoded; after "decode-error" the next one may be.
        """
        try:
            frames = self.stream.codec_context.decode(packet)
        except FFMPEG_ERRORS as error:
            raise failure(error, self.log) from None
        finally:
            self.log.trim()
        for frame in frames:
            check_size(frame.width, frame.height, self.limits)
        return frames


def _continue_clock(packet: Packet[VideoStream], clock: Clock) -> None:
    shift = clock.see(packet.dts, packet.pts, packet.duration)
    if clock.num_restarts:
        packet.opaque = Mark(clock.num_restarts)
        packet.pts = None if packet.pts is None else packet.pts + shift
        packet.dts = None if packet.dts is None else packet.dts + shift


def header_rate(stream: VideoStream) -> float | None:
    """Returns the frame rate the header tells, None where it tells none."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def read_rate(path: Path | None) -> float | None:
    """Returns the frame rate that a file's header tells; None where it cannot be read."""
    if path is not None:
        with suppress(VtrError), open_video(path) as video:
            return header_rate(video.stream)
    return None


@contextmanager
def open_video(path: Path | str, *, limits: Limits | None = None) -> Iterator[VideoSource]:
    """Opens a local video file, never a URL, for decoding with one thread.

    Chosen is the stream FFmpeg itself finds best; cover art is no video. The picture size is
    checked here and again by the decoder.

    Raises:
        DecodeError: With one of the kinds of `FAILURES`.
    """
    limits = limits or Limits()
    file = Path(path)
    _check_regular(file)
    with ExitStack() as stack:
        log = DecoderLog(stack.enter_context(_captured_log()))
        try:
            container = stack.enter_context(_open(file, limits))
        except FFMPEG_ERRORS as error:
            raise failure(error, log, opening=True) from None
        stream = _video_stream(container)
        _configure(stream, limits)
        _refuse_protected(container, stream)
        yield VideoSource(file, container, stream, limits, log)


def failure(error: Exception, log: DecoderLog, *, opening: bool = False) -> DecodeError:
    """Returns what FFmpeg or the system raised as a `DecodeError`.

    Its detail is one line: the error, then the decoder's own last line.
    """
    if refused := _unlisted_format(log) if opening else None:
        kind = "refused" if refused in _PLAYLISTS else "not-a-video"
        return DecodeError(kind, f"FFmpeg takes the content for {refused!r}, which vtr never opens")
    for _, text in log.entries:
        if size := _TOO_LARGE.search(text):
            return DecodeError("too-large", f"a picture of {size[1]} pixels exceeds the cap")
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    detail = f"{words}; {log.last_line}" if log.last_line else words
    return DecodeError(_classify(error, opening=opening), shown(detail))


def _unlisted_format(log: DecoderLog) -> str | None:
    """The demuxer that FFmpeg would have used, had it been on the white list."""
    for part, text in log.entries:
        if "not on whitelist" in text:
            return part
        if "detecting m3u8" in text:
            return "hls"
    return None


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raises DecodeError where a picture has more pixels than the cap."""
    pixels = width * height
    if pixels > limits.max_pixels:
        size = f"{width}x{height} is {pixels:,} pixels"
        raise DecodeError("too-large", f"{size}, the cap is {limits.max_pixels:,}")


def _open(path: Path, limits: Limits) -> InputContainer:
    return av.open(
        f"file:{os.fspath(path)}",
        mode="r",
        container_options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
        # Heeded only by the decoders that FFmpeg starts while probing.
        options={"max_pixels": str(min(limits.max_pixels + _ALIGNMENT_PIXELS, 2**31 - 1))},
        # Tags may hold any bytes; they must not stop a video from opening.
        metadata_errors="replace",
    )


def _check_regular(path: Path) -> None:
    """Raises DecodeError unless `path` names a readable regular file; never blocks on a pipe."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except (ValueError, OSError) as error:
        raise DecodeError(
            _missing_kind(path, error), getattr(error, "strerror", str(error))
        ) from None
    if not stat.S_ISREG(status.st_mode):
        what = next((name for test, name in _FILE_TYPES if test(status.st_mode)), "special file")
        raise DecodeError("not-a-file", f"is a {what}")
    if not status.st_size:
        raise DecodeError("empty-file", "the file has 0 bytes")


def _missing_kind(path: Path, error: Exception) -> str:
    if isinstance(error, ValueError) or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return "bad-name"
    if isinstance(error, PermissionError):
        return "permission"
    # Only a name that is no file: `concat:x.mp4` may well be one.
    return "refused" if _PROTOCOL.match(os.fspath(path)) else "not-found"


def _video_stream(container: InputContainer) -> VideoStream:
    best, cover = container.streams.best("video"), av.stream.Disposition.attached_pic
    if best is not None and best.disposition & cover:
        best = next((s for s in container.streams.video if not s.disposition & cover), None)
    if best is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        raise DecodeError("no-video-stream", f"the file holds only: {kinds or 'nothing'}")
    if not isinstance(best, VideoStream) or best.codec_context is None:
        raise DecodeError("decode-error", "this FFmpeg has no decoder for the video's codec")
    return best


def _refuse_protected(container: InputContainer, stream: VideoStream) -> None:
    """Raises DecodeError where the header says that the pictures are encrypted."""
    tags = {**container.metadata, **stream.metadata}
    for tag in _PROTECTION_TAGS.get(container.format.name, ()):
        if tag in tags:
            raise DecodeError("encrypted", shown(f"the header says so: {tag} = {tags[tag]}"))


def _configure(stream: VideoStream, limits: Limits) -> None:
    context = stream.codec_context
    check_size(context.width, context.height, limits)
    # av.open(options=...) does not reach the decoder; this does (measured, needs.md §4.2).
    context.options = {"max_pixels": str(min(limits.max_pixels + _ALIGNMENT_PIXELS, 2**31 - 1))}
    # Frame threads can hang at exit and delay errors; parallelism is across videos.
    context.thread_type = "NONE"
    context.thread_count = 1
    # A frame carries the `opaque` of the packet that it comes from.
    context.copy_opaque = True


def _classify(error: Exception, *, opening: bool) -> str:
    if isinstance(error, MemoryError):
        return "out-of-memory"
    if isinstance(error, PermissionError):
        # We could open the file: what FFmpeg may not do is read what is in it.
        return "encrypted"
    if not opening:
        return "decode-error"
    return "not-found" if isinstance(error, FileNotFoundError) else "not-a-video"


_log_lock = threading.Lock()
_log_users = 0
_log_before: tuple[int | None, bool] = (None, True)


@contextmanager
def _captured_log() -> Iterator[list[tuple[int, str, str]]]:
    """Yields the list to which FFmpeg's error lines of this thread go.

    PyAV's log level is one global setting. It is raised while any file is open and put back when
    the last one closes, so that nothing of it is left behind.
    """
    global _log_users, _log_before
    with _log_lock:
        if not _log_users:
            _log_before = (av.logging.get_level(), av.logging.get_skip_repeated())
            av.logging.set_level(av.logging.ERROR)
            # Else the second of two files with the same trouble would log nothing.
            av.logging.set_skip_repeated(False)
        _log_users += 1
    try:
        with av.logging.Capture(local=True) as lines:
            yield lines
    finally:
        with _log_lock:
            _log_users -= 1
            if not _log_users:
                av.logging.set_level(_log_before[0])
                av.logging.set_skip_repeated(_log_before[1])
