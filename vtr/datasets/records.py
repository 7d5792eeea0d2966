"""Caption files as people have them: tables, JSON lines and JSON in many layouts, as records.

Column names are compared without case, blanks and underscores. What describes parts of a video
(a start and an end per caption) is told apart from what describes the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from vtr.datasets.captions import listed_captions, paragraph
from vtr.datasets.documents import identity, parse_table, read_json, read_json_lines, read_text
from vtr.datasets.splits import SPLIT_NAMES
from vtr.errors import DatasetError
from vtr.foreign import printable

VIDEO_COLUMNS = (
    "video", "video_id", "video_name", "file", "file_name", "filename", "path", "video_path",
    "file_path", "clip", "clip_name", "clip_id", "youtube_id", "name", "id",
)  # fmt: skip
CAPTION_COLUMNS = (
    "caption", "captions", "text", "sentence", "sentences", "description", "golden_caption",
    "en_cap", "title", "name",
)  # fmt: skip
_START_COLUMNS = ("start", "start_time", "start_timestamp", "start_seconds")
_LAYOUTS = (("images", "annotations"), ("videos", "annotations"), ("videos", "sentences"))
_DELIMITERS = (",", ";", "\t", "|")
_NO_HEADER = ". The first line must name the columns: add the line video,caption above, or rename"


@dataclass(frozen=True)
class Record:
    """What one record of a caption file says of one video."""

    name: str  # The video, as the file spells it
    captions: object
    category: object
    split: object
    place: str  # Where it stands, for errors
    start: object = None  # Where the described part of the video begins, as the file spells it


def read_records(path: Path) -> Iterator[Record]:
    """Yields the records of a caption file."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        yield from _table(path)
    elif suffix == ".jsonl" or (suffix == ".json" and _holds_lines(path)):
        yield from _lines(path)
    elif suffix == ".json":
        yield from _document(read_json(path), path)
    else:
        raise DatasetError(
            f"{printable(path)} is no caption file; its name must end in .csv, .tsv, .jsonl "
            "or .json (save a spreadsheet as CSV)"
        )


# ---- tables and lines


def _table(path: Path) -> Iterator[Record]:
    text = read_text(path)
    first, _, rest = text.partition("\n")
    if declared := re.fullmatch(r'"?sep=(.)"?\r?', first):
        text, delimiter = "\n" + rest, declared[1]  # the empty line keeps the count of lines
    else:
        delimiter = _delimiter(text, "\t" if path.suffix.lower() == ".tsv" else ",")
    rows = parse_table(text, path, columns=(), delimiter=delimiter)
    # The only line there is may be a row without a header.
    if header := rows[0][1] if rows else dict.fromkeys(_header(text, delimiter), ""):
        _columns(header, f"{path}, line 1", remedy=_NO_HEADER)
    if not rows:
        raise DatasetError(
            f"{printable(path)} has no rows; expected a header with "
            f"{VIDEO_COLUMNS[0]} and {CAPTION_COLUMNS[0]}, then one row a caption"
        )
    for number, row in rows:
        yield _record(row, f"{path}, line {number}")


def _header(text: str, delimiter: str) -> list[str]:
    lines = (line for line in text.splitlines() if line.strip())
    return [name.strip().strip('"') for line in islice(lines, 1) for name in line.split(delimiter)]


def _delimiter(text: str, usual: str) -> str:
    """Returns what parts the header's columns: spreadsheets of many countries write `;`."""
    for delimiter in (usual, *_DELIMITERS):
        names = {_plain(name) for name in _header(text, delimiter)}
        if names & _VIDEO.keys() and names & _CAPTION.keys():
            return delimiter
    return usual


def _holds_lines(path: Path) -> bool:
    """Returns whether a .json file holds one object a line, which is no JSON document."""
    first, _, rest = read_text(path).strip().partition("\n")
    return first.endswith("}") and rest.lstrip().startswith("{")


def _lines(path: Path) -> Iterator[Record]:
    for number, document in read_json_lines(path):
        place = f"{path}, line {number}"
        if isinstance(document, list) and all(isinstance(item, dict) for item in document):
            for item in document:
                yield _record(item, place)
        else:
            yield _record(document, place)


# ---- JSON


def _document(document: object, path: Path) -> Iterator[Record]:
    if isinstance(document, list):
        for number, record in enumerate(document):
            yield _record(record, f"{path}: entry {number}")
        return
    if not isinstance(document, dict):
        raise DatasetError(
            f"{printable(path)} must hold a list of {{video, caption}} or one object "
            "{video: caption or captions}"
        )
    joined = [pair for pair in _LAYOUTS if all(_is_records(document.get(key)) for key in pair)]
    if joined:
        items, notes = joined[0]
        yield from _joined(document[items], document[notes], path, notes)
    elif document and all(_is_split(key, value) for key, value in document.items()):
        for split, value in document.items():
            for record in _document(value, path):
                yield record if record.split is not None else replace(record, split=split)
    else:
        # Records may stand beside what describes the file, or be written by columns.
        inner = [value for value in document.values() if _is_records(value) and _pair(value[0])]
        columns = inner[0] if len(inner) == 1 else _transposed(document)
        yield from _document(columns, path) if columns else _by_video(document, path)


def _by_video(document: Mapping[str, Any], path: Path) -> Iterator[Record]:
    for key, value in document.items():
        place = f"{path}: {key!r:.80}"
        if isinstance(value, dict):
            yield _record({**value, "video": key}, place)
        else:
            captions = listed_captions(value, place=place) if isinstance(value, str) else value
            yield Record(identity(key, place=place), captions, None, None, place)


def _joined(
    items: Sequence[Mapping[str, Any]], notes: Sequence[Mapping[str, Any]], path: Path, kind: str
) -> Iterator[Record]:
    """Yields the captions of COCO and MSR-VTT files, whose videos are a list of their own."""
    link = "image_id" if "image_id" in notes[0] else "video_id"
    videos: dict[str, Mapping[str, Any]] = {}
    for number, item in enumerate(items):
        name = next((item[key] for key in ("file_name", "video", "video_id") if key in item), None)
        name = item.get("id") if name is None else name
        key = str(item[link] if link in item else item.get("id"))
        place = f"{path}: video {number}"
        if key in videos:
            raise DatasetError(f"{place}: the video {printable(key)!r} is listed twice")
        videos[key] = {**item, "video": identity(name, place=place)}
    used = {_plain(key) for key in ("video", "split", "subset", "category")}
    for number, note in enumerate(notes):
        place = f"{path}: entry {number} of {kind!r}"
        key = str(note.get(link))
        if key not in videos:
            raise DatasetError(
                f"{place} is of the video {printable(key)!r}, which the file does not list"
            )
        about = {name: value for name, value in videos[key].items() if _plain(name) in used}
        words = {name: value for name, value in note.items() if _plain(name) in _CAPTION}
        yield _record({**about, **words}, place)


def _is_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(i, dict) for i in value)


def _is_split(key: str, value: object) -> bool:
    if key.strip().lower() not in SPLIT_NAMES:
        return False
    return _is_records(value) or (isinstance(value, dict) and _named(value, _CAPTION) is None)


def _transposed(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of a table that pandas wrote by columns; empty where it is none."""
    if not _pair(document):
        return []
    columns = [list(c.values()) if isinstance(c, dict) else c for c in document.values()]
    if not all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
        return []
    return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]


# ---- one record


@lru_cache(maxsize=4096)
def _plain(column: str) -> str:
    return "".join(letter for letter in column.casefold() if letter.isalnum())


def _ranked(columns: Iterable[str]) -> dict[str, int]:
    return {name: rank for rank, name in reversed([*enumerate(map(_plain, columns))])}


_VIDEO, _CAPTION, _START = map(_ranked, (VIDEO_COLUMNS, CAPTION_COLUMNS, _START_COLUMNS))


def _named(document: Mapping[str, Any], names: Mapping[str, int]) -> str | None:
    """Returns the best of the keys that `names` ranks."""
    fitting = [key for key in document if _plain(key) in names]
    return min(fitting, key=lambda key: names[_plain(key)], default=None)


def _pair(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns under which keys a record names its video and its caption."""
    videos = [key for key in document if _plain(key) in _VIDEO]
    for video in sorted(videos, key=lambda key: _VIDEO[_plain(key)]):
        caption = _named({key: None for key in document if key != video}, _CAPTION)
        if caption is not None:
            return video, caption
    return None


def _record(document: Any, place: str) -> Record:
    if not isinstance(document, dict):
        raise DatasetError(f"{place} must be an object with video and caption, is {document!r:.80}")
    video, caption = _columns(document, place)
    plain = {_plain(key): value for key, value in document.items()}
    captions = document[caption]
    start = _named(document, _START)
    if isinstance(captions, str):
        captions = listed_captions(captions, place=place)
    elif isinstance(captions, list) and isinstance(plain.get("timestamps"), list):
        captions = paragraph(captions, place=place)  # each sentence is of a part of the video
    return Record(
        identity(document[video], place=place),
        captions,
        plain.get("category"),
        plain.get("split", plain.get("subset")),
        place,
        None if start is None else document[start],
    )


def _columns(document: Mapping[str, Any], place: str, *, remedy: str = "") -> tuple[str, str]:
    """Like `_pair`; raises DatasetError where one of the two is absent."""
    if pair := _pair(document):
        return pair
    raise DatasetError(
        f"{place}: expected a video ({', '.join(VIDEO_COLUMNS)}) and a caption "
        f"({', '.join(CAPTION_COLUMNS)}); found {', '.join(map(printable, document)) or 'nothing'}"
        f"{remedy}"
    )
