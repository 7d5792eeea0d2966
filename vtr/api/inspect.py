"""`vtr inspect`: what is in a feature store."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vtr.counts import counted
from vtr.features.digests import mend
from vtr.features.engine_check import read_engine_check
from vtr.features.shard import ShardName
from vtr.features.store import FeatureStore


def inspect(folder: Path, *, verify: bool = False) -> tuple[dict[str, Any], str]:
    """Returns settings, counts, failures and sizes of a store, as JSON values, and a verdict.

    Args:
        folder: The store; its damaged shards are left out and named.
        verify: Read every byte and compare checksums.

    Returns:
        The facts, and in words whether the shards are whole; empty where that was not looked at.
    """
    store = FeatureStore(folder, skip_damaged=True)
    damaged = [shard.name for shard in store.damaged] + (store.verify() if verify else [])
    shards = counted(len(store.shards) + len(store.damaged), "shard is", "shards are")
    verdict = f"all {shards} whole" if verify else ""
    if damaged:
        verdict = f"{len(damaged)} of {shards} damaged: {', '.join(damaged)}. {mend(folder)}"
    return {**describe(store), "damaged": damaged if verdict else None}, verdict


def _absent_parts(store: FeatureStore) -> list[tuple[int, int]]:
    """Returns (n, i) of every part i of n without a shard, where another of the n has one."""
    damaged = [name for path in store.damaged if (name := ShardName.parse(path.name))]
    names = [shard.name for shard in store.shards] + damaged
    there = {(name.parts, name.part) for name in names}
    return [
        (parts, part)
        for parts in sorted({name.parts for name in names})
        for part in range(1, parts + 1)
        if (parts, part) not in there
    ]


def describe(store: FeatureStore) -> dict[str, Any]:
    """Returns everything about a store but its damage, as JSON values."""
    statuses = Counter(row.status for row in store.ledger)
    stamp = read_engine_check(store.folder, store.fingerprint)
    incomplete = [row for row in store.ledger if row.status != "ok"]
    return {
        "path": str(store.folder),
        "fingerprint": store.fingerprint,
        "spec": json.loads(store.spec.to_json()),
        "inputs": len(store.ledger),
        **{status: statuses[status] for status in ("ok", "partial", "failed")},
        "frames": sum(len(shard.frames) for shard in store.shards),
        "video_seconds": sum(
            row.duration_seconds for row in store.ledger if row.status != "failed"
        ),
        "selected_frames": {
            label: sum(len(shard.selection(label)[0]) for shard in store.shards)
            for label in store.spec.samplers
        },
        "shards": len(store.shards),
        "parts_without_shards": [f"{part}/{parts}" for parts, part in _absent_parts(store)],
        "bytes": sum(shard.num_bytes for shard in store.shards),
        "engine_check": stamp and asdict(stamp),
        "pictures": store.picture_format,
        "picture_bytes": sum(shard.picture_bytes for shard in store.shards),
        "duplicate_ids": store.duplicates,
        "reasons": dict(Counter(row.reason for row in incomplete).most_common()),
        "failures": [
            {"id": row.id, "status": row.status, "error": row.error} for row in incomplete
        ],
    }
