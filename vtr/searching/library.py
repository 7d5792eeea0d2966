"""A folder of videos, or a store, that answers queries with moments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError, UnknownNameError
from vtr.features.rows import Status
from vtr.searching.calibration import Calibration, usual
from vtr.searching.codes import open_scanner
from vtr.searching.encoder import Vectors, unit
from vtr.searching.folder import Changes, Source
from vtr.searching.index import Index
from vtr.searching.moments import find_runs, piece_means, row_edges, with_surroundings
from vtr.searching.query import Query
from vtr.searching.scan import Scanner

Floats = NDArray[np.floating[Any]]
Mix = Callable[[Floats, Floats], Floats]
"""(F,) scores and times of a video's frames to what they are ranked by."""
MATCH_LEVEL = 0.98
"""Below this share of unrelated sentences that a query beats, nothing like it is there."""
_SAME_DIRECTION = 0.999
_COMPARED_ROWS = 4096
_AWAY = 0.5  # at 1 a video that fits goes with one beside it (captions of the demo world)
_LEAST_SHARE = 0.2


@dataclass(frozen=True)
class VideoEntry:
    """A video of the library."""

    id: str
    path: Path | None  # None where the file is gone
    duration_seconds: float
    status: Status
    error: str  # "class: detail" of partial and failed videos, else empty


@dataclass(frozen=True)
class Hit:
    """A moment that shows what was asked for; times are seconds from the file's first frame."""

    video_id: str
    path: Path | None  # None where the file is not at hand
    start_seconds: float
    end_seconds: float
    best_seconds: float  # Of the frame that fits best
    score: float  # Cosine of that frame (of sentences: and what is around it); the order of hits
    level: float  # Share of the unrelated sentences that stand out less, 0 to 1; of pictures 1


@dataclass(frozen=True)
class Answer:
    """What a search found."""

    hits: tuple[Hit, ...]  # Best first; empty where nothing matches
    match: bool  # Whether the best stands out as unrelated sentences do not (`MATCH_LEVEL`)
    level: float  # Of the best; always 1 where the query has pictures
    nearest: tuple[Hit, ...]  # Where nothing matches: what is nearest all the same
    num_truncated: int  # How many sentences were longer than the model reads
    weights: tuple[tuple[str, float], ...]  # What each part of the query weighs
    recall: float | None = None  # Measured, of 8-bit codes; None where all frames were scored


@dataclass(frozen=True)
class Curve:
    """The scores of one video for a query."""

    seconds: NDArray[np.float64]  # (F,) of the frames
    scores: Floats  # (F,)
    pieces: tuple[tuple[float, float, float], ...]  # (start, end, mean score) of each piece


class Library:
    """Videos that can be searched, those of a source. Not for several threads at once.

    What is new or changed in the source is embedded first, with `rebuild` everything anew, such as
    for another model.
    """

    def __init__(self, source: Source, *, rebuild: bool = False) -> None:
        self.source = source
        index, self.changes = source.refresh(rebuild=rebuild)
        self._take(index)

    def refresh(self) -> Changes:
        """Embeds new and changed videos, and forgets deleted ones."""
        index, changes = self.source.refresh()
        self._take(index)
        return changes

    def _take(self, index: Index) -> None:
        self.index = index
        ledger = index.ledger()
        paths = self.source.paths([row.id for row in ledger])
        self.videos = tuple(
            VideoEntry(row.id, paths[row.id], row.duration_seconds, row.status, row.error)
            for row in ledger
            if row.id in paths
        )
        self._paths: Mapping[str, Path | None] = paths
        self._place = {row.id: v for v, row in enumerate(ledger)}
        sizes = index.video["stop"] - index.video["first"]
        there = np.array([row.id in paths for row in ledger], bool) & (sizes > 0)
        live = np.flatnonzero(there)
        self._live = live[np.argsort(index.video["first"][live], kind="stable")]  # (L,) videos
        self._ids = [ledger[v].id for v in self._live]
        exact = Scanner(
            index.frames, index.video["first"][self._live], index.video["stop"][self._live]
        )
        self.scanner = open_scanner(index.folder, index.facts, exact)
        best = index.bank_best.max(axis=0, initial=-1.0)  # of videos without frames: nothing
        self._calibration = Calibration.of(best[0] - index.bank_usual, best[1])

    # ---- answers

    def search(
        self,
        query: Query,
        *,
        top: int = 10,
        inside: str | Collection[str] | None = None,
        min_length: float | None = None,
        max_length: float | None = None,
        all_moments: bool = False,
    ) -> Answer:
        """Returns the moments that show best what a query asks for.

        Args:
            query: What to look for.
            top: How many moments.
            inside: Only videos in this sub-folder, or whose id or file name fits this pattern
                (`*`, `?`); or the ids themselves, in a set or a list.
            min_length: Only videos of at least so many seconds.
            max_length: Only videos of at most so many seconds.
            all_moments: Several moments of a video, where it has them.

        Raises:
            ConfigError: A part of the query that cannot be read, or lengths that none can have.
            DecodeError: A clip of the query that cannot be read.
            UnknownNameError: `like` names no video here.
        """
        vector, weights, num_truncated = self._ask(query)
        allowed = self._allowed(inside, min_length, max_length)
        if not allowed.any():
            return Answer((), False, 0.0, (), num_truncated, weights)
        if allowed.all():
            least, recall = min(_looked_into(top), len(allowed)), self.scanner.recall
            scores = self.scanner.scores(vector, least_videos=least)
        else:  # the best of all rows may hold none of these
            scores, recall = self.scanner.scan(vector), None
        sampled = scores[self.scanner.sample]
        low = None if query.has_pictures else float(usual(sampled))
        middle = float(np.median(sampled))
        hits: list[Hit] = []
        # A picture means the very frame; a sentence, what is shown for a while.
        mix: Mix = (lambda scores, _: scores) if query.has_pictures else with_surroundings
        for n in self._candidates(scores, vector, allowed, top, mix):
            hits += self._hits(n, vector, low, middle, mix, several=all_moments)
        hits.sort(key=lambda hit: (-hit.score, hit.video_id, hit.start_seconds))
        level = 1.0 if low is None else self._level(scores, allowed, low)
        found = tuple(hits[:top])
        match = level >= MATCH_LEVEL
        return Answer(
            hits=found if match else (), nearest=() if match else found, match=match, level=level,
            num_truncated=num_truncated, weights=weights, recall=recall,
        )  # fmt: skip

    def curve(self, query: Query, video_id: str) -> Curve:
        """Returns the scores of one video's frames and pieces."""
        first, stop = self._rows(video_id)
        v = self._place[video_id]
        pts, pieces = self.index.pts_seconds[first:stop], self.index.pieces(v)
        scores = self.scanner.exact(first, stop, self._ask(query)[0])
        starts, ends = self._edges(v, slice(first, stop))
        means = piece_means(scores, pieces)
        edges = starts[pieces[:-1]].tolist(), ends[pieces[1:] - 1].tolist()
        spans = zip(*edges, means.tolist(), strict=True)
        return Curve(pts, scores, tuple(spans))

    # ---- parts of it

    def _candidates(
        self, scores: Floats, vector: Vectors, allowed: NDArray[np.bool_], top: int, mix: Mix
    ) -> list[int]:
        """Returns the videos that may be among the best, by all frames, then by what is around."""
        best = np.where(allowed, self.scanner.best(scores), -np.inf)
        first = np.argsort(-best, kind="stable")[: _looked_into(top)]
        ranks = []
        for n in first[np.isfinite(best[first])].tolist():
            own = self.scanner.of_video(n, scores, vector)
            ranks.append((-mix(own, self.index.pts_seconds[self.scanner.rows(n)]).max(), n))
        return [n for _, n in sorted(ranks)[: top + 10]]

    def _hits(
        self, n: int, vector: Vectors, low: float | None, middle: float, mix: Mix, *, several: bool
    ) -> list[Hit]:
        """Returns the moments of the n-th video with frames, in float32.

        Of the folder's frames `low` is what they score at least, but for some (None for a query
        with pictures, which is not held against sentences), `middle` the median.
        """
        rows, v, video_id = self.scanner.rows(n), int(self._live[n]), self._ids[n]
        exact = self.scanner.exact(rows.start, rows.stop, vector)
        pts, pieces = self.index.pts_seconds[rows], self.index.pieces(v)
        starts, ends = self._edges(v, rows)
        mixed = mix(exact, pts)
        outlier = None if low is None else self._standard(exact, rows)
        return [
            Hit(
                video_id,
                self._paths[video_id],
                float(starts[first]),
                float(ends[stop - 1]),
                float(pts[best]),
                float(mixed[first:stop].max()),
                1.0
                if low is None or outlier is None
                else self._calibration.level(
                    float(exact[best]) - low, float(outlier[first:stop].max())
                ),
            )
            for first, stop, best in find_runs(exact, pieces, background=middle, several=several)
        ]

    def _edges(self, v: int, rows: slice) -> tuple[Floats, Floats]:
        """Returns where the rows of a video begin and end, in seconds."""
        duration = float(self.index.video["duration"][v])
        return row_edges(self.index.pts_seconds[rows], self.index.spans[rows], duration)

    def _standard(self, scores: Floats, rows: slice) -> Floats:
        """Returns scores in units of what unrelated sentences get on the same frames."""
        moments = self.index.bank_moments[rows]
        standard: Floats = (scores - moments[:, 0]) / moments[:, 1]
        return standard

    def _level(self, scores: Floats, allowed: NDArray[np.bool_], low: float) -> float:
        """Returns the level of the best of all frames of the videos that are allowed."""
        best = self.scanner.best(scores)[allowed].max()
        outlier = self.scanner.best(self._standard(scores, slice(None)))[allowed].max()
        return self._calibration.level(float(best) - low, float(outlier))

    def _ask(self, query: Query) -> tuple[Vectors, tuple[tuple[str, float], ...], int]:
        """Returns a query in the space of the frames, its weights, and how many texts were cut."""
        encoder, sentences = self.source.encoder, [*query.texts, *query.without]
        parts: list[tuple[str, Vectors]] = []
        avoided: list[Vectors] = []
        truncated = 0
        if sentences:
            vectors, truncated = encoder.texts(sentences)
            parts += zip(query.texts, vectors, strict=False)
            avoided = list(vectors[len(query.texts) :])
        parts += [
            ("a file" if isinstance(image, bytes) else image.name, encoder.picture(image))
            for image in query.images
        ]
        parts += [(clip.name, encoder.clip(clip, at_seconds=at)) for clip, at in query.clips]
        parts += [(f"{i}@{at:g}", self._frame_at(i, at)) for i, at in query.like]
        vector = unit(np.mean([vector for _, vector in parts], axis=0))
        weights = [(label, 1 / len(parts)) for label, _ in parts]
        if avoided:
            against = unit(np.mean(avoided, axis=0))
            if float(vector @ against) > _SAME_DIRECTION:
                raise ConfigError(
                    "what is looked for and what is to be left out are the same: nothing is left. "
                    "Change one of them"
                )
            vector = unit(vector - against / 2)
            weights += [(f"not {text}", -0.5 / len(avoided)) for text in query.without]
        if query.unlike:
            vector = self._away(vector, [self._frame_at(i, at) for i, at in query.unlike])
            weights += [(f"not {i}@{at:g}", -_AWAY / len(query.unlike)) for i, at in query.unlike]
        return vector, tuple(weights), truncated

    def _away(self, vector: Vectors, frames: Sequence[Vectors]) -> Vectors:
        """Returns a vector turned away from what frames show that is not asked for.

        What tells them from the folder's other frames is taken apart by their scores: the share
        that goes with the query's own stays, or a blue circle could not be had without blue hearts.
        The rest counts by what it spreads, since cosines with a sentence spread several times less
        than those of frames.
        """
        sample = self.scanner.sample
        some = sample[:: max(1, len(sample) // _COMPARED_ROWS)]
        others = np.asarray(self.index.frames[some], np.float32)
        centre = others.mean(axis=0)
        others -= centre
        against = unit(np.mean(frames, axis=0) - centre)
        asked, seen = others @ vector, others @ against
        rest = against - vector * (float(asked @ seen) / max(float(asked @ asked), 1e-12))
        spread = float((others @ rest).std())
        if spread <= _LEAST_SHARE * float(seen.std()):
            return vector  # all that these frames show is what was asked for
        return unit(vector - rest * (_AWAY * float(asked.std()) / spread))

    def _rows(self, video_id: str) -> tuple[int, int]:
        if video_id not in self._paths or video_id not in self._place:
            raise UnknownNameError("video", video_id, sorted(self._paths)[:20])
        v = self._place[video_id]
        first, stop = (int(self.index.video[name][v]) for name in ("first", "stop"))
        if first == stop:
            raise ConfigError(
                f"video {video_id!r} has no frames: {self.index.ledger()[v].error or 'none came'}"
            )
        return first, stop

    def _frame_at(self, video_id: str, seconds: float) -> Vectors:
        first, stop = self._rows(video_id)
        length = float(self.index.video["duration"][self._place[video_id]])
        if seconds > length:
            raise ConfigError(
                f"there is no second {seconds:g} of {video_id!r}: it lasts {length:.2f} s"
            )
        row = first + int(np.argmin(np.abs(self.index.pts_seconds[first:stop] - seconds)))
        return unit(self.index.frames[row])

    def _allowed(
        self,
        inside: str | Collection[str] | None,
        min_length: float | None,
        max_length: float | None,
    ) -> NDArray[np.bool_]:
        length = self.index.video["duration"][self._live]
        allowed = np.ones(len(length), bool)
        if min_length is not None and max_length is not None and min_length > max_length:
            raise ConfigError(
                f"--min-length {min_length:g} is above --max-length {max_length:g}: no video has "
                "such a length. Change one of them"
            )
        if min_length is not None:
            allowed &= length >= min_length
        if max_length is not None:
            allowed &= length <= max_length
        if isinstance(inside, str):
            allowed &= np.array([is_inside(i, inside) for i in self._ids], bool)
        elif inside is not None:
            allowed &= np.array([i in inside for i in self._ids], bool)
        return allowed


def is_inside(video_id: str, pattern: str) -> bool:
    """Returns whether a video lies in a sub-folder, or its id or file name fits a pattern.

    >>> is_inside("cats/one.mp4", "cats/"), is_inside("cats/one.mp4", "*one*")
    (True, True)
    >>> is_inside("cats/[1] one.mp4", "[1] one.mp4")  # a name as it is, whatever it means
    True
    """
    names = (video_id, video_id.rpartition("/")[2])
    below = video_id.startswith(pattern.rstrip("/") + "/")
    return below or pattern in names or any(fnmatch(name, pattern) for name in names)


def _looked_into(top: int) -> int:
    """Returns how many videos with the best frames are ranked by what is around those, too."""
    return 4 * top + 100
