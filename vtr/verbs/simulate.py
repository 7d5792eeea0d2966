"""The options of `vtr simulate`, and those that it shares with `vtr eval`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Asked(Settings):
    """Which queries of which videos, and where the outcome goes."""

    protocol: str | None = option(
        None, "Which queries and videos.",
        group="Queries and videos", metavar="NAME", unset="the dataset's most used",
    )  # fmt: skip
    sampler: str | None = option(
        None, "Whose frames; on a dense store any sampler.",
        group="Queries and videos", metavar="NAME", unset="the run's, or the store's own",
    )  # fmt: skip
    missing: str = option(
        "miss", "Videos without features: miss (counted), restrict, or fail.",
        group="Queries and videos", metavar="POLICY",
    )  # fmt: skip
    gallery: str | None = option(
        None, "Of a folder of your own: folder (all its videos) or captioned.",
        group="Queries and videos", metavar="NAME", unset="the protocol's",
    )  # fmt: skip
    out: Path | None = option(
        None, "Folder for the result.",
        group="Output", metavar="DIR", unset="below the run, or the features",
    )  # fmt: skip


class Options(Asked):
    """The settings of the rules beside what is asked."""

    top: int = option(3, "k of the rule top-k.", group="Rules", bounds={"ge": 1})
    temperature: float = option(0.1, "Of the rule attention.", group="Rules", bounds={"ge": 1e-6})
