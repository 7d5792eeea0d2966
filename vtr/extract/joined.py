"""Recordings joined byte by byte: clocks that start anew, and parts that FFmpeg passes over.

A clock also seems to start anew where its 33 bits wrap for the second time, and seems to jump where
FFmpeg takes a new start for a wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A number that is hung on a packet as its `opaque`.

    PyAV finds these by identity and forgets one with its packet, so one object may not serve twice,
    as small integers do.
    """

    number: int


# FFmpeg's own tools take a longer step for a new clock, in the formats where clocks may jump.
JUMP_SECONDS = 10.0


class Clock:
    """Continues the clock of one stream where it starts anew, so that order in the file is kept.

    `second` and `frame` are in ticks, as far as the header tells. With `jumps` a jump ahead is a
    new clock too, as in MPEG's transport and program streams; elsewhere it is a picture that
    stands for long.
    """

    def __init__(self, *, second: float, frame: float, jumps: bool) -> None:
        self.shift = 0
        self.num_restarts = 0
        self._frame = max(1, round(frame))
        # Where the container tells no decoding times, what FFmpeg makes up goes back by a frame.
        self._jitter = max(2 * frame, second / 4)
        self._ahead = max(JUMP_SECONDS * second, 10 * frame) if jumps else float("inf")
        self._latest: int | None = None
        self._end = 0

    def see(self, decode: int | None, show: int | None, duration: int | None) -> int:
        """Returns what to add to the times of the next packet of the file; all in ticks.

        Its decoding time never goes back as long as a clock runs.
        """
        if decode is None:
            return self.shift
        now = decode + self.shift
        show = decode if show is None else show
        back = self._latest is not None and now < self._latest - self._jitter
        if back or (self._latest is not None and now > self._latest + self._ahead):
            self.shift = self._end - show
            self.num_restarts += 1
        self._latest = decode + self.shift
        self._end = max(self._end, show + self.shift + (duration or self._frame))
        return self.shift


_FLV_START, _FLV_TAGS = b"FLV\1", (8, 9, 18)


def second_flv(path: Path) -> int | None:
    """Returns at which byte of an FLV file another one begins, which FFmpeg does not read.

    The tags are walked from the first on: type (1 byte), size (3), 7 more, data, and the size of
    the whole tag again (4).
    """
    with path.open("rb") as file:
        position = int.from_bytes(file.read(9)[5:]) + 4
        file.seek(position)
        while tag := file.read(11):
            if tag[0] not in _FLV_TAGS:
                return position if tag.startswith(_FLV_START) else None
            position += 11 + int.from_bytes(tag[1:4]) + 4
            file.seek(position)
    return None
