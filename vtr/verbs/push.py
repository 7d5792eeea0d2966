"""The options of `vtr push`."""

from __future__ import annotations

from typing import Any

from vtr.settings import Settings, option


def hub_url() -> Any:
    """Declares the hub's address."""
    return option(
        None, "Address of the hub. The token goes there: name only one that you trust.",
        group="Hub", metavar="URL", unset="HF_ENDPOINT, or https://huggingface.co", file_key="-",
    )  # fmt: skip


class Options(Settings):
    """Where a run or a store goes, and what of it."""

    private: bool = option(False, "Make the repository private, where it is new.", group="Hub")
    revision: str = option(
        "main", "Branch to push to; made if there is none.", group="Hub", metavar="BRANCH"
    )
    results: bool = option(
        False, "Also eval/*/result.json of a run: it holds captions and names of videos.",
        group="Content",
    )  # fmt: skip
    with_model: bool = option(
        False, "Also the text model of a run that is a local folder, as model/.", group="Content"
    )
    dry_run: bool = option(
        False, "Say what would go up, and ask the hub nothing.", group="Content", file_key="-"
    )
    hub_url: str | None = hub_url()
