"""What runs inside a worker process: one job in, one answer out, until the pipe closes.

Started by `vtr.extract.pool` as `python -m vtr.extract.worker FD`. The parent sends pickled jobs
(it trusts itself); the worker answers with JSON and raw bytes, so that a worker taken over by a
hostile video cannot hand the parent a pickle.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from vtr.errors import DecodeError

Answer = tuple[dict[str, Any], bytes | memoryview]
Handler = Callable[[Any], Answer]


def main() -> None:
    """Serves jobs until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    _die_with_parent()
    connection = Connection(int(sys.argv[1]))
    module, function, config, memory_bytes = connection.recv()
    make_handler: Callable[[Any], Handler] = getattr(importlib.import_module(module), function)
    handler = make_handler(config)
    if memory_bytes:
        _limit_memory(memory_bytes)
    _answer(connection, {"ready": True}, b"")
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        _answer(connection, *_run(handler, job))


def _run(handler: Handler, job: Any) -> Answer:
    start = time.process_time()
    header: dict[str, Any]
    payload: bytes | memoryview = b""
    try:
        header, payload = handler(job)
    except DecodeError as error:
        header = {"kind": error.kind, "detail": error.detail}
    except MemoryError:
        header = {
            "kind": "out-of-memory",
            "detail": "the worker's memory limit was reached; raise it with --memory",
        }
    return {**header, "cpu_seconds": time.process_time() - start}, payload


def _answer(connection: Connection, header: dict[str, Any], payload: bytes | memoryview) -> None:
    connection.send_bytes(json.dumps(header).encode())
    connection.send_bytes(payload)


def _die_with_parent() -> None:
    """Asks the kernel to end this process with its parent: a hung decoder must not stay behind."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _limit_memory(extra_bytes: int) -> None:
    """Caps the address space at what is mapped now plus `extra_bytes`."""
    pages = int(_read("/proc/self/statm").split()[0]) if sys.platform == "linux" else 0
    limit = pages * resource.getpagesize() + extra_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _read(path: str) -> str:
    with open(path) as file:  # noqa: PTH123  (procfs)
        return file.read()


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        os._exit(1)  # the parent is gone; nobody is left to tell
