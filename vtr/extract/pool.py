"""Killable worker processes that answer in order, within a bounded number of bytes.

A decoder can hang, crash or eat the memory on a bad file, and no exception handler helps then.
So every job runs in a worker process that can be killed: one that dies or outlives the wall-clock
limit costs one answer, and a fresh process takes its place (see `vtr.extract.worker`).
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from vtr.arithmetic import usable_cores
from vtr.errors import WorkersLostError
from vtr.extract.processes import NO_ANSWER, Outcome, PoolSettings, Server, Worker
from vtr.extract.worker import LIMIT_REACHED, OUT_OF_MEMORY

__all__ = ["Outcome", "PoolSettings", "WorkerPool"]


class _Batch:
    """The jobs of one run, and the answers that wait for their turn."""

    def __init__(self, jobs: Sequence[Any]) -> None:
        self.jobs = jobs
        self.done: dict[int, Outcome] = {}
        self.buffered = 0
        self.next = 0
        self.problem: BaseException | None = None
        self.is_awaited = self.is_left = False


class WorkerPool:
    """Runs jobs in worker processes; iterate over `run` for the outcomes, in the jobs' order.

    Use as a context manager: leaving it kills the workers. They stay from one run to the next.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self._server: Server | None = None
        self._workers: list[Worker] = []
        self._batch: _Batch | None = None
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._stopping = self._ending = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def started(self) -> bool:
        """Whether there is, or will be at once, what decodes."""
        return self._thread is not None

    def start(self, jobs: Sequence[Any] = ()) -> None:
        """Starts what decodes, which imports for seconds, while the caller still prepares.

        With the jobs of the next `run` their first are done meanwhile, one for each worker and one
        more; a core is left to the caller.
        """
        if jobs:
            self._batch = _Batch(jobs)
            self._batches.put(self._batch)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="vtr-pool", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Kills the workers and drops unfinished jobs."""
        self._stopping = True
        self._batches.put(None)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def run(self, jobs: Sequence[Any]) -> Generator[Outcome, None, None]:
        """Yields one outcome per job, in order, while later jobs are already being worked on.

        One run at a time: closing it drops its unfinished jobs.

        Raises:
            WorkersLostError: The workers cannot even start, or all died (the next run starts them
                anew); or the pool was closed.
        """
        if not jobs:
            return
        if self._stopping:
            raise WorkersLostError("the pool was closed")
        batch = self._batch
        if batch is None or batch.is_awaited or batch.jobs != jobs:
            if batch is not None:
                batch.is_left = True  # what was begun is not what is wanted
            self.start(jobs)
            batch = self._batch
        assert batch is not None
        batch.is_awaited = True
        try:
            for index in range(len(jobs)):
                with self._changed:
                    self._changed.wait_for(lambda i=index: i in batch.done or batch.problem)  # type: ignore[misc]
                    if index not in batch.done:
                        assert batch.problem is not None
                        raise batch.problem
                    outcome = batch.done.pop(index)
                    batch.buffered -= len(outcome.payload)
                    batch.next = index + 1
                yield outcome
        finally:
            batch.is_left = True

    def _serve(self) -> None:
        """Runs in a thread that lives as long as the pool: Linux ends the server with it."""
        problem = self._attempt(self._start_server)
        while (batch := self._batches.get()) is not None:
            problem = problem or self._attempt(partial(self._work_through, batch))
            with self._changed:
                batch.problem, problem = problem or WorkersLostError("the pool was closed"), None
                self._changed.notify_all()
        self._end()

    def _attempt(self, step: Callable[[], None]) -> BaseException | None:
        """Returns what a step raised, for the consumer's thread; the processes end with it."""
        try:
            step()
        except BaseException as error:  # noqa: BLE001
            self._end()
            return error
        return None

    def _start_server(self) -> None:
        self._server = self._server or Server(self.settings, lambda: self._stopping or self._ending)

    def _end(self) -> None:
        self._ending = True  # now the workers' ends are waited for a moment only
        for worker in self._workers:
            with contextlib.suppress(WorkersLostError):  # it died with its server
                worker.stop()
        self._workers.clear()
        if self._server is not None:
            self._server.stop()
        self._server, self._ending = None, False

    def _work_through(self, batch: _Batch) -> None:
        self._start_server()
        waiting = iter(range(len(batch.jobs)))
        upcoming = next(waiting, None)
        finished = 0
        while finished < len(batch.jobs) and not (self._stopping or batch.is_left):
            self._keep_staffed(len(batch.jobs) - finished)
            for worker in [worker for worker in self._workers if worker.job is None]:
                if upcoming is None or not self._may_start(batch, upcoming):
                    break
                if self._give(worker, upcoming, batch.jobs[upcoming]):
                    upcoming = next(waiting, None)
            finished += self._collect(batch)
        for worker in [worker for worker in self._workers if worker.job is not None]:
            self._dismiss(worker)  # its run was left

    def _keep_staffed(self, remaining: int) -> None:
        for worker in [w for w in self._workers if w.job is None]:
            if worker.num_jobs >= self.settings.recycle_after:
                self._dismiss(worker)
        while len(self._workers) < min(self.settings.workers, remaining):
            assert self._server is not None
            self._workers.append(Worker(self._server))

    def _may_start(self, batch: _Batch, index: int) -> bool:
        if not batch.is_awaited:
            busy = sum(worker.job is not None for worker in self._workers)
            return index <= self.settings.workers and busy < max(1, usable_cores() - 1)
        # The job the consumer waits for may always start, else a full buffer would never drain.
        with self._changed:
            return batch.buffered < self.settings.max_buffered_bytes or index == batch.next

    def _give(self, worker: Worker, index: int, job: Any) -> bool:
        try:
            worker.give(index, pickle.dumps(job), self.settings.timeout_seconds)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self._dismiss(worker)  # it died idle, or stands still; the job goes to another
            return False
        return True

    def _collect(self, batch: _Batch) -> int:
        """Waits a moment for answers, deaths and deadlines; returns how many jobs ended."""
        by_socket: dict[Any, Worker] = {w.socket: w for w in self._workers}
        now = time.monotonic()
        patience = min([0.05, *(max(0.0, w.deadline - now) for w in self._workers)])
        finished = 0
        for ready in wait(list(by_socket), timeout=patience):
            finished += self._hear(batch, by_socket[ready])
        for worker in list(self._workers):
            if time.monotonic() > worker.deadline:
                finished += self._expire(batch, worker)
        return finished

    def _hear(self, batch: _Batch, worker: Worker) -> int:
        try:
            if not worker.answer.grow(worker.socket):
                return 0
            outcome = worker.answer.outcome()
        except NO_ANSWER:
            return self._bury(batch, worker)
        if (
            outcome.failure == (OUT_OF_MEMORY, LIMIT_REACHED)
            and "--memory" in self.settings.options
        ):
            advice = f"{LIMIT_REACHED}; raise it with --memory"
            outcome = replace(outcome, failure=(OUT_OF_MEMORY, advice))
        index, worker.job, worker.deadline = worker.job, None, float("inf")
        assert index is not None
        self._finish(batch, index, outcome)
        return 1

    def _expire(self, batch: _Batch, worker: Worker) -> int:
        index = worker.job
        assert index is not None
        self._dismiss(worker)
        option = " (--timeout)" * ("--timeout" in self.settings.options)
        limit = f"{self.settings.timeout_seconds:g} s{option}"
        detail = f"not done within {limit}; the worker was killed"
        self._finish(batch, index, Outcome({}, failure=("timeout", detail)))
        return 1

    def _bury(self, batch: _Batch, worker: Worker) -> int:
        """A worker died: its job, if it had one, failed."""
        index = worker.job
        how = self._dismiss(worker)
        if index is None:
            return 0
        died = Outcome({}, failure=("crashed", f"the worker process died ({how}"))
        self._finish(batch, index, died)
        return 1

    def _dismiss(self, worker: Worker) -> str:
        self._workers.remove(worker)
        return worker.stop()

    def _finish(self, batch: _Batch, index: int, outcome: Outcome) -> None:
        with self._changed:
            batch.done[index] = outcome
            batch.buffered += len(outcome.payload)
            self._changed.notify_all()
