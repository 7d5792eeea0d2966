"""Atomic file publication: a file is either absent or whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from vtr.errors import StoreWriteError

TEMPORARY_PREFIX = ".tmp-"


def publish(path: Path, payload: bytes | memoryview) -> None:
    """Writes `payload` to `path` so that no crash can leave half a file there.

    Temporary file in the same folder, fsync, rename, fsync of the folder: after a power loss the
    name holds the old content or the new one (order and need measured, see needs.md §4.2).

    Args:
        path: Final name; an existing file is replaced.
        payload: The whole content.

    Raises:
        StoreWriteError: The file system refused (full, read-only, over quota); nothing is left.
    """
    publish_all({path: payload})


def publish_all(files: Mapping[Path, bytes | memoryview]) -> None:
    """Writes several files that belong together: none is renamed before all are written.

    A full disk so leaves all old ones; only a crash between two renames could leave a mix.

    Args:
        files: Each file's whole content by its final name, in the order of their appearance.

    Raises:
        StoreWriteError: The file system refused; see `publish`.
    """
    path = next(iter(files))
    try:
        for path, payload in files.items():
            with _temporary(path).open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            _temporary(path).replace(path)
        for folder in {path.parent for path in files}:
            sync_folder(folder)
    except OSError as error:
        for written in files:
            with contextlib.suppress(OSError):
                _temporary(written).unlink(missing_ok=True)
        raise StoreWriteError(
            f"cannot write {path} ({len(files[path]):,} bytes): {error.strerror or error}. "
            f"What was written before is intact; {_remedy(path)}, then run the same command again"
        ) from None


def _remedy(path: Path) -> str:
    """Returns what to try where a file cannot be written."""
    if not path.parent.is_dir():
        return f"make the folder {path.parent} or choose another"
    if path.is_dir():
        return "choose another name: this is a folder"
    if not os.access(path.parent, os.W_OK):
        return "choose a folder that you may write to"
    return "free some space or choose another folder"


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")


def make_folder(folder: Path, *, option: str) -> None:
    """Makes a folder where it is not there yet; call it before long work rather than after.

    Args:
        folder: With all that it lies in.
        option: With which another one can be named, such as "--out".

    Raises:
        StoreWriteError: The file system refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreWriteError(
            f"cannot make the folder {folder}: {error.strerror or error}. "
            f"Choose another with {option}"
        ) from None


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, pattern: str = "*") -> list[str]:
    """Deletes the temporary files that killed writers left in `folder`; returns their names.

    Only the holder of the folder's write lock may call this; one who shares it names, by a
    pattern for what follows the prefix, the files that are its own.
    """
    removed = []
    for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}{pattern}")):
        path.unlink(missing_ok=True)
        removed.append(path.name)
    return removed
