"""What every form of an exported store says: its spec and pad embedding, and a row per input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.errors import StoreError
from vtr.features import FeatureStore
from vtr.features.rows import LedgerRow, VideoRow
from vtr.features.shard import LEDGER_NUMBERS
from vtr.features.spec import FeatureSpec
from vtr.foreign import is_undecodable, shown
from vtr.json_files import as_fields, parse_json

SCHEMA = 1
_NOT_OURS = "only what vtr export wrote can be read back"


def input_rows(store: FeatureStore) -> Iterator[VideoRow]:
    """Yields one row per input in plan order, without pictures; its arrays are maps of the file."""
    seen: set[str] = set()
    for shard in store.shards:
        for row in shard.rows(pictures=False):
            if row.ledger.id not in seen:  # of an id stored twice the first counts
                seen.add(row.ledger.id)
                yield row


def head_values(store: FeatureStore) -> dict[str, str]:
    """Returns what is true of the whole store, as texts by name."""
    return {
        "vtr.schema": str(SCHEMA),
        "vtr.spec": store.spec.to_json(),
        "vtr.fingerprint": store.fingerprint,
        "vtr.pad_embedding": json.dumps(store.pad_embedding.tolist()),
    }


def read_head(
    values: Mapping[str, Any], *, source: object
) -> tuple[FeatureSpec, NDArray[np.float32]]:
    """Returns what `head_values` made texts of."""
    absent = [f"vtr.{name}" for name in ("schema", "spec", "fingerprint", "pad_embedding")
              if not isinstance(values.get(f"vtr.{name}"), str)]  # fmt: skip
    if absent:
        raise StoreError(f"{source} lacks {', '.join(absent)}; {_NOT_OURS}")
    if values["vtr.schema"] != str(SCHEMA):
        raise StoreError(
            f"{source} is of schema {shown(values['vtr.schema'], 20)}; this vtr reads {SCHEMA}"
        )
    spec = FeatureSpec.from_json(values["vtr.spec"])
    try:
        kinds = spec.storage_dtype in ("float16", "float32") and spec.window_frames >= 1
        if not kinds or min(spec.embedding_dim, spec.thumbnail_side or 1) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise StoreError(f"{source}: its spec is none that a store has; {_NOT_OURS}") from None
    if spec.fingerprint != values["vtr.fingerprint"]:
        raise StoreError(f"{source}: its fingerprint does not fit its spec; {_NOT_OURS}")
    document = parse_json(
        f'{{"pad": {values["vtr.pad_embedding"]}}}',
        source=source, needed="a list of numbers", error=StoreError,
    )  # fmt: skip
    try:
        pad = np.array(document["pad"], np.float64).astype(np.float32)
    except (TypeError, ValueError):
        pad = np.zeros(0, np.float32)
    if pad.shape != (spec.embedding_dim,):
        raise StoreError(f"{source}: vtr.pad_embedding is no list of {spec.embedding_dim} numbers")
    return spec, pad


def ledger_values(row: VideoRow) -> dict[str, Any]:
    """Returns all of a row but its arrays, as JSON values; the id is called `video_id`."""
    facts = asdict(row.ledger)
    chosen = {label: rows.tolist() for label, rows in row.selections.items()}
    spans = {} if row.spans is None else {"spans": row.spans.reshape(-1).tolist()}
    return {
        "video_id": facts.pop("id"), **facts, "num_frames": len(row.frames), "selections": chosen,
        **spans,
    }  # fmt: skip


def make_row(
    values: Mapping[str, Any],
    frames: NDArray[Any],
    pts_seconds: NDArray[Any],
    luma: NDArray[np.uint8] | None = None,
    *,
    spec: FeatureSpec,
) -> VideoRow:
    """Returns the row that `ledger_values` and its arrays describe."""
    video_id = values.get("video_id")
    if not isinstance(video_id, str) or not video_id or is_undecodable(video_id):
        raise StoreError(f"video_id is {shown(repr(video_id), 80)}; allowed: a text")
    where = f"video {shown(video_id, 80)!r}"
    others = ("video_id", "num_frames", "selections", "spans")
    facts = {k: v for k, v in values.items() if k not in others}
    ledger = as_fields(LedgerRow, {"id": video_id, **facts}, source=where, error=StoreError)
    for name, kind in {**LEDGER_NUMBERS, "file_mtime_ns": np.int64}.items():
        try:
            np.array(getattr(ledger, name), kind)
        except OverflowError:
            number = getattr(ledger, name)
            raise StoreError(f"{where}: {name} is {number}; allowed: {np.dtype(kind)}") from None
    count, chosen = values.get("num_frames"), values.get("selections")
    wanted = (count, spec.embedding_dim)
    if frames.shape != wanted or frames.dtype != np.dtype(spec.storage_dtype):
        raise StoreError(
            f"{where} has frames {frames.dtype} {frames.shape}; its ledger and spec say "
            f"{spec.storage_dtype} {wanted}"
        )
    if pts_seconds.shape != (count,) or pts_seconds.dtype != np.float64:
        raise StoreError(f"{where} has {pts_seconds.shape} times for {counted(count, 'frame')}")
    side = spec.thumbnail_side
    shape = (count, side, side)
    if side is not None and (luma is None or luma.shape != shape or luma.dtype != np.uint8):
        raise StoreError(f"{where} lacks the thumbnails that its spec names")
    if not isinstance(chosen, Mapping) or chosen.keys() != set(spec.samplers):
        raise StoreError(f"{where}: selections are not those of {', '.join(spec.samplers)}")
    selections = {}
    for label, rows in chosen.items():
        if not isinstance(rows, list) or not all(
            type(row) is int and 0 <= row < len(frames) for row in rows
        ):
            raise StoreError(f"{where}: selection {label!r} names rows that are not there")
        selections[label] = np.array(rows, np.int64)
    spans = _spans(values, spec, where)
    return VideoRow(ledger, frames, pts_seconds, selections, luma, spans=spans)


def _spans(values: Mapping[str, Any], spec: FeatureSpec, where: str) -> NDArray[np.float64] | None:
    """Returns start and end of each row, where rows are windows."""
    if spec.window_frames == 1:
        return None
    try:
        spans = np.array(values.get("spans") or [], np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        spans = np.full((1, 2), np.nan)
    if len(spans) != values["num_frames"] or not (spans[:, 0] < spans[:, 1]).all():
        raise StoreError(f"{where} lacks start and end of its {values['num_frames']} windows")
    return spans
