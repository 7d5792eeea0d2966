"""How commands talk: results on stdout, everything else on stderr."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import typer

from vtr.foreign import printable

PLAIN_EVERY_SECONDS = 5.0
_HAS_BAR: ContextVar[bool] = ContextVar("has a bar", default=False)
MANY_TEXTS = 500  # some seconds of a text tower on a CPU
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def say(line: object = "") -> None:
    """Prints one line to stdout, `printable` as a whole: whatever a name in it holds."""
    typer.echo(printable(str(line)))


def note(line: str = "") -> None:
    """Prints a remark to stderr, one line as `say` does."""
    typer.echo(printable(line), err=True)


def say_folded(line: str, *, indent: int = 0, err: bool = False) -> None:
    """Prints a line of words, folded at the width of the terminal (80 columns where there is none).

    Args:
        line: Made `printable`.
        indent: Blanks before it; two more before what follows a fold.
        err: To stderr.
    """
    width = max(shutil.get_terminal_size().columns, 40)
    blanks = " " * indent
    folded = textwrap.wrap(
        printable(line),
        width,
        initial_indent=blanks,
        subsequent_indent=f"{blanks}  ",
        break_on_hyphens=False,
    )
    typer.echo("\n".join(folded), err=err)


def warn_of_unreadable(folders: Iterable[tuple[str, str]]) -> None:
    """Names folders whose videos cannot be known: they would be missing without a word.

    Args:
        folders: (name, why it cannot be listed).
    """
    for name, why in folders:
        note(f"warning: the folder {name} cannot be listed: {why}")


def prepare_arithmetic() -> None:
    """Readies the process for tensor work; call before torch is imported.

    Two defaults of the platform cost much and change no result:

    - The arithmetic library's threads spin at barriers, and take time from the decoders they wait
      for. Threads that sleep at once make small training steps take twice as long (measured with
      2 threads on 2 cores). Spinning for about 0.1 ms serves both.
    - Tensors of some megabytes are given back to the system and mapped anew at every use, page by
      page (measured: a quarter of a training step of 2,540 captions, a sixth of embedding with
      ViT-B/32). The C library is told to keep up to 512 MB for the next one.

    What the user has set stands, and other C libraries than glibc stay as they are.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 512 << 20)


def print_json(document: Any) -> None:
    """Prints one JSON document to stdout; what no terminal should see is escaped as JSON does."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    typer.echo(
        text
        if text.replace("\n", "").isprintable()
        else "".join(
            letter if letter == "\n" or letter == printable(letter) else json.dumps(letter)[1:-1]
            for letter in text
        )
    )


def human_bytes(count: float) -> str:
    """Returns a size for people.

    >>> human_bytes(1_234_567)
    '1.2 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Returns a time span for people.

    >>> human_seconds(7384)
    '2 h 03 min'
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


Update = Callable[[int, int, str], None]


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator[Update]:
    """Shows how far a long command is, on stderr.

    A bar on a terminal, one at a time: within another one's work (vtr demo) it shows nothing.
    Elsewhere (a log file, SLURM) one plain line every few seconds.

    Args:
        what: The verb, such as "extracting".
        quiet: Show nothing.

    Yields:
        `update(done, total, remark)`; with 0 done the remark says at once what is being prepared.
    """
    if quiet:
        yield lambda _done, _total, _remark: None
    elif sys.stderr.isatty():
        if _HAS_BAR.get():
            yield lambda _done, _total, _remark: None
            return
        token = _HAS_BAR.set(True)
        try:
            yield from _bar(what)
        finally:
            _HAS_BAR.reset(token)
    else:
        yield _lines(what)


@contextmanager
def embedding(num_texts: int, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Shows how far the text tower is with many captions; a few are done before anyone wonders.

    Yields:
        `tell(done, total)`, as `vtr.train.texts.embed_texts` calls it.
    """
    shown: list[Update] = []  # not before something has to be embedded: it may all be cached
    with ExitStack() as stack:

        def tell(done: int, total: int) -> None:
            if not shown:
                silent = quiet or num_texts < MANY_TEXTS
                shown.append(stack.enter_context(progress("embedding captions", quiet=silent)))
            shown[0](done, total, "")

        yield tell


def _bar(what: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(elapsed_when_finished=True),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, remark="")

        def update(done: int, total: int, remark: str) -> None:
            bar.update(task, completed=done, total=total, remark=printable(remark))

        yield update


def _lines(what: str) -> Update:
    start = last = time.monotonic()

    def update(done: int, total: int, remark: str) -> None:
        nonlocal last
        if not done:
            note(f"{what}: {remark or f'0 of {total}'}")
            return
        now = time.monotonic()
        if done < total and now - last < PLAIN_EVERY_SECONDS:
            return
        last = now
        parts = [f"{what}: {done} of {total}", *([remark] if remark else [])]
        if done < total:
            left = (now - start) / done * (total - done)
            parts.append(f"about {human_seconds(left)} left")
        note(", ".join(parts))

    return update
