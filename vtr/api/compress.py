"""`vtr compress`: smaller copies of big videos."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vtr.api.on_ray import on_ray
from vtr.arithmetic import usable_cores
from vtr.extract.compress import CompressSettings
from vtr.extract.compress_folder import LEDGER_NAME, CompressMode, compress_folder
from vtr.files import publish
from vtr.foreign import escape_undecodable
from vtr.progress import progress, warn_of_unreadable
from vtr.remote import require_local
from vtr.settings import resolved
from vtr.verbs.compress import Options
from vtr.verbs.extract import statuses

CONFIG_FILE = "compress.json"
"""In the target: the options that were used last."""


def compress(source: Path, target: Path, options: Options) -> dict[str, Any]:
    """Copies the videos of a folder small; see `compress_folder`.

    Returns:
        The counts, the failures and what this run did, as JSON values.
    """
    options.check_ray(options)
    settings = CompressSettings(options.fps, options.size, options.crf, options.upscale)
    source, target = require_local(source, verb="compress"), require_local(target, verb="compress")
    source, target = source.absolute(), target.absolute()  # the same from every process
    mode = CompressMode(
        workers=options.workers or usable_cores(),
        timeout_seconds=options.timeout,
        retry=statuses(options.retry),
        overwrite=options.overwrite,
    )
    if options.ray is not None:
        mode = replace(mode, make_pool=partial(on_ray, options, source=source, target=target))
    with progress("compressing") as update:
        update(0, 1, f"looking for the videos in {source}")

        def show(done: int, total: int, failed: int) -> None:
            update(done, total, f"{failed} failed")

        report = compress_folder(source, target, settings, mode=mode, progress=show)
    publish(target / CONFIG_FILE, resolved(options, source=escape_undecodable(str(source))))
    warn_of_unreadable(report.unreadable)
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
