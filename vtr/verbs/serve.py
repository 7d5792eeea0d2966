"""The options of `vtr serve`."""

from __future__ import annotations

from vtr.settings import Settings, option
from vtr.verbs.search import Indexed


class _Page(Settings):
    """Where the page can be seen, and what it searches with."""

    host: str | None = option(
        None, "Address of this machine by which others may open the page, with a token.",
        group="Page", metavar="ADDRESS", unset="only this machine",
    )  # fmt: skip
    port: int = option(
        8642,
        "Port of the page; 0 is any that is free.",
        group="Page",
        bounds={"ge": 0, "le": 65535},
    )
    open_browser: bool = option(
        False, "Open the page in the browser.", group="Page", flag="--open", file_key="-"
    )
    follow_links: bool = option(
        False, "Also show files elsewhere that links in the folder point to.", group="Page"
    )


class Options(Indexed, _Page):
    """All of it."""
