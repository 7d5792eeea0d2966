"""`vtr export` of a store: its frames and ledger in forms that other tools read."""

from __future__ import annotations

import os
from pathlib import Path

from vtr.api.export_samples import write_samples
from vtr.bridges.arrow import write_parquet
from vtr.bridges.lances import write_lance
from vtr.bridges.tars import is_other_pattern, is_pattern, parts_of, write_tars
from vtr.errors import ConfigError
from vtr.extras import require_extra
from vtr.features import FeatureStore
from vtr.features.shard import list_shards
from vtr.files import make_folder, publishing, replacing, require_empty
from vtr.progress import note
from vtr.searching.home import held_home
from vtr.verbs.export import FORMS, Options
from vtr.workspace import Workspace


def export_store(folder: Path, options: Options, workspace: Workspace | None = None) -> list[Path]:
    """Writes a store in every form that the options name; each appears whole or not at all.

    `folder` may also be one of videos that `vtr search` has embedded; the workspace says where the
    videos and the model are, for `fiftyone`.

    Returns:
        The files and folders, of each form the frames first.
    """
    _check(folder, options)
    home = None if list_shards(folder)[0] else held_home(folder)
    store = FeatureStore(home or folder)
    if store.picture_format is not None:
        note(f"the pictures that {folder} keeps are left out")
    written: list[Path] = []
    file_bytes = options.file_mb * 1_000_000
    if options.parquet is not None:
        written += _parquet(store, options.parquet, file_bytes)
    if options.webdataset is not None:
        written += _webdataset(store, options.webdataset, file_bytes)
    if options.lance is not None:
        with replacing(options.lance, option="--lance") as made:
            files = write_lance(store, made, file_bytes=file_bytes)
        written += [options.lance / path.name for path in files]
    if options.fiftyone is not None:
        base = Workspace.at(Path.cwd()) if workspace is None else workspace
        written.append(write_samples(store, folder if home else None, base, options))
    return written


def _check(folder: Path, options: Options) -> None:
    """Refuses what cannot be written, before anything is read."""
    if not FORMS & options.given.keys():
        raise ConfigError(
            "nothing to export: name a run (--run RUN --out DIR), or what to make of the store "
            f"{folder} (--parquet, --webdataset, --lance, --fiftyone)"
        )
    if options.parquet is not None:
        require_extra("arrow", ["pyarrow"], "--parquet")
    if options.lance is not None:
        require_extra("lance", ["lance"], "--lance", needs="pylance")
        require_empty(options.lance, option="--lance")
    if options.fiftyone is not None and options.fiftyone.suffix != ".json":
        raise ConfigError(f"--fiftyone is {options.fiftyone}; it must end in .json")
    options.refuse_typed(
        ("onnx", "reference", "sentence_transformers"), "is about a run: name it with --run"
    )
    if options.query and options.fiftyone is None:
        raise ConfigError("--query says nothing without --fiftyone FILE.json")


def _parquet(store: FeatureStore, target: Path, file_bytes: int) -> list[Path]:
    if target.suffix.lower() != ".parquet":
        require_empty(target, option="--parquet")
        with replacing(target, option="--parquet") as made, publishing() as create:
            files = write_parquet(store, made, create, file_bytes=file_bytes)
        return [target / path.relative_to(made) for path in files]
    if os.path.isdir(target):  # noqa: PTH112  (any name)
        raise ConfigError(f"--parquet {target} is a folder; a folder's name has no ending .parquet")
    make_folder(target.parent, option="--parquet")
    with publishing(alone=True) as create:
        return write_parquet(store, target.parent, create, file_bytes=file_bytes, alone=target)


def _webdataset(store: FeatureStore, target: Path, file_bytes: int) -> list[Path]:
    if target.suffix.lower() != ".tar" or is_other_pattern(target.name):
        raise ConfigError(
            f"--webdataset is {target}; it must end in .tar: one file, or with %05d once in its "
            "name as many as --file-mb makes of them"
        )
    if is_pattern(target.name) and parts_of(target):
        raise ConfigError(f"--webdataset {target}: {parts_of(target)[0].name} is there already")
    make_folder(target.parent, option="--webdataset")
    with publishing(alone=True) as create:
        return write_tars(store, target, create, file_bytes=file_bytes)
