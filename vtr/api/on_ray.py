"""The pool of `vtr compress --ray` and `vtr data verify --ray`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from vtr.extract.cluster import RayPool, pool_on_ray
from vtr.extract.nodes import Sight, some_sizes
from vtr.extract.pool import PoolSettings
from vtr.extract.resume import size_of
from vtr.verbs._scale import OnRay


def on_ray(
    options: OnRay,
    settings: PoolSettings,
    *,
    source: Path,
    files: Sequence[Path] = (),
    target: Path | None = None,
) -> AbstractContextManager[RayPool]:
    """Returns the pool that options ask for; see `pool_on_ray`."""
    assert options.ray is not None
    return pool_on_ray(
        settings,
        address=options.ray,
        asked=(options.parts, options.cpus_per_worker, options.gpus_per_worker or 0),
        sight=Sight(source, some_sizes((path, size_of(path)) for path in files)),
        target=target,
    )
