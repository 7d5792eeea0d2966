"""A store as arrow tables: a row per frame and, apart, a row per input; in parquet and Lance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vtr.bridges.rows import head_values, input_rows, ledger_values, make_row, read_head
from vtr.counts import counted
from vtr.errors import StoreError
from vtr.features import FeatureSpec, FeatureStore
from vtr.features.importing import ImportReport, write_rows
from vtr.features.rows import LedgerRow, VideoRow
from vtr.features.store import require_same
from vtr.files import Create
from vtr.foreign import first_few, shown

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 16 << 20
FRAMES = "frames-{:05d}.parquet"
LEDGER = "__ledger__/ledger.parquet"
"""Where `datasets`, pyarrow and pandas, given the folder, do not look for rows of frames."""
_LEDGER_SUFFIX = ".ledger.parquet"
BATCH_ROWS = 4096
_COLUMNS = ("video_id", "row", "pts_seconds", "embedding")


# ---- to arrow


def frame_schema(spec: FeatureSpec, head: Any = None) -> pa.Schema:
    """Returns `video_id, row, pts_seconds, embedding`, and `luma` where thumbnails are kept."""
    import pyarrow as pa

    numbers = pa.from_numpy_dtype(np.dtype(spec.storage_dtype))
    columns = [
        ("video_id", pa.string()),
        ("row", pa.int32()),
        ("pts_seconds", pa.float64()),
        ("embedding", pa.list_(numbers, spec.embedding_dim)),
    ]
    if spec.thumbnail_side is not None:
        columns.append(("luma", pa.list_(pa.uint8(), spec.thumbnail_side**2)))
    return pa.schema([pa.field(n, k, nullable=False) for n, k in columns], head)


def frame_batches(store: FeatureStore, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yields the frames of all inputs in plan order, some megabytes at a time."""
    import pyarrow as pa

    width = sum(np.dtype(k.value_type.to_pandas_dtype()).itemsize * k.list_size
                for k in schema.types if pa.types.is_fixed_size_list(k))  # fmt: skip
    for parts in _cut(input_rows(store), max(1, BATCH_BYTES // width)):
        counts = [stop - start for _, start, stop in parts]
        columns = {
            "video_id": pa.array([row.ledger.id for row, _, _ in parts]).take(
                pa.array(np.repeat(np.arange(len(parts)), counts))
            ),
            "row": np.concatenate([np.arange(start, stop) for _, start, stop in parts]),
            "pts_seconds": np.concatenate([row.pts_seconds[a:b] for row, a, b in parts]),
            "embedding": np.concatenate([row.frames[a:b] for row, a, b in parts]),
        }
        if "luma" in schema.names:
            columns["luma"] = np.concatenate(
                [row.luma[a:b] for row, a, b in parts if row.luma is not None]
            )
        yield pa.record_batch([_array(columns[f.name], f.type) for f in schema], schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(kind):
        return values if isinstance(values, pa.Array) else pa.array(values, kind)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def _cut(rows: Iterable[VideoRow], most: int) -> Iterator[list[tuple[VideoRow, int, int]]]:
    """Yields pieces of videos, (video, first row, last row + 1), `most` rows at a time."""
    parts: list[tuple[VideoRow, int, int]] = []
    room = most
    for row in rows:
        start = 0
        while start < len(row.frames):
            stop = min(len(row.frames), start + room)
            parts.append((row, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield parts
                parts, room = [], most
    if parts:
        yield parts


def ledger_schema(spec: FeatureSpec, head: Any = None) -> pa.Schema:
    """Returns `LedgerRow`'s fields (`id` called `video_id`), `num_frames`, a list per sampler."""
    import pyarrow as pa

    kinds = {"str": pa.string(), "Status": pa.string(), "int": pa.int64(), "float": pa.float64()}
    facts = [(f.name, kinds[str(f.type)]) for f in dataclasses.fields(LedgerRow)]
    chosen = [(f"selection/{label}", pa.list_(pa.int32())) for label in spec.samplers]
    if spec.window_frames > 1:  # start and end of each row, one after the other
        chosen.append(("spans", pa.list_(pa.float64())))
    columns = [("video_id", pa.string()), *facts[1:], ("num_frames", pa.int64()), *chosen]
    return pa.schema([pa.field(n, k, nullable=False) for n, k in columns], head)


def ledger_table(store: FeatureStore) -> pa.Table:
    """Returns one row per input in plan order, failed ones too."""
    import pyarrow as pa

    rows = []
    for row in input_rows(store):
        values = {"spans": [], **ledger_values(row)}
        chosen = values.pop("selections")
        rows.append(
            {**values, **{f"selection/{label}": picked for label, picked in chosen.items()}}
        )
    return pa.Table.from_pylist(rows, schema=ledger_schema(store.spec, head_values(store)))


def write_parquet(
    store: FeatureStore, folder: Path, create: Create, *, file_bytes: int, alone: Path | None = None
) -> list[Path]:
    """Writes frames and ledger; returns the files, frames first.

    Args:
        store: What to write.
        folder: Where `FRAMES` and `LEDGER` go.
        create: Opens the files.
        file_bytes: Where a file of frames is larger, another begins.
        alone: The one file of all frames instead; its ledger lies beside it.
    """
    import pyarrow.parquet as pq

    schema = frame_schema(store.spec, head_values(store))
    options = {"use_dictionary": ["video_id"], "write_page_checksum": True}
    files: list[Path] = []
    batches = frame_batches(store, schema)
    batch = next(batches, None)
    while batch is not None or not files:  # of no frames at all a file says what it would hold
        files.append(alone or folder / FRAMES.format(len(files)))
        file = create(files[-1])
        with pq.ParquetWriter(file, schema, **options) as writer:
            while batch is not None and (alone is not None or file.tell() < file_bytes):
                writer.write_batch(batch)
                batch = next(batches, None)
    place = folder / LEDGER if alone is None else ledger_beside(alone)
    place.parent.mkdir(exist_ok=True)
    pq.write_table(ledger_table(store), create(place), write_page_checksum=True)
    return [*files, place]


def ledger_beside(file: Path) -> Path:
    """Returns the ledger's file of a single file of frames."""
    return file.with_name(file.stem + _LEDGER_SUFFIX)


# ---- from arrow


def is_parquet(source: Path) -> bool:
    """Returns whether a source is a parquet file, or a folder of such."""
    if source.is_dir():
        return any(source.glob("*.parquet"))
    return source.suffix.lower() == ".parquet"


def read_parquet(source: Path, store: Path) -> ImportReport:
    """Makes a store of what `write_parquet` wrote, holding one shard of it in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files, place = [source], ledger_beside(source)
    if source.is_dir():
        files, place = sorted(source.glob("*.parquet")), source / LEDGER
        alone = [path for path in files if ledger_beside(path) in files]
        if len(alone) == 1 and not place.exists():
            files, place = alone, ledger_beside(alone[0])
    # Read ahead, pyarrow would hold the whole file.
    checked = {"page_checksum_verification": True, "pre_buffer": False}

    def batches() -> Iterator[pa.RecordBatch]:
        for path in files:
            with pq.ParquetFile(path, **checked) as file:
                yield from file.iter_batches(BATCH_ROWS)

    try:
        schemas = {path: pq.read_schema(path) for path in files}
        spec, pad = common_head(schemas)
        if not place.is_file():
            raise StoreError(
                f"{place} is missing: the ledger of {source}, which vtr export wrote with it"
            )
        with pq.ParquetFile(place, **checked) as file:
            require_columns(file.schema_arrow, ledger_schema(spec), place)
            ledger = file.read()
        return write_rows(store, rows_of(ledger, batches(), spec, source), spec, pad)
    except (pa.ArrowException, OSError, ValueError) as error:  # also of names that are no UTF-8
        raise StoreError(
            f"{source} cannot be read as parquet: {shown(getattr(error, 'strerror', 0) or error)}"
        ) from None


def common_head(schemas: Mapping[Path, pa.Schema]) -> tuple[FeatureSpec, NDArray[np.float32]]:
    """Returns what all files of frames say alike of the store."""
    heads = {}
    for path, schema in schemas.items():
        missing = [name for name in _COLUMNS if name not in schema.names]
        if missing:
            raise StoreError(_other_columns(path, missing, schema.names))
        texts = {k.decode(errors="replace"): v.decode(errors="replace")
                 for k, v in (schema.metadata or {}).items()}  # fmt: skip
        heads[path] = read_head(texts, source=path)
        require_columns(schema, frame_schema(heads[path][0]), path)
    (first, head), *others = heads.items()
    for path, (spec, _) in others:
        require_same(head[0], spec, what=f"{first.name} and {path.name}")
    return head


def require_columns(found: pa.Schema, wanted: pa.Schema, path: Path) -> None:
    """Refuses columns of other names or types."""
    missing = [name for name in wanted.names if name not in found.names]
    if missing:
        raise StoreError(_other_columns(path, missing, found.names))
    for field in wanted:
        kind = found.field(field.name).type
        if not kind.equals(field.type):
            raise StoreError(f"{path}: the column {field.name} is {kind}; needed: {field.type}")


def _other_columns(path: Path, missing: Sequence[str], there: Sequence[str]) -> str:
    return (
        f"{path} has no column {', '.join(missing)}; it has {first_few(there, 12)}. A table of "
        f"frames has {', '.join(_COLUMNS)}"
    )


def rows_of(
    ledger: pa.Table, batches: Iterator[pa.RecordBatch], spec: FeatureSpec, source: Path
) -> Iterator[VideoRow]:
    """Yields the rows of the inputs; the frames must come in the order of the ledger."""
    import pyarrow as pa

    schema = pa.schema([(field.name, field.type) for field in frame_schema(spec)])
    frames, side = schema.empty_table(), spec.thumbnail_side
    for part in ledger.to_batches(max_chunksize=BATCH_ROWS):
        for values in part.to_pylist():
            chosen = {label: values.pop(f"selection/{label}") or [] for label in spec.samplers}
            count, video_id = max(0, values["num_frames"] or 0), str(values["video_id"])
            own = frames.slice(0, count)
            while (right := _num_right(own, video_id)) == len(own) < count:
                if (batch := next(batches, None)) is None:
                    break
                more = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
                frames = pa.concat_tables([frames, more])
                own = frames.slice(0, count)
            if right < count:
                raise StoreError(
                    f"{source}: the {counted(count, 'frame')} of {shown(video_id, 80)!r} that its "
                    f"ledger names cannot be read in order: row {right:,} is not there. Is a file "
                    "missing, or was it sorted anew?"
                )
            frames = frames.slice(count)
            yield make_row(
                {**values, "selections": chosen},
                _matrix(own["embedding"], spec.embedding_dim),
                own["pts_seconds"].to_numpy(),
                None if side is None else _matrix(own["luma"], side**2).reshape(-1, side, side),
                spec=spec,
            )
    if len(frames) or any(batch.num_rows for batch in batches):
        raise StoreError(f"{source} holds frames of videos that are not in its ledger")


def _num_right(frames: pa.Table, video_id: str) -> int:
    """Returns how many rows, from the first on, are a video's, in order and without a null."""
    right = frames["video_id"].to_numpy() == video_id
    right &= frames["row"].to_numpy() == np.arange(len(frames))
    for column in frames.columns:
        right &= column.is_valid().to_numpy()
    return int(np.argmin(np.append(right, False)))


def _matrix(column: pa.ChunkedArray, width: int) -> NDArray[Any]:
    flat = column.combine_chunks().flatten()
    if flat.null_count:
        raise StoreError("a value of an embedding is null; a store holds none such")
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return values.reshape(-1, width)
