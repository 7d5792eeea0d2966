"""What was found out about files, remembered for each user while they are the same files.

It is kept in the user's cache and not beside the files, which others may be able to write. It is
forgotten when a file's inode, size, time of change or time of status change (which nobody can set)
differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from vtr.errors import VtrError
from vtr.files import make_folder, publish, read_regular

# Within the granularity of a file system's clock a second write can leave the times as they are.
_SETTLED_NS = 2_000_000_000


def mark_of(status: os.stat_result) -> str:
    """Returns what tells a file from every other, and from itself with other content."""
    facts = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return " ".join(map(str, facts))


def is_settled(status: os.stat_result) -> bool:
    """Returns whether a file's mark will change with its content from now on."""
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS


class Remembered:
    """Lines about a folder, of one kind; without a cache that can be used, none."""

    def __init__(self, kind: str, folder: Path) -> None:
        cache = user_cache(kind, folder)
        self._place = None if cache is None else cache[0] / cache[1][:32]
        self.lines: frozenset[str] = frozenset()
        if self._place is not None:
            with contextlib.suppress(VtrError):
                text = read_regular(self._place, needed="digests").decode("ascii", "replace")
                self.lines = frozenset(text.split("\n"))

    def replace(self, lines: set[str]) -> None:
        """Keeps these lines for the next time."""
        if self._place is None or lines == self.lines:
            return
        with contextlib.suppress(VtrError):
            make_folder(self._place.parent, option="XDG_CACHE_HOME")
            publish(self._place, "\n".join(sorted(lines)).encode())


def user_cache(kind: str, folder: Path) -> tuple[Path, str] | None:
    """Returns where the user's cache keeps what is of a kind, and a digest of a folder's place.

    None where the user has no home.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "vtr" / kind, hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    except (OSError, RuntimeError):
        return None
