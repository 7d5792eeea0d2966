"""Annotation files: found by name, read as text, JSON, CSV, lists or pickles, with helpful errors.

Real files carry a byte order mark, CRLF, or end in the middle; every reader of a dataset goes
through here, so that each of these is met once. What cannot be taken is a DatasetError that names
the file, the place in it and what was expected.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import pickle
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from vtr.counts import counted
from vtr.errors import DatasetError
from vtr.foreign import first_few, printable
from vtr.pickled import require_light_keys

MAX_DEPTH = 3
"""How many folders below the given one are searched: archives unpack into folders of their own."""

Row = TypeVar("Row")
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_LONGEST_FIELD = 1 << 24  # csv's own limit of 131,072 would refuse a caption of 10,000 words
_MOST_PICKLE_BYTES = 1 << 30  # MSVD's, the largest that is published, has 5 MB
# What a damaged or hostile stream makes the interpreter of opcodes raise.
_BROKEN_PICKLE = (
    pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, ImportError, LookupError,
    MemoryError, TypeError, ValueError,
)  # fmt: skip


# ---- finding


def require_documents(
    folder: Path, patterns: Sequence[str], *, dataset: str, what: str
) -> list[Path]:
    """Returns the files of `find_documents`, at least one."""
    if files := find_documents(folder, patterns):
        return files
    there = first_few((path.name for path in _walk(folder)), 8)
    raise DatasetError(
        f"{dataset}: no {what} in {printable(folder)}. Looked for {' or '.join(patterns)}, "
        f"there and in folders below it; found {there or 'no files at all'}. "
        "Name the right folder with --annotations"
    )


def find_documents(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Returns the files whose name fits one of `patterns`, the best first.

    That is in the order of the patterns, names with `*` whose case does not matter, then the
    shallowest first, then by name. Folders below are searched too, `MAX_DEPTH` deep, but for hidden
    ones; a name that occurs in several is given once.
    """
    paths = list(_walk(folder))
    fitting: dict[str, Path] = {}
    for pattern in patterns:
        for path in paths:
            if fnmatchcase(path.name.lower(), pattern.lower()):
                fitting.setdefault(path.name, path)
    return list(fitting.values())


def _walk(folder: Path) -> Iterator[Path]:
    level = [folder]
    for _ in range(MAX_DEPTH + 1):
        files: list[Path] = []
        below: list[Path] = []
        for place in level:
            try:
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except OSError:
                continue
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            files += [Path(entry.path) for entry in visible if entry.is_file()]
            below += [Path(entry.path) for entry in visible if entry.is_dir()]
        yield from files
        level = below


# ---- text, JSON, lists


def read_text(path: Path) -> str:
    """Returns a file's text, without a byte order mark; line ends are as they stand.

    UTF-16 and UTF-32 are read where a byte order mark says so, as spreadsheets write them.
    """
    try:
        content = path.read_bytes()
        text = content.decode(
            next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8-sig")
        )
    except OSError as error:
        raise DatasetError(f"cannot read {printable(path)}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{printable(path)} is not UTF-8 text: {error.reason} at byte {error.start:,}. "
            'Save it as UTF-8 (Excel: as "CSV UTF-8"; a shell: iconv -f cp1252 -t utf-8, or '
            "whatever it was written in)"
        ) from None
    if not text.strip():
        raise _nothing_in(path, content)
    if "\0" in text:
        raise DatasetError(
            f"{printable(path)} is not UTF-8 text: it holds NUL, as UTF-16 without a byte "
            "order mark does. Save it as UTF-8"
        )
    return text


def _nothing_in(path: Path, content: bytes) -> DatasetError:
    what = f"holds {counted(len(content), 'byte')}, all blank" if content else "is empty"
    return DatasetError(
        f"{printable(path)} {what}: nothing is annotated in it. A download or copy that failed "
        "looks like this: fetch it again, or take the file away"
    )


def text_lines(text: str) -> list[str]:
    """Returns the lines of a text; unlike str.splitlines, U+2028 and its like stay in a caption."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_json(path: Path) -> Any:
    """Returns a JSON document; the words NaN and Infinity are taken as Python writes them."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _KeyTwiceError as error:
        raise DatasetError(
            f"{printable(path)} has the key {printable(error)!r:.80} twice in one "
            "object; one of the two values would be lost. Give every key once, several captions "
            "as a list"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{printable(path)} is not whole JSON ({error}; the file has {len(text):,} "
            "characters). A download that was cut short looks like this: fetch it again"
        ) from None


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (line number, document) of a JSONL file; empty lines are skipped."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line, object_pairs_hook=_object)
        except _KeyTwiceError as error:
            fault = f"the key {printable(error)!r:.80} occurs twice in one object"
        except (ValueError, RecursionError) as error:
            fault = f"not one JSON document ({error})"
        else:
            yield number, document
            continue
        raise DatasetError(f"{printable(path)}, line {number}: {fault}")


class _KeyTwiceError(Exception):
    """An object names a key twice, of which json.loads would keep the last without a word."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise _KeyTwiceError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return document


def require_mapping(document: object, path: Path, *, expected: str) -> Mapping[str, Any]:
    """Returns `document` where it is a JSON object."""
    if isinstance(document, Mapping):
        return document
    kind = {list: "list", str: "text", type(None): "null"}.get(type(document), "number")
    raise DatasetError(f"{printable(path)} holds a {kind}; expected an object {expected}")


def records(
    document: Any, path: Path, *, expected: str, key: str = "", keys: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (place, record) of a list of JSON objects, each of which must have `keys`.

    Where `key` is given the document is an object that holds the list under that name. `expected`
    is the layout, for errors.
    """
    entries = document.get(key) if key else document
    if not isinstance(entries, list):
        fault = f"has no list {key!r}; expected" if key else "must hold"
        raise DatasetError(f"{printable(path)} {fault} {expected}")
    start, end = f"{path}: entry", f" of {key!r}" if key else ""
    needed = f" with {' and '.join(keys)}" if keys else ""
    required = set(keys)
    for number, record in enumerate(entries):
        place = f"{start} {number}{end}"
        if not isinstance(record, dict) or not required <= record.keys():
            raise DatasetError(f"{place} must be an object{needed}, is {record!r:.120}")
        yield place, record


def read_list(path: Path) -> tuple[str, ...]:
    """Returns the ids of a text file with one id a line, in NFC."""
    lines = (line.strip() for line in read_text(path).splitlines())
    return unique(path, (identity(line, place=str(path)) for line in lines if line))


# ---- tables


def read_table(path: Path, *, columns: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Like `parse_table`, of a file whose fields are parted by commas."""
    return parse_table(read_text(path), path, columns=columns, delimiter=",")


def parse_table(
    text: str, path: Path, *, columns: Iterable[str], delimiter: str
) -> list[tuple[int, dict[str, str]]]:
    """Returns (line number, column to text) of every row of a CSV text with a header.

    The header must name `columns`; others are kept as well. Fields parted by tabs may hold quotes
    that enclose nothing.
    """
    rows = (_plain_rows(text) if delimiter == "\t" else None) or [*_rows(text, path, delimiter)]
    header = [name.strip() for name in rows[0][1]] if rows else []
    twice = next((name for name, count in Counter(header).items() if name and count > 1), None)
    if twice is not None:
        raise DatasetError(
            f"{printable(path)}: the header names the column {printable(twice)!r} twice; "
            "rename one of the two"
        )
    if not set(columns) <= set(header):
        raise DatasetError(
            f"{printable(path)}: expected the columns {', '.join(columns)}; "
            f"found {', '.join(map(printable, header)) or 'nothing'}"
        )
    for number, row in rows[1:]:
        if len(row) != len(header):
            what = "tab" if delimiter == "\t" else "comma"
            raise DatasetError(
                f"{printable(path)}, line {number}: {counted(len(row), 'field')}, but the header "
                f"names {len(header)} ({', '.join(header)}). A text with a {what} must be in quotes"
            )
    return [(number, dict(zip(header, row, strict=True))) for number, row in rows[1:]]


def _plain_rows(text: str) -> list[tuple[int, list[str]]] | None:
    """Returns the rows of a text whose every line has the same number of tabs, else None.

    Such a file was not written by the rules of CSV unless a field is in quotes as a whole; a quote
    at the start of a field is then a letter like others.
    """
    lines = [(number, line) for number, line in enumerate(text_lines(text), 1) if line.strip()]
    if len({line.count("\t") for _, line in lines}) != 1:
        return None
    return [(number, [_unquoted(field) for field in line.split("\t")]) for number, line in lines]


def _unquoted(field: str) -> str:
    """Returns a field without the quotes around it, where they are CSV's."""
    inner = field[1:-1]
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    return inner.replace('""', '"') if quoted and '"' not in inner.replace('""', "") else field


def _rows(text: str, path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in long_rows(reader):
            if any(field.strip() for field in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise DatasetError(
            f"{printable(path)}, line {reader.line_num}: not CSV ({error}). "
            "A text with quotes stands in quotes, each of its own written twice"
        ) from None


def long_rows(reader: Iterator[Row]) -> Iterator[Row]:
    """Yields the rows of a reader of the csv module, with fields of up to 16 MB.

    A paragraph is longer than the module allows. Its limit is the whole process's, so it is
    raised for one row at a time.
    """
    while True:
        before = csv.field_size_limit(_LONGEST_FIELD)
        try:
            row = next(reader, None)
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield row


# ---- pickles: a pickle is a program; what asks for more than plain data ends the reading


class _ForbiddenError(Exception):
    """The stream asks for something that is not plain data."""


class _PlainUnpickler(pickle.Unpickler):
    """Refuses the two doors through which a pickle reaches code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _ForbiddenError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _ForbiddenError(f"the outside object {pid!r:.60}")


def read_plain_pickle(path: Path) -> Any:
    """Returns the numbers, texts, lists, tuples and dictionaries in a pickle.

    Texts of Python 2 must be UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_PICKLE_BYTES:
            raise DatasetError(f"{printable(path)} has {size:,} bytes: too many for captions")
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {printable(path)}: {error.strerror or error}") from None
    if not content:
        raise _nothing_in(path, content)
    try:
        require_light_keys(content)
        return _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
    except _ForbiddenError as error:
        raise DatasetError(
            f"{printable(path)} wants to build {printable(error)}, which captions do "
            "not need; nothing of it was run. Only pickles of dictionaries, lists, tuples, texts "
            "and numbers are read: convert it to JSON, or distrust it"
        ) from None
    except _BROKEN_PICKLE as error:
        raise DatasetError(
            f"{printable(path)} is no whole pickle ({type(error).__name__}: {error})"
        ) from None


# ---- values


def identity(value: object, *, place: str, what: str = "a video's id") -> str:
    """Returns an id, a text or a whole number, as text in NFC."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise DatasetError(f"{place}: {what} must be a text, is {value!r:.80}")
    return unicodedata.normalize("NFC", value.strip())


def unique(path: Path, ids: Iterable[str]) -> tuple[str, ...]:
    """Returns `ids` as a tuple."""
    result = tuple(ids)
    name, count = Counter(result).most_common(1)[0] if result else ("", 0)
    if count > 1:
        raise DatasetError(
            f"{printable(path)} lists {printable(name)!r} {counted(count, 'time')}; "
            "a video may be in a split once"
        )
    return result


def is_missing(value: object) -> bool:
    """Returns whether a value stands for nothing: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def moment_windows(pairs: Any, *, place: str) -> tuple[tuple[float, float], ...]:
    """Returns (start, end) in seconds of the parts of a video, also of those without length.

    A text is no number, whatever it spells.
    """
    try:
        if not all(isinstance(pair, list) and {int, float} >= {*map(type, pair)} for pair in pairs):
            raise TypeError
        windows = tuple((float(start), float(end)) for start, end in pairs)
        if not all(0 <= time < math.inf for window in windows for time in window):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(
            f"{printable(place)}: expected starts and ends in seconds, found {pairs!r:.80}"
        ) from None
    return windows


def plain_number(text: str) -> float | str:
    """Returns the number that a text spells in digits, else the text.

    Python's own float takes more for numbers: "1_0", "nan", and the digits of every script.

    >>> plain_number("24.30"), plain_number("1_0")
    (24.3, '1_0')
    """
    return float(text) if _NUMBER.fullmatch(text) else text
