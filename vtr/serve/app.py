"""The server's addresses: the page, its data as JSON, pictures and videos."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from tempfile import gettempdir
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from vtr.errors import VtrError
from vtr.foreign import shown
from vtr.progress import note
from vtr.serve.api import Api, Results
from vtr.serve.catalog import RefusedError
from vtr.serve.librarian import Librarian
from vtr.serve.media import Media
from vtr.serve.security import REPORT_CSP, Doors, Guard
from vtr.serve.workshop import BusyError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PAGE_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_FONTS = {"inter.otf": "Inter-Regular.otf", "inter-semibold.otf": "Inter-SemiBold.otf"}


def create_app(
    librarian: Librarian, doors: Doors, *, title: str, results: Results | None = None
) -> Guard:
    """Returns the server's application; the librarian begins when it does.

    `title` is what is searched, in a word; `results` are the workspace's, if there is one.
    """
    media = Media(librarian)
    api = Api(librarian, media, title=title, results=results)

    @asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        librarian.start()
        yield
        librarian.close()
        media.close()

    async def report(request: Request) -> Response:
        page = await api.report(request.path_params["key"])
        headers = {"content-security-policy": REPORT_CSP}
        return Response(page, media_type="text/html", headers=headers)

    routes: list[BaseRoute] = [
        Route("/", _page),
        Route("/page/{name}", _page),
        _json("/api/state", api.state),
        _json("/api/library", api.library),
        _json("/api/search", api.search, "POST"),
        _json("/api/curve", api.curve, "POST"),
        _json("/api/examples", api.take_example, "POST"),
        Route("/api/examples/{key}", api.show_example),
        _json("/api/facts/{key}", media.facts),
        _json("/api/results", api.results),
        Route("/report/{key}", report),
        Route("/video/{key}", media.video),
        Route("/still/{key}", media.still),
        Route("/film/{key}", media.film),
        Route("/window/{key}/{number:int}", media.window),
        Route("/clip/{key}", media.clip),
    ]
    handlers: Mapping[Any, Any] = dict.fromkeys(
        (RefusedError, BusyError, VtrError, HTTPException, ClientDisconnect, OSError, Exception),
        _refused,
    )
    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=life), doors)


def _json(path: str, answer: Callable[[Request], Awaitable[Any]], method: str = "GET") -> Route:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(await answer(request))

    return Route(path, endpoint, methods=[method])


async def _page(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    kind = next((kind for end, kind in _PAGE_TYPES.items() if name.endswith(end)), "")
    if name in _FONTS:
        return Response(
            (files("vtr.charts") / "fonts" / _FONTS[name]).read_bytes(), media_type="font/otf"
        )
    if not kind or "/" in name or name.startswith("."):
        raise HTTPException(404, "Not Found")
    file = files("vtr.serve") / "page" / name
    if not file.is_file():
        raise HTTPException(404, "Not Found")
    return Response(file.read_bytes(), media_type=kind)


async def _refused(_request: Request, error: Exception) -> Response:
    """Returns every error as one sentence; no traceback leaves the machine."""
    if isinstance(error, BusyError):
        words = {"error": "Too much is going on at the moment; try again in a little while."}
        return JSONResponse(words, 503, {"retry-after": "2"})
    if isinstance(error, RefusedError):
        return JSONResponse({"error": shown(error.sentence)}, error.status)
    if isinstance(error, VtrError):
        return JSONResponse({"error": shown(error)}, 400)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": shown(error.detail)}, error.status_code)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        why = f"No room is left for files in {gettempdir()} of the machine that serves this page"
        note(f"error: {why} ({error.strerror})")
        return JSONResponse({"error": f"{why}: free some, then try again."}, 507)
    note(f"internal error: {type(error).__name__}: {error}")
    return JSONResponse({"error": "An internal error; the terminal says more."}, 500)
