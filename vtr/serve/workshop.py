"""Jobs on files, in worker processes: few at a time, a bounded queue, no answer twice."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from vtr.errors import WorkersLostError
from vtr.extract.pool import Outcome, PoolSettings, WorkerPool
from vtr.serve.pictures import HANDLER

T = TypeVar("T")

_CLOSE_SECONDS = 5.0


class BusyError(Exception):
    """So much is waiting already that nothing more is taken in."""


class Workshop:
    """Threads with a pool of one worker each, and a queue before them."""

    def __init__(self, *, workers: int, room: int, seconds: float) -> None:
        """Begins; `room` is how many jobs may wait, `seconds` what one may take."""
        self._settings = PoolSettings(
            HANDLER, None, 1, timeout_seconds=seconds, memory_bytes=2 << 30, recycle_after=200
        )
        self._queue: queue.Queue[tuple[Any, Future[Outcome]] | None] = queue.Queue(room)
        self._going: dict[Hashable, Future[Outcome]] = {}
        self._lock = threading.Lock()
        self._pools: list[WorkerPool] = []
        self._threads = [
            threading.Thread(target=self._work, name="vtr-workshop", daemon=True)
            for _ in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Any) -> Future[Outcome]:
        """Returns the answer to come, an equal job's if one waits or is being done; `BusyError`."""
        with self._lock:
            if job in self._going:
                return self._going[job]
            future: Future[Outcome] = Future()
            try:
                self._queue.put_nowait((job, future))
            except queue.Full:
                raise BusyError from None
            self._going[job] = future
            return future

    def close(self) -> None:
        """Ends the workers; what waits is dropped."""
        for _, future in waiting(self._queue):
            future.cancel()
        for _ in self._threads:
            self._queue.put(None)
        for pool in self._pools:
            pool.close()
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)

    def _work(self) -> None:
        pool = WorkerPool(self._settings)
        self._pools.append(pool)
        while (item := self._queue.get()) is not None:
            job, future = item
            if future.set_running_or_notify_cancel():  # from here on nobody can give it up
                try:
                    (outcome,) = pool.run([job])
                except WorkersLostError as error:
                    outcome = Outcome({}, failure=("crashed", str(error)))
                future.set_result(outcome)
            with self._lock:
                self._going.pop(job, None)


def waiting(line: queue.Queue[T | None]) -> Iterator[T]:
    """Takes out and yields what waits in a queue."""
    with suppress(queue.Empty):
        while True:
            if (item := line.get_nowait()) is not None:
                yield item


class Shelf:
    """Answers that were made, as long as there is room; the longest unused go first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._held: OrderedDict[Hashable, Outcome] = OrderedDict()

    def get(self, key: Hashable) -> Outcome | None:
        """Returns an answer, None where it is not there."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: Hashable, outcome: Outcome) -> None:
        """Keeps an answer, and lets others go."""
        self._drop(key)
        self._held[key] = outcome
        self._num_bytes += _weight(outcome)
        while self._num_bytes > self._max_bytes and len(self._held) > 1:
            self._drop(next(iter(self._held)))

    def _drop(self, key: Hashable) -> None:
        outcome = self._held.pop(key, None)
        self._num_bytes -= _weight(outcome) if outcome else 0


def _weight(outcome: Outcome) -> int:
    return len(outcome.payload) + 1024  # what the entry itself takes, roughly
