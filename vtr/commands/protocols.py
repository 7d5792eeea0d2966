"""`vtr protocols`: whose queries, whose videos, what counts, and where that comes from."""

from __future__ import annotations

from vtr.commands.console import AsJson, print_json
from vtr.commands.tables import echo_wrapped
from vtr.counts import counted


def protocols(as_json: AsJson = False) -> None:
    """List the evaluation protocols: videos, queries, captions, training videos, source."""
    from vtr.api.data import list_protocols

    facts = list_protocols()
    if as_json:
        return print_json(facts)
    for fact in facts:
        queries, videos = fact["num_queries"], fact["num_videos"]
        size = "as many queries and videos as the files have"
        if videos and queries:
            size = f"{counted(queries, 'query')} over {counted(videos, 'video')}"
        kept = fact["val_split"] or "a part of the training videos, held out"
        lines = (
            fact["summary"],
            f"{size}; captions: {fact['captions']}; dataset {fact['dataset']}",
            f"trains on {fact['train_split']}, best epoch on {kept}",
            f"{fact['source']}\n",
        )
        echo_wrapped(fact["name"], "\n".join(lines), width=17)
    return None
