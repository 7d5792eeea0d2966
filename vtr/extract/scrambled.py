"""Scrambled transport streams, whose packets FFmpeg drops, or reads as if they were clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Bytes from a packet to the next, and before its own: plain, with time stamps (M2TS), with parity.
_LAYOUTS = ((188, 0), (192, 4), (204, 0))
_SYNC, _PAYLOAD, _SCRAMBLED = 0x47, 0x10, 0xC0
_PACKETS_AT_ONCE = 1 << 14
# A few packets may say so because they are damaged.
_LEAST_SHARE = 0.05


def is_scrambled(path: Path, pid: int) -> bool:
    """Whether the packets of one stream of a transport stream say that they are scrambled.

    Source: ISO/IEC 13818-1 §2.4.3.2, transport_scrambling_control.

    Args:
        path: The file; read from end to end.
        pid: The stream's packet identifier.
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
