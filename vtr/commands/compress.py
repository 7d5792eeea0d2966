"""`vtr compress`: smaller copies of big videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.commands.console import print_json, say
from vtr.counts import counted, human_bytes, human_seconds
from vtr.progress import note, progress, warn_of_unreadable

if TYPE_CHECKING:
    from vtr.extract.compress_folder import CompressReport

PARTLY_FAILED = 3
MAX_LISTED = 20


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("compress")(compress)


def compress(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder of the videos, nested or not.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="Folder of the copies; sub-folders are kept.")
    ],
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 3.0,
    size: Annotated[int, typer.Option(help="Shorter side in pixels, even.")] = 224,
    crf: Annotated[int, typer.Option(help="H.264 quality: 0 is lossless, 51 coarse.")] = 23,
    upscale: Annotated[
        bool, typer.Option("--upscale", help="Enlarge videos that are smaller than --size.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes. (default: one per core)", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds a single video may take.")] = 3600.0,
    retry: Annotated[
        str, typer.Option(help="Do these again: failed, partial, or failed,partial.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Do all again, and replace whatever is in DST.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Copy videos as small silent H.264 files: 3 frames a second, shorter side 224 pixels.

    Run it again to go on after an interruption or to add new videos. Exit code 3: finished, but
    some videos failed; DST/compress-ledger.jsonl says which and why.
    """
    from vtr.commands.extract import read_retry
    from vtr.extract.compress import CompressSettings
    from vtr.extract.compress_folder import CompressMode, compress_folder
    from vtr.extract.settings import usable_cores

    settings = CompressSettings(fps=fps, size=size, crf=crf, upscale=upscale)
    mode = CompressMode(
        workers=usable_cores() if workers is None else workers,
        timeout_seconds=timeout,
        retry=read_retry(retry, allowed=frozenset({"failed", "partial"})),
        overwrite=overwrite,
    )
    with progress("compressing", quiet=quiet or as_json) as update:
        update(0, 1, f"looking for the videos in {source}")

        def tell(done: int, total: int, failed: int) -> None:
            update(done, total, f"{failed} failed")

        report = compress_folder(source, target, settings, mode=mode, progress=tell)
    warn_of_unreadable(report.unreadable)
    facts = describe(report, target)
    if as_json:
        print_json(facts)
    else:
        _print(facts)
    if facts["partial"] or facts["failed"]:
        raise typer.Exit(PARTLY_FAILED)


def describe(report: CompressReport, target: Path) -> dict[str, Any]:
    """Returns everything `vtr compress` says, as JSON values."""
    from vtr.extract.compress_folder import LEDGER_NAME
    from vtr.foreign import escape_undecodable

    return {
        "inputs": len(report.rows),
        **{status: report.count(status) for status in ("ok", "partial", "failed")},
        "reasons": report.reasons,
        "failures": [
            {"name": escape_undecodable(row.name), "status": row.status, "error": row.error}
            for row in report.rows
            if row.error
        ],
        "skipped": report.skipped,
        "done_now": report.done_now,
        "source_bytes_now": report.source_bytes_now,
        "target_bytes_now": report.target_bytes_now,
        "seconds": report.seconds,
        "target": escape_undecodable(str(target)),
        "ledger": escape_undecodable(str(target / LEDGER_NAME)),
    }


def _print(facts: dict[str, Any]) -> None:

    counts = f"{facts['ok']} ok + {facts['partial']} partial + {facts['failed']} failed"
    say(f"{counted(facts['inputs'], 'video')} = {counts} in {facts['target']}")
    say(
        f"this run: {counted(facts['done_now'], 'video')} in {human_seconds(facts['seconds'])}, "
        f"{human_bytes(facts['source_bytes_now'])} -> {human_bytes(facts['target_bytes_now'])}"
    )
    if facts["skipped"]:
        say(f"skipped: {facts['skipped']}")
    for reason, count in facts["reasons"].items():
        say(f"  {reason}: {count}")
    for failure in facts["failures"][:MAX_LISTED]:
        note(f"{failure['status']} {failure['name']}: {failure['error']}")
    if len(facts["failures"]) > MAX_LISTED:
        note(f"and {len(facts['failures']) - MAX_LISTED} more in {facts['ledger']}")
