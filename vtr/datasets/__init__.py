"""Datasets, one file each: published annotation files in, videos, captions and splits out.

A reader is a module in this folder with one function,
`load(annotations: Path | None, videos: Path) -> Dataset`, an `INFO` (`DatasetInfo`), and a
docstring whose first line describes the dataset. The file name is the name users type.
"""

HELPERS = (
    "annotations",
    "base",
    "captions",
    "documents",
    "files",
    "published",
    "records",
    "registry",
    "splits",
)
