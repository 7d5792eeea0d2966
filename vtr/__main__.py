"""The entry of `vtr` and `python -m vtr`: an interrupt is answered from the first import on."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Runs the command line; see `vtr.cli.main`.

    While its modules are imported nothing has begun that could be lost: an interrupt ends the
    process at once, since one raised within an import comes out as whatever that makes of it.
    """
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else by nohup's wish
    if heard:
        signal.signal(signal.SIGINT, _leave)
    from vtr.cli import main as run

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        _leave()


def _leave(_signal: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
