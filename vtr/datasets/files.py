"""Which video files a folder holds, and which of them belong to the videos a dataset expects.

Nothing is lost without a word: what looks like a video by its name is listed even where it cannot
be one (a folder called x.mp4, a FIFO, a dangling link), so that it ends as a row of the ledger.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vtr.errors import ConfigError
from vtr.foreign import escape_undecodable, printable
from vtr.names import VIDEO_EXTENSIONS, match_names


@dataclass(frozen=True)
class VideoListing:
    """What a folder holds, in an order that depends on nothing but the names.

    Args:
        root: The folder.
        names: Paths relative to it with `/`, as the disk has them (undecodable bytes are lone
            surrogates), sorted by their raw bytes.
        num_hidden: Entries skipped because their name starts with a dot.
        num_other: Entries skipped because their extension is no video's.
        unreadable: Folders below the root that could not be listed, each with the reason.
    """

    root: Path
    names: tuple[str, ...]
    num_hidden: int = 0
    num_other: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def path(self, name: str) -> Path:
        """Returns the path of one of `names`."""
        return self.root / name


@dataclass(frozen=True)
class VideoMatch:
    """Which files belong to which expected ids."""

    paths: Mapping[str, Path]
    """Id to its file; ids without a file are absent."""
    duplicates: Mapping[str, tuple[Path, ...]]
    """Id to the further files that fit it as well, in the listing's order."""
    unexpected: tuple[Path, ...]
    """Files that belong to no id."""
    spellings: Mapping[str, Path]
    """Id that is another spelling of one in `paths`, to that file."""
    contested: Mapping[str, Path]
    """Id to a file that ids which contradict each other fit equally well; none has it."""
    recased: tuple[str, ...]
    """The ids in `paths` that differ from their file in upper and lower case."""


def require_folder(path: Path, *, what: str) -> Path:
    """Returns `path` where it is a folder that can be listed.

    Args:
        path: The folder.
        what: What to call it in an error ("--videos").

    Raises:
        ConfigError: It is missing, a file, or may not be read.
    """
    try:
        with os.scandir(path):
            return path
    except FileNotFoundError:
        reason = "there is no such folder"
    except NotADirectoryError:
        reason = "that is a file; name the folder that holds it"
    except OSError as error:
        reason = f"it cannot be listed ({error.strerror or error})"
    raise ConfigError(f"{what} is {printable(str(path))}, but {reason}.")


def find_videos(folder: Path) -> VideoListing:
    """Lists the videos in `folder` and in all folders below it, by extension.

    Hidden files and folders are skipped. A folder is entered once, however many links lead to it,
    and under its real name where it has one here, so a new link never renames old videos. A folder
    with a video's name is listed only where it holds no videos (else it is just a folder).

    Args:
        folder: Where to look.

    Raises:
        ConfigError: `folder` is missing or no folder.
    """
    walk = _Walk(require_folder(folder, what="the folder of videos"))
    walk.run()
    return VideoListing(
        root=folder,
        names=tuple(sorted(walk.names, key=os.fsencode)),
        num_hidden=walk.num_hidden,
        num_other=walk.num_other,
        unreadable=tuple(sorted(walk.unreadable, key=lambda item: os.fsencode(item[0]))),
    )


def match_videos(
    listing: VideoListing,
    ids: Iterable[str],
    *,
    stems: Mapping[str, str] | None = None,
    any_case: bool = False,
) -> VideoMatch:
    """Finds the file of every expected id by the rule of `vtr.names.match_names`.

    Of several files that fit equally well the first in the listing's order wins, regular files
    before anything else; the rest are duplicates.

    Args:
        listing: From `find_videos`.
        ids: The expected ids.
        stems: Id to another name, without extension, that its file may have; tried last.
        any_case: Whether what is left may differ in upper and lower case.
    """
    files: dict[str, list[str]] = {}  # what names are matched with -> names on the disk
    for name in listing.names:
        files.setdefault(escape_undecodable(name), []).append(name)
    match = match_names(ids, files, any_case=any_case)
    found, free = dict(match.files), match.free
    others = {i: stem for i, stem in (stems or {}).items() if i not in match.closed}
    if others:
        again = match_names(others.values(), free)
        found |= {i: again.files[stem] for i, stem in others.items() if stem in again.files}
        free = again.free

    def paths(fit: Iterable[str]) -> list[Path]:
        return [listing.path(name) for file in fit for name in files[file]]

    ordered = {identity: _regular_first(paths(fit)) for identity, fit in found.items()}
    return VideoMatch(
        {identity: fit[0] for identity, fit in ordered.items()},
        {identity: tuple(fit[1:]) for identity, fit in ordered.items() if fit[1:]},
        tuple(paths(free)),
        {identity: paths([file])[0] for identity, file in match.spellings.items()},
        {identity: paths([file])[0] for identity, file in match.contested.items()},
        tuple(match.recased),
    )


def video_id(name: str) -> str:
    r"""Returns the id of a file: its relative path in NFC; what UTF-8 cannot say is escaped.

    >>> video_id("trips/caf\u0065\u0301.mp4") == "trips/caf\u00e9.mp4"
    True
    >>> print(video_id("caf\udce9.mp4"))
    caf\xe9.mp4
    """
    return unicodedata.normalize("NFC", escape_undecodable(name))


@dataclass
class _Walk:
    """The state of one listing: real folders first, then what only links lead to."""

    root: Path
    names: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    num_hidden: int = 0
    num_other: int = 0
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _links: list[str] = field(default_factory=list)
    _folders_with_video_names: list[str] = field(default_factory=list)

    def run(self) -> None:
        self._enter_tree("")
        while self._links:
            links, self._links = sorted(self._links, key=os.fsencode), []
            for link in links:
                self._enter_tree(link)
        holding = {parent for name in self.names for parent in _parents(name)}
        self.names += [name for name in self._folders_with_video_names if name not in holding]

    def _enter_tree(self, start: str) -> None:
        """Lists `start` and the real folders below it; links to folders are kept for later."""
        stack = [start]
        while stack:
            folder = stack.pop()
            try:
                if self._is_new(folder):
                    with os.scandir(self.root / folder) as entries:
                        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
                    stack += list(self._sort_out(folder, found))
            except OSError as error:
                self.unreadable.append((folder, error.strerror or str(error)))

    def _is_new(self, folder: str) -> bool:
        status = (self.root / folder).stat()
        key = (status.st_dev, status.st_ino)
        if key in self._seen:
            return False
        self._seen.add(key)
        if folder and _has_video_name(folder):
            self._folders_with_video_names.append(folder)
        return True

    def _sort_out(self, folder: str, entries: list[os.DirEntry[str]]) -> Iterator[str]:
        """Records the files among `entries` and yields the real folders."""
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                self.num_hidden += 1
            elif _is_folder(entry):
                if entry.is_symlink():
                    self._links.append(name)
                else:
                    yield name
            elif _has_video_name(entry.name):
                self.names.append(name)
            else:
                self.num_other += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or one that leads where we may not look
        return False


def _has_video_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS  # noqa: PTH122 - per file, hot


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _regular_first(paths: list[Path]) -> list[Path]:
    if len(paths) == 1:
        return paths
    return sorted(paths, key=lambda path: not path.is_file())
