"""The options of `vtr pull`."""

from __future__ import annotations

from typing import Literal

from vtr.settings import Settings, option
from vtr.verbs.push import hub_url


class Options(Settings):
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
    hub_url: str | None = hub_url()
