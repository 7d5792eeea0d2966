"""`vtr models`: the models that have a short name, and what is known of them."""

from __future__ import annotations

from dataclasses import asdict

from vtr.commands.console import AsJson, print_json, say


def models(as_json: AsJson = False) -> None:
    """List the models that have a short name: what they take, their licence, known figures.

    Any other of these families is read by its hub id or folder just as well. The name or the hub
    id goes behind --model.
    """
    from vtr.clip.models import known_models

    known = known_models()
    if as_json:
        print_json([{"name": name, **asdict(model)} for name, model in known.items()])
        return
    rows: list[tuple[str, ...]] = [
        ("name", "hub id", "D", "pixels", "frames", "tokens", "R@1", "languages", "licence")
    ]
    for name, model in known.items():
        pixels = "any" if model.pixels == 0 else model.pixels
        facts = (model.dim, pixels, model.frames, model.context, model.r1)
        told = (*facts, model.languages, model.licence)
        rows.append((name, model.hub, *("unknown" if f is None else str(f) for f in told)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    sources = {model.source: name for name, model in reversed(known.items()) if model.source}
    say()
    say("R@1: text to video, MSR-VTT 1k-A, in %, without training. Sources:")
    for source in reversed(sources):
        names = [name for name, model in known.items() if model.source == source]
        say(f"  {', '.join(names)}: {source}")
