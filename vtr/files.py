"""Atomic publication: a file, or a folder, is either absent or whole."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from vtr.errors import StoreWriteError

TEMPORARY_PREFIX = ".tmp-"
UNFINISHED = ".unfinished"
"""Folder beside a folder, in which its next version grows until it is whole."""
_REPLACED = ".replaced"


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


def _temporary_names(path: Path) -> str:
    return f"{TEMPORARY_PREFIX}*-{glob.escape(path.name)}"


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


def beside(folder: Path) -> Path:
    """Returns where the next version of a folder is built: on the same disk, out of every list."""
    place = folder.resolve()
    return place.parent / UNFINISHED / place.name


def is_begun(folder: Path) -> bool:
    """Returns whether a next version of a folder was begun and has not taken its place."""
    return beside(folder).is_dir() and not (beside(folder) / _REPLACED).exists()


def begin_beside(folder: Path, *, option: str) -> Path:
    """Makes the empty folder in which the next version of `folder` is built; returns it.

    Args:
        folder: Stays as it is until `take_place`.
        option: With which another one can be named, such as "--out".

    Raises:
        StoreWriteError: The file system refused, or the folder cannot be renamed.
    """
    if folder.resolve().is_mount():
        raise StoreWriteError(
            f"{folder} is a mount point, which cannot be replaced as a whole. Empty it yourself, "
            f"or choose a folder in it with {option}"
        )
    old, new = folder.resolve(), beside(folder)
    with _replacing(folder):
        for aside in new.parent.glob(_temporary_names(new)):
            if not old.exists() and (aside / _REPLACED).exists():
                aside.rename(old)  # moved away by one who then died
        _discard(new)
    make_folder(new, option=option)
    return new


def take_place(folder: Path) -> None:
    """Puts the next version of a folder in its place and deletes the old one.

    The names are exchanged in one step where the system can (Linux, macOS). Where it cannot, the
    old one is moved away first: a process that dies just then leaves the new one whole `beside`.

    Raises:
        StoreWriteError: The file system refused; the old one is intact.
    """
    old, new = folder.resolve(), beside(folder)
    with _replacing(folder):
        for path in new.rglob("*"):
            if path.is_dir():
                sync_folder(path)
        sync_folder(new)
        if old.is_dir():
            (old / _REPLACED).touch()  # whoever dies after the exchange has left no next version
            if not _exchange(new, old):
                aside = old.rename(_temporary(new))
                try:
                    new.rename(old)
                except OSError:
                    aside.rename(old)
                    raise
        else:
            new.rename(old)
        (old / _REPLACED).unlink(missing_ok=True)
        sync_folder(old.parent)
    with contextlib.suppress(OSError):  # what cannot be deleted now is deleted the next time
        _discard(new)


@contextlib.contextmanager
def replacing(folder: Path, *, option: str) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `folder` where nothing went wrong.

    Where something did, it is removed again and `folder` is as it was; after a kill the remains
    lie `beside` until the next time.

    Args:
        folder: To be made or replaced.
        option: As in `begin_beside`.

    Raises:
        StoreWriteError: The file system refused.
    """
    new = begin_beside(folder, option=option)
    try:
        yield new
        take_place(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            _discard(new)
        raise


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreWriteError(
            f"cannot replace {folder}: {error.strerror or error}. It is as it was; "
            f"{_remedy(folder)}, then run the same command again"
        ) from None


def _discard(new: Path) -> None:
    """Deletes a version that is wanted no more, under another name: half of it is no version."""
    if new.is_dir():
        new.rename(_temporary(new))
    for path in new.parent.glob(_temporary_names(new)):
        shutil.rmtree(path)
    with contextlib.suppress(OSError):
        new.parent.rmdir()  # unless others build there


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names in one step; returns False where the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    here, exchange = -100, ctypes.c_uint(2)  # AT_FDCWD; RENAME_EXCHANGE, RENAME_SWAP
    if hasattr(library, "renameat2"):
        failed = library.renameat2(here, names[0], here, names[1], exchange)
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, exchange)
    else:
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code))
