"""Our own files: published atomically, absent or whole, and read back without surprises.

Where the file system refuses (full, read-only, over quota), a StoreWriteError says so, what is
intact and what to try.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from vtr.errors import ConfigError, StoreWriteError, VtrError

TEMPORARY_PREFIX = ".tmp-"
UNFINISHED = ".unfinished"
"""Folder beside a folder, in which its next version grows until it is whole."""
_REPLACED = ".replaced"
_MOST_ATTEMPTS = 3
_LONGEST_NAME, _MARK_BYTES = 255, 16  # of a name, and of what a temporary one has before it
MAX_DOCUMENT_BYTES = 64 << 20
_GROWN_BYTES = 1 << 16  # by which a file may have grown since its size was asked


Payload = bytes | memoryview | Callable[[BinaryIO], object]
"""The content of a file, or what writes it."""


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Returns a descriptor of a regular file; a pipe or a device is neither waited for nor used.

    With O_NOFOLLOW among the flags a link is refused too.

    Raises:
        OSError: It cannot be opened, or is something else.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise OSError(errno.ELOOP, "it is a link, and what it points to is not ours") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


def read_regular(
    path: Path, *, needed: str, limit: int = MAX_DOCUMENT_BYTES, error: type[VtrError] = ConfigError
) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: To read; links are followed.
        needed: What it should be, for the error ("a result; name a folder that ...").
        limit: Bytes it may have.
        error: Class of what is raised.

    Raises:
        VtrError: `error`: it is absent, no regular file, too large, or cannot be read.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Memory is taken for as many bytes as are asked for, however few come.
            content = file.read(min(limit, size + _GROWN_BYTES) + 1) if size <= limit else b""
    except OSError as refusal:
        reason = refusal.strerror or refusal
        raise error(f"cannot read {path}: {reason}; needed: {needed}") from None
    if max(size, len(content)) > limit:
        raise error(f"{path} is larger than {limit:,} bytes; needed: {needed}")
    return content


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_shared(path: Path, *, append: bool = False) -> BinaryIO:
    """Opens a file of ours for writing where others may have put something under its name.

    A link there is never followed. Unless it is to `append`, what was there is removed.

    Raises:
        OSError: It cannot be opened, or is a link, a pipe or a device.
    """
    if append:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    else:
        path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    return os.fdopen(open_regular(path, flags | os.O_NOFOLLOW), "ab" if append else "w+b")


def publish(path: Path, payload: bytes | memoryview) -> None:
    """Writes `payload` to `path` so that no crash can leave half a file there.

    Temporary file in the same folder, fsync, rename, fsync of the folder: after a power loss the
    name holds the old content or the new one (order and need measured, see needs.md §4.2).
    """
    for _ in range(_MOST_ATTEMPTS - 1):
        with contextlib.suppress(_SweptAwayError):
            return publish_all({path: payload})
    return publish_all({path: payload})


class _SweptAwayError(StoreWriteError):
    """One who cannot see our lock took what we were writing for a leftover."""


def publish_all(files: Mapping[Path, Payload]) -> None:
    """Writes several files that belong together: none is renamed before all are written.

    A full disk so leaves all old ones; only a crash between two renames could leave a mix.
    """
    with publishing() as create:
        for path, payload in files.items():
            size = "" if callable(payload) else f" ({len(payload):,} bytes)"
            file = create(path, size)
            if callable(payload):
                payload(file)
            else:
                file.write(payload)


class Create(Protocol):
    """Opens a new file that gets its name at the end; `about` follows the name in an error."""

    def __call__(self, path: Path, about: str = "") -> BinaryIO:
        """Returns the file; the one before it is finished."""


@contextlib.contextmanager
def publishing(*, alone: bool = False) -> Iterator[Create]:
    """Yields what opens new files, which get their names together where nothing went wrong.

    Where something did, an interruption too, none of them is there.

    Args:
        alone: Nobody else writes these files: what killed writers left of them is removed.
    """
    opened: dict[Path, BinaryIO] = {}
    temporary: dict[Path, Path] = {}
    now, told = Path(), ""

    def finish() -> None:
        if now in opened:
            opened[now].flush()
            os.fsync(opened[now].fileno())
            opened[now].close()

    def create(path: Path, about: str = "") -> BinaryIO:
        nonlocal now, told
        finish()
        now, told = path, about
        if alone:
            _remove_stale(path)
        temporary[path] = _temporary(path)
        opened[path] = open_shared(temporary[path])
        return opened[path]

    try:
        yield create
        finish()
        for path in opened:
            temporary[path].replace(path)
        for folder in {path.parent for path in opened}:
            sync_folder(folder)
    except BaseException as error:
        for path, file in opened.items():
            with contextlib.suppress(OSError):
                file.close()  # a second time where it was
            with contextlib.suppress(OSError):
                temporary[path].unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        is_swept = isinstance(error, FileNotFoundError) and now.parent.is_dir()
        raise (_SweptAwayError if is_swept else StoreWriteError)(
            f"cannot write {now}{told}: {error.strerror or error}. "
            f"What was written before is intact; {_remedy(now, error.errno)}, then run the same "
            "command again"
        ) from None


def _remove_stale(file: Path) -> None:
    """Deletes what killed writers left of a file."""
    for path in file.parent.glob(_temporary_names(file)):
        number = path.name[len(TEMPORARY_PREFIX) : -len(_ending(file)) - 1]
        if number.isdigit() and path.is_file():
            path.unlink(missing_ok=True)


def _remedy(path: Path, number: int | None = None) -> str:
    """Returns what to try where a file cannot be written; `number` is the system's of the error."""
    if number == errno.ENAMETOOLONG:
        return "choose a shorter name"
    if not path.parent.is_dir():
        return f"make the folder {path.parent} or choose another"
    if path.is_dir():
        return "choose another name: this is a folder"
    if not os.access(path.parent, os.W_OK):
        return "choose a folder that you may write to"
    return "free some space or choose another folder"


def _temporary(path: Path) -> Path:
    # Not the process's number: other machines that write to this folder have the same ones.
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.randbelow(10**9)}-{_ending(path)}")


def _temporary_names(path: Path) -> str:
    return f"{TEMPORARY_PREFIX}*-{glob.escape(_ending(path))}"


def _ending(path: Path) -> str:
    """Returns the name, or the digest of one that leaves no room for what stands before it."""
    name = os.fsencode(path.name)
    if len(name) > _LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    is_short = len(name) <= _LONGEST_NAME - _MARK_BYTES
    return path.name if is_short else hashlib.sha256(name).hexdigest()


def make_folder(folder: Path, *, option: str) -> None:
    """Makes a folder, and all it lies in, that can be written to; call it before long work.

    `option` is the one with which another can be named, such as "--out".
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Rights do not tell: root has them all, on a file system that only reads too.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        what = "write into" if folder.is_dir() else "make"
        raise StoreWriteError(
            f"cannot {what} the folder {folder}: {error.strerror or error}. "
            f"Choose another with {option}"
        ) from None


def require_empty(folder: Path, *, option: str = "--out") -> None:
    """Refuses a folder in which something lies; `option` is what named it."""
    try:
        in_use = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise ConfigError(f"{option} {folder} cannot be used: {error.strerror or error}") from None
    if in_use:
        raise ConfigError(f"{option} {folder} is in use; name a folder that does not exist yet")


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
        with contextlib.suppress(IsADirectoryError, PermissionError):  # none of our files
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

    The old one stays as it is until `take_place`.
    """
    old, new = folder.resolve(), beside(folder)
    if _is_fixed(old):
        what = "a mount point" if old.is_mount() else "where you are"
        raise StoreWriteError(
            f"{folder} is {what}, and cannot be replaced as a whole. Run the command elsewhere, or "
            f"choose another folder with {option}"
        )
    with _replacing(folder):
        for aside in new.parent.glob(_temporary_names(new)):
            if not old.exists() and (aside / _REPLACED).exists():
                aside.rename(old)  # moved away by one who then died
        if new.is_dir():
            with _held(new, folder, option=option):  # else another builds there
                pass
        _discard(new)
    make_folder(new, option=option)
    return new


def take_place(folder: Path) -> None:
    """Puts the next version of a folder in its place and deletes the old one.

    The names are exchanged in one step where the system can (Linux, macOS). Where it cannot, the
    old one is moved away first: a process that dies just then leaves the new one whole `beside`.
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
def replacing(folder: Path, *, option: str, over: bool = False) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `folder` where nothing went wrong.

    Where something did, it is removed again and `folder` is as it was; after a kill the remains
    lie `beside` until the next time. With `over` it may hold something, which is replaced; nothing
    may come to it meanwhile.
    """
    if _is_fixed(folder.resolve()) and not any(folder.iterdir()):  # there is nothing to lose
        try:
            yield folder
        except BaseException:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise
        return
    before = _names(folder) if over else set()
    new = begin_beside(folder, option=option)
    with _held(new, folder, option=option) as is_ours:
        try:
            yield new
            if more := _names(folder) - before:
                raise StoreWriteError(
                    f"{folder} was filled by others meanwhile ({sorted(more)[0]}) and stays as it "
                    f"is. Choose another folder with {option}"
                )
            take_place(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                if is_ours():
                    _discard(new)
            raise


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208  (names only)


@contextlib.contextmanager
def _held(new: Path, folder: Path, *, option: str) -> Iterator[Callable[[], bool]]:
    """Keeps others from building there; yields what tells whether it is still the same folder."""
    descriptor = os.open(new, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreWriteError(
            f"another program is making {folder}. Wait for it to end, or choose another folder "
            f"with {option}"
        ) from None
    except OSError:
        pass  # a file system that locks no folders
    try:
        yield lambda: os.path.samestat(os.fstat(descriptor), new.stat())
    finally:
        os.close(descriptor)


def _is_fixed(folder: Path) -> bool:
    return folder.is_mount() or Path.cwd().is_relative_to(folder)


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
