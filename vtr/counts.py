"""Counts for people: "1 file", "2 files"."""

from __future__ import annotations

import math
from numbers import Integral


def count_text(number: object) -> str:
    """Returns a whole number for people, or "?" where a document has none.

    >>> count_text(59800), count_text(None)
    ('59,800', '?')
    """
    return f"{number:,}" if isinstance(number, Integral) else "?"


def counted(number: object, noun: str, several: str = "") -> str:
    """Returns a number with its noun, and the verb where one follows.

    >>> counted(1, "query"), counted(2, "query"), counted(0, "video")
    ('1 query', '2 queries', '0 videos')
    >>> counted(1, "shard is", "shards are"), counted(2, "shard is", "shards are")
    ('1 shard is', '2 shards are')
    """
    several = several or (f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s")
    return f"{count_text(number)} {noun if number == 1 else several}"


def percent(share: float) -> str:
    """Returns a share for people, cut and not rounded: no figure seems to reach what it misses.

    >>> percent(0.976), percent(1)
    ('97%', '100%')
    """
    return f"{math.floor(100 * share + 1e-9)}%"


def human_bytes(count: float) -> str:
    """Returns a size for people.

    >>> human_bytes(1_234_567)
    '1.2 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Returns a time span for people.

    >>> human_seconds(7384)
    '2 h 03 min'
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
