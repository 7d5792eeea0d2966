"""What `vtr data` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vtr.commands.console import say
from vtr.commands.tables import echo_wrapped
from vtr.counts import counted
from vtr.foreign import first_few, printable
from vtr.progress import note

MAX_LISTED = 10


def print_datasets(facts: Sequence[Mapping[str, Any]]) -> None:
    """Prints what every reader says of its dataset."""
    for fact in facts:
        echo_wrapped(f"{fact['name']}: ", fact["summary"], width=len(fact["name"]) + 2)
        counts = (
            name if count is None else f"{name} {count:,}" for name, count in fact["splits"].items()
        )
        rows = {
            "splits": ", ".join(counts) or "those you give",
            "captions": fact["captions"],
            "files": "\n".join(f"{file['name']}: {file['what']}" for file in fact["files"]),
            "from": fact["source"],
        }
        for label, text in rows.items():
            echo_wrapped(f"  {label}", text, width=15)
        say()


def _rows(rows: Iterable[tuple[str, str]]) -> None:
    for label, text in rows:
        if text:
            echo_wrapped(label, text, width=13)


def print_description(facts: Mapping[str, Any]) -> None:
    """Prints what the annotation files say."""
    files = [printable(Path(name).name) for name in facts["annotation_files"]]
    rows = [
        ("dataset", facts["dataset"]),
        ("files", f"{len(files)} recognised: {', '.join(files)}" if files else "none read"),
        ("videos", f"{facts['videos']:,}, first {first_few(facts['first_ids'], MAX_LISTED)}"),
        ("captions", f"{facts['captions']:,}"),
        ("categories", f"{facts['categories']:,}" if facts["categories"] else ""),
    ]
    for name, split in facts["splits"].items():
        fixed = " (fixed by the protocol)" if split["fixed_queries"] else ""
        captions = f"{counted(split['captions'], 'caption')}{fixed}"
        text = f"{counted(split['videos'], 'video')}, {captions}, {split['captions_per_video']:g}"
        first = first_few(split["first_ids"], MAX_LISTED)
        rows.append((printable(name), f"{text} a video; first {first}"))
    _rows([*rows, *(("note", printable(text)) for text in facts["notes"])])


def print_verdict(facts: Mapping[str, Any]) -> None:
    """Prints which of the expected videos are there, by split."""
    _rows([("dataset", facts["dataset"]), ("videos", printable(facts["videos"]))])
    heads = ["expected", "present", "missing", "duplicate"] + ["undecodable"] * facts["decoded"]
    say(f"{'split':<12} " + " ".join(f"{head:>11}" for head in heads))
    for name, counts in {"all": facts["all"], **facts["splits"]}.items():
        say(f"{printable(name):<12} " + " ".join(f"{counts[head]:>11,}" for head in heads))
    if not facts["decoded"]:
        note("nothing was decoded: leave out --fast to find files that cannot be read")
    _rows([("missing", first_few(facts["missing"], MAX_LISTED))])
    for what in ("undecodable", "damaged"):
        lines = [f"{printable(name)}: {printable(why)}" for name, why in facts[what].items()]
        _rows((what, line) for line in lines[:MAX_LISTED])
        if len(lines) > MAX_LISTED:
            _rows([("", f"and {len(lines) - MAX_LISTED:,} more: --json lists them all")])
    unexpected = f"{facts['unexpected']:,} more video files belong to no id"
    _rows([
        ("duplicate", first_few(facts["duplicates"], MAX_LISTED)),
        ("contested", first_few(facts["contested"], MAX_LISTED)),
        ("unexpected", unexpected if facts["unexpected"] else ""),
        *(("note", printable(text)) for text in facts["notes"]),
    ])  # fmt: skip
