"""The entry of `vtr` and `python -m vtr`: an interrupt is answered from the first import on."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from functools import partial
from types import FrameType

from vtr.arithmetic import uncollected
from vtr.errors import INTERRUPTED


def main() -> None:
    """Runs the command line; see `vtr.cli.main`.

    While its modules are imported nothing has begun that could be lost: an interrupt ends the
    process at once, since one raised within an import comes out as whatever that makes of it.

    The exit code of an interrupt stays 130 to the end: a second one leaves at once, and Python,
    which ends by the signal where the first passed through `exec`, does not come to that.
    """
    interrupted: list[bool] = []
    atexit.register(lambda: _end() if interrupted else None)  # the first registered runs last
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else by nohup's wish
    if heard:
        signal.signal(signal.SIGINT, _leave)
        sys.unraisablehook = _interrupt_again
    with uncollected():
        from vtr.cli import main as run

    raised: list[bool] = []
    if heard:
        signal.signal(signal.SIGINT, partial(_interrupt, raised))
    try:
        run()
    except KeyboardInterrupt:
        _leave()
    except Exception:
        if raised:  # within an import, which makes something else of it
            _leave()
        raise
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            interrupted.append(True)
            if heard:
                signal.signal(signal.SIGINT, _leave)
        raise


def _interrupt(raised: list[bool], number: int, frame: FrameType | None) -> None:
    raised.append(True)
    signal.default_int_handler(number, frame)


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Repeats an interrupt that came while an object was being removed, where Python drops it."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(lost)


def _end() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)


def _leave(_signal: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
