"""The options of `vtr export`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option

FORMS = frozenset({"parquet", "webdataset", "lance", "fiftyone"})
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
    fiftyone: Path | None = option(
        None, "A sample per video, its mean embedding and the moments of --query, for FiftyOne's "
        "Dataset.from_json.",
        group="A store", metavar="FILE.json", unset="none", file_key="-",
    )  # fmt: skip
    query: tuple[str, ...] = option(
        (), "With --fiftyone: a sentence whose moments are looked for; may be given several times.",
        group="A store", metavar="SENTENCE", file_key="-",
    )  # fmt: skip
    top: int = option(
        10, "With --query: how many moments.", group="A store", short="-k", bounds={"ge": 1}
    )
    file_mb: int = option(
        512, "Megabytes from which on another file begins, in a folder and of numbered tars.",
        group="A store", metavar="MB", bounds={"ge": 1},
    )  # fmt: skip
    sentence_transformers: bool = option(
        False,
        "Also modules that SentenceTransformer(OUT) loads: the text side as unit vectors; needs "
        "the extra vtr[sentence-transformers].",
    )
