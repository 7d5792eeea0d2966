"""One writer at a time per store; the lock dies with its holder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vtr.errors import StoreLockedError, StoreWriteError
from vtr.files import make_folder, open_regular
from vtr.foreign import printable


@contextmanager
def write_lock(
    folder: Path, *, part: tuple[int, int] = (1, 1), option: str = "--features"
) -> Iterator[None]:
    """Holds the store for writing; its folder is made if absent.

    A whole run excludes every other; the parts `i/n` of one split plan (one per machine) exclude
    whole runs and a second run of the same part, not each other. The kernel releases the lock
    when the process ends, however it ends, so a lock file left by a dead process is harmless.
    Another folder can be named with `option`.

    Raises:
        StoreLockedError: Held by another run; names its process and machine.
        StoreWriteError: The folder cannot be made or written.
    """
    make_folder(folder, option=option)
    whole = part[1] == 1
    with ExitStack() as stack:
        mode = fcntl.LOCK_EX if whole else fcntl.LOCK_SH
        stack.enter_context(_flock(folder / ".lock", mode, option))
        if not whole:
            name = f".lock-{part[0]}of{part[1]}"
            stack.enter_context(_flock(folder / name, fcntl.LOCK_EX, option))
        yield


@contextmanager
def _flock(path: Path, mode: int, option: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            if mode == fcntl.LOCK_EX:
                os.truncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BlockingIOError:
            text = os.read(descriptor, 200).decode(errors="replace").strip()
            holder = printable(text) or "another process"
            raise StoreLockedError(
                f"{path.parent} is being written by {holder}. Wait for it to end, or choose "
                f"another folder with {option}"
            ) from None
        except OSError as error:
            raise StoreWriteError(
                f"cannot write {path}: {error.strerror or error}. Free some space, move "
                f"away what lies there, or choose another folder with {option}"
            ) from None
        yield
