"""How commands talk: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vtr.counts import human_seconds
from vtr.foreign import printable
from vtr.progress import PLAIN_EVERY_SECONDS, Listener, Update, note

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def say(line: object = "") -> None:
    """Prints one line to stdout, `printable` as a whole: whatever a name in it holds."""
    typer.echo(printable(line))


def near(path: Path) -> str:
    """Returns a path as one types it here: from the current folder, where it lies below that."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def say_folded(line: str, *, indent: int = 0, err: bool = False) -> None:
    """Prints a line of words, folded where the terminal ends (80 columns where there is none)."""
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


class Terminal(Listener):
    """Prints remarks and progress to stderr: a bar on a terminal, one at a time.

    Elsewhere (a log file, SLURM) one plain line every few seconds; quiet, remarks only.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._has_bar = False

    def note(self, line: str) -> None:
        """Prints a remark of one line."""
        typer.echo(printable(line), err=True)

    @contextmanager
    def progress(self, what: str) -> Iterator[Update]:
        """Shows a bar, or lines; within another one's work (vtr demo) nothing."""
        if self.quiet or self._has_bar:
            yield lambda _done, _total, _remark: None
        elif sys.stderr.isatty():
            self._has_bar = True
            try:
                yield from _bar(what)
            finally:
                self._has_bar = False
        else:
            yield _lines(what)


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
    before = ""

    def update(done: int, total: int, remark: str) -> None:
        nonlocal last, before
        if not done:
            note(f"{what}: {remark or f'0 of {total}'}")
            return
        now = time.monotonic()
        if done < total and now - last < PLAIN_EVERY_SECONDS:
            return
        last = now
        unit = f" {remark}" if remark.isalpha() else ""
        parts = [f"{what}: {done} of {total}{unit}", *([remark] if remark and not unit else [])]
        if done < total:
            left = (now - start) / done * (total - done)
            parts.append(f"about {human_seconds(left)} left")
        line = ", ".join(parts)
        if line != before:  # the last one of two passes over the same
            note(line)
        before = line

    return update
