"""The processes behind the pools: a server that forks workers, and the wire to each of them.

Any process may stand still at any moment (stopped, swapped out, waiting for a dead disk), so
nothing here waits without a deadline: an answer is taken in as it comes, within its job's limit.

The server of the workers is started as a plain `python -m` child instead of through
`multiprocessing.Process`: nothing of the caller's main module is imported again, so scripts need
no `__main__` guard and notebooks work.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from vtr.errors import WorkersLostError
from vtr.extract.worker import FORK, REPLY, REQUEST, SIZES, WAIT

START_SECONDS = 180.0
SEND_SECONDS = 10.0  # A worker that waits for a job takes it in at once
CLOSE_SECONDS = 5.0  # What ending all workers may take
LOOK_SECONDS = 0.1  # How soon a wait sees that the run is being left
_MOST_BYTES_AT_ONCE = 1 << 20

# The libraries' own thread pools: parallelism is across videos, and a process without threads
# can be forked.
_ONE_THREAD = {
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")},
    "VECLIB_MAXIMUM_THREADS": "1",  # macOS
}
# Else macOS ends a process that forks after its libraries have been used.
_MAY_FORK = {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}


@dataclass(frozen=True)
class PoolSettings:
    """How jobs are run."""

    handler: str  # "module:function"; the function takes `config` and returns the job handler
    config: Any  # Anything picklable, the same for every worker
    workers: int  # Number of processes
    timeout_seconds: float = 300.0  # Wall-clock limit per job, its answer included
    memory_bytes: int = 4 << 30  # Address space a worker may add after its start; 0 is no limit
    max_buffered_bytes: int = 256 << 20  # Answers that wait for their turn may hold this much
    recycle_after: int = 1000  # Jobs after which a worker is replaced (decoders leak a little)
    server_seconds: float = 60.0  # How long starting or ending one worker may take
    options: tuple[str, ...] = ()  # Of the command, that set limits: named where one is reached


@dataclass(frozen=True)
class Outcome:
    """The answer to one job."""

    header: dict[str, Any]  # What the handler said; empty where it failed
    payload: bytes | bytearray = field(default=b"", repr=False)  # Raw bytes that came with it
    failure: tuple[str, str] | None = None  # (class, detail) where the job failed, else None
    cpu_seconds: float = 0.0  # CPU time of the job; 0 where the worker died


class Server:
    """The process that forks workers."""

    def __init__(self, settings: PoolSettings, is_left: Callable[[], bool]) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(LOOK_SECONDS)
        self._seconds, self._is_left = settings.server_seconds, is_left
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in stop)
        paths = os.pathsep.join(path for path in sys.path if path)
        module, function = settings.handler.split(":")
        with tempfile.TemporaryFile() as recipe:
            pickle.dump((module, function, settings.config, settings.memory_bytes), recipe)
            recipe.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vtr.extract.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=recipe,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env={**os.environ, "PYTHONPATH": paths, **_ONE_THREAD, **_MAY_FORK},
                process_group=0,  # Ctrl-C goes to the parent alone
            )
        theirs.close()
        self._started = self._silent = False
        try:
            self._reply(START_SECONDS)
        except WorkersLostError:
            self.stop()
            raise
        self._started = True

    def fork(self, jobs: socket.socket, errors: IO[bytes]) -> int:
        """Starts a worker that reads `jobs`; returns its process id."""
        descriptors = [jobs.fileno(), errors.fileno()]
        with contextlib.suppress(BrokenPipeError):  # then the reply says so
            socket.send_fds(self._control, [REQUEST.pack(FORK, 0)], descriptors)
        return self._reply(self._seconds)[0]

    def kill(self, pid: int) -> str:
        """Ends a worker; returns how it ended (what it died of, if it was dead already)."""
        if self._process.poll() is None:  # else its workers died with it
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # until it is waited for, no other has this id
        if self._silent:
            raise WorkersLostError("how a worker ended is unknown")
        with contextlib.suppress(BrokenPipeError):  # then the reply says so
            self._control.sendall(REQUEST.pack(WAIT, pid))
        ended, status = self._reply(CLOSE_SECONDS if self._is_left() else self._seconds)
        return exit_words(os.waitstatus_to_exitcode(status)) if ended else "it cannot be ended"

    def stop(self) -> None:
        """Ends the process; its workers die with it."""
        self._control.close()
        self._process.kill()
        self._wait()
        self._errors.close()

    def _wait(self) -> int | None:
        """Returns the exit code of the process; None where the system cannot end it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(CLOSE_SECONDS)
        return None

    def _reply(self, seconds: float) -> tuple[int, int]:
        """Waits for an answer; while workers start, only until the run is left."""
        deadline = time.monotonic() + seconds
        starting = not self._is_left()
        while True:
            try:
                reply = self._control.recv(REPLY.size, socket.MSG_WAITALL)
            except TimeoutError:
                if time.monotonic() < deadline and not (starting and self._is_left()):
                    continue
                self._silent = True
                what = "answer" if self._started else "start"
                safe = "; what was published is safe, run it again to go on" * self._started
                raise WorkersLostError(
                    f"the worker processes did not {what} within {seconds:g} s{safe}"
                ) from None
            except ConnectionResetError:
                reply = b""
            if len(reply) < REPLY.size:
                raise self._death()
            pid, status = REPLY.unpack(reply)
            return pid, status

    def _death(self) -> WorkersLostError:
        code = self._wait()
        how = "it does not end" if code is None else exit_words(code)
        words = last_line(self._errors) or "no message"
        what = "died; what was published is safe, run it again to go on"
        what = what if self._started else "cannot start"
        return WorkersLostError(f"the worker processes {what} ({how}): {words}")


class _Answer:
    """One answer on its way: its sizes, the header, the payload. It takes in what is there."""

    def __init__(self) -> None:
        self._parts = [bytearray()]
        self._missing = SIZES.size

    def grow(self, source: socket.socket) -> bool:
        """Reads once from a socket that is ready; returns whether the answer is whole.

        Raises:
            EOFError, OSError: The worker is gone.
        """
        came = source.recv(min(self._missing, _MOST_BYTES_AT_ONCE))
        if not came:
            raise EOFError
        self._parts[-1] += came  # not made for a size that is only announced
        self._missing -= len(came)
        while not self._missing:
            if len(self._parts) == 1 + len(SIZES.unpack(self._parts[0])):
                return True
            self._missing = SIZES.unpack(self._parts[0])[len(self._parts) - 1]
            self._parts.append(bytearray())
        return False

    def outcome(self) -> Outcome:
        """Returns the whole answer.

        Raises:
            ValueError, KeyError: Nothing that a sound worker sends.
        """
        header = json.loads(self._parts[1])
        if not isinstance(header, dict):
            raise ValueError("a header that is no object")
        cpu_seconds = header.pop("cpu_seconds", 0.0)
        failure = (header["kind"], header["detail"]) if "kind" in header else None
        return Outcome(header, self._parts[2], failure, cpu_seconds)


# What taking in an answer raises where the worker died, or is no longer itself.
NO_ANSWER = (EOFError, OSError, MemoryError, ValueError, KeyError)


class Worker:
    """One worker process and what it is doing."""

    def __init__(self, server: Server) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SEND_SECONDS)
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in stop)
        self._server = server
        try:
            self._pid = server.fork(theirs, self.errors)
        except WorkersLostError:
            self._close()
            raise
        finally:
            theirs.close()
        self.job: int | None = None
        self.num_jobs = 0
        self.deadline = float("inf")
        self.answer = _Answer()

    def give(self, index: int, job: bytes, timeout_seconds: float) -> None:
        """Hands over a job.

        Raises:
            OSError: The worker is gone, or takes nothing in.
        """
        self.job = index
        self.num_jobs += 1
        self.deadline = time.monotonic() + timeout_seconds
        self.answer = _Answer()
        self.socket.sendall(job)

    def stop(self) -> str:
        """Ends the process; returns what it died of, with its last words."""
        try:
            how = self._server.kill(self._pid)
            words = last_line(self.errors)
        finally:
            self._close()
        return f"{how}): {words}" if words else f"{how})"

    def _close(self) -> None:
        self.socket.close()
        self.errors.close()


def exit_words(status: int) -> str:
    """Returns how a process ended.

    >>> exit_words(7), exit_words(-9)
    ('exit code 7', 'signal SIGKILL')
    """
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"


def last_line(errors: IO[bytes]) -> str:
    """Returns the last line in a process's error output that is not empty."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
