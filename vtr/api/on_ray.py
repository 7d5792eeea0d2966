"""The pool of `vtr compress --ray` and `vtr data verify --ray`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from vtr.extract.cluster import RayPool, connected
from vtr.extract.nodes import Sight, a_few, look, marked
from vtr.extract.pool import PoolSettings
from vtr.extract.resume import size_of
from vtr.verbs._scale import OnRay


@contextmanager
def on_ray(
    options: OnRay,
    settings: PoolSettings,
    *,
    source: Path,
    files: Sequence[Path] = (),
    target: Path | None = None,
) -> Iterator[RayPool]:
    """Connects for the time of a block, lets every node look, and yields the pool.

    Every node must see `files` in `source`, and the `target`, which is there. Of the `settings`,
    those of `WorkerPool`, the number of processes is not heeded.
    """
    assert options.ray is not None
    sizes = tuple((path, size_of(path)) for path in a_few(files))
    cpus, gpus = options.cpus_per_worker, options.gpus_per_worker
    with connected(options.ray) as cluster:
        share = cluster.share(cpus=cpus, gpus=gpus, on_cpu=True)
        with marked(target) if target else nullcontext() as marker:
            cluster.require_on_every_node(look, Sight(source, sizes, marker), share)
        yield RayPool(cluster, share, settings, options.parts)
