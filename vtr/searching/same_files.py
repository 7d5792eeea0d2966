"""Whether a file is still the one that was embedded, where its size and its time are the same.

A file that is put in the place of another may have both. It then has another inode, or was changed
later than it was written; a file that was merely moved, copied or given other rights has that too,
so its first and last bytes decide, and only then are they read.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vtr.errors import VtrError
from vtr.files import publish
from vtr.foreign import json_values
from vtr.json_files import read_json

Mark = tuple[int, int, str]
"""Inode, time of its last change in ns, digest of the first and last bytes; "" if unreadable."""
RECORD = "files.json"
_READ_BYTES = 1 << 16


def read_marks(folder: Path) -> dict[str, Mark]:
    """Returns the marks of the files that were embedded, by video id; none where none are kept."""
    try:
        kept = read_json(folder / RECORD, needed="the files that were embedded")
        return {i: (int(inode), int(changed), str(d)) for i, (inode, changed, d) in kept.items()}
    except (VtrError, ValueError, TypeError):
        return {}


def write_marks(folder: Path, marks: Mapping[str, Mark]) -> None:
    """Keeps marks; a folder that refuses costs reading the files' ends another time."""
    with suppress(VtrError):
        publish(folder / RECORD, json.dumps(json_values(marks)).encode())


def mark_files(files: Mapping[str, Path | None], known: Mapping[str, Mark]) -> dict[str, Mark]:
    """Returns the marks of regular files, by video id; what a `known` one fits is not read."""
    marks = {}
    for video_id, path in files.items():
        with suppress(OSError, ValueError):
            status = os.stat(path or "")  # noqa: PTH116  (any file name)
            now = status.st_ino, status.st_ctime_ns
            if (mark := known.get(video_id)) is not None and mark[:2] == now:
                marks[video_id] = mark
            elif path is not None and stat.S_ISREG(status.st_mode):
                marks[video_id] = (*now, _digest_of_ends(path, status.st_size))
    return marks


def replaced(marks: Mapping[str, Mark], known: Mapping[str, Mark]) -> frozenset[str]:
    """Returns the videos whose file holds something else than it did, or can be read now."""
    seen = ((i, mark[2], known[i][2]) for i, mark in marks.items() if i in known)
    return frozenset(i for i, now, before in seen if now and now != before)


def _digest_of_ends(path: Path, num_bytes: int) -> str:
    try:
        file = path.open("rb", buffering=0)
    except OSError:
        return ""
    with file:
        digest = hashlib.blake2b(file.read(_READ_BYTES), digest_size=12)
        file.seek(max(0, num_bytes - _READ_BYTES))
        digest.update(file.read(_READ_BYTES))
    return digest.hexdigest()
