"""What the page asks, as JSON: state, searches, scores of a video, examples, results."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Protocol, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from vtr.errors import UnknownNameError
from vtr.extract.pool import Outcome
from vtr.foreign import shown
from vtr.searching.library import MATCH_LEVEL, Answer, Curve, Hit, Library
from vtr.searching.query import Query
from vtr.serve import pictures
from vtr.serve.catalog import Catalog, RefusedError
from vtr.serve.librarian import Librarian
from vtr.serve.media import Media
from vtr.serve.workshop import BusyError

T = TypeVar("T")

_MOST_BODY_BYTES = 1 << 20
_MOST_EXAMPLE_BYTES = 256 << 20
_KEPT_EXAMPLES = 32
_MOST_UPLOADS = 3
_SILENT_SECONDS = 10.0
_MOST_HITS = 200
_MOST_PARTS = 20
_MOST_POINTS = 1000
_MOST_NUMBER = 1e9


class Results(Protocol):
    """The runs and results of a workspace, as the page shows them."""

    def documents(self) -> list[dict[str, Any]]:
        """Returns one JSON document per run."""

    def report(self, key: str) -> bytes | None:
        """Returns the report of a result, a page of its own; of all for "all"."""


class Api:
    """Answers the page's questions; see `create_app`."""

    def __init__(
        self, librarian: Librarian, media: Media, *, title: str, results: Results | None = None
    ) -> None:
        self._librarian, self._media = librarian, media
        self._title, self._results = title, results
        self._examples: OrderedDict[str, list[bytes]] = OrderedDict()
        self._num_uploads = 0

    async def state(self, _request: Request) -> dict[str, Any]:
        """How far the library is."""
        return {
            **self._librarian.state(),
            "title": shown(self._title),
            "root": shown(self._librarian.root),
            "results": self._results is not None,
        }

    async def library(self, _request: Request) -> dict[str, Any]:
        """What is in it."""
        return self._librarian.catalog.overview()

    async def search(self, request: Request) -> dict[str, Any]:
        """The moments that a query finds."""
        body, catalog = await _body(request), self._librarian.catalog
        query, options = self._query(body, catalog), _options(body)
        began = time.perf_counter()
        answer = await self._ask(lambda library: library.search(query, **options))
        milliseconds = (time.perf_counter() - began) * 1000
        answer = _without(answer, query.unlike)
        return {**_answer(answer, self._librarian.catalog), "milliseconds": round(milliseconds, 1)}

    async def curve(self, request: Request) -> dict[str, Any]:
        """The scores of one video for a query."""
        body, catalog = await _body(request), self._librarian.catalog
        query, video = self._query(body, catalog), catalog.entry(_text(body.get("video")))
        return _curve(await self._ask(lambda library: library.curve(query, video.id)))

    async def take_example(self, request: Request) -> dict[str, Any]:
        """Takes a picture or a clip to search by."""
        if self._num_uploads >= _MOST_UPLOADS:
            raise BusyError
        self._num_uploads += 1
        try:
            outcome = await self._upload(request)
        finally:
            self._num_uploads -= 1
        key = token_urlsafe(12)
        self._examples[key] = pictures.parts(outcome.header, outcome.payload)
        while len(self._examples) > _KEPT_EXAMPLES:
            self._examples.popitem(last=False)
        return {"key": key, "kind": outcome.header["what"]}

    async def _upload(self, request: Request) -> Outcome:
        with tempfile.NamedTemporaryFile(prefix="vtr-example-") as file:
            limit = f"The file is larger than {_MOST_EXAMPLE_BYTES >> 20} MiB."
            async for chunk in _received(request, _MOST_EXAMPLE_BYTES, limit):
                file.write(chunk)
            if not file.tell():
                raise RefusedError(400, "The file is empty.")
            file.flush()
            return await self._media.example(pictures.Example(Path(file.name)))

    async def show_example(self, request: Request) -> Response:
        """The middle picture of an example."""
        pictures_of_it = self._example(request.path_params["key"])
        return Response(pictures_of_it[len(pictures_of_it) // 2], media_type="image/png")

    async def results(self, _request: Request) -> dict[str, Any]:
        """The runs of the workspace, and what was measured of them."""
        if self._results is None:
            return {"runs": []}
        return {"runs": await asyncio.to_thread(self._results.documents)}

    async def report(self, key: str) -> bytes:
        """The report of a result."""
        page = None if self._results is None else await asyncio.to_thread(self._results.report, key)
        if page is None:
            raise RefusedError(404, "There is no such result any more.")
        return page

    # ---- what they share

    async def _ask(self, question: Callable[[Library], T]) -> T:
        try:
            return await asyncio.wrap_future(self._librarian.ask(question))
        except UnknownNameError:
            raise RefusedError(404, "There is no such video here any more.") from None

    def _example(self, key: str) -> list[bytes]:
        if key not in self._examples:
            raise RefusedError(404, "The example was dropped long ago; drop it again.")
        return self._examples[key]

    def _query(self, body: Mapping[str, Any], catalog: Catalog) -> Query:
        """Reads a query; a page's own words are as foreign as any others."""
        examples = [self._example(_text(key)) for key in _list(body, "examples")]
        return Query(
            texts=tuple(map(_text, _list(body, "texts"))),
            without=tuple(map(_text, _list(body, "without"))),
            images=tuple(picture for example in examples for picture in example),
            like=_moments(body, "like", catalog),
            unlike=_moments(body, "unlike", catalog),
        )


async def _body(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise RefusedError(415, "The question must be JSON.")
    limit = f"The question is longer than {_MOST_BODY_BYTES:,} bytes."
    parts = [chunk async for chunk in _received(request, _MOST_BODY_BYTES, limit)]
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise RefusedError(400, "The question is no JSON.") from None
    if not isinstance(body, dict):
        raise RefusedError(400, "The question must be a JSON object.")
    return body


async def _received(request: Request, most_bytes: int, limit: str) -> AsyncIterator[bytes]:
    """Yields a body as it comes; refuses one that is too long, as `limit` says.

    Its sender may not fall silent: it would hold one of few places for ever.
    """
    chunks, num_bytes = aiter(request.stream()), 0
    while True:
        try:
            async with asyncio.timeout(_SILENT_SECONDS):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise RefusedError(408, "Nothing came any more; send it again.") from None
        if chunk is None:
            return
        num_bytes += len(chunk)
        if num_bytes > most_bytes:
            raise RefusedError(413, limit)
        yield chunk


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    values = body.get(name, [])
    if not isinstance(values, list) or len(values) > _MOST_PARTS:
        raise RefusedError(400, f"{name} must be a list of at most {_MOST_PARTS}.")
    return values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise RefusedError(400, "A text is expected where something else was sent.")
    return value


def _moments(body: Mapping[str, Any], name: str, catalog: Catalog) -> tuple[tuple[str, float], ...]:
    moments = []
    for one in _list(body, name):
        if not isinstance(one, list) or len(one) != 2:
            raise RefusedError(400, f"{name} must be a list of [video, seconds].")
        video = catalog.entry(_text(one[0]))
        seconds = _number(one[1], name)
        moments.append((video.id, min(seconds, video.duration_seconds)))
    return tuple(moments)


def _number(value: object, name: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= _MOST_NUMBER):  # type: ignore[operator]
        raise RefusedError(400, f"{name} must be a number from 0 to {_MOST_NUMBER:g}.")
    return float(value)  # type: ignore[arg-type]


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "top": min(max(1, int(_number(body.get("top", 60), "top"))), _MOST_HITS),
        "all_moments": body.get("all_moments") is True,
    }
    for name in ("min_length", "max_length"):
        if body.get(name) is not None:
            options[name] = _number(body[name], name)
    if options.get("min_length", 0) > options.get("max_length", math.inf):
        raise RefusedError(400, "No video is that long and that short; change one of the lengths.")
    if body.get("inside"):
        options["inside"] = _text(body["inside"])
    return options


def _answer(answer: Answer, catalog: Catalog) -> dict[str, Any]:
    known = {video.id for video in catalog.videos}
    return {
        "match": answer.match,
        "level": round(answer.level, 4),
        "match_level": MATCH_LEVEL,
        "hits": [catalog.hit(hit) for hit in answer.hits if hit.video_id in known],
        "nearest": [catalog.hit(hit) for hit in answer.nearest if hit.video_id in known],
        "num_truncated": answer.num_truncated,
    }


def _without(answer: Answer, unlike: Sequence[tuple[str, float]]) -> Answer:
    """Leaves out the very moments that somebody does not want to see."""

    def kept(hits: Sequence[Hit]) -> tuple[Hit, ...]:
        return tuple(
            hit
            for hit in hits
            if not any(
                hit.video_id == video_id and hit.start_seconds <= at <= hit.end_seconds
                for video_id, at in unlike
            )
        )

    return replace(answer, hits=kept(answer.hits), nearest=kept(answer.nearest))


def _curve(curve: Curve) -> dict[str, Any]:
    """Returns at most so many points as a screen has; of each stretch the highest."""
    seconds, scores = curve.seconds, np.asarray(curve.scores, np.float64)
    if len(seconds) > _MOST_POINTS:
        parts = np.array_split(np.arange(len(seconds)), _MOST_POINTS)
        peaks = [part[int(np.argmax(scores[part]))] for part in parts]
        seconds, scores = seconds[peaks], scores[peaks]
    return {
        "seconds": np.round(seconds, 3).tolist(),
        "scores": np.round(scores, 4).tolist(),
        "pieces": [[round(number, 4) for number in piece] for piece in curve.pieces],
    }
