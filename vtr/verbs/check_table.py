"""The options of `vtr check-table`."""

from __future__ import annotations

from vtr.settings import Settings, option


class Options(Settings):
    """Of which test set the numbers are."""

    n: int | None = option(None, unset="every well-known size")
    """Queries in the test set."""
