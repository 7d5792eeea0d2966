"""Worker processes: a server that imports everything once and forks a worker on demand.

`vtr.extract.processes` starts `python -m vtr.extract.worker FD` once. That server imports the
decoder and the resizing library (seconds), builds the job handler, and then forks workers
(milliseconds), so that replacing one that crashed or was killed is cheap. It runs no threads, which
makes forking safe; nothing of the caller's own process is forked.

A worker takes pickled jobs from the parent (which trusts itself) and answers with JSON and raw
bytes, so that a worker taken over by a hostile video cannot hand the parent a pickle.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vtr.arithmetic import uncollected
from vtr.errors import DecodeError

Answer = tuple[dict[str, Any], bytes | memoryview]
Handler = Callable[[Any], Answer]

REQUEST = struct.Struct("!cI")  # what, process id
REPLY = struct.Struct("!Ii")  # process id, wait status; 0 for one that does not end
SIZES = struct.Struct("!IQ")  # bytes of an answer's header and payload
FORK, WAIT = b"f", b"w"
OUT_OF_MEMORY, LIMIT_REACHED = "out-of-memory", "the worker's memory limit was reached"
# A process that waits for a dead disk ends when that answers, if ever.
COLLECT_SECONDS = 2.0


def main() -> None:
    """Serves fork and wait requests until the parent closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    _die_with_parent()
    control = socket.socket(fileno=int(sys.argv[1]))
    module, function, config, memory_bytes = pickle.load(sys.stdin.buffer)
    with uncollected():
        make_handler: Callable[[Any], Handler] = getattr(importlib.import_module(module), function)
        handler = make_handler(config)
    control.sendall(REPLY.pack(os.getpid(), 0))
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 2)
        if not request:
            return
        what, pid = REQUEST.unpack(request)
        if what == FORK:
            pid = os.fork()
            if not pid:
                _work(handler, *descriptors, control=control, memory_bytes=memory_bytes)
            for descriptor in descriptors:
                os.close(descriptor)
            control.sendall(REPLY.pack(pid, 0))
        else:
            control.sendall(REPLY.pack(*_collect(pid)))


def _collect(pid: int) -> tuple[int, int]:
    """Returns the id and wait status of a process that was killed; (0, 0) if it does not end."""
    deadline = time.monotonic() + COLLECT_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return ended, status
        time.sleep(0.001)
    return 0, 0


def _work(
    handler: Handler, jobs: int, errors: int, *, control: socket.socket, memory_bytes: int
) -> None:
    """Runs in the forked worker: answers jobs until the pipe closes; never returns."""
    try:
        _die_with_parent()
        control.close()
        os.dup2(errors, 2)
        if memory_bytes:
            _limit_memory(memory_bytes)
        # Held here, so that it stays open, and the parent patient, until the very end.
        channel = socket.socket(fileno=jobs)
        _serve(channel, handler)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the parent has no more jobs, or is gone
    except BaseException:  # noqa: BLE001  (a bug of ours: its last line becomes the ledger's)
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _serve(channel: socket.socket, handler: Handler) -> None:
    jobs = channel.makefile("rb")
    while True:
        header, payload = _run(handler, pickle.load(jobs))
        text = json.dumps(header).encode()
        channel.sendall(SIZES.pack(len(text), len(payload)) + text)
        channel.sendall(payload)


def _run(handler: Handler, job: Any) -> Answer:
    start = time.process_time()
    header: dict[str, Any]
    payload: bytes | memoryview = b""
    try:
        header, payload = handler(job)
    except DecodeError as error:
        header = {"kind": error.kind, "detail": error.detail}
    except MemoryError:
        header = {"kind": OUT_OF_MEMORY, "detail": LIMIT_REACHED}
    return {**header, "cpu_seconds": time.process_time() - start}, payload


def _die_with_parent() -> None:
    """Asks the kernel to end this process with its parent: a hung decoder must not stay behind.

    Only Linux does; elsewhere a process ends when it next looks for a job.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _limit_memory(extra_bytes: int) -> None:
    """Caps the address space at what is mapped now plus `extra_bytes`.

    Only on Linux: what is mapped is not known elsewhere, and macOS refuses the limit.
    """
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
