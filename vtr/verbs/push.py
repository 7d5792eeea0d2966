"""The options of `vtr push` and `vtr pull`."""

from __future__ import annotations

from typing import Any, Literal

from vtr.settings import Settings, option


def _hub_url() -> Any:
    return option(
        None, "Address of the hub. The token goes there: name only one that you trust.",
        group="Hub", metavar="URL", unset="HF_ENDPOINT, or https://huggingface.co", file_key="-",
    )  # fmt: skip


class PushOptions(Settings):
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
    hub_url: str | None = _hub_url()


class PullOptions(Settings):
    """Which state of which repository, and what may be replaced by it."""

    revision: str = option("main", "Branch, tag or commit.", group="Hub", metavar="REVISION")
    kind: Literal["run", "store"] | None = option(
        None, "What it is, where the hub has a model and a data set of this name.",
        group="Hub", unset="what the hub has", file_key="-",
    )  # fmt: skip
    overwrite: bool = option(
        False, "Replace what lies in the folder; what has not changed is not fetched again.",
        file_key="-",
    )  # fmt: skip
    hub_url: str | None = _hub_url()
