"""`vtr protocols`: whose queries, whose videos, what counts, and where that comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vtr.commands.console import print_json
from vtr.counts import counted


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("protocols")(protocols)


def protocols(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the evaluation protocols: videos, queries, captions, training videos, source."""
    from vtr.commands.tables import echo_wrapped
    from vtr.evaluate.protocol import load_protocol, protocol_names

    found = [load_protocol(name) for name in protocol_names()]
    if as_json:
        print_json([asdict(protocol) for protocol in found])
        return
    for protocol in found:
        size = (
            f"{counted(protocol.num_queries, 'query')} over {counted(protocol.num_videos, 'video')}"
            if protocol.num_videos and protocol.num_queries
            else "as many queries and videos as the files have"
        )
        kept = protocol.val_split or "a part of the training videos, held out"
        lines = (
            protocol.summary,
            f"{size}; captions: {protocol.captions}; dataset {protocol.dataset}",
            f"trains on {protocol.train_split}, best epoch on {kept}",
            f"{protocol.source}\n",
        )
        echo_wrapped(protocol.name, "\n".join(lines), width=15)
