"""Success and failure cases: the query, its own video and what was retrieved, as frame strips."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vtr.charts.drawing import Drawing, cut, wrapped
from vtr.errors import DecodeError
from vtr.evaluate.reporting.results import Result
from vtr.foreign import shown
from vtr.pages import part

MAX_HITS = 5
OWN = "own video"
MAX_FRAMES = 6
HEIGHT = 96  # pixels; drawn at half of it or more on dense screens
_EVEN_PARTS = 4

Picture = NDArray[np.uint8]
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One picture."""

    pts_seconds: float  # its presentation time as stored in the file
    picture: Picture  # (h, w, 3) uint8

    @property
    def data_uri(self) -> str:
        """The picture as a JPEG that a page can carry in itself."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.picture).save(buffer, "JPEG", quality=78, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class Strip:
    """Some frames of one video, or why there are none."""

    video: str  # its id
    frames: tuple[Frame, ...]  # in presentation order; empty where the file cannot be shown
    problem: str = ""  # one line, empty where there are frames
    chosen: bool = True  # whether the times were given (else they are evenly spread)


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


def read_examples(
    result: Result, kind: str, *, videos: Path | None = None, limit: int
) -> list[Example]:
    """Returns up to `limit` examples of one kind ("success", "failure") with their frames decoded.

    Where a recorded path does not exist, the folder `videos` is looked in.
    """
    recorded = result.part("videos").get("paths")
    paths: Mapping[str, str] = recorded if isinstance(recorded, Mapping) else {}
    strips: dict[str, Strip] = {}  # every video is read once, however many examples show it

    def hit(entry: Mapping[str, Any], place: str, *, correct: bool) -> Hit:
        video, score = str(entry.get("video", "")), entry.get("score")
        if video not in strips:
            given = paths.get(video)
            path = result.folder / given if given and "\0" not in given else None
            if path is not None and not path.is_file() and videos is not None:
                path = _moved(Path(str(given)), videos)
            strips[video] = read_strip(video, path, entry.get("pts_seconds") or [])
        return Hit(strips[video], None if score is None else float(score), place, correct)

    examples = []
    for entry in result.examples(kind)[:limit]:
        retrieved = list(entry.get("retrieved") or [])[:MAX_HITS]
        hits = [
            hit(one, str(place), correct=bool(one.get("correct")))
            for place, one in enumerate(retrieved, start=1)
        ]
        if not any(one.correct for one in hits):
            own = entry.get("own") or {"video": entry.get("video", "")}
            hits.insert(0, hit(own, OWN, correct=True))
        query_id, text = (str(entry.get(name, "")) for name in ("query_id", "text"))
        examples.append(Example(query_id, text, float(entry["rank"]), tuple(hits)))
    return examples


def _moved(recorded: Path, videos: Path) -> Path:
    """Returns where a file is in a folder that has moved: by as much of its path as is there."""
    parts = recorded.parts
    tails = [parts[i:] for i in range(len(parts)) if not {"..", "/"} & set(parts[i:])]
    places = [videos.joinpath(*tail) for tail in tails]
    return next((place for place in places if place.is_file()), videos / recorded.name)


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

_DRAWN = 4  # examples
_WIDTH, _MARGIN, _LEFT, _ROW, _HEIGHT = 900.0, 24.0, 200.0, 98.0, 72.0  # pixels


def draw_examples(examples: Sequence[Example], kind: str) -> bytes:
    """Returns queries, own and retrieved videos as frame strips, as a PNG; three videos a query."""
    drawing = Drawing(_WIDTH)
    drawing.text(_MARGIN, 38, f"{kind.capitalize()} cases", size=17, kind="ink bold")
    y = 46.0
    for example in examples[:_DRAWN]:
        for line in wrapped(shown(example.text, 190), _WIDTH - 2 * _MARGIN, 14):
            y += 20
            drawing.text(_MARGIN, y, line, size=14, kind="ink")
        facts = f"query {shown(example.query_id, 60)}, own video at rank {example.rank:,g}"
        drawing.text(_MARGIN, y + 18, facts)
        y += 34
        hits = list(example.hits)[:3]
        own = next((hit for hit in example.hits if hit.correct), None)
        for hit in hits if own is None or own in hits else [*hits[:2], own]:
            _draw_hit(drawing, hit, y)
            y += _ROW
        y += 14
    drawing.height = y
    return drawing.png()


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


# ---- frames of videos


def read_strip(video: str, path: Path | None, pts_seconds: Sequence[float]) -> Strip:
    """Decodes the frames nearest to given times; evenly spread ones where none is given.

    More than `MAX_FRAMES` times are thinned to the middles of equal parts.
    """
    if path is None or not path.is_file():
        return Strip(video, (), "the video file is not here")
    try:
        frames = _decode(path, np.sort(np.asarray(pts_seconds, np.float64)))
    except DecodeError as error:
        return Strip(video, (), f"cannot be decoded: {error}")
    return Strip(video, frames, chosen=bool(len(pts_seconds)))


def _decode(path: Path, wanted: Seconds) -> tuple[Frame, ...]:
    from vtr.extract.sample import FrameRequest, sample_video
    from vtr.extract.samplers.base import Indices, SamplerChoice, Signals
    from vtr.extract.samplers.segment import middles

    times = wanted[middles(len(wanted), MAX_FRAMES)]

    class AtTimes(FrameRequest):
        """Asks for the frames nearest to the wanted times, instead of a sampler's."""

        def select(self, signals: Signals) -> dict[str, Indices]:
            pts = signals.pts_seconds
            if not len(times):
                return {"": middles(len(pts), _EVEN_PARTS)}
            return {"": np.unique(np.abs(pts[None, :] - times[:, None]).argmin(axis=1))}

    uniform = (SamplerChoice("uniform"),)
    found = sample_video(AtTimes(path, path.name, uniform, MAX_FRAMES, None), _Small())
    taken = zip(found.pts_seconds.tolist(), found.crops, strict=True)
    return tuple(Frame(*frame) for frame in taken)


class _Small:
    """Makes pictures small; one of another shape is squeezed into the first's."""

    size: tuple[int, int] | None = None

    def __call__(self, picture: Picture) -> Picture:
        from PIL import Image

        if self.size is None:
            height, width = picture.shape[:2]
            wide = min(max(round(width * HEIGHT / height), HEIGHT // 3), 3 * HEIGHT)
            self.size = (wide, HEIGHT)
        return np.asarray(Image.fromarray(picture).resize(self.size, Image.Resampling.LANCZOS))
