"""What H.264 and HEVC packets say about themselves, as far as leaving some out needs it.

Nothing is decoded here: the length-prefixed units (NAL units) of a packet are walked and the
first bytes of each are read. Sources: ITU-T H.264 §7.3.1, §7.3.2.1.1, §7.4.1; H.265 §7.3.1,
§7.3.2.2, §7.3.6.1; ISO/IEC 14496-15 for the `avcC` and `hvcC` records of MP4 and Matroska.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


class UnprovenError(Exception):
    """This stream uses something for which leaving packets out is not known to be exact."""


@dataclass(frozen=True)
class StreamHeader:
    """What the container's codec record says of a whole stream."""

    codec: str  # "h264" or "hevc"
    length_bytes: int  # Size of the length before every unit
    parameter_sets: frozenset[bytes]  # As stored; one repeated in a packet must be among them

    def is_entry(self, packet: memoryview) -> bool:
        """Checks one packet; returns whether decoding can start at it.

        From an IDR picture, or an HEVC clean random access (CRA) picture, on, every picture that is
        on screen after it decodes as if nothing had come before.

        Raises:
            UnprovenError: The packet is not exactly one whole progressive picture of one layer,
                changes a parameter set, or holds units of another kind.
        """
        look = _h264_unit if self.codec == "h264" else _hevc_unit
        entries: list[bool] = []
        for unit in _units(packet, self.length_bytes):
            begins, is_entry = look(unit, self.parameter_sets)
            if begins is None:
                continue
            if begins == bool(entries):
                raise UnprovenError("packets that do not hold one picture each")
            entries.append(is_entry)
        if not entries:
            raise UnprovenError("packets without a picture")
        return entries[0]


def read_header(codec: str, extradata: bytes | None) -> StreamHeader:
    """Reads the codec record of an H.264 or HEVC stream.

    Raises:
        UnprovenError: Another codec, no such record (MPEG-TS, AVI, in-band parameter sets), field
            or frame-field coding, or HEVC with temporal or spatial layers.
    """
    if codec not in ("h264", "hevc"):
        raise UnprovenError(f"codec {codec}")
    record = extradata or b""
    try:
        return _read_avcc(record) if codec == "h264" else _read_hvcc(record)
    except IndexError:
        raise UnprovenError("a codec record that cannot be read") from None


def _units(packet: memoryview, length_bytes: int) -> Iterator[memoryview]:
    position, size = 0, len(packet)
    while position < size:
        start = position + length_bytes
        position = start + int.from_bytes(packet[position:start], "big")
        if position > size or position <= start:
            raise UnprovenError("packets whose units do not add up")
        yield packet[start:position]


# Of H.264: supplemental information, access unit delimiter, ends of sequence and stream (what
# follows them is an IDR picture), filler.
_H264_HARMLESS = (6, 9, 10, 11, 12)
_H264_PARAMETER_SETS = (7, 8)
_H264_SLICE, _H264_IDR = 1, 5


def _h264_unit(unit: memoryview, known: frozenset[bytes]) -> tuple[bool | None, bool]:
    """(whether the unit begins a picture, None for units that are no slice; whether an entry)."""
    kind = unit[0] & 31
    if kind in (_H264_SLICE, _H264_IDR):
        # first_mb_in_slice is Exp-Golomb coded: 0 is a single 1 bit.
        return len(unit) > 1 and unit[1] >= 0x80, kind == _H264_IDR
    if kind in _H264_HARMLESS or (kind in _H264_PARAMETER_SETS and bytes(unit) in known):
        return None, False
    raise UnprovenError(f"H.264 units of type {kind}")


# Of HEVC: access unit delimiter, filler, supplemental information before and after.
_HEVC_HARMLESS = (35, 38, 39, 40)
_HEVC_PARAMETER_SETS = (32, 33, 34)
_HEVC_ENTRIES = (19, 20, 21)  # IDR with and without leading pictures, CRA
# Not the broken-link pictures of a splice: the decoder drops pictures after them.
_HEVC_SLICES = (*range(10), *_HEVC_ENTRIES)


def _hevc_unit(unit: memoryview, known: frozenset[bytes]) -> tuple[bool | None, bool]:
    """(whether the unit begins a picture, None for units that are no slice; whether an entry)."""
    if len(unit) < 3:
        raise UnprovenError("HEVC units without a header")
    kind = unit[0] >> 1 & 63
    if unit[0] & 1 or unit[1] != 1:
        raise UnprovenError("HEVC layers")
    if kind in _HEVC_SLICES:
        # The second bit of these slices may ask to drop pictures that still wait for output.
        drops_earlier = bool(unit[2] & 0x40)
        return unit[2] >= 0x80, kind in _HEVC_ENTRIES and not drops_earlier
    if kind in _HEVC_HARMLESS or (kind in _HEVC_PARAMETER_SETS and bytes(unit) in known):
        return None, False
    raise UnprovenError(f"HEVC units of type {kind}")


def _read_avcc(record: bytes) -> StreamHeader:
    if record[0] != 1:
        raise UnprovenError("H.264 without a codec record")
    sets: list[bytes] = []
    position = 5
    for mask in (31, 255):
        more, position = _read_sets(record, position + 1, record[position] & mask)
        sets += more
    sequence = [unit for unit in sets if unit[0] & 31 == 7]
    if not sequence or not all(map(_frame_mbs_only, sequence)):
        raise UnprovenError("H.264 with field coding")
    return StreamHeader("h264", (record[4] & 3) + 1, frozenset(sets))


def _read_hvcc(record: bytes) -> StreamHeader:
    if record[0] != 1:
        raise UnprovenError("HEVC without a codec record")
    sets: list[bytes] = []
    position = 23
    for _ in range(record[22]):
        count = int.from_bytes(record[position + 1 : position + 3], "big")
        more, position = _read_sets(record, position + 3, count)
        sets += more
    sequence = [_unescape(unit) for unit in sets if unit[0] >> 1 & 63 == 33]
    if not sequence:
        raise UnprovenError("HEVC with parameter sets in the packets only")
    for unit in sequence:
        # After the unit's header: set id (4 bits), sub-layers - 1 (3), nesting (1); then the
        # profile: 5 bytes, then progressive_source, interlaced_source.
        if unit[2] >> 1 & 7:
            raise UnprovenError("HEVC temporal sub-layers")
        if unit[8] & 0x40:
            raise UnprovenError("HEVC with field coding")
    return StreamHeader("hevc", (record[21] & 3) + 1, frozenset(sets))


def _read_sets(record: bytes, position: int, count: int) -> tuple[list[bytes], int]:
    sets = []
    for _ in range(count):
        size = int.from_bytes(record[position : position + 2], "big")
        position += 2
        if not size or position + size > len(record):
            raise IndexError
        sets.append(record[position : position + size])
        position += size
    return sets, position


def _unescape(unit: bytes) -> bytes:
    """Removes the bytes that keep start codes from appearing inside a unit."""
    return unit.replace(b"\0\0\3", b"\0\0")


class _Bits:
    """Reads bits and Exp-Golomb numbers, most significant first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """Returns the next `count` bits as a number; raises IndexError past the end."""
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def skip_golombs(self, count: int) -> None:
        for _ in range(count):
            self.golomb()

    def signed_golomb(self) -> int:
        number = self.golomb()
        return (number + 1) // 2 if number % 2 else -(number // 2)


# Profiles whose sequence parameter set tells the chroma format (H.264 §7.3.2.1.1).
_CHROMA_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


def _frame_mbs_only(sequence_set: bytes) -> bool:
    """Whether an H.264 sequence parameter set rules out fields: frame_mbs_only_flag."""
    bits = _Bits(_unescape(sequence_set)[1:])
    profile = bits.read(8)
    bits.read(16)
    bits.golomb()
    if profile in _CHROMA_PROFILES:
        _skip_chroma(bits)
    bits.golomb()
    order_type = bits.golomb()
    if order_type == 0:
        bits.golomb()
    elif order_type == 1:
        bits.read(1)
        bits.skip_golombs(2)
        bits.skip_golombs(bits.golomb())
    bits.golomb()
    bits.read(1)
    bits.skip_golombs(2)
    return bool(bits.read(1))


def _skip_chroma(bits: _Bits) -> None:
    chroma_format = bits.golomb()
    if chroma_format == 3:
        bits.read(1)
    bits.skip_golombs(2)
    bits.read(1)
    if bits.read(1):
        for index in range(12 if chroma_format == 3 else 8):
            if bits.read(1):
                _skip_scaling_list(bits, 16 if index < 6 else 64)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last
