r"""Which file a name means: one rule for captions, splits, features of others and every dataset.

Annotation files name a video as whoever wrote them saw it: `video0`, `cats/one.mp4`,
`/srv/videos/cats/one.mp4`, `D:\clips\cats\one.mp4`. The folder in a name is part of it: what lies
in another folder under the same file name is another video.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from vtr.foreign import escape_undecodable

# FFmpeg's demuxers of containers that hold video and never open a second file, each with the
# extensions of its files: what is listed and what is opened are one table. FFmpeg goes by the
# content, not by the extension. Left out are animated WebP, which FFmpeg does not decode, and
# playlists, image sequences and devices.
VIDEO_CONTAINERS: Mapping[str, tuple[str, ...]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".ismv", ".mj2"),
    ),
    "matroska,webm": (".mkv", ".mk3d", ".webm"),
    "avi": (".avi", ".divx"),
    "mpegts": (".ts", ".m2t", ".m2ts", ".mts"),
    "mpeg": (".mpg", ".mpeg", ".mpe", ".vob"),
    "mpegvideo": (".m1v", ".m2v"),
    "m4v": (".m4v",),
    "h264": (".h264", ".264"),
    "hevc": (".hevc", ".h265", ".265"),
    "flv": (".flv",),
    "asf": (".asf", ".wmv"),
    "wtv": (".wtv",),
    "ogg": (".ogv", ".ogm"),
    "rm": (".rm", ".rmvb"),
    "mxf": (".mxf",),
    "dv": (".dv",),
    "nut": (".nut",),
    "ivf": (".ivf",),
    "yuv4mpegpipe": (".y4m",),
    "gif": (".gif",),
    "apng": (".apng",),
}
VIDEO_EXTENSIONS = frozenset(chain.from_iterable(VIDEO_CONTAINERS.values()))
FEATURE_EXTENSIONS = frozenset({".h5", ".hdf5", ".npy", ".npz", ".pt", ".pth"})
MEDIA_EXTENSIONS = VIDEO_EXTENSIONS | FEATURE_EXTENSIONS

# A drive, a scheme, the root or somebody's home: the name starts at a place that is not ours.
_FOREIGN = re.compile(r"/|~[^/]*/|[A-Za-z][A-Za-z0-9+.\-]*:/")


_LONGEST_PATH = 4096  # what systems take; a longer name would only cost time


@dataclass(frozen=True)
class NameMatch:
    """Which files belong to which names; a file is given to one name and its other spellings."""

    files: Mapping[str, tuple[str, ...]]
    """Name to the files that fit it equally well, in the order given; one unless it is ambiguous.
    A name without a file is absent."""
    spellings: Mapping[str, str]
    """A further spelling of a name that has a file (`x` beside `x.mp4`), to that file."""
    contested: Mapping[str, str]
    """Name to a file that names which contradict each other fit equally well; none has it."""
    recased: Mapping[str, str]
    """Those of `files` that fit only if case and outer blanks do not count, to their file."""
    free: tuple[str, ...]
    """The files that belong to no name."""

    @property
    def closed(self) -> set[str]:
        """The names of which a file was found, whoever has it."""
        return {*self.files, *self.spellings, *self.contested}


def match_names(
    names: Iterable[str],
    files: Iterable[str],
    *,
    extensions: Collection[str] = MEDIA_EXTENSIONS,
    any_case: bool = False,
) -> NameMatch:
    r"""Finds the file that every name means.

    Separators are normalised first (`\`, `//`, `./`, drives, composed Unicode). A name fits a file
    where the one path is the tail of the other; the longest common tail wins, the whole path before
    a part of it. On equal tails a file of that very name wins, then one that only has an extension
    more (in whatever folder, if the name has none), then one with another extension. A folder in
    the name is given up only where nothing says that the folder counts: not for a file at the top
    while other names start there. A file that a name has is not offered to a worse one.

    Args:
        names: As annotation files spell them.
        files: Paths relative to one folder.
        extensions: What counts as an extension, in lower case with the dot.
        any_case: Fit what is left by names that differ in case or outer blanks, where it is unique.

    Returns:
        In time linear in the number of path parts.

    >>> match_names([r"D:\clips\cats\one.mp4", "cats/two"], ["cats/one.mp4", "dogs/two.mp4"]).files
    {'D:\\clips\\cats\\one.mp4': ('cats/one.mp4',)}
    """
    wanted, there = list(dict.fromkeys(names)), list(dict.fromkeys(files))
    matching = _Matching(extensions)
    matching.run(wanted, there, normal_path)
    recased: dict[str, str] = {}
    if any_case:
        open_names = [name for name in wanted if name not in matching.closed]
        open_files = [file for file in there if file not in matching.takers]
        again = _Matching(extensions)
        again.run(open_names, open_files, _folded_path)
        recased = {
            name: fit[0]
            for name, fit in again.given.items()
            if len(fit) == 1 and fit[0] not in again.spellings.values()
        }
        matching.given |= {name: (file,) for name, file in recased.items()}
    taken = {*chain.from_iterable(matching.given.values()), *matching.contested.values()}
    return NameMatch(
        {name: matching.given[name] for name in wanted if name in matching.given},
        matching.spellings,
        {name: matching.contested[name] for name in wanted if name in matching.contested},
        recased,
        tuple(file for file in there if file not in taken),
    )


def video_id(name: str) -> str:
    r"""Returns a file's path, or an id, as a store holds it: in NFC, undecodable bytes escaped.

    >>> video_id("trips/caf\u0065\u0301.mp4") == "trips/caf\u00e9.mp4"
    True
    >>> print(video_id("caf\udce9.mp4"))
    caf\xe9.mp4
    """
    return _composed(escape_undecodable(name))


def normal_path(name: str) -> str:
    r"""Returns a path with `/` between its parts, in NFC; one from a foreign place begins with `/`.

    >>> normal_path("D:\\clips\\cats\\one.mp4"), normal_path("./cats//x/../one.mp4")
    ('/D:/clips/cats/one.mp4', 'cats/one.mp4')
    """
    text = _composed(name).replace("\\", "/")
    foreign = _FOREIGN.match(text) is not None
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            foreign = foreign or not parts
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" * foreign + "/".join(parts)


def without_extension(name: str, extensions: Collection[str] = MEDIA_EXTENSIONS) -> str:
    """Returns a name without its extension, where it has one of these; a dot at the end is one.

    >>> without_extension("cats/one.mp4"), without_extension("v_abc.def"), without_extension("x.")
    ('cats/one', 'v_abc.def', 'x')
    """
    stem, extension = os.path.splitext(name)  # noqa: PTH122 - for every name, hot
    return stem if extension == "." or extension.lower() in extensions else name


def _folded_path(name: str) -> str:
    """As `normal_path`, in one case and without the blanks around parts that tables lose."""
    parts = normal_path(name).casefold().split("/")
    return _composed("/".join(part.strip() for part in parts))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _tails(path: str) -> Iterator[str]:
    """Yields the proper tails of a path, the longest first."""
    at = path.find("/")
    while at >= 0:
        yield path[at + 1 :]
        at = path.find("/", at + 1)


def _folders(path: str) -> Iterator[str]:
    """Yields the folders that a folder lies in, up to the place where its path starts."""
    while path and path != "/":
        above = path.rpartition("/")[0]
        path = above or "/" * path.startswith("/")
        yield path


class _Index:
    """Files by their whole path and by its tails."""

    def __init__(self) -> None:
        self.whole: dict[str, list[str]] = {}
        self.tails: dict[str, list[str]] = {}

    def add(self, path: str, file: str) -> None:
        self.whole.setdefault(path, []).append(file)
        for tail in _tails(path):
            self.tails.setdefault(tail, []).append(file)


@dataclass
class _Matching:
    """The state of one matching: names are closed, and files taken, by the best fit first."""

    extensions: Collection[str]
    given: dict[str, tuple[str, ...]] = field(default_factory=dict)
    spellings: dict[str, str] = field(default_factory=dict)
    contested: dict[str, str] = field(default_factory=dict)
    takers: dict[str, str] = field(default_factory=dict)  # file -> the name that has it
    closed: set[str] = field(default_factory=set)
    _paths: dict[str, str] = field(default_factory=dict)  # name -> normal path
    _named: _Index = field(default_factory=_Index)
    _bare: _Index = field(default_factory=_Index)  # without extension
    _anywhere: dict[str, list[str]] = field(default_factory=dict)  # likewise, in whatever folder

    def run(self, names: Iterable[str], files: Iterable[str], key: Callable[[str], str]) -> None:
        literal: dict[str, list[str]] = {}
        for file in files:
            literal.setdefault(_composed(file), []).append(file)
        self._paths = {name: key(name) for name in names}
        # The longer of two names that fit a file says more of it.
        names = sorted(self._paths, key=lambda name: -self._paths[name].count("/"))
        for name in names:  # before separators are read into a file called a\\b.mp4
            self._take(name, literal.get(_composed(name), ()))
        names = [name for name in names if name not in self.closed]
        if not names:  # as where they come from the folder itself
            return
        self._look_through(files, key)
        for index, bare in ((self._named, False), (self._bare, False), (self._bare, True)):
            for table in (index.whole, index.tails):
                for name in names:
                    path = self._paths[name].lstrip("/")
                    if name in self.closed or (bare and self._stem(path) == path):
                        continue
                    hits = table.get(self._stem(path) if bare else path, [])
                    if index is self._bare and not bare and "/" not in path:
                        hits = self._anywhere.get(path, [])
                    self._take(name, hits)
        self._shorten([name for name in names if name not in self.closed])

    def _look_through(self, files: Iterable[str], key: Callable[[str], str]) -> None:
        for file in files:
            path = key(file).lstrip("/")
            self._named.add(path, file)
            stem = self._stem(path)
            self._bare.add(stem, file)
            self._anywhere.setdefault(stem.rpartition("/")[2], []).append(file)

    def _stem(self, path: str) -> str:
        return without_extension(path, self.extensions)

    def _shorten(self, names: list[str]) -> None:
        """Tries names without their first folders."""
        places = {"" for name in self.given if not self._paths[name].startswith("/")}
        claims = [
            (other, name, self._paths[name][: -len(tail) - 1] or "/", "/" in tail, hits)
            for name in names
            if len(self._paths[name]) <= _LONGEST_PATH
            for tail, other, hits in self._longest(self._paths[name])
        ]
        claims.sort(key=lambda claim: claim[0])
        for _, name, place, keeps_folder, hits in claims:
            places.add(place)
            if keeps_folder:
                self._take(name, hits, dropped=place)
        for _, name, place, keeps_folder, hits in claims:
            if not keeps_folder and places.isdisjoint(_folders(place)):
                self._take(name, hits, dropped=place)

    def _longest(self, path: str) -> Iterator[tuple[str, bool, list[str]]]:
        """Yields the longest tail that is a whole path, whether under another extension, whose."""
        for tail in _tails(path):
            hits = self._named.whole.get(tail) or self._bare.whole.get(tail)
            other = not hits
            stem = self._stem(tail)
            if other and stem != tail:
                # Another extension is looked for in the same folder only, none at all anywhere.
                same_folder = path.startswith("/") or "/" in tail
                hits = (self._bare if same_folder else self._named).whole.get(stem)
            if hits:
                yield tail, other, hits
                return

    def _take(self, name: str, hits: Collection[str], *, dropped: str = "") -> None:
        """Gives `name` those of `hits` that are free; else it is a spelling, or contradicts."""
        if not hits:
            return
        self.closed.add(name)
        free = tuple(file for file in hits if file not in self.takers)
        if free:
            self.given[name] = free
            self.takers.update(dict.fromkeys(free, name))
            return
        file = next(iter(hits))
        taker = self.takers[file]
        if self._agree(name, taker):
            if not dropped or dropped.startswith("/"):
                self.spellings[name] = file
        elif self._rank(name, file) == self._rank(taker, file):
            self.contested[name] = self.contested[taker] = file
            self.given.pop(taker, None)

    def _agree(self, name: str, other: str) -> bool:
        """Returns whether two names can mean one file: one is a tail of the other."""
        one, two = (self._paths[each].lstrip("/") for each in (name, other))
        if self._stem(one) == one or self._stem(two) == two:
            one, two = self._stem(one), self._stem(two)
        return one == two or one.endswith(f"/{two}") or two.endswith(f"/{one}")

    def _rank(self, name: str, file: str) -> tuple[bool, bool, bool]:
        """Returns how badly a name fits a file."""
        path, whole = self._paths[name].lstrip("/"), normal_path(file).lstrip("/")
        shorter = path.count("/") > whole.count("/")
        own = os.path.basename(path), os.path.basename(whole)  # noqa: PTH119
        return shorter, own[0] != own[1], own[0] not in (own[1], self._stem(own[1]))
