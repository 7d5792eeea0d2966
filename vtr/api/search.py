"""`vtr search`: a folder or a workspace, a query, the moments that show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtr.searching.library import Answer, Library
from vtr.searching.query import Query
from vtr.verbs.search import Options

__all__ = ["Answer", "Library", "Query", "answer", "open_library", "search"]


def open_library(folder: Path, options: Options) -> Library:
    """Opens a folder of videos; see `Library.open`."""
    return Library.open(
        folder,
        model=options.model,
        device=options.device,
        index=options.index,
        workers=options.workers,
        rebuild=options.rebuild,
    )


def answer(library: Library, query: Query, options: Options) -> Answer:
    """Returns the moments that fit a query; see `Library.search`."""
    return library.search(
        query,
        top=options.top,
        inside=options.inside,
        min_length=options.min_length,
        max_length=options.max_length,
        all_moments=options.all_moments,
    )


def search(folder: str | Path, *texts: str, **options: Any) -> Answer:
    """Returns the moments of a folder's videos that show what sentences say; `vtr search`.

    Args:
        folder: Of the videos; what is new in it is embedded first.
        texts: Sentences, averaged.
        options: Those of `vtr search` with `_` for `-`; parts of the query by the
            names of `Query`.
    """
    names = [name for name in options if name in Query.__dataclass_fields__]
    parts = {name: options.pop(name) for name in names}
    asked = Options.of(**options)
    query = Query(texts=texts, **parts)
    return answer(open_library(Path(folder), asked), query, asked)
