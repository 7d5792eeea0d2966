"""Which video files a folder holds, and which of them belong to the videos a dataset expects.

Nothing is lost without a word: what looks like a video by its name is listed even where it cannot
be one (a folder called x.mp4, a FIFO, a dangling link), so that it ends as a row of the ledger. A
look into the file decides only where the name says nothing (no extension) or two things (`.ts` is a
transport stream or TypeScript). What is skipped is counted.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.foreign import escape_undecodable, printable
from vtr.names import VIDEO_EXTENSIONS, match_names
from vtr.remote import check_url, list_files, url_of

# What network disks and desktops keep beside the files: previews, rubbish, snapshots, indices.
SYSTEM_NAMES = frozenset({
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin",
    "system volume information", "lost+found", "__macosx", "desktop.ini", "thumbs", "thumbs.db",
})  # fmt: skip
# TypeScript is called so as well.
TEXT_EXTENSIONS = frozenset({".ts", ".mts"})
_TEXT_BYTES = bytes({*range(7, 14), 27, *range(32, 127), *range(128, 256)})
_BEGINNING_BYTES = 512
# How the containers of `vtr.names` begin, but for those that only a longer look would tell.
_BEGINNINGS = re.compile(
    rb"\x00...(?:ftyp(?!M4[AB] )|moov|wide|free|skip|pnot|styp)|....mdat|\x1aE\xdf\xa3"
    rb"|RIFF....AVI |FLV\x01|G.{187}G.{187}G|.{4}G.{191}G.{191}G|\x00\x00\x01[\xb3\xba]"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|OggS.{24}(?:\x80theora|fishead|\x01video)|\.RMF"
    rb"|nut/multimedia|DKIF|YUV4MPEG2 |\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02|\x1f\x07\x00"
    rb"|GIF8[79]a|\x89PNG\r\n\x1a\n.{,60}acTL|\xb7\xd8\x00\x20",
    re.DOTALL,
)
_MOST_KINDS = 6


@dataclass(frozen=True)
class VideoListing:
    """What a folder holds, in an order that depends on nothing but the names."""

    root: Path  # The folder
    # Paths relative to it with `/`, as the disk has them (undecodable bytes are lone surrogates),
    # sorted by their raw bytes.
    names: tuple[str, ...]
    num_hidden: int = 0  # Entries skipped for a leading dot, or as one of `SYSTEM_NAMES`
    others: Mapping[str, int] = field(default_factory=dict)  # Extension ("": none) -> other files
    unreadable: tuple[tuple[str, str], ...] = ()  # (folder below the root, why it was not listed)

    @property
    def skipped(self) -> str:
        """What is no video, in words; empty where all is.

        >>> VideoListing(Path("x"), (), 2, {".txt": 3, "": 1}).skipped
        '4 other files (3 .txt, 1 without extension), 2 hidden or system entries'
        """
        counts = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        kinds = [f"{count:,} {kind or 'without extension'}" for kind, count in counts[:_MOST_KINDS]]
        if rest := sum(count for _, count in counts[_MOST_KINDS:]):
            kinds.append(f"{rest:,} of other kinds")
        others = f"{counted(sum(self.others.values()), 'other file')} ({', '.join(kinds)})"
        hidden = counted(self.num_hidden, "hidden or system entry")
        return ", ".join([others] * bool(counts) + [hidden] * bool(self.num_hidden))

    def __len__(self) -> int:
        return len(self.names)

    def path(self, name: str) -> Path:
        """Returns the path of one of `names`."""
        return self.root / name


@dataclass(frozen=True)
class VideoMatch:
    """Which files belong to which expected ids."""

    paths: Mapping[str, Path]  # Id to its file; ids without a file are absent
    duplicates: Mapping[str, tuple[Path, ...]]  # Id to the further files that fit it as well
    unexpected: tuple[Path, ...]  # Files that belong to no id
    spellings: Mapping[str, Path]  # Another spelling of an id in `paths`, to that file
    contested: Mapping[str, Path]  # Ids that contradict each other, to the file that all fit
    recased: tuple[str, ...]  # Ids in `paths` whose file differs in case or outer blanks


def require_folder(path: Path, *, what: str) -> Path:
    """Returns `path` where it can be listed; else ConfigError, of `what` ("--videos")."""
    if url := url_of(path):
        check_url(url)
        return path  # looked for when it is listed
    try:
        with os.scandir(path):
            return path
    except FileNotFoundError:
        reason = "there is no such folder"
    except NotADirectoryError:
        reason = "that is a file; name the folder that holds it"
    except OSError as error:
        reason = f"it cannot be listed ({error.strerror or error})"
    raise ConfigError(f"{what} is {printable(path)}, but {reason}.")


def find_videos(folder: Path) -> VideoListing:
    """Lists the videos in `folder` and in all folders below it, by extension.

    Hidden files and folders are skipped, and those of network disks and desktops. A folder is
    entered once, however many links lead to it, and under its real name where it has one here, so a
    new link never renames old videos. A folder with a video's name is listed only where it holds no
    videos (else it is just a folder).
    """
    if url := url_of(folder):
        return _find_elsewhere(folder, url)
    walk = _Walk(require_folder(folder, what="the folder of videos"))
    walk.run()
    names = _by_bytes(walk.names)
    unreadable = tuple(sorted(walk.unreadable, key=lambda item: os.fsencode(item[0])))
    return VideoListing(folder, names, walk.num_hidden, dict(walk.others), unreadable)


def _find_elsewhere(folder: Path, url: str) -> VideoListing:
    """Lists a folder of another file system, by extension alone: nothing is opened."""
    names, num_hidden, others = [], 0, Counter[str]()
    found, unreadable = list_files(url)
    for name in found:
        steps = name.split("/")
        if any(step.startswith(".") or step.lower() in SYSTEM_NAMES for step in steps):
            num_hidden += 1
        elif (extension := _extension(name)) in VIDEO_EXTENSIONS:
            names.append(name)
        else:
            others[extension] += 1
    listed = _by_bytes(names)
    return VideoListing(folder, listed, num_hidden, dict(others), tuple(sorted(unreadable)))


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
        stems: Id to another name, without extension, that its file may have; tried last, and only
            where it is no other id's as well.
        any_case: Whether what is left may differ in upper and lower case and in outer blanks.
    """
    files: dict[str, list[str]] = {}  # what names are matched with -> names on the disk
    for name in listing.names:
        files.setdefault(escape_undecodable(name), []).append(name)
    match = match_names(ids, files, any_case=any_case)
    given, free = dict(match.files), match.free
    stems = stems or {}
    shared = Counter(stems.values())
    others = {i: s for i, s in stems.items() if i not in match.closed and shared[s] == 1}
    if others:
        again = match_names(others.values(), free)
        given |= {i: again.files[stem] for i, stem in others.items() if stem in again.files}
        free = again.free

    def paths(fit: Iterable[str]) -> list[Path]:
        return [listing.path(name) for file in fit for name in files[file]]

    ordered = {identity: _regular_first(paths(fit)) for identity, fit in given.items()}
    return VideoMatch(
        {identity: fit[0] for identity, fit in ordered.items()},
        {identity: tuple(fit[1:]) for identity, fit in ordered.items() if fit[1:]},
        tuple(paths(free)),
        {identity: paths([file])[0] for identity, file in match.spellings.items()},
        {identity: paths([file])[0] for identity, file in match.contested.items()},
        tuple(match.recased),
    )


@dataclass
class _Walk:
    """The state of one listing: real folders first, then what only links lead to."""

    root: Path
    names: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    num_hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _links: list[str] = field(default_factory=list)
    _folders_with_video_names: list[str] = field(default_factory=list)

    def run(self) -> None:
        self._enter_tree("")
        while self._links:
            links, self._links = sorted(self._links, key=os.fsencode), []
            for link in links:
                self._enter_tree(link)
        if self._folders_with_video_names:
            letters = ((name, *letter) for name in self.names for letter in enumerate(name))
            holding = {name[:at] for name, at, letter in letters if letter == "/"}
            self.names += [name for name in self._folders_with_video_names if name not in holding]

    def _enter_tree(self, start: str) -> None:
        """Lists `start` and the real folders below it; links to folders are kept for later."""
        stack = [start]
        while stack:
            folder = stack.pop()
            try:
                if self._is_new(folder):
                    with os.scandir(self.root / folder) as entries:
                        stack += _by_bytes(self._sort_out(folder, entries))
            except OSError as error:
                self.unreadable.append((folder, error.strerror or str(error)))

    def _is_new(self, folder: str) -> bool:
        status = (self.root / folder).stat()
        key = (status.st_dev, status.st_ino)
        if key in self._seen:
            return False
        self._seen.add(key)
        if folder and _extension(folder) in VIDEO_EXTENSIONS:
            self._folders_with_video_names.append(folder)
        return True

    def _sort_out(self, folder: str, entries: Iterable[os.DirEntry[str]]) -> Iterator[str]:
        """Records the files among `entries` and yields the real folders."""
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or entry.name.casefold() in SYSTEM_NAMES:
                self.num_hidden += 1
            elif _is_folder(entry):
                if entry.is_symlink():
                    self._links.append(name)
                else:
                    yield name
            elif _is_video(entry, extension := _extension(entry.name)):
                self.names.append(name)
            else:
                self.others[extension] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or one that leads where we may not look
        return False


def _extension(name: str) -> str:
    """Returns what follows the last dot of a path whose last part does not begin with it."""
    at = name.rfind(".")
    return name[at:].lower() if at > name.rfind("/") else ""


def _by_bytes(names: Iterable[str]) -> tuple[str, ...]:
    """Sorts names as the disk has them by their raw bytes."""
    given = tuple(names)
    key = None if all(map(str.isascii, given)) else os.fsencode
    return tuple(sorted(given, key=key))


def _is_video(entry: os.DirEntry[str], extension: str) -> bool:
    """Returns whether a file is taken for a video; looks into it where its name does not tell."""
    if extension in TEXT_EXTENSIONS:
        content = _beginning(entry)
        return not content or bool(content.translate(None, _TEXT_BYTES))
    return extension in VIDEO_EXTENSIONS or (
        extension in ("", ".") and _BEGINNINGS.match(_beginning(entry)) is not None
    )


def _beginning(entry: os.DirEntry[str]) -> bytes:
    """Returns the first bytes of a regular file; nothing of what is none or cannot be read."""
    try:
        if entry.is_file():
            with open(entry.path, "rb", buffering=0) as file:  # noqa: PTH123 - any file name
                return file.read(_BEGINNING_BYTES)
    except OSError:
        pass
    return b""


def _regular_first(paths: list[Path]) -> list[Path]:
    return paths if len(paths) == 1 else sorted(paths, key=lambda path: not path.is_file())
