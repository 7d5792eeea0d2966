"""Which files of features belong to which video: names, side files, crops, twins."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vtr.features.foreign import (
    EXTENSIONS,
    NO_ARRAY,
    Array,
    TensorReader,
    UnusableError,
    read_arrays,
)
from vtr.names import video_id

_SIDES = ("_timestamps_ms", "_fps")
_CROP = re.compile(r"(.+)__(\d+)")
# What systems put beside files.
_HIDDEN = (".", "@", "#")
_WHOLE_VIDEO = ("features", "feature", "feats", "feat", "embeddings")
_LISTED_VIDEOS = frozenset({"ids", "video_ids", "video_id", "videos", "video_names", "vids"})


@dataclass(frozen=True)
class Source:
    """Where the features of one video come from."""

    id: str  # Path below the source without its ending, or the name within a file of several
    paths: tuple[Path, ...]  # One file; several are crops of the same frames
    key: str = ""  # Name within the file; empty where the file is one array
    shape: tuple[int, ...] = ()  # As stored
    times: Path | None = None  # A file of the rows' presentation times in milliseconds
    problem: str = ""  # Why it cannot be used, as "class: detail"


def find_files(source: Path) -> tuple[list[Path], int]:
    """Returns the files that may hold features, folders named like one too, and counts others."""
    if not source.is_dir():
        return ([source] if source.name.lower().endswith(EXTENSIONS) else []), 0
    arrays, others = [], 0
    for folder, names, files in os.walk(source):
        named = [name for name in names if name.lower().endswith(EXTENSIONS)]
        names[:] = [n for n in names if not n.startswith(_HIDDEN) and n not in named]
        for name in (*files, *named):
            if name.lower().endswith(EXTENSIONS) and not name.startswith(_HIDDEN):
                arrays.append(Path(folder, name))
            else:
                others += not name.startswith(_HIDDEN)
    return sorted(arrays), others


def find_sources(source: Path, files: Sequence[Path], *, tensors: TensorReader) -> list[Source]:
    """Returns one source per array, and one per file that cannot be used.

    video_features' `X_fps` and `X_timestamps_ms` belong to `X_clip`, whose video is `X`. Where
    every file is one of `X__0` to `X__k`, for the same k, these are k + 1 crops of the video `X`.
    Of files that name the same video the first counts; names that more files hold than there are
    such names are what the arrays are, and name no videos.
    """
    names = {
        path: path.relative_to(source).with_suffix("").as_posix() if path != source else path.stem
        for path in files
    }
    videos, times = _side_files(names)
    files_of: dict[tuple[str, ...], list[tuple[Path, str]]] = {}
    inside = {}
    for path, name in videos.items():
        video = video_id(name)
        inside[path] = _in_file(path, video, tensors)
        names_in = tuple(one.id for one in inside[path])
        files_of.setdefault(names_in, []).append((path, video))
    for kinds, same in files_of.items():
        if 1 < len(kinds) < len(same):
            what = f"several-arrays: {', '.join(kinds)}; call that of the frames features"
            inside |= {path: [Source(video, (path,), problem=what)] for path, video in same}
    every = [replace(one, times=times.get(path)) for path in videos for one in inside[path]]
    return list(_told_apart(_crops(every)))


def _side_files(names: Mapping[Path, str]) -> tuple[dict[Path, str], dict[Path, Path]]:
    """Returns the video of every file of features, and its file of times where it has one."""
    bases = {path: name.removesuffix(e) for path, name in names.items() for e in _SIDES
             if name.endswith(e)}  # fmt: skip
    known = set(bases.values())
    owners: dict[Path, str] = {}
    for path, name in names.items():
        ends = (at for at, letter in enumerate(name) if letter == "_")
        base = next((name[:at] for at in ends if name[:at] in known), None)
        if path not in bases and base is not None:
            owners[path] = base
    alone = Counter(owners.values())
    sides = {path: base for path, base in bases.items() if base in alone}
    times = {base: path for path, base in sides.items() if names[path].endswith(_SIDES[0])}
    videos = {
        path: owners[path] if alone[owners.get(path, "")] == 1 else name
        for path, name in names.items()
        if path not in sides
    }
    return videos, {path: times[base] for path, base in owners.items() if base in times}


def _in_file(path: Path, video: str, tensors: TensorReader) -> list[Source]:
    """Returns the sources in one file: of several arrays each is a video, by its own name."""
    arrays = []
    try:
        for key, array in read_arrays(path, tensors=tensors):
            name = video_id(key)
            if isinstance(array, str):
                arrays.append(Source(name, (path,), key, problem=array))
            else:
                arrays.append(Source(name, (path,), key, array.shape))
        if not arrays:
            raise UnusableError("not-an-array: it holds none")
    except UnusableError as error:
        return [*arrays, Source(video, (path,), problem=str(error))]
    whole = _whole(arrays)
    listed = _LISTED_VIDEOS.intersection(one.key.lower() for one in arrays)
    if whole and listed:
        rows = f"its rows are the videos of {min(listed)!r}; write one array each"
        whole = replace(whole, problem=f"several-videos: {rows}")
    return [replace(whole, id=video)] if whole else _by_group(arrays)


def _whole(arrays: Sequence[Source], group: str = "") -> Source | None:
    """Returns the one of a group's arrays that is the video's, None where they are of several."""
    rows = [one for one in arrays if not _is_fact(one)]
    if len(arrays) == 1 or len(rows) == 1:
        return (rows or list(arrays))[0]
    own = {one.key.removeprefix(group): one for one in arrays}
    return next((own[word] for word in _WHOLE_VIDEO if word in own), None)


def _is_fact(one: Source) -> bool:
    """Returns whether it is a number or a text beside the rows, such as their rate."""
    return one.problem == f"{NO_ARRAY}str" if one.problem else math.prod(one.shape) == 1


def _by_group(arrays: Sequence[Source]) -> list[Source]:
    """Names arrays after their groups where each has one for a video (`video0/features`)."""
    groups: dict[str, list[Source]] = {}
    for one in arrays:
        groups.setdefault(one.key.rpartition("/")[0], []).append(one)
    chosen = {group: _whole(members, f"{group}/") for group, members in groups.items()}
    kinds = {one and one.key.rpartition("/")[2] for one in chosen.values()}
    if len(kinds) > 1 or not kinds or None in kinds or "" in groups:
        return list(arrays)
    names = {group: video_id(group) for group in chosen}
    return [replace(one, id=names[group]) for group, one in chosen.items() if one]


def _crops(sources: Sequence[Source]) -> list[Source]:
    """Joins the crops of each video, where all sources are such."""
    matches = [_CROP.fullmatch(source.id) for source in sources]
    groups: dict[str, dict[int, Source]] = {}
    for source, match in zip(sources, matches, strict=True):
        if match is None or source.key:
            return list(sources)
        groups.setdefault(match[1], {})[int(match[2])] = source
    counts = {len(group) for group in groups.values()}
    whole = all(sorted(group) == list(range(len(group))) for group in groups.values())
    if not whole or counts in ({1}, set()) or len(counts) > 1:
        return list(sources)
    joined = []
    for video, group in groups.items():
        paths = tuple(group[crop].paths[0] for crop in range(len(group)))
        problem = next((one.problem for one in group.values() if one.problem), "")
        joined.append(replace(group[0], id=video, paths=paths, problem=problem))
    return joined


def _told_apart(sources: Sequence[Source]) -> Iterator[Source]:
    seen: dict[str, Source] = {}
    for source in sources:
        first = seen.setdefault(source.id, source)
        if first is source:
            yield source
            continue
        number = 2
        while (name := f"{source.id} ({number})") in seen:
            number += 1
        problem = f"twice: {source.id} is in {first.paths[0].name} too, which counts"
        seen[name] = replace(source, id=name, problem=source.problem or problem)
        yield seen[name]


class Loader:
    """Reads the arrays of sources; those of one file in its order without beginning again."""

    def __init__(self, tensors: TensorReader) -> None:
        self._tensors = tensors
        self._path: Path | None = None
        self._rest: Iterator[tuple[str, Array | str]] = iter(())

    def load(self, source: Source) -> Array:
        """Returns the array of a source, the mean where it has several crops.

        Raises:
            UnusableError: It cannot be read.
        """
        if source.problem:
            raise UnusableError(source.problem)
        arrays = [self._one(path, source.key) for path in source.paths]
        if len(arrays) == 1:
            return arrays[0]
        if len({array.shape for array in arrays}) > 1:
            raise UnusableError("wrong-shape: the crops of one video have different shapes")
        mean: Array = np.mean(arrays, axis=0)
        return mean

    def times(self, source: Source) -> Array | None:
        """Returns the (n,) presentation times in seconds that are told, None where none are.

        Raises:
            UnusableError: They cannot be read, or are no times.
        """
        if source.times is None:
            return None
        seconds = np.atleast_1d(self._one(source.times, "").squeeze()) / 1000
        if seconds.ndim != 1 or not np.isfinite(seconds).all() or (np.diff(seconds) < 0).any():
            raise UnusableError(f"wrong-times: {source.times.name} holds no ascending times")
        return np.asarray(seconds, np.float64)

    def _one(self, path: Path, key: str) -> Array:
        for _ in range(2):
            if self._path != path:
                self._path, self._rest = path, read_arrays(path, tensors=self._tensors)
            for name, array in self._rest:
                if name == key:
                    if isinstance(array, str):
                        raise UnusableError(array)
                    return array
            self._path = None
        raise UnusableError(f"not-an-array: {path.name} holds no {key!r} any more")
