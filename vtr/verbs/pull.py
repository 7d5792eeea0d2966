"""The options of `vtr pull`."""

from __future__ import annotations

from typing import Literal

from vtr.settings import Settings, option
from vtr.verbs.push import HUB


class Options(Settings):
    """Which state of which repository, and what may be replaced by it."""

    revision: str = option("main", group="Hub", metavar="REVISION")
    """Branch, tag or commit."""
    kind: Literal["run", "store"] | None = option(
        None, group="Hub", unset="what the hub has", file_key="-"
    )
    """What it is, where the hub has a model and a data set of this name."""
    overwrite: bool = option(False, file_key="-")
    """Replace what lies in the folder; what has not changed is not fetched again."""
    hub_url: str | None = option(None, group="Hub", metavar="URL", unset=HUB, file_key="-")
    """Address of the hub. The token goes there: name only one that you trust."""
