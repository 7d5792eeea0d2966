"""The options of `vtr export`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option

FORMS = frozenset({"parquet", "webdataset", "lance"})
"""The options that ask for a store, and not for a run."""


class Options(Settings):
    """What is made of a run, or of a store."""

    onnx: bool = option(
        False, "Also the text side as text.onnx; needs the extra vtr[onnx].", group="A run"
    )
    reference: bool = option(
        False,
        "Also pytorch_model.bin for CLIP4Clip's own code, with its optimiser's state where the "
        "run was trained with it.",
        group="A run",
    )
    parquet: Path | None = option(
        None, "A row per frame, one file or several in a folder; needs the extra vtr[arrow].",
        group="A store", metavar="FILE.parquet|DIR", unset="none", file_key="-",
    )  # fmt: skip
    webdataset: Path | None = option(
        None, "An .npy and a .json per video, in one tar or in several numbered ones.",
        group="A store", metavar="FILE.tar|NAME-%05d.tar", unset="none", file_key="-",
    )  # fmt: skip
    lance: Path | None = option(
        None, "The same rows as parquet has, as tables of Lance; needs the extra vtr[lance].",
        group="A store", metavar="DIR", unset="none", file_key="-",
    )  # fmt: skip
    file_mb: int = option(
        512, "Megabytes from which on another file begins, in a folder and of numbered tars.",
        group="A store", metavar="MB", bounds={"ge": 1},
    )  # fmt: skip
