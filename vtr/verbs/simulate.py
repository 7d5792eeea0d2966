"""The options of `vtr simulate`, and those that it shares with `vtr eval`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Asked(Settings):
    """Which queries of which videos, and where the outcome goes."""

    protocol: str | None = option(
        None, group="Queries and videos", metavar="NAME", unset="the dataset's most used"
    )
    """Which queries and videos."""
    sampler: str | None = option(
        None, group="Queries and videos", metavar="NAME", unset="the run's, or the store's own"
    )
    """Whose frames; on a dense store any sampler."""
    missing: str = option("miss", group="Queries and videos", metavar="POLICY")
    """Videos without features: miss (counted), restrict, or fail."""
    gallery: str | None = option(
        None, group="Queries and videos", metavar="NAME", unset="the protocol's"
    )
    """Of a folder of your own: folder (all its videos) or captioned."""
    out: Path | None = option(
        None, group="Output", metavar="DIR", unset="below the run, or the features"
    )
    """Folder for the result."""


class Options(Asked):
    """The settings of the rules beside what is asked."""

    top: int = option(3, group="Rules", ge=1)
    """k of the rule top-k."""
    temperature: float = option(0.1, group="Rules", ge=1e-6)
    """Of the rule attention."""
