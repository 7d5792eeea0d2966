"""`vtr inspect`: what is in a feature store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vtr.commands.console import AsJson, print_json, say
from vtr.commands.tables import echo_wrapped
from vtr.counts import counted, human_bytes
from vtr.foreign import first_few

MAX_LISTED = 20


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
    as_json: AsJson = False,
) -> None:
    """Show what is in a feature store: settings, counts, failures by reason, sizes.

    Exit code 1 where a shard is damaged; the figures are those of the others.
    """
    from vtr.api import inspect as api
    from vtr.api.stores import store_folder

    facts, verdict = api.inspect(store_folder(path), verify=verify)
    if as_json:
        print_json(facts)
    else:
        _print(facts, everything=failures)
        if verdict:
            say(f"checksums    {verdict}")
    if facts["damaged"]:
        raise typer.Exit(1)


def _print(facts: dict[str, Any], *, everything: bool) -> None:
    spec, fps, budget = facts["spec"], facts["spec"]["candidate_fps"], facts["spec"]["num_frames"]
    kept = "all candidates" if budget is None else counted(budget, "frame")
    selected = ", ".join(f"{label} {count:,}" for label, count in facts["selected_frames"].items())
    pictures = spec["preprocessing"]
    size = "x".join(str(side) for side in pictures.get("size", []))
    lines = {
        "store": facts["path"],
        "backbone": f"{spec['backbone']}, revision {spec['revision']}, D = {spec['embedding_dim']}",
        "weights": spec["weights_sha256"],
        "candidates": ("every frame" if fps is None else f"{fps:g} per second")
        + (", at uneven steps" if spec.get("candidate_jitter") else "")
        + (f", windows of {pictures['frames']}" if "frames" in pictures else ""),
        "samplers": f"{', '.join(spec['samplers'])}; {kept} per video{_later(spec)}",
        "pictures": f"{size}, {pictures.get('resize')}, {pictures.get('route')} route; "
        + (
            f"kept as {facts['pictures']}, {human_bytes(facts['picture_bytes'])}"
            if facts["pictures"]
            else "not kept"
        ),
        "stored as": f"{spec['storage_dtype']}, computed in {spec['compute_dtype']}"
        + _checked(facts["engine_check"]),
        "versions": ", ".join(f"{name} {text}" for name, text in spec["versions"].items()),
        "fingerprint": facts["fingerprint"],
        "videos": f"{counted(facts['inputs'], 'input')} = {facts['ok']:,} ok + "
        f"{facts['partial']:,} partial + {facts['failed']:,} failed",
        "frames": f"{counted(facts['frames'], 'embedding')} ({selected})",
        "size": f"{human_bytes(facts['bytes'])} in {counted(facts['shards'], 'shard')}",
    }
    if absent := facts["parts_without_shards"]:
        lines["parts"] = (
            f"no shard of {first_few(absent, 10)}. Unless a part has no videos, it is still to be "
            f"made: vtr extract --shard {absent[0]}"
        )
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


def _checked(stamp: dict[str, Any] | None) -> str:
    """Says how far the numbers are from those of torch in float32."""
    if stamp is None:
        return ""
    figures = ", ".join(
        f"{name.replace('_', ' ')} {stamp[name]:.4f}"
        for name in ("worst_cosine", "mean_cosine", "same_order")
    )
    short = "; falls short of float32" if stamp["falls_short"] else ""
    return f"; against float32 {figures} on {counted(stamp['frames'], 'frame')}{short}"


def _later(spec: dict[str, Any]) -> str:
    """Says which samplers a store with every candidate serves too."""
    if "dense" not in spec["samplers"]:
        return ""
    some = "" if spec["thumbnail_side"] else " that compares no pictures (no thumbnails are kept)"
    return f"; any other{some} with --sampler NAME, without the videos"
