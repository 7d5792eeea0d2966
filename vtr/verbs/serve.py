"""The options of `vtr serve`."""

from __future__ import annotations

from vtr.settings import Settings, option
from vtr.verbs.search import Indexed


class _Page(Settings):
    """Where the page can be seen, and what it searches with."""

    host: str | None = option(None, group="Page", metavar="ADDRESS", unset="only this machine")
    """Address of this machine by which others may open the page, with a token."""
    port: int = option(8642, group="Page", ge=0, le=65535)
    """Port of the page; 0 is any that is free."""
    open_browser: bool = option(False, group="Page", flag="--open", file_key="-")
    """Open the page in the browser."""
    follow_links: bool = option(False, group="Page")
    """Also show files elsewhere that links in the folder point to."""


class Options(Indexed, _Page):
    """All of it."""
