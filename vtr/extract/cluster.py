"""Work on Ray: connecting, looking at every node before anything starts, actors that may die.

An actor takes job after job and keeps what was costly to make (a model, decoding processes). One
that dies is started again by Ray, and its job given to it again; what it had published is safe.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

from vtr.arithmetic import usable_cores
from vtr.counts import counted
from vtr.errors import ConfigError, VtrError, WorkersLostError
from vtr.extract.pool import Outcome, PoolSettings, WorkerPool
from vtr.extras import require_extra
from vtr.foreign import first_few, printable, shown

CONNECT_SECONDS = 5.0
LOOK_SECONDS = 120.0  # a node that has never run vtr has it to import first
MOST_RETRIES = 3  # of one job whose actor died
_LISTEN_SECONDS = 1.0  # between two looks for a Ctrl-C
_STORE_BYTES = 256 << 20  # of a local Ray: inputs go through it, never pictures
_DEFAULT_CPUS = 8
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTINGS_FRAME = 4


@dataclass(frozen=True)
class Share:
    """What one worker has of a node."""

    cpus: int
    gpus: float

    def fits(self, node: dict[str, Any]) -> int:
        """Returns how many workers a node holds."""
        has = node["Resources"]
        fit = has.get("CPU", 0) // self.cpus
        return int(min(fit, has.get("GPU", 0) / self.gpus) if self.gpus else fit)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connects for the time of a block to Ray.

    "local" starts one on this machine, "auto" takes the one that runs here, else it is HOST:PORT of
    the head node.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local" and "RAY_AUTH_MODE" not in os.environ:  # its ports are open to all
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    require_extra("ray", ["ray"], "--ray", needs="the package ray")
    import ray  # reads the token

    if address not in ("local", "auto"):
        _require_cluster(address)
    with redirect_stdout(sys.stderr):  # where Ray tells of actors that died; ours is for results
        _begin(ray, address)
        try:
            yield Cluster(ray)
        finally:
            ray.shutdown()


def _begin(ray: Any, address: str) -> None:
    here = {"num_cpus": usable_cores(), "object_store_memory": _STORE_BYTES}
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR,
            include_dashboard=False if address == "local" else None,
            **(here if address == "local" else {}),
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        what = "start a Ray on this machine" if address == "local" else f"reach Ray at {address}"
        raise ConfigError(f"cannot {what}: {shown(error)}") from None


def _require_cluster(address: str) -> None:
    """Refuses an address where no Ray answers; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        where = (host.strip("[]"), int(port))
        with socket.create_connection(where, timeout=CONNECT_SECONDS) as line:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            line.sendall(_GREETING)
            answer = line.recv(9, socket.MSG_WAITALL)
    except OSError as error:
        raise ConfigError(
            f"no Ray can be reached at {address}: {error.strerror or error}. `ray status` on the "
            "head node shows whether it runs; its port is 6379 unless `ray start` said another"
        ) from None
    if len(answer) < 9 or answer[3] != _SETTINGS_FRAME:
        raise ConfigError(
            f"what answers at {address} is no Ray. Name the port that `ray start --head` printed, "
            "6379 unless it said another (not 8265, the dashboard's, nor 10001, the client's)"
        )


class Cluster:
    """Ray while it is connected."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.nodes = [node for node in ray.nodes() if node["Alive"]]

    def share(self, *, cpus: int | None, gpus: float | None, on_cpu: bool) -> Share:
        """Returns what a worker gets: as asked, else what the nodes have.

        Raises:
            ConfigError: No node has as much.
        """
        cores = [int(cores) for node in self.nodes if (cores := node["Resources"].get("CPU", 0))]
        cards = max((node["Resources"].get("GPU", 0) for node in self.nodes), default=0)
        if gpus is None:
            gpus = 1 if cards and not on_cpu else 0
        share = Share(cpus or max(1, min([_DEFAULT_CPUS, *cores])), gpus)
        if not any(map(share.fits, self.nodes)):
            has = ", ".join(f"{_name(node)} {_resources(node)}" for node in self.nodes)
            raise ConfigError(
                f"no node has {counted(share.cpus, 'core')} and {share.gpus:g} GPUs for a worker: "
                f"{has}. Give less with --cpus-per-worker and --gpus-per-worker"
            )
        return share

    def require_on_every_node(
        self, look: Callable[[Any], str | None], what: Any, share: Share
    ) -> None:
        """Lets every node that can hold a share look whether it has `what` is needed there.

        Raises:
            ConfigError: Names the nodes, and what `look` says is wrong on each.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        remote = self._ray.remote(num_cpus=0, max_retries=0)(look)
        for node in filter(share.fits, self.nodes):
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[remote.options(scheduling_strategy=place).remote(what)] = node
        self._ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS)
        wrong = []
        for answer, node in asked.items():
            try:
                problem = self._ray.get(answer, timeout=0)
            except self._ray.exceptions.GetTimeoutError:
                problem = f"it did not answer within {LOOK_SECONDS:g} s"
            except self._ray.exceptions.RayError as error:
                problem = f"vtr cannot run there: {_last_line(error)}"
            if problem:
                wrong.append(f"node {_name(node)}: {problem}")
        if wrong:
            raise ConfigError(f"nothing was started. {first_few(wrong, 8)}")

    def work(
        self, make: str, config: Any, jobs: Sequence[Any], share: Share
    ) -> Iterator[tuple[int, Any, str | None]]:
        """Has actors do jobs and yields (number of the job, answer, problem) as they are done.

        `make` ("module:function") takes `config`, which every actor gets once, and returns what
        does a job; an error of vtr's is that job's problem.
        """
        count = min(len(jobs), sum(map(share.fits, self.nodes)))
        kind = self._ray.remote(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=-1,
            max_task_retries=MOST_RETRIES,
        )(_Actor)  # fmt: skip
        sent = [self._ray.put(config)]  # comes with a job: what makes an actor is lost with Ray's
        idle = [kind.remote(make, share.cpus) for _ in range(count)]
        waiting = iter(enumerate(jobs))
        busy: dict[Any, tuple[int, Any]] = {}
        while True:
            while idle and (following := next(waiting, None)) is not None:
                number, job = following
                actor = idle.pop()
                busy[actor.do.remote(job, sent)] = number, actor
            if not busy:
                return
            for done in self._ray.wait(list(busy), timeout=_LISTEN_SECONDS)[0]:
                number, actor = busy.pop(done)
                idle.append(actor)
                try:
                    yield number, *self._ray.get(done)
                except self._ray.exceptions.RayError as error:
                    yield number, None, f"its worker was lost: {_last_line(error)}"


class _Actor:
    def __init__(self, make: str, cpus: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(cpus)  # before torch is imported
        self._make = make
        self._handle: Callable[[Any], Any] | None = None

    def do(self, job: Any, config: list[Any]) -> tuple[Any, str | None]:
        """Returns (answer, problem) of a job; the configuration, in a list, is fetched once."""
        import ray

        try:
            if self._handle is None:
                module, function = self._make.split(":")
                make = getattr(importlib.import_module(module), function)
                self._handle = make(ray.get(config[0]))
            return self._handle(job), None
        except VtrError as error:
            return None, f"node {socket.gethostname()}: {error}"


def _name(node: dict[str, Any]) -> str:
    return printable(f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})")


def _resources(node: dict[str, Any]) -> str:
    has = node["Resources"]
    return f"has {has.get('CPU', 0):g} cores and {has.get('GPU', 0):g} GPUs"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[-1] if lines else type(error).__name__)


def num_parts(num_inputs: int, num_workers: int) -> int:
    """Returns into how many parts work is cut where nobody says."""
    return max(1, min(num_inputs, max(4 * num_workers, math.ceil(num_inputs / 4096))))


# ---- a pool on the cluster


class RayPool:
    """A `WorkerPool` on every worker: the same jobs in, the same outcomes out, in their order."""

    def __init__(
        self, cluster: Cluster, share: Share, settings: PoolSettings, parts: int | None
    ) -> None:
        self._cluster, self._share, self._parts = cluster, share, parts
        self._settings = replace(settings, workers=share.cpus)

    def run(self, jobs: Sequence[Any]) -> Iterator[Outcome]:
        """Yields one outcome per job, in order.

        Raises:
            WorkersLostError: Some could not be done; says which part, and why.
        """
        size = 4 * self._share.cpus if self._parts is None else math.ceil(len(jobs) / self._parts)
        pieces = [jobs[start : start + size] for start in range(0, len(jobs), size)]
        done: dict[int, list[Outcome]] = {}
        following = 0
        for number, outcomes, problem in self._cluster.work(
            f"{__name__}:make_pool", self._settings, pieces, self._share
        ):
            if problem:
                raise WorkersLostError(
                    f"part {number + 1}/{len(pieces)} could not be done: {problem}. What is done "
                    "is safe, and the same command goes on"
                )
            done[number] = outcomes
            while following in done:
                yield from done.pop(following)
                following += 1


def make_pool(settings: PoolSettings) -> Callable[[Sequence[Any]], list[Outcome]]:
    """Returns what does a piece of a pool's jobs; its processes are kept for the next one."""
    pool = WorkerPool(settings)
    return lambda jobs: list(pool.run(jobs))
