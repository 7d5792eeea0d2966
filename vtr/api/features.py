"""`vtr features import`: a store from features that somebody else extracted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vtr.bridges.arrow import is_parquet, read_parquet
from vtr.bridges.lances import is_lance, read_lance
from vtr.bridges.tars import is_tar, read_tars
from vtr.errors import ConfigError
from vtr.extras import require_extra
from vtr.features.foreign import STAND_INS
from vtr.features.importing import ImportReport, import_arrays, require_new
from vtr.features.sources import find_files
from vtr.files import publish
from vtr.foreign import escape_undecodable
from vtr.settings import resolved
from vtr.verbs.features import Options

CONFIG_FILE = "import.json"
"""In the store: the options that it was made with."""


def import_features(source: Path, store: Path, options: Options) -> ImportReport:
    """Makes a store of arrays named by video, see `import_arrays`, or of a store's export.

    A folder of arrays is one whatever tables and tars lie beside them.
    """
    if source.is_dir() and find_files(source)[0]:
        report = _import_arrays(source, store, options)
    elif is_parquet(source):
        require_extra("arrow", ["pyarrow"], f"{source} is parquet, and")
        report = _read_back(source, store, options, read_parquet)
    elif is_lance(source):
        require_extra("lance", ["lance"], f"{source} is of Lance, and", needs="pylance")
        report = _read_back(source, store, options, read_lance)
    elif is_tar(source):
        report = _read_back(source, store, options, read_tars)
    else:
        report = _import_arrays(source, store, options)
    used = {"source": escape_undecodable(str(source)), "dim": report.dim}
    publish(store / CONFIG_FILE, resolved(options, **used))
    return report


def _import_arrays(source: Path, store: Path, options: Options) -> ImportReport:
    name, fps, dim = options.name, options.fps, options.dim
    return import_arrays(source, store, name=name, fps=fps, dim=dim, tensors=read_torch)


def _read_back(
    source: Path, store: Path, options: Options, read: Callable[[Path, Path], ImportReport]
) -> ImportReport:
    """Reads what `vtr export` wrote, which says all of itself; its failures are no new ones."""
    if given := options.given:
        raise ConfigError(
            f"{source} says itself what its features are: leave out --{', --'.join(given)}"
        )
    require_new(store)
    report = read(source, store)
    return replace(report, failed={}, failed_before=len(report.failed))


def read_torch(path: Path) -> Any:
    """Reads what `torch.save` wrote, with arrays for tensors; torch is loaded for the first."""
    from vtr.clip.checkpoint_files import read_content

    return read_content(path, STAND_INS)
