"""Playing a moment with what the machine has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from vtr.errors import ConfigError
from vtr.remote import absolute, url_of


def play(path: Path, seconds: float) -> str:
    """Starts a player at a moment and returns what to say about it.

    mpv and VLC begin at the moment; the desktop's own opener shows the file from its start.
    """
    at, path = max(0.0, seconds), absolute(path)  # no name is taken for an option
    place = url_of(path) or str(path)
    players = {"mpv": [f"--start={at:.2f}", "--", place], "vlc": [f"--start-time={at:.2f}", place]}
    for name, words in players.items():
        if found := shutil.which(name):
            _start([found, *words])
            return f"{name} plays {place} from {at:.1f} s"
    opener = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if opener is None:
        raise ConfigError(
            f"--open found neither mpv nor vlc nor the desktop's opener. The first hit is {place} "
            f"at {at:.1f} s"
        )
    _start([opener, place])
    return (
        f"opened {place} at its start; the moment is at {at:.1f} s (mpv or vlc would begin there)"
    )


def _start(words: list[str]) -> None:
    """Starts a program that outlives this one, by the shell, which hands it to the system."""
    subprocess.run(
        ["sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *words],
        check=True, start_new_session=True,
    )  # fmt: skip
