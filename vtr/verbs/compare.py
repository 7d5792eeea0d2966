"""The options of `vtr compare`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """How results are compared, and what of it is shown."""

    seeds: bool = option(False, "Group results that differ in their seed alone.", group="Test")
    k: int = option(
        1,
        "Depth at which queries are gained or lost.",
        group="Test", short="-k", bounds={"ge": 1},
        allowed="a whole number, 1 or more: so many places count as found",
    )  # fmt: skip
    resamples: int = option(
        10_000, "Random swaps of the test.",
        group="Test", allowed="a whole number from 1 to 10000000", bounds={"ge": 1, "le": 10**7},
    )  # fmt: skip
    seed: int = option(0, "Seed of the test.", group="Test", bounds={"ge": 0})
    show: int = option(5, "Changed queries to list of each kind.", group="Output", bounds={"ge": 0})
    out: Path | None = option(
        None, "Also write everything to this .json file.", group="Output", metavar="FILE"
    )
