"""Making text from anywhere safe to show: ids, captions and categories are nobody's markup."""

from __future__ import annotations

import html

MAX_SHOWN = 600
# Unprintable for Python, yet part of what is written: Persian and Hindi words and emoji need the
# joiners, right-to-left captions the marks. They turn nothing around beyond their neighbours.
_KEPT = frozenset("\u200c\u200d\u200e\u200f")


def shown(text: object, limit: int = MAX_SHOWN) -> str:
    r"""Returns a text fit for a line of a page: no control characters, no end of its own.

    >>> shown("two\nlines\x00 \ud800")
    'two lines� �'
    >>> shown("abcdef", 4)
    'abc…'
    """
    one_line = " ".join(str(text).split())
    clean = "".join(
        c if c.isprintable() or c in _KEPT else "\N{REPLACEMENT CHARACTER}" for c in one_line
    )
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


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


def escaped(text: object, limit: int = MAX_SHOWN) -> str:
    """Returns `shown(text)` as HTML text, safe between tags and within quoted attributes.

    >>> escaped("</script><b>")
    '&lt;/script&gt;&lt;b&gt;'
    """
    return html.escape(shown(text, limit), quote=True)


def isolated(text: object, limit: int = MAX_SHOWN) -> str:
    """Returns the escaped text in an element that keeps its writing direction to itself."""
    return f"<bdi>{escaped(text, limit)}</bdi>"
