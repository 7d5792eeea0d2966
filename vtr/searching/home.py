"""Where a folder's features are kept: hidden beside the videos, else in the user's cache."""

from __future__ import annotations

from pathlib import Path

from vtr.errors import StoreWriteError
from vtr.files import make_folder
from vtr.marks import user_cache

HIDDEN = ".vtr"
NAME = "search"


def find_home(folder: Path) -> Path:
    """Returns the folder of features of a folder of videos: that which exists, or a new one."""
    if held := held_home(folder):
        return held
    beside, cached = folder / HIDDEN / NAME, cache_folder(folder)
    if can_make(beside):
        return beside
    if cached is not None and can_make(cached):
        return cached
    raise StoreWriteError(
        f"neither {beside} nor {cached} can be written. Name a folder that can with --index DIR"
    )


def held_home(folder: Path) -> Path | None:
    """Returns where the features of a folder of videos lie; None where there are none yet."""
    places = (folder / HIDDEN / NAME, cache_folder(folder))
    return next((p for p in places if p is not None and any(p.glob("shard-*.h5"))), None)


def find_index(store: Path) -> Path:
    """Returns where the index of a store lies or is to be made."""
    beside, cached = store / "index", cache_folder(store)
    if (beside / "index.npz").exists() or cached is None or can_make(beside):
        return beside
    return cached / "index"


def cache_folder(folder: Path) -> Path | None:
    """Returns a folder's place in the user's cache; None where the user has no home."""
    cache = user_cache(NAME, folder)
    return None if cache is None else cache[0] / f"{folder.resolve().name[:40]}-{cache[1][:16]}"


def can_make(place: Path) -> bool:
    """Makes a folder; returns whether files can be written there."""
    try:
        make_folder(place, option="--index")
    except StoreWriteError:
        return False
    return True
