"""What a page shows of files: the files themselves by range, and what workers make of them."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Hashable
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from vtr.extract.cutting import Cut
from vtr.extract.limits import FAILURES
from vtr.extract.pool import Outcome
from vtr.foreign import shown
from vtr.serve import pictures
from vtr.serve.catalog import RefusedError, VideoFile
from vtr.serve.librarian import Librarian
from vtr.serve.workshop import Shelf, Workshop

WINDOW_SECONDS = 10.0
"""How much of a video a preview holds: it is made while somebody waits."""
_OVERLAP_SECONDS = 2.0
_LONGEST_CLIP_SECONDS = 300.0
_SHELF_BYTES = 96 << 20
_PICTURE_SECONDS, _WINDOW_JOB_SECONDS = 10.0, 120.0
_FAILED_SECONDS = 60.0  # until what failed is tried again, at most
_RANGE = re.compile(r"\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)
# Pictures of one version of a file never change: their address has its version in it.
_KEEP = {"cache-control": "private, max-age=86400, immutable"}


class Media:
    """Answers requests for pictures and videos of the librarian's catalog."""

    def __init__(self, librarian: Librarian) -> None:
        self._librarian = librarian
        self._quick = Workshop(workers=2, room=128, seconds=_PICTURE_SECONDS)
        self._slow = Workshop(workers=1, room=8, seconds=_WINDOW_JOB_SECONDS)
        self._shelf = Shelf(_SHELF_BYTES)
        self._scratch = TemporaryDirectory(prefix="vtr-serve-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """Ends the workers."""
        self._quick.close()
        self._slow.close()
        self._scratch.cleanup()

    async def video(self, request: Request) -> Response:
        """The file itself, or a range of it."""
        file = await self._file(request)
        kind = (await self._facts(file))["type"].partition(";")[0]
        if not asked_ranges(request):
            headers = request.scope["headers"]
            request.scope["headers"] = [pair for pair in headers if pair[0] != b"range"]
        return FileResponse(file.path, media_type=kind or "application/octet-stream")

    async def facts(self, request: Request) -> dict[str, Any]:
        """What a browser is asked before it is given the file."""
        file = await self._file(request)
        return {**await self._facts(file), "window": WINDOW_SECONDS}

    async def still(self, request: Request) -> Response:
        """One frame."""
        file, seconds = await self._file(request), _seconds(request, "at")
        return _picture(await self._made(pictures.Still(file.path, seconds), file))

    async def film(self, request: Request) -> Response:
        """Frames of a moment side by side."""
        file = await self._file(request)
        start, end, best = (_seconds(request, name) for name in ("start", "end", "best"))
        return _picture(await self._made(pictures.Film(file.path, start, end, best), file))

    async def window(self, request: Request) -> Response:
        """A preview of the part of a video around a time, that every browser plays."""
        file, number = await self._file(request), int(request.path_params["number"])
        length = self._librarian.catalog.entry(request.path_params["key"]).duration_seconds
        # A store of others' features knows no lengths.
        length = length or float((await self._facts(file))["seconds"])
        start, end = window_times(number, length)
        outcome = await self._made(pictures.Window(file.path, start, end), file)
        return ranged(bytes(outcome.payload), request, "video/mp4")

    async def clip(self, request: Request) -> Response:
        """A moment as a file of its own."""
        file = await self._file(request)
        start, end = _seconds(request, "start"), _seconds(request, "end")
        if end <= start:
            raise RefusedError(422, "A clip ends after it starts.")
        if end - start > _LONGEST_CLIP_SECONDS:
            raise RefusedError(
                422,
                f"Here a clip lasts up to {_LONGEST_CLIP_SECONDS:g} s; "
                "`vtr search --export` cuts longer ones.",
            )
        stem = re.sub(r"[^\w.-]+", "_", file.path.stem, flags=re.ASCII).strip("._")[:80]
        cut = Cut(file.path, Path(self._scratch.name), token_hex(8), start, end)
        outcome = _sound(await asyncio.wrap_future(self._slow.submit(cut)))
        if "refused" in outcome.header:
            raise RefusedError(507, f"The clip cannot be written: {outcome.header['refused']}.")
        suffix = ".mkv" if str(outcome.header["path"]).endswith(".mkv") else ".mp4"
        clip = cut.folder / f"{cut.stem}{suffix}"
        return FileResponse(
            clip,
            filename=f"{stem or 'clip'}_{start:.1f}-{end:.1f}{suffix}",
            background=BackgroundTask(clip.unlink, missing_ok=True),
        )

    async def example(self, job: pictures.Example) -> Outcome:
        """Returns the pictures of a file that somebody dropped, or raises `RefusedError`."""
        return _sound(await asyncio.wrap_future(self._quick.submit(job)))

    # ---- what they share

    async def _file(self, request: Request) -> VideoFile:
        key = request.path_params["key"]
        return await asyncio.to_thread(self._librarian.catalog.file, key)

    async def _facts(self, file: VideoFile) -> dict[str, Any]:
        return (await self._made(pictures.Facts(file.path), file)).header

    async def _made(self, job: Any, file: VideoFile) -> Outcome:
        """Returns what a worker makes of a file; once for every version of it.

        A failure counts for a while: the machine may have been busy, or the disk away.
        """
        key: Hashable = (job, file.version)
        failed: Hashable = (key, time.monotonic() // _FAILED_SECONDS)
        outcome = self._shelf.get(key) or self._shelf.get(failed)
        if outcome is None:
            workshop = self._slow if isinstance(job, pictures.Window) else self._quick
            future = workshop.submit(job)
            # Others may wait for it too, so it is not given up with one who leaves.
            outcome = await asyncio.shield(asyncio.wrap_future(future))
            self._shelf.put(key if outcome.failure is None else failed, outcome)
        return _sound(outcome)


def window_times(number: int, length: float) -> tuple[float, float]:
    """Returns start and end of the n-th preview of a video, in seconds.

    >>> window_times(0, 14.0), window_times(0, 100.0), window_times(9, 104.0)
    ((0.0, 14.0), (0.0, 12.0), (90.0, 104.0))
    """
    last = max(0, math.ceil(length / WINDOW_SECONDS - 0.5) - 1)
    if not 0 <= number <= last:
        raise RefusedError(404, "The video has no such part.")
    start = number * WINDOW_SECONDS
    if number == last:
        return start, max(length, start + 0.1)
    return start, start + WINDOW_SECONDS + _OVERLAP_SECONDS


def asked_ranges(request: Request) -> list[tuple[int | None, int | None]]:
    """Returns first and last byte of each range that is asked for; no first: so many from the end.

    None at all where the header is no such list: it then counts as absent (RFC 9110, 14.2).
    """
    unit, _, listed = request.headers.get("range", "").partition("=")
    asked: list[tuple[int | None, int | None]] = []
    for part in listed.split(","):
        match = _RANGE.fullmatch(part)
        texts = match.groups() if match else ("", "")
        first, last = (int(text) if text else None for text in texts)
        is_backwards = first is not None and last is not None and first > last
        if texts == ("", "") or is_backwards:
            return []
        asked.append((first, last))
    return asked if unit.strip().lower() == "bytes" else []


def ranged(content: bytes, request: Request, kind: str) -> Response:
    """Returns the range of some bytes that a request asks for, or all of them."""
    headers = {"accept-ranges": "bytes", "cache-control": "no-store"}
    asked, size = asked_ranges(request), len(content)
    if len(asked) != 1:
        return Response(content, media_type=kind, headers=headers)
    begin, end = asked[0]
    if begin is None:
        first, last = max(0, size - (end or 0)), size - 1
    else:
        first, last = begin, size - 1 if end is None else min(end, size - 1)
    if first > last:
        return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
    headers["content-range"] = f"bytes {first}-{last}/{size}"
    return Response(content[first : last + 1], 206, media_type=kind, headers=headers)


def _picture(outcome: Outcome) -> Response:
    return Response(bytes(outcome.payload), media_type="image/jpeg", headers=_KEEP)


def _sound(outcome: Outcome) -> Outcome:
    """Refuses an answer that is a failure."""
    if outcome.failure is not None:
        kind, detail = outcome.failure
        meaning = FAILURES.get(kind, kind)
        raise RefusedError(422, shown(f"{meaning[0].upper()}{meaning[1:]} ({detail})."))
    return outcome


def _seconds(request: Request, name: str) -> float:
    try:
        seconds = float(request.query_params[name])
    except (KeyError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < 1e7:
        raise RefusedError(400, f"{name} must be a number of seconds.")
    return seconds
