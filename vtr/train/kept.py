"""Arrays too large to be computed twice: kept in a file, which is mapped when it is read."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vtr.errors import StoreWriteError
from vtr.files import publishing

_DIGEST_BYTES = 32  # of SHA-256, at the end of a file

Fill = Callable[[NDArray[Any]], None]


def kept_rows(
    path: Path | None, shape: tuple[int, ...], kind: DTypeLike, fill: Fill
) -> NDArray[Any]:
    """Returns the array of a file; where that is absent or damaged, `fill` makes it and it is kept.

    In memory alone without a path, and where the file system refuses. The path is named by all that
    the numbers come from; `fill` writes them into an empty array.
    """
    num_bytes = math.prod(shape) * np.dtype(kind).itemsize
    # Without room that is taken at once, a disk that fills up would end the process (SIGBUS).
    if path is not None and num_bytes and hasattr(os, "posix_fallocate"):
        with suppress(StoreWriteError):
            if not _is_whole(path, num_bytes):
                _write(path, num_bytes, shape, kind, fill)
            # Copy-on-write: torch refuses arrays that it must not write to, though nobody does.
            return np.memmap(path, kind, "c", shape=shape)
    rows: NDArray[Any] = np.empty(shape, kind)
    fill(rows)
    return rows


def _is_whole(path: Path, num_bytes: int) -> bool:
    """Whether a file holds what was written: the digest at its end tells."""
    if not path.is_file() or path.stat().st_size != num_bytes + _DIGEST_BYTES:
        return False
    content = np.memmap(path, np.uint8, mode="r")
    return hashlib.sha256(content[:num_bytes].data).digest() == content[num_bytes:].tobytes()


def _write(path: Path, num_bytes: int, shape: tuple[int, ...], kind: DTypeLike, fill: Fill) -> None:
    with publishing() as create:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f".*{path.suffix}*"):  # of killed trainings: nobody holds it
            with other.open("rb") as held, suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink(missing_ok=True)
        file = create(path)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.posix_fallocate(file.fileno(), 0, num_bytes + _DIGEST_BYTES)
        rows = np.memmap(file, kind, "r+", shape=shape)
        fill(rows)
        rows.flush()
        file.seek(num_bytes)
        file.write(hashlib.sha256(rows.reshape(-1).view(np.uint8).data).digest())
