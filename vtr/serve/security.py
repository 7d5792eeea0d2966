"""Who may talk to the server: this machine's own browser, and who was given the address.

A server on this machine can be reached by every page that is open in a browser here. What keeps
them out: a Host that is not ours is a name that somebody pointed at this machine (400), a foreign
Origin is another page (403), and what a page embeds from here without one tells its Sec-Fetch-Site.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self'; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# A report is one file with its styles and pictures inside, and runs nothing.
REPORT_CSP = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox allow-popups"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
_NO_TOKEN = (
    "This page needs the whole address that `vtr serve` printed, with the token in it. "
    "Open it once; the browser remembers it until it is closed."
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?")


@dataclass(frozen=True)
class Doors:
    """What is let in."""

    names: frozenset[str]  # Hosts by which this server may be called, in small letters
    any_address: bool  # Also every IP address: no page of others can have one as its name here
    token: str  # What must be shown; empty where only this machine can reach the server
    port: int  # Of the server, which tells its cookie from those of others

    @classmethod
    def of(cls, host: str | None, port: int) -> Doors:
        """Returns the doors of a server on loopback, or on a host that somebody named."""
        local = {"localhost", "127.0.0.1", "[::1]"}
        if host is None:
            return cls(frozenset(local), False, "", port)
        names = {*local, host.casefold(), *_own_names()}
        return cls(frozenset(names), True, secrets.token_urlsafe(24), port)

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds the token; cookies know no ports."""
        return f"vtr-{self.port}"

    def knows(self, host: str) -> bool:
        """Returns whether a Host header names this server."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].casefold()
        return name in self.names or (self.any_address and _is_address(name))

    def shows_token(self, scope: Scope, headers: Headers) -> bool:
        """Returns whether a request carries the token: in its address, a cookie or a header."""
        held = [QueryParams(scope["query_string"]).get("token", ""), _cookie(headers, self.cookie)]
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        held += [bearer.strip()] if scheme.casefold() == "bearer" else []
        wanted = self.token.encode()
        return any(hmac.compare_digest(one.encode(errors="replace"), wanted) for one in held)


class Guard:
    """Turns away who may not ask, and dresses every answer in its headers."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self.app, self.doors = app, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":  # no websockets; the life of the server itself passes
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._dress(MutableHeaders(scope=message), remember=refusal is None)
            await send(message)

        if refusal is None:
            await self.app(scope, receive, dressed)
        else:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, dressed)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.doors.knows(hosts[0]):
            return 400, "This server does not go by that name."
        origin = headers.get("origin")
        if origin is not None and origin.casefold() != f"http://{hosts[0]}".casefold():
            return 403, "This server answers its own page only."
        is_visit = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not (is_visit and scope["path"] == "/"):
            return 403, "This server answers its own page only."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "This server only shows things."
        if self.doors.token and not self.doors.shows_token(scope, headers):
            return 401, _NO_TOKEN
        return None

    def _dress(self, headers: MutableHeaders, *, remember: bool) -> None:
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        if self.doors.token and remember:
            words = f"{self.doors.cookie}={self.doors.token}; Path=/; HttpOnly; SameSite=Strict"
            headers.append("set-cookie", words)


def _cookie(headers: Headers, name: str) -> str:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


def _own_names() -> Iterable[str]:
    """Returns what this machine is called."""
    short = socket.gethostname().casefold()
    return {short, f"{short}.local", socket.getfqdn().casefold()}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
