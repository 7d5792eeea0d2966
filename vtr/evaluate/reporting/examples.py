"""Success and failure cases: the query, its own video and what was retrieved, as frame strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr.evaluate.reporting.results import Result
from vtr.evaluate.reporting.strips import Strip, data_uri, read_strip
from vtr.foreign import escaped, isolated

MAX_HITS = 5


@dataclass(frozen=True)
class Hit:
    """One video shown under a query.

    Args:
        strip: Its frames.
        score: Its score with the query; None where it is not told.
        place: "1", "2", ... among the retrieved, or "own video".
        correct: Whether it is the query's own.
    """

    strip: Strip
    score: float | None
    place: str
    correct: bool


@dataclass(frozen=True)
class Example:
    """One query.

    Args:
        query_id: Its id.
        text: Its words.
        rank: Rank of its own video, 1 is best.
        hits: The retrieved videos, best first; its own video leads where it is not among them.
    """

    query_id: str
    text: str
    rank: float
    hits: tuple[Hit, ...]


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
    """Returns the examples of one kind with their frames decoded.

    Args:
        result: Whose examples.
        kind: "success" or "failure".
        videos: Folder to look in where a recorded path does not exist.
        limit: At most so many.
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
        hits.insert(0, Hit(strips.of(own), _score(own), "own video", True))
    return Example(
        str(entry.get("query_id", "")),
        str(entry.get("text", "")),
        float(entry["rank"]),
        tuple(hits),
    )


def _score(entry: Mapping[str, Any]) -> float | None:
    score = entry.get("score")
    return None if score is None else float(score)


def example_section(examples: Sequence[Example], kind: str, title: str) -> list[str]:
    """Returns the examples of the result called `title` as HTML blocks, with a line above them."""
    if not examples:
        return []
    intro = {
        "success": "Queries whose own video comes first, the clearest margins first.",
        "failure": "Queries whose own video comes last of all, the worst first. Several may be "
        "right in meaning: only the query's own video counts.",
    }[kind]
    whose = f"Of {isolated(title, 80)}. {intro}"
    return [f'<p class="faint">{whose}</p>', *(_block(example) for example in examples)]


def _block(example: Example) -> str:
    hits = "".join(_hit(hit) for hit in example.hits)
    return (
        f'<article class="example"><blockquote>{isolated(example.text)}</blockquote>'
        f'<p class="faint">query {isolated(example.query_id, 80)}, own video at rank '
        f"{example.rank:,g}</p>{hits}</article>"
    )


def _hit(hit: Hit) -> str:
    place = hit.place if hit.place == "own video" else f"{hit.place}."
    tag = " own video" if hit.correct and hit.place != "own video" else ""
    score = "" if hit.score is None else f"score {hit.score:.4f}"
    return (
        f'<div class="hit{" correct" if hit.correct else ""}"><div class="who"><b>{place}{tag}</b>'
        f'{isolated(hit.strip.video, 80)}<br><span class="faint">{score}</span></div>'
        f'<div class="strip">{_frames(hit.strip)}</div></div>'
    )


def _frames(strip: Strip) -> str:
    if not strip.frames:
        return f'<div class="absent">No pictures: {escaped(strip.problem, 160)}</div>'
    return "".join(
        f'<figure><img src="{data_uri(frame.picture)}" width="{frame.picture.shape[1]}" '
        f'height="{frame.picture.shape[0]}" alt="{escaped(strip.video, 60)} at '
        f'{frame.pts_seconds:.2f} s"><figcaption>{frame.pts_seconds:.2f} s</figcaption></figure>'
        for frame in strip.frames
    )
