r"""The one way out for text of others: ids, names, captions, categories and error texts.

A terminal, a spreadsheet, a page and a TREC file each take some letters for orders. One rule says
which letters are none: they are shown as Python would write them (`\n`, `\x1b`, `\u202e`).
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

MAX_SHOWN = 600
SEPARATOR = "|"
EMPTY_ID = "%"
# Lone surrogates and NUL: no UTF-8 file and no HDF5 string can hold them.
_UNDECODABLE = re.compile("[\0\ud800-\udfff]")
# Persian and Hindi words and emoji need the joiners, right-to-left captions the marks; they turn
# nothing around beyond their neighbours.
_KEPT = frozenset("\u200c\u200d\u200e\u200f")
# What a spreadsheet reads as a formula, in full width too; leading tabs and returns are escaped. An
# apostrophe may be our own guard's.
_FORMULA = re.compile(r"['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def escape_undecodable(text: str) -> str:
    r"""Returns `text` with lone surrogates and NUL, which no store can hold, as `\x..` or `\u....`.

    Surrogates that stand for a raw byte of a file name become that byte.
    """
    return _UNDECODABLE.sub(_escaped, text)


def is_undecodable(text: str) -> bool:
    """Returns whether `text` holds something that `escape_undecodable` would change."""
    return _UNDECODABLE.search(text) is not None


def json_values(document: Any) -> Any:
    r"""Returns a document for JSON: tuples as lists, paths as text, nothing undecodable.

    >>> json_values({"caf\udce9": (Path("a"), 1)})
    {'caf\\xe9': ['a', 1]}
    """
    if isinstance(document, Mapping):
        return {escape_undecodable(str(key)): json_values(one) for key, one in document.items()}
    if isinstance(document, list | tuple):
        return [json_values(one) for one in document]
    return escape_undecodable(str(document)) if isinstance(document, str | Path) else document


def first_few(names: Iterable[str], most: int) -> str:
    """Returns the first few names in one line, `printable`, and how many more there are.

    >>> first_few("abcd", 3)
    'a, b, c and 1 more'
    """
    listed = list(names)
    shown = ", ".join(map(printable, listed[:most]))
    return f"{shown} and {len(listed) - most:,} more" if len(listed) > most else shown


def printable(text: object) -> str:
    r"""Returns a text or a path safe for one line of a terminal: what is no letter is escaped.

    >>> print(printable("two\nlines \x1b[31m"))
    two\nlines \x1b[31m
    """
    safe = escape_undecodable(str(text))
    return safe if safe.isprintable() else "".join(map(_letter, safe))


def screen(text: str) -> str:
    r"""Returns lines of our own safe for a terminal; names in them have been through `printable`.

    >>> print(screen("one\ntwo \x1b[31m"))
    one
    two \x1b[31m
    """
    return "\n".join(map(printable, text.split("\n")))


def shown(text: object, limit: int = MAX_SHOWN) -> str:
    r"""Returns a text as one line of limited length: blanks and line ends become one blank.

    >>> shown("two\nlines\x00 \ud800")
    'two lines\\x00 \\ud800'
    >>> shown("abcdef", 4)
    'abc…'
    """
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def first_line(error: BaseException) -> str:
    r"""Returns the first line of an error's text, or its class where it says nothing.

    >>> first_line(ValueError("\nno number\nat all")), first_line(MemoryError())
    ('no number', 'MemoryError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def escaped(text: object, limit: int = MAX_SHOWN) -> str:
    """Returns `shown(text)` as HTML text, safe between tags and within quoted attributes.

    >>> escaped("</script><b>")
    '&lt;/script&gt;&lt;b&gt;'
    """
    return html.escape(shown(text, limit), quote=True)


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Returns a table as CSV whose texts no spreadsheet takes for formulas.

    Args:
        header: Names of the columns.
        rows: Texts, which are `printable` and get an apostrophe before what begins like a formula;
            numbers, written as they are; and sequences of either, joined by "|".
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue().encode()


def csv_text(cell: str) -> str:
    r"""Returns the text of a cell that `csv_table` wrote, or as it would be without its guard.

    >>> csv_text("'=1+1"), csv_text("'tis"), csv_text("=1+1")
    ('=1+1', "'tis", '=1+1')
    """
    text = printable(cell)
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def escape_id(name: str) -> str:
    """Returns an id as one printable ASCII word, for TREC files.

    >>> escape_id("my video é"), escape_id(""), escape_id("video7010")
    ('my%20video%20%C3%A9', '%', 'video7010')
    """
    return quote(name, safe="", errors="surrogatepass") if name else EMPTY_ID


def _cell(value: object) -> object:
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if _FORMULA.match(text) else text
    if isinstance(value, Sequence):
        joined = SEPARATOR.join(map(str, value))
        return joined if all(isinstance(part, float) for part in value) else _cell(joined)
    return value


def _letter(letter: str) -> str:
    if letter.isprintable() or letter in _KEPT or unicodedata.category(letter) == "Zs":
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # how Python spells the byte code - 0xDC00 of a file name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
