"""`vtr heads`: what heads there are, what they need and cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vtr.commands.console import AsJson, print_json
from vtr.counts import counted


def heads(as_json: AsJson = False) -> None:
    """List the heads: each makes one score of a text and the frames of a video.

    Options go behind the name: vtr train --head seqTransf:layers=2:dropout=0.1
    """
    from vtr.commands.tables import echo_wrapped
    from vtr.train.headlist import describe_heads

    facts = [asdict(head) for head in describe_heads()]
    if as_json:
        print_json(facts)
        return
    width = max(len(fact["name"]) for fact in facts) + 2
    for fact in facts:
        echo_wrapped(fact["name"], "\n".join([fact["summary"], *_details(fact)]), width=width)


def _details(fact: dict[str, Any]) -> list[str]:
    """The lines below a head's name: what it needs and costs, its options, its presets."""
    needs = {
        "tokens": "text tokens",
        "order": "frames in order",
        "pad": "the pad embedding",
        "rerank": "--rerank N",
    }
    held = {
        "yes": "can be indexed",
        "rows": "its rows can be indexed",
        "recall": "its recall can be indexed",
        "no": "cannot be indexed",
    }
    cost = [
        f"{counted(fact['num_parameters'], 'parameter')} at D = 512"
        if fact["num_parameters"]
        else "",
        f"a pair costs {fact['cost']}",
        held[fact["index"]],
        *(f"needs {needs[need]}" for need in fact["needs"]),
    ]
    options = " ".join(f"{key}={value}" for key, value in fact["options"].items())
    lines = ["; ".join(part for part in cost if part)]
    lines += [f"options: {options}"] if options else []
    lines += [f"presets: {' '.join(fact['presets'])}"] if fact["presets"] else []
    return lines
