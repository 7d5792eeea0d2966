"""Whether a shard's bytes are those it was written with: read once, remembered for each user."""

from __future__ import annotations

import hashlib
import os
import shlex
from io import BufferedReader
from pathlib import Path

from vtr.errors import ShardError
from vtr.features.shard import ShardName
from vtr.files import file_sha256, open_regular
from vtr.marks import Remembered, is_settled, mark_of
from vtr.progress import note

_SEVERAL_SECONDS = 1 << 30  # bytes to read, of pictures for the most part


class WholeShards:
    """The shards of one store that were found whole, now or before."""

    def __init__(self, folder: Path) -> None:
        self._before = Remembered("whole-shards", folder)
        self._now: set[str] = set()
        self._read = 0  # bytes

    def check(self, path: Path, name: ShardName) -> None:
        """Reads a shard's bytes, unless they were found whole before.

        Raises:
            ShardError: They are not those it was written with, or it cannot be read.
        """
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                status = os.fstat(file.fileno())
                mark = f"{name.sha256} {mark_of(status)}"
                if mark not in self._before.lines and self._digest(path, file) != name.sha256:
                    raise ShardError(
                        f"{path} is damaged: its bytes are not those it was written with. "
                        f"{mend(path.parent)}"
                    )
        except OSError as error:
            raise ShardError(
                f"{path} cannot be read: {error.strerror or error}. {mend(path.parent)}"
            ) from None
        if mark in self._before.lines or is_settled(status):
            self._now.add(mark)

    def _digest(self, path: Path, file: BufferedReader) -> str:
        before, self._read = self._read, self._read + os.fstat(file.fileno()).st_size
        if before <= _SEVERAL_SECONDS < self._read:
            note(f"checking every byte of {path.parent}, once: it holds pictures or many features")
        return hashlib.file_digest(file, "sha256").hexdigest()

    def remember(self, *, others: bool = False) -> None:
        """Keeps what was found for the next time; without a cache that can be written, nothing.

        With `others` not all shards were looked at: what was known of others stays.
        """
        if others:
            self._now |= self._before.lines
        self._before.replace(self._now)


def is_whole(path: Path, name: ShardName) -> bool:
    """Reads every byte of a shard; returns whether they are those it was written with.

    One that went since it was opened was replaced by a retry, and is not damaged.
    """
    try:
        return file_sha256(path) == name.sha256
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
