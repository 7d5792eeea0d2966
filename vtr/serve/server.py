"""The socket and the loop of the server."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from vtr.errors import ConfigError

LOOPBACK = "127.0.0.1"
_MOST_CONNECTIONS = 256
_CLOSE_SECONDS = 2


def bind(host: str | None, port: int) -> socket.socket:
    """Returns a bound socket; host None is loopback, port 0 any that is free."""
    name = host or LOOPBACK
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--host {name}: {reason}. Name an address of this machine") from None
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError as error:
        made.close()
        raise ConfigError(_why_not(error, name, port)) from None
    return made


def _why_not(error: OSError, name: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {name} is in use; choose another with --port, or --port 0 for any"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used: those below 1024 are root's. Choose one with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {name} is no address of this machine; 0.0.0.0 is all of them"
    return f"cannot listen on {name}, port {port}: {error.strerror or error}"


def run(app: ASGIApp, bound: socket.socket, *, started: Callable[[], Any]) -> None:
    """Serves until it is interrupted; `started` is called when it listens."""
    config = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        lifespan="on",
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
        proxy_headers=False,
        ws="none",
    )
    started()
    with suppress(KeyboardInterrupt):  # how one ends it
        uvicorn.Server(config).run(sockets=[bound])
