"""The options of `vtr export`."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option

FORMS = frozenset({"parquet", "webdataset", "lance", "fiftyone"})
"""The options that ask for a store, and not for a run."""


class Options(Settings):
    """What is made of a run, or of a store."""

    onnx: bool = option(False, group="A run")
    """Also the text side as text.onnx; needs the extra vtr[onnx]."""
    reference: bool = option(False, group="A run")
    """Also pytorch_model.bin for CLIP4Clip's own code, with its optimiser's state where the run
    was trained with it."""
    parquet: Path | None = option(
        None, group="A store", metavar="FILE.parquet|DIR", unset="none", file_key="-"
    )
    """A row per frame, one file or several in a folder; needs the extra vtr[arrow]."""
    webdataset: Path | None = option(
        None, group="A store", metavar="FILE.tar|NAME-%05d.tar", unset="none", file_key="-"
    )
    """An .npy and a .json per video, in one tar or in several numbered ones."""
    lance: Path | None = option(None, group="A store", metavar="DIR", unset="none", file_key="-")
    """The same rows as parquet has, as tables of Lance; needs the extra vtr[lance]."""
    fiftyone: Path | None = option(
        None, group="A store", metavar="FILE.json", unset="none", file_key="-"
    )
    """A sample per video, its mean embedding and the moments of --query, for FiftyOne's
    Dataset.from_json."""
    query: tuple[str, ...] = option((), group="A store", metavar="SENTENCE", file_key="-")
    """With --fiftyone: a sentence whose moments are looked for; may be given several times."""
    top: int = option(10, group="A store", short="-k", ge=1)
    """With --query: how many moments."""
    file_mb: int = option(512, group="A store", metavar="MB", ge=1)
    """Megabytes from which on another file begins, in a folder and of numbered tars."""
    sentence_transformers: bool = option(False)
    """Also modules that SentenceTransformer(OUT) loads: the text side as unit vectors; needs
    the extra vtr[sentence-transformers]."""
