"""The options of `vtr push`."""

from __future__ import annotations

from vtr.settings import Settings, option

HUB = "HF_ENDPOINT, or https://huggingface.co"


class Options(Settings):
    """Where a run or a store goes, and what of it."""

    private: bool = option(False, group="Hub")
    """Make the repository private, where it is new."""
    revision: str = option("main", group="Hub", metavar="BRANCH")
    """Branch to push to; made if there is none."""
    results: bool = option(False, group="Content")
    """Also eval/*/result.json of a run: it holds captions and names of videos."""
    with_model: bool = option(False, group="Content")
    """Also the text model of a run that is a local folder, as model/."""
    dry_run: bool = option(False, group="Content", file_key="-")
    """Say what would go up, and ask the hub nothing."""
    hub_url: str | None = option(None, group="Hub", metavar="URL", unset=HUB, file_key="-")
    """Address of the hub. The token goes there: name only one that you trust."""
