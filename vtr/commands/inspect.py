"""`vtr inspect`: what is in a feature store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.commands.console import print_json, say
from vtr.commands.tables import echo_wrapped
from vtr.counts import counted, human_bytes

if TYPE_CHECKING:
    from vtr.features import FeatureStore

MAX_LISTED = 20


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("inspect")(inspect)


def inspect(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="The store: a folder of shards. (default: the workspace's, or features)",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte and compare checksums.")
    ] = False,
    failures: Annotated[
        bool, typer.Option("--failures", help="List every failed and partial video.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what is in a feature store: settings, counts, failures by reason, sizes.

    Exit code 1 where a shard is damaged; the figures are those of the others.
    """
    from vtr.api.stores import store_folder
    from vtr.features import FeatureStore

    store = FeatureStore(store_folder(path), skip_damaged=True)
    facts = describe(store)
    damaged = [shard.name for shard in store.damaged] + (store.verify() if verify else [])
    if as_json:
        print_json({**facts, "damaged": damaged if verify or damaged else None})
    else:
        _print(facts, everything=failures)
        if verify or damaged:
            say(f"checksums    {_verdict(damaged, store)}")
    if damaged:
        raise typer.Exit(1)


def describe(store: FeatureStore) -> dict[str, Any]:
    """Returns everything `vtr inspect` says, as JSON values."""
    import json

    frames = sum(len(shard.frames) for shard in store.shards)
    statuses = Counter(row.status for row in store.ledger)
    lengths = [row.duration_seconds for row in store.ledger if row.status != "failed"]
    return {
        "path": str(store.folder),
        "fingerprint": store.fingerprint,
        "spec": json.loads(store.spec.to_json()),
        "inputs": len(store.ledger),
        **{status: statuses[status] for status in ("ok", "partial", "failed")},
        "frames": frames,
        "video_seconds": sum(lengths),
        "selected_frames": {
            label: sum(len(shard.selection(label)[0]) for shard in store.shards)
            for label in store.spec.samplers
        },
        "shards": len(store.shards),
        "bytes": sum(shard.path.stat().st_size for shard in store.shards),
        "duplicate_ids": store.duplicates,
        "reasons": dict(Counter(r.reason for r in store.ledger if r.status != "ok").most_common()),
        "failures": [
            {"id": row.id, "status": row.status, "error": row.error}
            for row in store.ledger
            if row.status != "ok"
        ],
    }


def _print(facts: dict[str, Any], *, everything: bool) -> None:
    spec = facts["spec"]
    rate = (
        "every frame" if spec["candidate_fps"] is None else f"{spec['candidate_fps']:g} per second"
    )
    budget = (
        "all candidates"
        if spec["num_frames"] is None
        else f"{counted(spec['num_frames'], 'frame')}"
    )
    lines = {
        "store": facts["path"],
        "backbone": f"{spec['backbone']}, revision {spec['revision']}, D = {spec['embedding_dim']}",
        "weights": spec["weights_sha256"],
        "candidates": rate,
        "samplers": f"{', '.join(spec['samplers'])}; {budget} per video{_later(spec)}",
        "pictures": _pictures(spec["preprocessing"]),
        "stored as": f"{spec['storage_dtype']}, computed in {spec['compute_dtype']}",
        "versions": ", ".join(f"{name} {text}" for name, text in spec["versions"].items()),
        "fingerprint": facts["fingerprint"],
        "videos": f"{counted(facts['inputs'], 'input')} = {facts['ok']:,} ok + "
        f"{facts['partial']:,} partial "
        f"+ {facts['failed']:,} failed",
        "frames": f"{counted(facts['frames'], 'embedding')} ("
        + ", ".join(f"{label} {count:,}" for label, count in facts["selected_frames"].items())
        + ")",
        "size": f"{human_bytes(facts['bytes'])} in {counted(facts['shards'], 'shard')}",
    }
    for name, text in lines.items():
        echo_wrapped(name, text, width=13)
    if facts["duplicate_ids"]:
        say(f"{'twice':<12} {counted(len(facts['duplicate_ids']), 'id')}; the first one counts")
    _print_failures(facts, everything=everything)


def _print_failures(facts: dict[str, Any], *, everything: bool) -> None:
    for reason, count in facts["reasons"].items():
        say(f"  {count:>6} {reason}")
    rows = facts["failures"] if everything else facts["failures"][:MAX_LISTED]
    for row in rows:
        say(f"  {row['status']}: {row['id']!r}: {row['error']}")
    if len(rows) < len(facts["failures"]):
        say(f"  and {len(facts['failures']) - len(rows)} more: --failures lists them all")


def _later(spec: dict[str, Any]) -> str:
    """Says which samplers a store with every candidate serves too."""
    from vtr.extract.choose import DENSE

    if DENSE not in spec["samplers"]:
        return ""
    some = "" if spec["thumbnail_side"] else " that compares no pictures (no thumbnails are kept)"
    return f"; any other{some} with --sampler NAME, without the videos"


def _pictures(preprocessing: dict[str, Any]) -> str:
    size = "x".join(str(side) for side in preprocessing.get("size", []))
    return f"{size}, {preprocessing.get('resize')}, {preprocessing.get('route')} route"


def _verdict(damaged: list[str], store: FeatureStore) -> str:
    from vtr.features.digests import mend

    shards = len(store.shards) + len(store.damaged)
    if not damaged:
        return f"all {counted(shards, 'shard is', 'shards are')} whole"
    names = ", ".join(damaged)
    return (
        f"{len(damaged)} of {counted(shards, 'shard is', 'shards are')} damaged: {names}. "
        f"{mend(store.folder)}"
    )
