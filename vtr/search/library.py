"""A folder of videos, or a store, that answers queries with moments.

>>> from vtr.search.library import Query
>>> Query.of("a dog jumps into water", without="snow").texts
('a dog jumps into water',)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError, UnknownNameError
from vtr.features.rows import Status
from vtr.search.cuts import best_run, edges
from vtr.search.encoder import QueryEncoder, unit
from vtr.search.folder import Changes, FolderSource, Source, ledger_rows
from vtr.search.index import Index

Floats = NDArray[np.floating[Any]]
MATCH_LEVEL = 0.95
_MOST_CHARACTERS = 100_000
_SAMPLE_ROWS = 1 << 16


@dataclass(frozen=True)
class VideoEntry:
    """A video of the library."""

    id: str
    path: Path | None  # None where the file is gone
    duration_seconds: float
    status: Status
    error: str  # "class: detail" of partial and failed videos, else empty


@dataclass(frozen=True)
class Query:
    """What is looked for: unit vectors of all parts are averaged, those of `without` subtracted."""

    texts: tuple[str, ...] = ()
    images: tuple[Path | bytes, ...] = ()
    clips: tuple[tuple[Path | bytes, float | None], ...] = ()  # each with the second to look at
    like: tuple[tuple[str, float], ...] = ()  # (video id, seconds) of the library itself
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, *texts: str, without: str | Sequence[str] = (), **parts: Any) -> Self:
        """Returns a query of sentences; a convenience."""
        return cls(
            texts, without=(without,) if isinstance(without, str) else tuple(without), **parts
        )

    def __post_init__(self) -> None:
        if not (self.texts or self.images or self.clips or self.like):
            raise ConfigError("nothing to search for: give a sentence, --image, --video or --like")
        for text in (*self.texts, *self.without):
            if not text.strip() or "\0" in text or len(text) > _MOST_CHARACTERS:
                what = (
                    "empty"
                    if not text.strip()
                    else ("with a NUL in it" if "\0" in text else f"{len(text):,} characters long")
                )
                raise ConfigError(f"a sentence is {what}; write what is to be seen, in some words")


@dataclass(frozen=True)
class Hit:
    """A moment that shows what was asked for; times are seconds from the file's first frame."""

    video_id: str
    path: Path | None
    start_seconds: float
    end_seconds: float
    best_seconds: float  # Of the frame with the best score
    score: float  # Its cosine with the query
    level: float  # Share of the folder's unrelated sentences that it is better than, 0 to 1


@dataclass(frozen=True)
class Answer:
    """What a search found."""

    hits: tuple[Hit, ...]
    """The moments, best first; empty where nothing matches."""
    match: bool
    """Whether the best is better than nearly all unrelated sentences are here."""
    level: float
    """Share of the unrelated sentences whose answer stands out less than this query's, 0 to 1."""
    nearest: tuple[Hit, ...]
    """Where nothing matches, what is nearest all the same."""
    num_truncated: int
    """How many sentences were longer than the model reads."""
    weights: tuple[tuple[str, float], ...]
    """What each part of the query weighs."""


@dataclass(frozen=True)
class Curve:
    """The scores of one video for a query."""

    seconds: NDArray[np.float64]  # (F,) of the frames
    scores: Floats  # (F,)
    pieces: tuple[tuple[float, float, float], ...]  # (start, end, mean score) of each piece


class Library:
    """Videos that can be searched; made by `open`. Not for several threads at once."""

    def __init__(self, source: Source, encoder: QueryEncoder, index: Index) -> None:
        self.source, self.encoder = source, encoder
        self._take(index)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        model: str | None = None,
        device: str = "auto",
        index: str | Path | None = None,
        workers: int | None = None,
        rebuild: bool = False,
    ) -> Self:
        """Opens a folder of videos; what is new or changed in it is embedded first.

        Args:
            folder: Of the videos.
            model: Hub id or folder of the backbone; by default the one that the index was made
                with, at first CLIP ViT-B/32.
            device: Where it runs.
            index: Where the features lie; by default hidden beside the videos, or in the user's
                cache.
            workers: Decoding processes; by default one per core.
            rebuild: Make everything anew, such as for another model.

        Raises:
            ConfigError: No such folder, or no videos in it.
            ModelError: The model cannot be had, or is another than the index was made with.
            StoreError: The index cannot be written or read.
        """
        source = FolderSource(
            Path(folder), None if index is None else Path(index), model, device, workers
        )
        return cls(source, source.encoder, source.refresh(rebuild=rebuild)[0])

    def refresh(self) -> Changes:
        """Embeds new and changed videos, and forgets deleted ones."""
        index, changes = self.source.refresh()
        self._take(index)
        return changes

    def _take(self, index: Index) -> None:
        self.index = index
        self._ids = index.ids
        self._paths: Mapping[str, Path | None] = self.source.paths(self._ids)
        lengths = index.video["duration"].tolist()
        self.videos = tuple(
            VideoEntry(row.id, self._paths[row.id], length, row.status, row.error)
            for row, length in zip(ledger_rows(index), lengths, strict=True)
            if row.id in self._paths
        )
        sizes = index.video["stop"] - index.video["first"]
        there = np.array([i in self._paths for i in self._ids], bool) & (sizes > 0)
        self._live = np.flatnonzero(there)
        order = np.argsort(index.video["first"][self._live], kind="stable")
        self._live = self._live[order]  # (L,) videos in the order of their rows
        self._starts, self._stops = (
            index.video["first"][self._live],
            index.video["stop"][self._live],
        )
        self._alive = np.zeros(len(index.pts_seconds), bool)
        for start, stop in zip(self._starts.tolist(), self._stops.tolist(), strict=True):
            self._alive[start:stop] = True
        self._bank_levels = self._calibrate()

    # ---- scores

    def _scores(self, vector: Floats) -> NDArray[np.float32]:
        """Returns (R,) the cosine of every row."""
        import torch

        frames = torch.from_numpy(np.asarray(self.index.frames))
        query = torch.from_numpy(np.asarray(vector, np.float16))
        with torch.inference_mode():
            return torch.mv(frames, query).float().numpy()

    def _sample(self) -> NDArray[np.int64]:
        rows = np.flatnonzero(self._alive)
        return rows[:: max(1, len(rows) // _SAMPLE_ROWS)]

    def _calibrate(self) -> NDArray[np.float64]:
        """Returns (B,) ascending: how far the folder stands out for each unrelated sentence."""
        rows, index = self._sample(), self.index
        if not len(rows):
            return np.zeros(0)
        frames = np.asarray(index.frames[rows], np.float32)
        scores = (frames @ index.bank.T - index.bank_mean[rows, None]) / index.bank_sd[rows, None]
        return np.sort(np.percentile(scores, 99.5, axis=0) - np.median(scores, axis=0))

    def _level(self, excess: float) -> float:
        return float(np.searchsorted(self._bank_levels, excess) / max(len(self._bank_levels), 1))

    def vector(self, query: Query) -> tuple[NDArray[np.float32], list[tuple[str, float]], int]:
        """Returns the unit vector (D,) of a query, what its parts weigh, and truncated texts."""
        parts: list[tuple[str, Floats]] = []
        vectors, truncated = self.encoder.texts([*query.texts, *query.without])
        parts += zip(query.texts, vectors, strict=False)
        parts += [(_name(image), self.encoder.picture(image)) for image in query.images]
        parts += [(_name(clip), self.encoder.clip(clip, at_seconds=at)) for clip, at in query.clips]
        parts += [(f"{i}@{at:g}", self._frame_at(i, at)) for i, at in query.like]
        wanted = unit(np.mean([vector for _, vector in parts], axis=0))
        weights = [(name, 1 / len(parts)) for name, _ in parts]
        if query.without:
            avoided = unit(vectors[len(query.texts) :].mean(axis=0))
            if float(wanted @ avoided) > 0.999:
                raise ConfigError(
                    "--not says the same as the query: nothing is left. Leave one of them out"
                )
            wanted = unit(wanted - avoided / 2)
            weights += [(text, -0.5 / len(query.without)) for text in query.without]
        return wanted, weights, truncated

    def _place(self, video_id: str) -> int:
        if video_id not in self._paths:
            raise UnknownNameError("video", video_id, sorted(self._paths)[:20])
        return self._ids.index(video_id)

    def _frame_at(self, video_id: str, seconds: float) -> Floats:
        v = self._place(video_id)
        first, stop = (int(self.index.video[name][v]) for name in ("first", "stop"))
        if first == stop:
            raise ConfigError(f"video {video_id!r} has no frames: {self.videos[v].error}")
        length = float(self.index.video["duration"][v])
        if not 0 <= seconds <= length:
            raise ConfigError(f"{video_id}@{seconds:g}: the video lasts {length:.2f} s")
        row = first + int(np.argmin(np.abs(self.index.pts_seconds[first:stop] - seconds)))
        return unit(self.index.frames[row])

    # ---- answers

    def search(
        self,
        query: Query,
        *,
        top: int = 10,
        inside: str | None = None,
        min_length: float | None = None,
        max_length: float | None = None,
        all_moments: bool = False,
    ) -> Answer:
        """Returns the moments that show best what a query asks for.

        Args:
            query: What to look for.
            top: How many moments.
            inside: Only videos in this sub-folder, or whose id fits this pattern (`*`, `?`).
            min_length: Only videos of at least so many seconds.
            max_length: Only videos of at most so many seconds.
            all_moments: Several moments of a video, where it has them.

        Raises:
            ConfigError: A query that cannot be read.
            UnknownNameError: `like` names no video here.
        """
        vector, weights, truncated = self.vector(query)
        scores = self._scores(vector)
        rows = self._sample()
        if not len(rows):
            return Answer((), False, 0.0, (), truncated, tuple(weights))
        standard = (scores[rows] - self.index.bank_mean[rows]) / self.index.bank_sd[rows]
        median = float(np.median(standard))
        level = self._level(float(np.percentile(standard, 99.5)) - median)
        best = np.maximum.reduceat(np.where(self._alive, scores, -np.inf), self._starts)
        allowed = self._allowed(inside, min_length, max_length)
        order = [n for n in np.argsort(-best, kind="stable").tolist() if allowed[n]]
        hits: list[Hit] = []
        for n in order[:top]:
            hits += self._moments(n, vector, median, all_moments=all_moments)
        hits = sorted(hits, key=lambda hit: (-hit.score, hit.video_id, hit.start_seconds))[:top]
        match = level >= MATCH_LEVEL
        found = tuple(hits)
        return Answer(
            found if match else (), match, level, () if match else found, truncated, tuple(weights)
        )

    def _allowed(
        self, inside: str | None, min_length: float | None, max_length: float | None
    ) -> NDArray[np.bool_]:
        length = self.index.video["duration"][self._live]
        allowed = np.ones(len(length), bool)
        if min_length is not None:
            allowed &= length >= min_length
        if max_length is not None:
            allowed &= length <= max_length
        if inside is not None:
            allowed &= np.array([is_inside(self._ids[v], inside) for v in self._live], bool)
        return allowed

    def _exact(self, n: int, vector: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Returns a video's scores in float32, the edges of its frames, and of its pieces."""
        start, stop = int(self._starts[n]), int(self._stops[n])
        scores = np.asarray(self.index.frames[start:stop], np.float32) @ vector
        v = int(self._live[n])
        times = edges(self.index.pts_seconds[start:stop], float(self.index.video["duration"][v]))
        return scores, times, self.index.pieces(v)

    def _moments(self, n: int, vector: Floats, median: float, *, all_moments: bool) -> list[Hit]:
        scores, times, pieces = self._exact(n, vector)
        start, video_id = int(self._starts[n]), self._ids[int(self._live[n])]
        means = np.add.reduceat(scores, pieces[:-1]) / np.diff(pieces)
        threshold, found = (float(means.mean()) + float(means.max())) / 2, []
        weights = np.diff(pieces).astype(np.float64)
        while True:
            run = best_run(means, weights, threshold)
            low, high = int(pieces[run.first]), int(pieces[run.stop])
            best = low + int(np.argmax(scores[low:high]))
            row = start + best
            z = (scores[best] - self.index.bank_mean[row]) / self.index.bank_sd[row]
            found.append(
                Hit(
                    video_id, self._paths[video_id], float(times[low]), float(times[high]),
                    float(self.index.pts_seconds[row]), float(scores[best]),
                    self._level(float(z) - median),
                )
            )  # fmt: skip
            means[run.first : run.stop] = -np.inf
            if not all_moments or not (means > threshold).any():
                return found

    def curve(self, query: Query, video_id: str) -> Curve:
        """Returns the scores of one video's frames and pieces.

        Raises:
            UnknownNameError: No such video.
            ConfigError: It has no frames.
        """
        v = self._place(video_id)
        n = np.flatnonzero(self._live == v)
        if not len(n):
            raise ConfigError(f"video {video_id!r} has no frames")
        scores, times, pieces = self._exact(int(n[0]), self.vector(query)[0])
        means = np.add.reduceat(scores, pieces[:-1]) / np.diff(pieces)
        first, stop = int(self._starts[n[0]]), int(self._stops[n[0]])
        spans = zip(pieces[:-1].tolist(), pieces[1:].tolist(), means.tolist(), strict=True)
        return Curve(
            self.index.pts_seconds[first:stop],
            scores,
            tuple((float(times[a]), float(times[b]), mean) for a, b, mean in spans),
        )


def is_inside(video_id: str, pattern: str) -> bool:
    """Returns whether a video lies in a sub-folder or fits a pattern.

    >>> is_inside("cats/one.mp4", "cats"), is_inside("cats/one.mp4", "*one*")
    (True, True)
    """
    return (
        video_id.startswith(pattern.rstrip("/") + "/")
        or fnmatch(video_id, pattern)
        or fnmatch(video_id.rpartition("/")[2], pattern)
    )


def _name(part: Path | bytes) -> str:
    return "a file" if isinstance(part, bytes) else str(part)
