"""Reading a file's packets without decoding, and the proof that some may be left out.

A sparse fetch decodes only what the wanted frames need: it skips groups of pictures without a
wanted frame, stops each after its last one, and tells the decoder to drop pictures that nothing
refers to. `prove_sparse` says for which files this gives, bit for bit, the frames of a full decode;
everything else is decoded in full.

Why it is exact there. An IDR picture empties the reference buffer and restarts the picture order:
decoding starts there as if nothing came before. At an HEVC CRA picture the same holds for all that
is on screen after it; the leading pictures before it on screen are decoded from the entry before.
H.264 pictures with nal_ref_idc 0 and HEVC sub-layer non-reference pictures of the only sub-layer
are no other picture's reference, and the counters that do carry over (frame_num, picture order
count) are derived from reference pictures.
Parameter sets never change, and the decoder's reordering delay is at least what the time stamps
need, so that it never drops a picture as late. Damage that the decoder tells of, or that costs a
wanted frame, ends the attempt; only damage that no decoder notices can make a difference.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vtr.errors import DecodeError
from vtr.extract.bitstream import UnprovenError, read_header
from vtr.extract.container import VideoSource
from vtr.extract.joined import Mark, second_flv
from vtr.extract.timeline import frame_seconds

Ticks = NDArray[np.int64]

NO_TIME = np.iinfo(np.int64).min
# Demuxers that estimate the duration from the data itself: it does not show what is missing.
_ESTIMATED = frozenset({"mpeg", "mpegts", "mpegvideo", "h264", "hevc", "m4v"})
# Of transport streams: bytes from a packet to the next, and before its own: plain, with time
# stamps (M2TS), with parity.
_LAYOUTS = ((188, 0), (192, 4), (204, 0))
_SYNC, _PAYLOAD, _SCRAMBLED = 0x47, 0x10, 0xC0
_PACKETS_AT_ONCE = 1 << 14
# A few packets may say so because they are damaged.
_LEAST_SHARE = 0.05


class PacketTable:
    """The packets of a video stream in decoding order, as the container tells them.

    The whole file is read once without decoding.

    Raises:
        DecodeError: More packets than the cap, or encrypted ones. A container that breaks off is
            no exception here.
    """

    def __init__(self, source: VideoSource) -> None:
        self.source = source
        self.packets: list[Packet[VideoStream]] | None = []  # None: they exceed the memory budget
        self.starts: list[int] = []  # Packets before which the clock starts anew (joined files)
        # Why packets must not be left out as far as single packets tell; "" if nothing.
        self.unproven = ""
        self._pts: list[int] = []
        self._discarded: list[bool] = []
        self._is_entry: list[bool] = []
        self._corrupt: list[int] = []
        self._kept_bytes = 0
        self._end_ticks: dict[int, int] = {}  # stream -> its latest end
        context = source.stream.codec_context
        try:
            self._header = read_header(context.name, context.extradata)
        except UnprovenError as reason:
            self.unproven = str(reason)
        self.error = self._read()  # Where the container breaks off with an error
        self.pts = np.array(self._pts, np.int64)  # (P,) ticks, `NO_TIME` where the packet has none
        # (P,) decode to nothing: an edit list cuts them off.
        self.discarded = np.array(self._discarded, np.bool_)
        # (P,) decoding can start there; False after an `unproven` packet.
        self.is_entry = np.array(self._is_entry, np.bool_)

    def __len__(self) -> int:
        return len(self._pts)

    @property
    def corrupt(self) -> list[int]:
        """What the container calls damaged, and its successor: the flag may come early.

        Where files are joined, only the transport stream's counter of packets starts anew.
        """
        joins = {start - back for start in self.starts for back in (1, 2)}
        flagged = [position for position in self._corrupt if position not in joins]
        return sorted({*flagged, *(position + 1 for position in flagged)})

    @property
    def end_seconds(self) -> float | None:
        """Latest end of a packet of any stream that was read, if any tells."""
        streams = self.source.container.streams
        ends = (end * time_base(streams[index]) for index, end in self._end_ticks.items())
        return max(map(float, ends), default=None)

    def _read(self) -> DecodeError | None:
        source, error = self.source, None
        try:
            for packet in source.demux(all_streams=_claims_whole_file_only(source)):
                self._add(packet)
        except DecodeError as broken:
            if broken.kind in ("too-long", "encrypted"):
                raise
            error = broken
        of_transport = source.container.format.name == "mpegts"
        if of_transport and _is_scrambled(source.path, source.stream.id):
            raise DecodeError("encrypted", "packets of the transport stream are scrambled")
        return error or _unread(source)

    def _add(self, packet: Packet[VideoStream]) -> None:
        if packet.pts is not None:
            end = packet.pts + (packet.duration or 0)
            index = packet.stream_index
            self._end_ticks[index] = max(end, self._end_ticks.get(index, end))
        if packet.stream_index == self.source.stream.index:
            self._add_video(packet)

    def _add_video(self, packet: Packet[VideoStream]) -> None:
        limits = self.source.limits
        if len(self) >= limits.max_frames:
            cap = f"more than {limits.max_frames:,} frames, which is the cap"
            raise DecodeError("too-long", cap)
        if packet.has_sidedata("encryption_info"):
            raise DecodeError("encrypted", f"packet {len(self)} carries encryption information")
        if isinstance(packet.opaque, Mark) and packet.opaque.number > len(self.starts):
            self.starts.append(len(self))
        if packet.is_corrupt:
            self._corrupt.append(len(self))
        self._pts.append(NO_TIME if packet.pts is None else packet.pts)
        self._discarded.append(packet.is_discard)
        self._is_entry.append(self._may_start(packet))
        if self.packets is not None:
            self._kept_bytes += packet.size
            self.packets.append(packet)
            if self._kept_bytes > limits.max_packet_bytes:
                self.packets = None

    def _may_start(self, packet: Packet[VideoStream]) -> bool:
        if self.unproven:
            return False
        try:
            if packet.is_corrupt:
                raise UnprovenError("damaged packets")
            if self.starts:
                raise UnprovenError("a clock that starts anew")
            if packet.is_discard:
                raise UnprovenError("packets that an edit list cuts off")
            if packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change"):
                raise UnprovenError("parameters that change midway")
            return self._header.is_entry(memoryview(packet))
        except UnprovenError as reason:
            self.unproven = str(reason)
        return False


def _unread(source: VideoSource) -> DecodeError | None:
    """Returns what FFmpeg passes over in a file without a word."""
    start = second_flv(source.path) if source.container.format.name == "flv" else None
    reason = f"another FLV file begins at byte {start}, which FFmpeg does not read"
    return None if start is None else DecodeError("decode-error", reason)


def _is_scrambled(path: Path, pid: int) -> bool:
    """Whether the packets of one stream of a transport stream say that they are scrambled.

    FFmpeg drops such packets, or reads them as if they were clear. `pid` is the stream's packet
    identifier. Source: ISO/IEC 13818-1 §2.4.3.2, transport_scrambling_control.
    """
    num_packets = num_scrambled = 0
    with path.open("rb") as file:
        start = file.read(512)
        size, before = next((layout for layout in _LAYOUTS if _fits(start, *layout)), (0, 0))
        file.seek(0)
        while size and len(block := file.read(size * _PACKETS_AT_ONCE)) >= size:
            rows = np.frombuffer(block, np.uint8, len(block) // size * size).reshape(-1, size)
            sync, high, low, control = rows[:, before : before + 4].T.astype(int)
            ours = (sync == _SYNC) & ((high & 31) << 8 | low == pid) & (control & _PAYLOAD > 0)
            num_packets += int(ours.sum())
            num_scrambled += int((ours & (control & _SCRAMBLED > 0)).sum())
    return num_scrambled > _LEAST_SHARE * num_packets


def _fits(start: bytes, size: int, before: int) -> bool:
    return all(start[at : at + 1] in (b"", bytes([_SYNC])) for at in (before, before + size))


def missing_seconds(table: PacketTable) -> float:
    """Returns by how much the packets fall short of the duration the header claims, in seconds.

    A Matroska file that is cut off ends without any error; only this tells. Sound files fall short
    by less than a tenth of a second; 0.0 is returned within half a second, 1 % of the claim or two
    frames.
    """
    stream, container = table.source.stream, table.source.container
    if container.format.name in _ESTIMATED:
        return 0.0
    start = 0.0
    if not _claims_whole_file_only(table.source):
        claim = float((stream.duration or 0) * time_base(stream))
        start = float((stream.start_time or 0) * time_base(stream))
    elif container.duration:
        claim = container.duration / av.time_base
    else:
        return 0.0
    end = 0.0 if table.end_seconds is None else table.end_seconds
    missing = claim - (end - start)
    if stream.frames and container.format.name.startswith("mov,"):
        missing = _missing_of_index(stream, len(table))
    frame = frame_seconds(np.sort(table.pts).astype(np.float64) * float(time_base(stream)))
    return missing if missing > max(0.5, 0.01 * claim, 2 * frame) else 0.0


def _missing_of_index(stream: VideoStream, num_packets: int) -> float:
    """Returns how many seconds of an MP4's index were not read.

    The duration in its header is that of all the media, while FFmpeg passes over what an edit list
    cuts off: only the index, from which that is gone, tells what ought to come.
    """
    entries = stream.index_entries
    if num_packets >= len(entries):
        return 0.0
    last_read = entries[max(0, num_packets - 1)].timestamp
    return float((entries[len(entries) - 1].timestamp - last_read) * time_base(stream))


def prove_sparse(table: PacketTable) -> NDArray[np.int64]:
    """Returns the packets at which decoding may start, the first of them 0.

    Raises:
        UnprovenError: Leaving packets out is not known to be exact for this file, and why.
    """
    if table.unproven:
        raise UnprovenError(table.unproven)
    if table.error or missing_seconds(table):
        raise UnprovenError("a file that breaks off")
    pts = table.pts
    if not len(pts) or not table.is_entry[0] or pts[0] != pts.min():
        raise UnprovenError("the first picture is not one to start at")
    if (pts == NO_TIME).any() or len(np.unique(pts)) < len(pts):
        raise UnprovenError("missing or repeated time stamps")
    # FFmpeg's H.264 decoder drops a picture that it should have shown earlier. It never comes to
    # that if it waits for at least as many pictures as the time stamps are out of order.
    context = table.source.stream.codec_context
    if context.name == "h264" and reorder_depth(pts) > context.reorder_depth:
        raise UnprovenError("reordering deeper than the decoder expects")
    latest_before = np.concatenate(([NO_TIME], np.maximum.accumulate(pts)[:-1]))
    return np.flatnonzero((latest_before < pts) & table.is_entry)


def reorder_depth(pts: Ticks) -> int:
    """Returns the most pictures that come before another in the file and after it on screen.

    >>> reorder_depth(np.array([0, 3, 1, 2, 6, 4, 5])), reorder_depth(np.array([0, 4, 2, 1, 3]))
    (1, 2)
    """
    seen: list[int] = []
    depth = 0
    for ticks in pts.tolist():
        place = bisect.bisect(seen, ticks)
        depth = max(depth, len(seen) - place)
        seen.insert(place, ticks)
    return depth


@dataclass(frozen=True)
class Segment:
    """Packets to decode in one go: positions first..last, both included."""

    first: int
    last: int


def plan_segments(
    pts: Ticks, entries: NDArray[np.int64], targets: NDArray[np.int64]
) -> list[Segment]:
    """Returns which packets a sparse fetch must decode: disjoint segments, each from an entry on.

    A target is decoded from the last entry that is before it both in the file and on screen. The
    first packet of the file is always decoded: the encoder's name in it switches work-arounds of
    the decoder.

    Args:
        pts: (P,) ticks of all packets, in decoding order.
        entries: (E,) ascending positions where decoding may start, the first of them 0.
        targets: (T,) positions of the wanted packets, T >= 1.
    """
    targets = np.sort(targets)
    in_file = np.searchsorted(entries, targets, side="right")
    on_screen = np.searchsorted(pts[entries], pts[targets], side="right")
    starts = entries[np.maximum(np.minimum(in_file, on_screen) - 1, 0)]
    segments = [Segment(0, 0)]
    for first, last in sorted(zip(starts.tolist(), targets.tolist(), strict=True)):
        if first <= segments[-1].last:
            first, last = segments[-1].first, max(last, segments[-1].last)
            segments.pop()
        segments.append(Segment(first, last))
    return segments


def _claims_whole_file_only(source: VideoSource) -> bool:
    """Whether the header gives a duration for the file but none for the video (Matroska, FLV).

    There the video may rightly end before the sound does, so the sound's end is needed too.
    """
    return not source.stream.duration


def time_base(stream: Stream) -> Fraction:
    """Returns how many seconds a tick of the stream lasts."""
    base = stream.time_base
    return Fraction(base.numerator, base.denominator) if base else Fraction(1)
