"""The worker pool: order, deaths, hangs, memory, and a bounded buffer; with real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import run_python, wait_until

from vtr.errors import VtrError, WorkersLostError
from vtr.extract.pool import Outcome, PoolSettings, WorkerPool

HANDLERS = """
import contextlib, os, signal, sys, time
from vtr.errors import DecodeError

def make(config):
    def handle(job):
        what, value = job
        if what == "sleep":
            time.sleep(value)
        elif what == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif what == "exit":
            sys.stderr.write("assertion failed in the decoder\\n")
            sys.stderr.flush()
            os._exit(7)
        elif what == "orphan":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        elif what == "bad":
            raise DecodeError("not-a-video", "moov atom not found")
        elif what == "eat":
            bytearray(value)
        elif what == "bug":
            raise KeyError("oops")
        elif what == "halt":  # stands still while it answers: no decoder, no exception
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            return {"value": value}, bytes(256 << 20)
        elif what == "halt-server":
            os.kill(os.getppid(), signal.SIGSTOP)
        elif what == "lie":  # as one taken over by what it decodes might
            for number in range(3, 30):
                with contextlib.suppress(OSError):
                    os.write(number, value)
            os._exit(0)
        elif what == "mark":
            first = not os.path.exists(value)
            open(value, "w").close()
            return {"value": value, "first": first}, b""
        elif what == "bytes":
            return {"n": value}, b"x" * value
        return {"value": value, "config": config, "pid": os.getpid()}, b""
    return handle

def broken(config):
    raise RuntimeError("no decoder here")
"""

Run = Callable[..., list[Outcome]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "pool_handlers.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(tmp_path)

    def go(jobs: list[Any], **settings: Any) -> list[Outcome]:
        values = {"handler": "pool_handlers:make", "config": 5, "workers": 2, **settings}
        with WorkerPool(PoolSettings(**values)) as pool:
            return list(pool.run(jobs))

    return go


def test_answers_come_in_order(run: Run) -> None:
    delays = [0.3, 0.0, 0.1, 0.0, 0.0]
    outcomes = run([("sleep", delay) for delay in delays])
    assert [outcome.header["value"] for outcome in outcomes] == delays
    assert {outcome.header["config"] for outcome in outcomes} == {5}
    assert 1 <= len({outcome.header["pid"] for outcome in outcomes}) <= 2


@pytest.mark.parametrize(
    ("job", "failure"),
    [
        (("bad", 0), ("not-a-video", "moov atom not found")),
        (("segfault", 0), ("crashed", "the worker process died (signal SIGSEGV)")),
        (
            ("exit", 0),
            ("crashed", "the worker process died (exit code 7): assertion failed in the decoder"),
        ),
        (("bug", 0), ("crashed", "the worker process died (exit code 1): KeyError: 'oops'")),
        (
            ("eat", 2 << 30),
            ("out-of-memory", "the worker's memory limit was reached; raise it with --memory"),
        ),
        (("sleep", 60), ("timeout", "not done within 1 s (--timeout); the worker was killed")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_a_bad_job_costs_only_itself(run: Run, job: Any, failure: tuple[str, str]) -> None:
    jobs = [("sleep", 0), job, ("sleep", 0.01), ("sleep", 0.02)]
    options = ("--timeout", "--memory")
    outcomes = run(jobs, timeout_seconds=1.0, options=options, memory_bytes=1 << 30)
    assert outcomes[1].failure == failure
    assert [outcomes[i].header["value"] for i in (0, 2, 3)] == [0, 0.01, 0.02]


def test_an_option_that_the_command_lacks_is_not_advised(run: Run) -> None:
    (outcome,) = run([("eat", 2 << 30)], memory_bytes=1 << 30)
    assert outcome.failure == ("out-of-memory", "the worker's memory limit was reached")


def test_a_pool_of_one_outlives_every_bad_job(run: Run) -> None:
    """As the page of `vtr serve` uses it: job after job, each a run of its own."""
    settings = PoolSettings(
        "pool_handlers:make", 5, 1, timeout_seconds=1.0, memory_bytes=1 << 30, recycle_after=3
    )
    jobs = [("sleep", 0), ("bad", 0), ("segfault", 0), ("sleep", 60), ("halt", 0), ("orphan", 0)]
    failed = [("bad", 0), ("segfault", 0), ("sleep", 60), ("halt", 0)]
    with WorkerPool(settings) as pool:
        for job in [*jobs, ("sleep", 0), ("bytes", 300_000), ("sleep", 0), ("sleep", 0)]:
            if job == ("orphan", 0):
                with pytest.raises(WorkersLostError, match="died"):
                    list(pool.run([job]))
                continue
            (outcome,) = pool.run([job])
            assert (outcome.failure is not None) == (job in failed), (job, outcome)


def test_a_pool_is_left_at_once_and_begins_nothing_afterwards(run: Run) -> None:
    pool = WorkerPool(PoolSettings("pool_handlers:make", 5, 1))
    (outcome,) = pool.run([("sleep", 0)])
    closing = threading.Timer(0.2, pool.close)
    closing.start()
    with pytest.raises(WorkersLostError, match="the pool was closed"):
        list(pool.run([("sleep", 600)]))
    with pytest.raises(WorkersLostError, match="the pool was closed"):
        list(pool.run([("sleep", 0)]))
    assert outcome.failure is None
    closing.join()
    assert not pool.started


def test_a_worker_that_stops_while_it_answers_costs_only_its_job(run: Run) -> None:
    jobs = [("sleep", 0), ("halt", 1), *[("sleep", 0.01)] * 3]
    outcomes = run(jobs, timeout_seconds=1.5)
    what = ("timeout", "not done within 1.5 s; the worker was killed")
    assert [outcome.failure for outcome in outcomes] == [None, what, None, None, None]


@pytest.mark.parametrize("job", ["halt", "halt-server"])
def test_a_run_is_left_at_once_whoever_stands_still(run: Run, job: str) -> None:
    pool = WorkerPool(PoolSettings("pool_handlers:make", 0, workers=1, recycle_after=1))
    answers = pool.run([("sleep", 0), (job, 0), ("sleep", 600)])
    next(answers)
    time.sleep(0.5)
    leaving = threading.Thread(target=pool.close, daemon=True)
    leaving.start()
    leaving.join(30)
    assert not leaving.is_alive()


def test_a_server_that_stands_still_ends_the_run_with_one_clear_error(run: Run) -> None:
    message = r"worker processes did not answer within 0.5 s; what was published is safe"
    with pytest.raises(WorkersLostError, match=message):
        run([("halt-server", 0), ("value", 2)], workers=1, recycle_after=1, server_seconds=0.5)
    assert not [thread for thread in threading.enumerate() if thread.name == "vtr-pool"]


@pytest.mark.parametrize(
    "bytes_sent",
    [b"\xff" * 12, b"\0\0\0\3" + bytes(8) + b"{]}", b"\0\0\0\2" + bytes(8) + b"[]", b"\0"],
    ids=["sizes", "no JSON", "no object", "short"],
)
def test_an_answer_that_is_none_costs_one_video(run: Run, bytes_sent: bytes) -> None:
    outcomes = run([("lie", bytes_sent), ("value", 2)], workers=1)
    assert outcomes[0].failure[0] == "crashed"
    assert outcomes[1].header["value"] == 2


def test_workers_are_replaced_after_their_share(run: Run) -> None:
    outcomes = run([("sleep", i) for i in [0] * 6], workers=1, recycle_after=2)
    assert len({outcome.header["pid"] for outcome in outcomes}) == 3


def test_a_worker_that_cannot_start_is_one_clear_error(run: Run) -> None:
    with pytest.raises(VtrError, match=r"cannot start \(exit code 1\): RuntimeError: no decoder"):
        run([("sleep", 0)], handler="pool_handlers:broken")


def test_workers_that_die_together_are_one_clear_error(run: Run) -> None:
    """As where the system, out of memory, picks the process that all of them come from."""
    jobs = [("value", 1), ("orphan", 2), ("value", 3)]
    message = r"worker processes died; what was published is safe.* \(signal SIGKILL\)"
    with pytest.raises(WorkersLostError, match=message):
        run(jobs, workers=1, timeout_seconds=20)
    assert not [thread for thread in threading.enumerate() if thread.name == "vtr-pool"]


def test_a_pool_keeps_its_processes_from_run_to_run(run: Run) -> None:
    with WorkerPool(PoolSettings("pool_handlers:make", 5, 1)) as pool:
        pool.start()
        first = next(pool.run([("value", 1)]))
        left = pool.run([("value", 2), ("sleep", 600)])
        assert next(left).header["pid"] == first.header["pid"]
        left.close()  # what it was doing is dropped, and costs the next run nothing
        after = [outcome.header["value"] for outcome in pool.run([("value", 3), ("value", 4)])]
    assert after == [3, 4]


def test_a_pool_whose_processes_died_starts_others_for_the_next_run(run: Run) -> None:
    with WorkerPool(PoolSettings("pool_handlers:make", 5, 1, timeout_seconds=20)) as pool:
        with pytest.raises(WorkersLostError):
            list(pool.run([("orphan", 2), ("value", 3)]))
        assert [outcome.header["value"] for outcome in pool.run([("value", 4)])] == [4]


def test_no_jobs_start_no_workers(run: Run) -> None:
    assert run([]) == []


def marks(folder: Path) -> list[tuple[str, str]]:
    """Jobs that each leave a file."""
    return [("mark", str(folder / str(number))) for number in range(12)]


def test_the_first_jobs_are_done_before_they_are_asked_for(tmp_path: Path, run: Run) -> None:
    (tmp_path / "marks").mkdir()
    jobs = marks(tmp_path / "marks")
    with WorkerPool(PoolSettings("pool_handlers:make", 0, workers=2)) as pool:
        pool.start(jobs)
        wait_until(lambda: len(list((tmp_path / "marks").iterdir())) == 3)
        time.sleep(0.3)
        assert len(list((tmp_path / "marks").iterdir())) == 3  # one for each worker and one more
        answers = list(pool.run(marks(tmp_path / "marks")))  # equal jobs, another list
        assert [(answer.header["value"]) for answer in answers] == [path for _, path in jobs]
        assert all(answer.header["first"] for answer in answers)  # none was done twice


def test_begun_jobs_that_nobody_asks_for_are_dropped(tmp_path: Path, run: Run) -> None:
    with WorkerPool(PoolSettings("pool_handlers:make", 0, workers=1)) as pool:
        pool.start([("sleep", 0), ("sleep", 0.2), ("sleep", 60)])
        others = [("bytes", 3), ("bytes", 4)]
        assert [answer.payload for answer in pool.run(others)] == [b"xxx", b"xxxx"]
        assert [answer.payload for answer in pool.run(others)] == [b"xxx", b"xxxx"]


def test_a_begun_pool_that_cannot_start_says_so_to_whoever_asks(run: Run) -> None:
    with WorkerPool(PoolSettings("pool_handlers:broken", 0, workers=1)) as pool:
        pool.start([("bytes", 3)])
        with pytest.raises(WorkersLostError, match="no decoder here"):
            list(pool.run([("bytes", 3)]))


def test_answers_wait_within_a_bounded_buffer(tmp_path: Path, run: Run) -> None:
    settings = PoolSettings("pool_handlers:make", 0, workers=2, max_buffered_bytes=2_000_000)
    with WorkerPool(settings) as pool:
        answers = pool.run([("bytes", 1_000_000)] * 40)
        next(answers)
        time.sleep(1.0)  # the consumer is slow: work must stop, not pile up
        # Two may be on their way when the buffer fills.
        assert pool._batch.buffered <= 4_000_000
        assert sum(len(outcome.payload) for outcome in answers) == 39_000_000


def test_leaving_early_kills_the_workers(run: Run) -> None:
    pool = WorkerPool(PoolSettings("pool_handlers:make", 0, workers=2))
    with pool:
        answers = pool.run([("sleep", 0), *[("sleep", 60)] * 5])
        pid = next(answers).header["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path, run: Run) -> None:
    """Even one stuck in a decoder goes when its parent is killed."""
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from vtr.extract.pool import PoolSettings, WorkerPool
pool = WorkerPool(PoolSettings("pool_handlers:make", 0, workers=1))
answers = pool.run([("sleep", 0), ("sleep", 600)])
print(next(answers).header["pid"], flush=True)
next(answers)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return  # dead, only not yet collected by init
        time.sleep(0.05)
    pytest.fail(f"worker {pid} is still running")


def test_nothing_that_only_linux_has_is_needed(tmp_path: Path, run: Run) -> None:
    """As on macOS, as far as that can be had here: without affinity, prctl and RLIMIT_AS."""
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes, os, resource, sys\n"
        "sys.platform = 'darwin'\n"
        "del os.sched_getaffinity\n"
        "def refuse(*_): raise ValueError('current limit exceeds maximum limit')\n"
        "resource.setrlimit = refuse\n"
        "ctypes.CDLL = refuse\n"
    )
    script = """
from vtr.extract.pool import PoolSettings, WorkerPool
from vtr.arithmetic import usable_cores
assert usable_cores() >= 1
jobs = [("value", 1), ("segfault", 0), ("value", 3)]
with WorkerPool(PoolSettings("pool_handlers:make", 0, workers=2)) as pool:
    print([outcome.failure and outcome.failure[0] for outcome in pool.run(jobs)])
"""
    done = run_python("-c", script, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert done.stdout == "[None, 'crashed', None]\n", done.stderr
