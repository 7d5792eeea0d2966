"""Two ways to get chosen frames out of a file: leaving packets out, or decoding all of it.

Both hand frames to a visitor as they are decoded, under a key that stays the same from one pass to
the next, so that a frame need not be kept to be found again.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vtr.counts import counted
from vtr.errors import DecodeError
from vtr.extract.bitstream import UnprovenError
from vtr.extract.container import VideoSource, header_rate, open_video
from vtr.extract.joined import Mark
from vtr.extract.packets import (
    NO_TIME,
    PacketTable,
    Ticks,
    missing_seconds,
    plan_segments,
    prove_sparse,
    time_base,
)
from vtr.extract.timeline import Indices, Seconds
from vtr.foreign import shown

Visit = Callable[[int, VideoFrame], None]

# PySceneDetect's number: after so many undecodable packets in a row nothing good follows.
MAX_FAILURES_IN_A_ROW = 8
# No codec shows more frames before one that it decodes first.
MAX_REORDERED_FRAMES = 16


class SparseReader:
    """Decodes only what the wanted frames need; see `vtr.extract.packets` for why it is exact.

    Raises:
        UnprovenError: Not known to be exact for this file.
    """

    def __init__(self, table: PacketTable) -> None:
        self.route = "sparse"
        self.damage = self.cut = ""
        self._entries, self._table = prove_sparse(table), table
        self._positions = np.argsort(table.pts, kind="stable")
        self.pts_seconds = seconds(table.pts[self._positions], table.source)

    def keys(self, indices: Indices) -> Indices:
        """Returns the indices: nothing is renumbered here."""
        return indices

    def read(self, indices: Indices, visit: Visit) -> None:
        """Visits the frames of these indices.

        Raises:
            UnprovenError: A wanted frame did not come out whole, or the decoder complained: then
                nothing that was visited may be used.
            DecodeError: The file has changed since.
        """
        positions = self._positions[indices]
        wanted = dict(zip(self._table.pts[positions].tolist(), indices.tolist(), strict=True))
        with decoding_pass(self._table, reuse=True) as (source, packets):
            lines_before = source.log.num_lines
            for frame in self._decoded(source, packets, positions):
                index = wanted.pop(NO_TIME if frame.pts is None else frame.pts, None)
                if index is None:
                    continue
                if frame.is_corrupt:
                    raise UnprovenError("a frame that the decoder calls corrupt")
                visit(index, frame)
            if wanted or source.log.num_lines > lines_before:
                raise UnprovenError("frames that did not decode cleanly")

    def _decoded(
        self, source: VideoSource, packets: Iterator[Packet[VideoStream]], targets: Indices
    ) -> Iterator[VideoFrame]:
        context, is_target = source.stream.codec_context, set(targets.tolist())
        segments = iter(plan_segments(self._table.pts, self._entries, targets))
        segment = next(segments)
        try:
            for position, packet in enumerate(packets):
                if position < segment.first:
                    continue
                context.skip_frame = "DEFAULT" if position in is_target else "NONREF"
                yield from source.decode(packet)
                if position == segment.last:
                    yield from source.decode(None)
                    context.flush_buffers()
                    following = next(segments, None)
                    if following is None:
                        return
                    segment = following
        except DecodeError as error:
            raise UnprovenError(error.detail) from None
        finally:
            context.skip_frame = "DEFAULT"


class FullReader:
    """Decodes everything, in the first pass guessing from the packets which frames are wanted.

    `why` says why not sparse, for the record; `fresh` whether the decoder is not used yet.
    """

    def __init__(self, table: PacketTable, *, why: str = "", fresh: bool = True) -> None:
        self.route = f"full: {why}" if why else "full"
        self.damage = ""  # What did not decode, "" if all did
        self.cut = ""  # Why frames are missing at the end, "" if none are known to be
        self._source, self._table, self._fresh = table.source, table, fresh
        self._order: Indices | None = None  # By index, the number of the decoder's frame
        ticks = table.pts[~table.discarded]
        # Where packets carry no usable pts, the n-th frame out is still the n-th on screen.
        has_times = len(np.unique(ticks)) == len(ticks) and not (ticks == NO_TIME).any()
        self._by_time = has_times and not _times_are_made_up(table.source)
        self._ticks = expected_ticks(table)
        # (F,) ascending: expected before the first pass, true after it.
        self.pts_seconds = seconds(self._ticks, table.source)

    def keys(self, indices: Indices) -> Indices:
        """Returns which frames these are in the order of the decoder's output."""
        return indices if self._order is None else self._order[indices]

    def read(self, indices: Indices, visit: Visit) -> None:
        """Visits the frames of these indices; in the first pass perhaps not exactly these.

        Raises:
            DecodeError: Not a single frame, or caps exceeded.
        """
        if self._order is None:
            self._first_pass(indices, visit)
            return
        wanted = set(self._order[indices].tolist())
        with decoding_pass(self._table, reuse=False) as (source, packets):
            frames = Decoding(source, packets, self._table)
            for key, frame in enumerate(islice(frames, max(wanted, default=-1) + 1)):
                if key in wanted:
                    visit(key, frame)

    def _first_pass(self, indices: Indices, visit: Visit) -> None:
        wanted_ticks = set(self._ticks[indices].tolist()) if self._by_time else frozenset()
        wanted_keys = frozenset() if self._by_time else set(indices.tolist())
        out: list[int] = []
        with decoding_pass(self._table, reuse=self._fresh) as (source, packets):
            frames = Decoding(source, packets, self._table)
            for key, frame in enumerate(frames):
                ticks = frame_ticks(frame, key, source)
                out.append(NO_TIME if ticks is None else ticks)
                if key in wanted_keys or ticks in wanted_ticks:
                    visit(key, frame)
        self.damage = frames.damage
        expected_end = self.pts_seconds[-1] if len(self.pts_seconds) else 0.0
        times = _fill_times(out, self._source)
        as_given = output_order_wins(self._source)
        self._order = np.arange(len(times)) if as_given else np.argsort(times, kind="stable")
        self.pts_seconds = seconds(np.sort(times), self._source)
        unseen = expected_end - self.pts_seconds[-1] if out else expected_end
        self.cut = shortfall(self._table, unseen_seconds=unseen)
        if not out:
            raise emptiness(self._table, damage=self.damage)


class Decoding:
    """Iterates over all sound frames of the packets of a file, past damage.

    A decoder that logs an error conceals something: the file counts as damaged even where every
    packet gives a frame. (None of 66 sound real files makes its decoder log one: measured.) What is
    decoded from damage on may show it, so frames are left out until the next one that needs no
    other; `damage` tells why.
    """

    def __init__(
        self, source: VideoSource, packets: Iterator[Packet[VideoStream]], table: PacketTable
    ) -> None:
        self._source, self._packets = source, packets
        self._position = 0
        self._failures = self._in_a_row = self._complaints = self._left_out = 0
        self._reason = "packets that the container calls damaged" if table.corrupt else ""
        # (from this packet on, frames must go back to a key frame at this packet or later)
        self._bounds: list[tuple[int, float]] = sorted(
            [(position, position + 1) for position in table.corrupt]
            + [(start, start) for start in table.starts]
        )
        self._key_frame = -1
        self._waiting: deque[tuple[int, VideoFrame]] = deque()
        # Every packet before this one has given its frame, and those of the set too.
        self._num_seen = 0
        self._seen: set[int] = set()

    @property
    def damage(self) -> str:
        """What did not decode, and how many frames were left out for it; "" if all did."""
        if not self._left_out:
            return self._reason
        reason = self._reason or "a part of the file that no key frame begins"
        return f"{counted(self._left_out, 'frame')} left out that may not be sound: {reason}"

    def __iter__(self) -> Iterator[VideoFrame]:
        for position, packet in enumerate(self._packets):
            packet.opaque, self._position = Mark(position), position
            self._receive(self._decode(packet))
            yield from self._sound()
            if self._in_a_row >= MAX_FAILURES_IN_A_ROW:
                break
        self._receive(self._decode(None))
        yield from self._sound(last=True)

    def _receive(self, frames: list[VideoFrame]) -> None:
        for frame in frames:
            position = frame.opaque.number if isinstance(frame.opaque, Mark) else self._position
            if frame.is_corrupt:
                self._reason = self._reason or "frames that the decoder calls corrupt"
                self._taint(position)
            self._waiting.append((position, frame))
            self._seen.add(position)
            if frame.key_frame:
                self._num_seen = max(self._num_seen, position)
        while self._num_seen in self._seen:
            self._seen.remove(self._num_seen)
            self._num_seen += 1

    def _sound(self, *, last: bool = False) -> Iterator[VideoFrame]:
        """Yields the frames that no damage can have reached.

        A frame is decoded from the packets between the last key frame before it on screen, which
        came out before it, and its own. It waits until all of their frames are out, as only then
        it shows whether the decoder calls one of them corrupt.
        """
        while self._waiting and (
            last
            or self._waiting[0][0] < self._num_seen
            or len(self._waiting) > MAX_REORDERED_FRAMES
        ):
            position, frame = self._waiting.popleft()
            if frame.key_frame:
                self._key_frame = position
            bound = bisect.bisect(self._bounds, (position, math.inf)) - 1
            if bound < 0 or self._key_frame >= self._bounds[bound][1]:
                yield frame
            else:
                self._left_out += 1

    def _taint(self, position: int) -> None:
        if (position, position + 1) not in self._bounds:
            bisect.insort(self._bounds, (position, position + 1))

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        log = self._source.log
        lines_before = log.num_lines
        try:
            frames = self._source.decode(packet)
        except DecodeError as error:
            if error.kind != "decode-error":
                raise
            self._failures += 1
            self._in_a_row += 1
            self._taint(self._position)
            self._seen.add(self._position)
            self._reason = f"packets that do not decode: {self._failures}; {error.detail}"
            return []
        self._in_a_row = 0
        if log.num_lines > lines_before:
            self._complaints += log.num_lines - lines_before
            self._taint(self._position)
            if not self._failures:
                complaints = f"errors the decoder tells of: {self._complaints}; {log.last_line}"
                self._reason = shown(complaints)
        return frames


@contextmanager
def decoding_pass(
    table: PacketTable, *, reuse: bool
) -> Iterator[tuple[VideoSource, Iterator[Packet[VideoStream]]]]:
    """Yields a source whose decoder may be used, and all packets of the video.

    The kept packets and, with `reuse`, the open decoder serve again; otherwise the file is opened
    once more.
    """
    if table.packets is not None and reuse:
        yield table.source, iter(table.packets)
        return
    with open_video(table.source.path, limits=table.source.limits) as again:
        yield again, iter(table.packets) if table.packets is not None else until_error(again)


def until_error(source: VideoSource) -> Iterator[Packet[VideoStream]]:
    """Yields all packets before the container breaks off, if it does (`PacketTable` says why)."""
    with suppress(DecodeError):
        yield from source.demux()


def timed(frames: Iterable[VideoFrame], source: VideoSource) -> Iterator[tuple[float, VideoFrame]]:
    """Yields (seconds, frame) as decoded; a frame without a time follows the one before it."""
    tick, usual = time_base(source.stream), 1 / (header_rate(source.stream) or 25.0)
    now = -usual
    for number, frame in enumerate(frames):
        ticks = frame_ticks(frame, number, source)
        now = now + usual if ticks is None else float(ticks * tick)
        yield now, frame


def frame_ticks(frame: VideoFrame, number: int, source: VideoSource) -> int | None:
    """Returns when the n-th decoded frame is shown, None where it does not say.

    Raises:
        DecodeError: It is one more than the cap allows.
    """
    if number >= source.limits.max_frames:
        raise DecodeError("too-long", f"more than {source.limits.max_frames:,} frames")
    return frame.pts if frame.pts is not None else frame.dts


def expected_ticks(table: PacketTable) -> Ticks:
    """Returns the times that frames ought to come out with, ascending."""
    return np.sort(_fill_times(table.pts[~table.discarded].tolist(), table.source))


def shortfall(table: PacketTable, *, unseen_seconds: float) -> str:
    """Returns why frames are missing at the end, "" if none are known to be.

    All packets of the table went through the decoder; `unseen_seconds` is from the last frame that
    came out to the last one expected.
    """
    read = table.end_seconds or 0.0
    if table.error:
        return f"reading breaks off after {read:.2f} s: {table.error.detail}"
    if missing := missing_seconds(table):
        return f"the file ends after {read:.2f} s, {missing:.2f} s before its header says"
    if unseen_seconds > max(0.5, 0.01 * read):
        return f"no frame comes out of the last {unseen_seconds:.2f} s of packets"
    return ""


def emptiness(table: PacketTable, *, damage: str) -> DecodeError:
    """Returns why there is not a single frame."""
    claim = f"the header claims {table.source.stream.frames} frames"
    facts = f"{claim}, {counted(len(table), 'packet')} are there, none decodes"
    if damage:
        return DecodeError("decode-error", shown(f"{facts}: {damage}"))
    return DecodeError("no-frames", facts)


def seconds(ticks: Ticks, source: VideoSource) -> Seconds:
    """Returns ticks of the stream's clock as seconds, each rounded once."""
    base = time_base(source.stream)
    return ticks.astype(np.float64) * base.numerator / base.denominator


def output_order_wins(source: VideoSource) -> bool:
    """Whether frames are on screen in the order the decoder gives them, whatever their pts say.

    AVI stores no pts. What FFmpeg makes up for them goes with the packets, in decoding order, while
    the frames come in presentation order (measured: sorting the frames by these times makes the
    motion jump). Else only H.264 and HEVC decoders may give frames in a wrong order, and then the
    pts are right.
    """
    return _times_are_made_up(source) or source.stream.codec_context.name not in ("h264", "hevc")


def _times_are_made_up(source: VideoSource) -> bool:
    return source.container.format.name == "avi"


def _fill_times(out: list[int], source: VideoSource) -> Ticks:
    """Returns times without gaps: a missing one is a frame after the one before it."""
    if NO_TIME not in out:
        return np.array(out, np.int64)
    rate = header_rate(source.stream) or 25.0
    step = max(1, round(1 / (rate * float(time_base(source.stream)))))
    filled: list[int] = []
    for ticks in out:
        after = filled[-1] + step if filled else 0
        filled.append(after if ticks == NO_TIME else ticks)
    return np.array(filled, np.int64)
