"""What every node of a cluster must see before work starts there: folders, files, the model."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vtr import __version__
from vtr.clip.device import ENGINES
from vtr.clip.hub import find_model
from vtr.errors import VtrError
from vtr.extract.resume import size_of
from vtr.extras import require_extra
from vtr.files import TEMPORARY_PREFIX, publish
from vtr.foreign import printable
from vtr.remote import url_of

MOST_LOOKED_AT = 32
_T = TypeVar("_T")


@dataclass(frozen=True)
class Sight:
    """What a node must see."""

    folder: Path  # Of the videos
    sizes: tuple[tuple[Path, int], ...]  # Bytes of some of them as the driver sees them
    marker: Path | None = None  # A file of the driver's in the folder that is written to
    model: str | None = None
    engine: str = "torch"  # What computes there: its packages must be installed
    version: str = __version__


def a_few(files: Sequence[_T]) -> Sequence[_T]:
    """Returns a few files, evenly spread: their sizes tell another folder of the same name."""
    return files[:: -(-len(files) // MOST_LOOKED_AT) or 1]


def other_size(path: Path, here: int, *, planned: int) -> str:
    """Returns how a file differs from the one that the plan was made with."""
    sizes = ["no file" if size < 0 else f"{size:,} bytes" for size in (here, planned)]
    return f"{printable(str(path))} has {sizes[0]} there and {sizes[1]} where the plan was made"


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """Puts a file into a folder, which is there, that the nodes look for; takes it away again."""
    marker = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-ray"
    publish(marker, b"")
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def look(sight: Sight) -> str | None:
    """Returns what a node lacks, or None; runs there."""
    if __version__ != sight.version:
        return f"vtr {__version__} is installed there, and {sight.version} here"
    if not url_of(sight.folder) and not os.access(sight.folder, os.R_OK | os.X_OK):
        return f"it does not see the folder {printable(str(sight.folder))}"
    if sight.marker is not None and (problem := _look_at_target(sight.marker)):
        return problem
    for path, size in sight.sizes:
        if (here := size_of(path)) != size:
            return other_size(path, here, planned=size)
    try:
        require_extra(sight.engine, ENGINES[sight.engine], f"engine {sight.engine}")
    except VtrError as error:
        return str(error)
    try:
        if sight.model is not None:
            find_model(sight.model)
    except VtrError as error:
        return f"--model {printable(sight.model)}: {error}"
    return None


def _look_at_target(marker: Path) -> str | None:
    place = printable(str(marker.parent))
    if not marker.parent.is_dir():
        return f"it does not see the folder {place}"
    if not marker.exists():
        return f"its {place} is another folder than here; all nodes must see the same one"
    return None if os.access(marker.parent, os.W_OK) else f"it may not write to {place}"
