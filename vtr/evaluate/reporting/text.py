"""Counts for people."""

from __future__ import annotations


def count_text(number: object) -> str:
    """Returns a whole number for people, or "?" where a document has none.

    >>> count_text(59800), count_text(None)
    ('59,800', '?')
    """
    return f"{number:,}" if isinstance(number, int) else "?"


def counted(number: object, noun: str) -> str:
    """Returns a number with its noun.

    >>> counted(1, "query"), counted(2, "query"), counted(0, "video")
    ('1 query', '2 queries', '0 videos')
    """
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count_text(number)} {noun if number == 1 else several}"
