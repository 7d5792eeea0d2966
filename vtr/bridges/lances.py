"""A store as two tables of Lance: the frames and, apart, the ledger."""

from __future__ import annotations

import os
from pathlib import Path

from vtr.bridges.arrow import (
    BATCH_ROWS,
    common_head,
    frame_batches,
    frame_schema,
    ledger_schema,
    ledger_table,
    require_columns,
    rows_of,
)
from vtr.bridges.rows import head_values
from vtr.errors import StoreError, StoreWriteError
from vtr.features import FeatureStore
from vtr.features.importing import ImportReport, write_rows
from vtr.foreign import shown

FRAMES, LEDGER = "frames.lance", "ledger.lance"
"""A table is a folder of such a name, as `lancedb.connect` looks for them."""
_RAISED = (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_BUFFER_BYTES = 64 << 20


def write_lance(store: FeatureStore, folder: Path, *, file_bytes: int) -> list[Path]:
    """Writes both tables into an empty folder; returns theirs."""
    import lance
    import pyarrow as pa

    schema = frame_schema(store.spec, head_values(store))
    frames = pa.RecordBatchReader.from_batches(schema, frame_batches(store, schema))
    try:
        lance.write_dataset(frames, str(folder / FRAMES), max_bytes_per_file=file_bytes)
        lance.write_dataset(ledger_table(store), str(folder / LEDGER))
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    except (pa.ArrowException, OSError, RuntimeError) as error:
        raise StoreWriteError(
            f"cannot write {folder}: {shown(error, 200)}. Nothing is left of it; free some space "
            "or choose another folder with --lance, then run the same command again"
        ) from None
    return [folder / FRAMES, folder / LEDGER]


def is_lance(source: Path) -> bool:
    """Returns whether a source is a folder that `write_lance` filled."""
    return (source / FRAMES).is_dir()


def read_lance(source: Path, store: Path) -> ImportReport:
    """Makes a store of what `write_lance` wrote, holding one shard of it in memory."""
    import lance
    import pyarrow as pa

    try:
        frames, ledger = (lance.dataset(str(source / name)) for name in (FRAMES, LEDGER))
        spec, pad = common_head({source / FRAMES: frames.schema})
        require_columns(ledger.schema, ledger_schema(spec), source / LEDGER)
        bounds = {"batch_readahead": 4, "io_buffer_size": _BUFFER_BYTES}
        batches = frames.scanner(batch_size=BATCH_ROWS, scan_in_order=True, **bounds).to_batches()
        rows = rows_of(ledger.to_table(), batches, spec, source)
        return write_rows(store, rows, spec, pad)
    except BaseException as error:
        panics = type(error).__name__ == "PanicException"  # of Rust, at some damaged files
        if not panics and not isinstance(error, (pa.ArrowException, *_RAISED)):
            raise
        raise StoreError(f"{source} cannot be read as Lance: {shown(error, 200)}") from None
