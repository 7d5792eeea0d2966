"""Success and failure cases: the query, its own video and what was retrieved, as frame strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vtr.charts.drawing import Drawing, cut, wrapped
from vtr.evaluate.reporting.page import part
from vtr.evaluate.reporting.results import Result
from vtr.evaluate.reporting.strips import Strip, read_strip
from vtr.foreign import shown

MAX_HITS = 5
OWN = "own video"


@dataclass(frozen=True)
class Hit:
    """One video shown under a query."""

    strip: Strip  # its frames
    score: float | None  # with the query; None where it is not known
    place: str  # "1", "2", ... among the retrieved, or OWN
    correct: bool  # whether it is the query's own

    @property
    def is_apart(self) -> bool:
        """Whether it is not among the retrieved."""
        return self.place == OWN


@dataclass(frozen=True)
class Example:
    """One query."""

    query_id: str
    text: str
    rank: float  # of its own video, 1 is best
    hits: tuple[Hit, ...]  # retrieved, best first; its own leads where it is not among them


class _Strips:
    """Reads every video once, however many examples show it."""

    def __init__(self, result: Result, videos: Path | None) -> None:
        paths = result.part("videos").get("paths")
        self._paths: Mapping[str, str] = paths if isinstance(paths, Mapping) else {}
        self._base = result.folder
        self._videos = videos
        self._found: dict[str, Strip] = {}

    def of(self, entry: Mapping[str, Any]) -> Strip:
        video = str(entry.get("video", ""))
        if video not in self._found:
            times = entry.get("pts_seconds") or []
            self._found[video] = read_strip(video, self._path(video), times)
        return self._found[video]

    def _path(self, video: str) -> Path | None:
        given = self._paths.get(video)
        if not given or "\0" in given:
            return None
        path = self._base / given  # an absolute path stays as it is
        if not path.is_file() and self._videos is not None:
            return self._videos / path.name
        return path


def read_examples(
    result: Result, kind: str, *, videos: Path | None = None, limit: int
) -> list[Example]:
    """Returns up to `limit` examples of one kind ("success", "failure") with their frames decoded.

    Where a recorded path does not exist, the folder `videos` is looked in.
    """
    strips = _Strips(result, videos)
    return [_example(entry, strips) for entry in result.examples(kind)[:limit]]


def _example(entry: Mapping[str, Any], strips: _Strips) -> Example:
    retrieved = list(entry.get("retrieved") or [])[:MAX_HITS]
    hits = [
        Hit(strips.of(hit), _score(hit), str(place), bool(hit.get("correct")))
        for place, hit in enumerate(retrieved, start=1)
    ]
    if not any(hit.correct for hit in hits):
        own = entry.get("own") or {"video": entry.get("video", "")}
        hits.insert(0, Hit(strips.of(own), _score(own), OWN, True))
    return Example(
        str(entry.get("query_id", "")),
        str(entry.get("text", "")),
        float(entry["rank"]),
        tuple(hits),
    )


def _score(entry: Mapping[str, Any]) -> float | None:
    score = entry.get("score")
    return None if score is None else float(score)


_INTRO = {
    "success": "Queries whose own video comes first, the clearest margins first.",
    "failure": "Queries whose own video comes last of all, the worst first. Several may be "
    "right in meaning: only the query's own video counts.",
}


def example_parts(examples: Sequence[Example], kind: str, title: str) -> list[Markup]:
    """Returns the examples of the result called `title` for a page, with a line above them."""
    if not examples:
        return []
    return [part("line", _INTRO[kind], title), *(part("example", one) for one in examples)]


# ---- as a picture

_WIDTH, _MARGIN, _LEFT, _ROW, _HEIGHT = 900.0, 24.0, 200.0, 98.0, 72.0  # pixels


def draw_examples(examples: Sequence[Example], kind: str, *, limit: int = 4) -> bytes:
    """Returns queries, own and retrieved videos as frame strips, as a PNG; three videos a query."""
    drawing = Drawing(_WIDTH)
    drawing.text(_MARGIN, 38, f"{kind.capitalize()} cases", size=17, kind="ink bold")
    y = 46.0
    for example in examples[:limit]:
        for line in wrapped(shown(example.text, 190), _WIDTH - 2 * _MARGIN, 14):
            y += 20
            drawing.text(_MARGIN, y, line, size=14, kind="ink")
        facts = f"query {shown(example.query_id, 60)}, own video at rank {example.rank:,g}"
        drawing.text(_MARGIN, y + 18, facts)
        y += 34
        for hit in _key_hits(example):
            _draw_hit(drawing, hit, y)
            y += _ROW
        y += 14
    drawing.height = y
    return drawing.png()


def _key_hits(example: Example) -> list[Hit]:
    """The best retrieved ones, and its own video wherever it stands."""
    hits = list(example.hits)[:3]
    own = next((hit for hit in example.hits if hit.correct), None)
    return hits if own is None or own in hits else [*hits[:2], own]


def _draw_hit(drawing: Drawing, hit: Hit, top: float) -> None:
    place = f"{hit.place} ({OWN})" if hit.correct and not hit.is_apart else hit.place
    score = "" if hit.score is None else f"score {hit.score:.3f}"
    video = cut(shown(hit.strip.video), _LEFT - _MARGIN - 10, 12.5)
    for nth, (words, kind) in enumerate(((place, "bold"), (video, ""), (score, ""))):
        colour = "good" if hit.correct else "ink"
        drawing.text(_MARGIN, top + 14 + 18 * nth, words, size=12.5, kind=f"{colour} {kind}")
    if not hit.strip.frames:
        drawing.text(_LEFT, top + 40, f"no pictures: {shown(hit.strip.problem, 80)}")
        return
    gap, room = 7, _WIDTH - _MARGIN - _LEFT
    widths = [_HEIGHT * f.picture.shape[1] / f.picture.shape[0] for f in hit.strip.frames]
    scale = min(1.0, (room - gap * (len(widths) - 1)) / sum(widths))
    x, height = _LEFT, _HEIGHT * scale
    for frame, width in zip(hit.strip.frames, widths, strict=True):
        drawing.picture((x, top, width * scale, height), frame.picture)
        middle = x + width * scale / 2
        words = f"{frame.pts_seconds:.1f} s"
        drawing.text(middle, top + height + 14, words, size=11, anchor="middle")
        x += width * scale + gap
