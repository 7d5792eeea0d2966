"""What long functions tell while they work: remarks, and how far they are.

They tell it to whoever listens. From Python that is the standard `logging` (logger "vtr", level
INFO); a command listens with a terminal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar

from vtr.foreign import printable

PLAIN_EVERY_SECONDS = 5.0  # between two lines where there is no terminal
MANY_TEXTS = 500  # some seconds of a text tower on a CPU

Update = Callable[[int, int, str], None]
"""`update(done, total, remark)`; a remark of one word is the unit, such as "clips"; with 0 done it
says what is being prepared."""


class Listener:
    """Takes remarks into the log and shows no progress."""

    def note(self, line: str) -> None:
        """Takes a remark of one line."""
        logging.getLogger("vtr").info("%s", printable(line))

    def progress(self, what: str) -> AbstractContextManager[Update]:
        """Opens a display of how far `what` is, such as "extracting"."""
        return nullcontext(lambda _done, _total, _remark: None)


_LOG = Listener()
_LISTENER: ContextVar[Listener] = ContextVar("listener", default=_LOG)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Lets a listener hear what is told within the block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def note(line: str = "") -> None:
    """Tells a remark."""
    _LISTENER.get().note(line)


def progress(what: str, *, quiet: bool = False) -> AbstractContextManager[Update]:
    """Shows how far a long piece of work is."""
    return _LOG.progress(what) if quiet else _LISTENER.get().progress(what)


@contextmanager
def embedding(
    count: int, *, what: str = "captions", quiet: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Shows how far a tower is with many captions; a few are done before anyone wonders.

    Yields:
        `update(done, total)`, as `vtr.train.texts.embed_texts` calls it.
    """
    shown: list[Update] = []  # not before something has to be embedded: it may all be cached
    with ExitStack() as stack:

        def update(done: int, total: int) -> None:
            if not shown:
                silent = quiet or count < MANY_TEXTS
                shown.append(stack.enter_context(progress(f"embedding {what}", quiet=silent)))
            shown[0](done, total, "")

        yield update


def warn_of_unreadable(folders: Iterable[tuple[str, str]]) -> None:
    """Names folders whose videos cannot be known: they would be missing without a word."""
    for name, why in folders:
        note(f"warning: the folder {name} cannot be listed: {why}")
