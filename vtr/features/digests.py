"""Whether a shard's bytes are those it was written with: read once, remembered for each user.

What was found whole is remembered in the user's cache and not beside the store, which others may
be able to write. It is forgotten when the file's inode, size, time of change or time of status
change (which nobody can set) differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import time
from io import BufferedReader
from pathlib import Path

from vtr.errors import ShardError, VtrError
from vtr.features.shard import ShardName
from vtr.files import make_folder, open_regular, publish, read_regular
from vtr.progress import note

# Within the granularity of a file system's clock a second write can leave the times as they are.
_SETTLED_NS = 2_000_000_000
_SEVERAL_SECONDS = 1 << 30  # bytes to read, of pictures for the most part


class WholeShards:
    """The shards of one store that were found whole, now or before."""

    def __init__(self, folder: Path) -> None:
        self._place = _place(folder)
        self._before: frozenset[str] = frozenset()
        self._now: set[str] = set()
        self._read = 0  # bytes
        if self._place is not None:
            with contextlib.suppress(VtrError):
                text = read_regular(self._place, needed="digests").decode("ascii", "replace")
                self._before = frozenset(text.split("\n"))

    def check(self, path: Path, name: ShardName) -> None:
        """Reads a shard's bytes, unless they were found whole before.

        Raises:
            ShardError: They are not those it was written with, or it cannot be read.
        """
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                status = os.fstat(file.fileno())
                times = (status.st_mtime_ns, status.st_ctime_ns)
                mark = " ".join(map(str, (name.sha256, status.st_ino, status.st_size, *times)))
                if mark not in self._before and self._digest(path, file) != name.sha256:
                    raise ShardError(
                        f"{path} is damaged: its bytes are not those it was written with. "
                        f"{mend(path.parent)}"
                    )
        except OSError as error:
            raise ShardError(
                f"{path} cannot be read: {error.strerror or error}. {mend(path.parent)}"
            ) from None
        if mark in self._before or time.time_ns() - max(times) > _SETTLED_NS:
            self._now.add(mark)

    def _digest(self, path: Path, file: BufferedReader) -> str:
        before, self._read = self._read, self._read + os.fstat(file.fileno()).st_size
        if before <= _SEVERAL_SECONDS < self._read:
            note(f"checking every byte of {path.parent}, once: it holds pictures or many features")
        return _digest(file)

    def remember(self, *, others: bool = False) -> None:
        """Keeps what was found for the next time; without a cache that can be written, nothing.

        With `others` not all shards were looked at: what was known of others stays.
        """
        if others:
            self._now |= self._before
        if self._place is None or self._now == self._before:
            return
        with contextlib.suppress(VtrError):
            make_folder(self._place.parent, option="XDG_CACHE_HOME")
            publish(self._place, "\n".join(sorted(self._now)).encode())


def is_whole(path: Path, name: ShardName) -> bool:
    """Reads every byte of a shard; returns whether they are those it was written with.

    One that went since it was opened was replaced by a retry, and is not damaged.
    """
    try:
        with path.open("rb") as file:
            return _digest(file) == name.sha256
    except FileNotFoundError:
        return True
    except OSError:
        return False


def mend(folder: Path) -> str:
    """Returns what to do about damaged shards."""
    return (
        f"vtr extract --features {shlex.quote(str(folder))} --retry damaged puts damaged shards "
        "aside and does their videos again; features of others have to be imported again"
    )


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _place(folder: Path) -> Path | None:
    """The file of a store in the user's cache; None where the user has no home."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    except (OSError, RuntimeError):
        return None
    return cache / "vtr" / "whole-shards" / key
