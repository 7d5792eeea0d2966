"""Keeps the library: opens it, answers queries one after the other, follows the folder.

Three things happen at once: the page is served (the event loop), queries are answered (a thread of
this), and new videos are embedded (another). So a query waits for other queries only.
"""

from __future__ import annotations

import contextvars
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vtr.errors import VtrError
from vtr.foreign import printable
from vtr.progress import Listener, Update, listening, note, progress
from vtr.searching.library import Library
from vtr.serve.catalog import Catalog, RefusedError, signature
from vtr.serve.workshop import BusyError, waiting

T = TypeVar("T")

_ROOM = 32  # queries that may wait
_LOOK_SECONDS = 5.0  # between two looks at the folder, while somebody looks at the page
_LOOK_SHARE = 0.05  # of the time may go into looking: large folders are looked at less often
_AGAIN_SECONDS = 60.0  # after what failed is tried again: a disk is emptied, a model comes back
_WATCHED_SECONDS = 40.0  # after a page asked last, nobody looks any more
_KEPT_NOTES = 6
_CLOSE_SECONDS = 2.0


class _LeftError(Exception):
    """The server ends while something is being indexed; what was published is safe."""


class _Board(Listener):
    """Shows what long work tells on the page, and passes it on to the terminal.

    Once `stopping` is set, long work is left where it next tells how far it is.
    """

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._terminal = contextvars.copy_context()
        self.notes: list[str] = []
        self.work: dict[str, Any] | None = None

    def note(self, line: str) -> None:
        """Takes a remark of one line."""
        self.notes = [*self.notes, printable(line)][-_KEPT_NOTES:]
        self._terminal.copy().run(note, line)

    @contextmanager
    def progress(self, what: str) -> Iterator[Update]:
        """Shows how far `what` is."""
        began = time.monotonic()
        context = self._terminal.copy()
        display = context.run(progress, what)
        update = context.run(display.__enter__)

        def both(done: int, total: int, remark: str) -> None:
            if self._stopping.is_set():
                raise _LeftError
            self.work = {
                "what": what,
                "done": done,
                "total": total,
                "remark": printable(remark),
                "seconds": round(time.monotonic() - began, 1),
            }
            context.run(update, done, total, remark)

        try:
            yield both
        finally:
            self.work = None
            context.run(display.__exit__, None, None, None)


class Librarian:
    """The library of a page.

    `open_library` embeds what is new in the folder `root`; it is called again when what `look`
    returns has changed, by default the videos of that folder; "" says that there are none.
    """

    def __init__(
        self,
        open_library: Callable[[], Library],
        root: Path,
        *,
        look: Callable[[], str] | None = None,
        follow_links: bool = False,
    ) -> None:
        self._open, self.root = open_library, root
        self._look, self._follows = look or partial(signature, root), follow_links
        self._library: Library | None = None
        self.catalog = Catalog((), root)
        self._phase, self._error, self._version = "indexing", "", 0
        self._seen = time.monotonic()
        self._stopping = threading.Event()
        self._board = _Board(self._stopping)
        self._threads: list[threading.Thread] = []
        self._queue: queue.Queue[tuple[Callable[[], Any], Future[Any]] | None] = queue.Queue(_ROOM)

    def start(self) -> None:
        """Begins to open the library, and to answer."""
        for work in (self._keep_up, self._answer):
            thread = threading.Thread(target=work, name="vtr-librarian", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Takes no more queries and leaves what is being indexed, the next time goes on there."""
        self._stopping.set()
        for _, future in waiting(self._queue):
            future.cancel()
        self._queue.put(None)
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)

    @property
    def is_at_work(self) -> bool:
        """Whether a thread did not end when it was asked to."""
        return any(thread.is_alive() for thread in self._threads)

    def state(self) -> dict[str, Any]:
        """Returns what the page shows of the library's state; tells that somebody looks."""
        self._seen = time.monotonic()
        return {
            "phase": self._phase,
            "version": self._version,
            "error": self._error,
            "work": self._board.work,
            "notes": self._board.notes if self._phase != "ready" else [],
            "videos": len(self.catalog.videos),
        }

    def ask(self, question: Callable[[Library], T]) -> Future[T]:
        """Returns the answer to come; `RefusedError` before there is a library, or `BusyError`."""
        library = self._library  # this one answers, whatever becomes of the folder meanwhile
        if library is None:
            raise RefusedError(409, self._error or "The videos are still being indexed.")
        future: Future[T] = Future()
        try:
            self._queue.put_nowait((partial(question, library), future))
        except queue.Full:
            raise BusyError from None
        return future

    # ---- the threads

    def _answer(self) -> None:
        while (item := self._queue.get()) is not None:
            question, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(question())
            except BaseException as error:  # noqa: BLE001  (handed to who asked)
                future.set_exception(error)

    def _keep_up(self) -> None:
        with listening(self._board):
            held: str | None = None
            again = math.inf
            while not self._stopping.is_set():
                began = time.monotonic()
                now = self._look()
                pause = max(_LOOK_SECONDS, (time.monotonic() - began) / _LOOK_SHARE)
                if now != held or time.monotonic() > again:
                    held, began = now, time.monotonic()
                    self._renew(is_empty=not now)
                    pause = max(pause, time.monotonic() - began)  # half of the time at most
                    failed = self._error and self._phase != "empty"
                    again = time.monotonic() + _AGAIN_SECONDS if failed else math.inf
                self._stopping.wait(pause)
                while self._is_unwatched() and not self._stopping.is_set():
                    self._stopping.wait(1.0)

    def _is_unwatched(self) -> bool:
        return time.monotonic() - self._seen > _WATCHED_SECONDS

    def _renew(self, *, is_empty: bool) -> None:
        """Opens the library anew; where that fails, the one that is open goes on answering."""
        if is_empty:
            self._library, self.catalog = None, Catalog((), self.root)
            self._phase, self._error = "empty", "There are no videos in this folder yet."
            self._version += 1
            return
        before = self._error
        if self._library is None:
            self._phase, self._error = "indexing", ""
        try:
            library = self._open()
        except _LeftError:
            return
        except Exception as error:  # noqa: BLE001  (a bug of ours must not leave the page waiting)
            kind = (
                "" if isinstance(error, VtrError) else f"internal error: {type(error).__name__}: "
            )
            self._error = f"{kind}{printable(error)}"
            self._phase = "failed" if self._library is None else self._phase
            if self._error != before:
                note(self._error if kind else f"error: {error}")
            return
        self.catalog = Catalog(library.videos, self.root, follow_links=self._follows)
        self._library = library
        self._phase, self._error = "ready", ""
        self._version += 1
        with suppress(BusyError):  # whoever asks first does not wait for the model
            self.ask(lambda library: library.source.encoder.texts(["a"]))
