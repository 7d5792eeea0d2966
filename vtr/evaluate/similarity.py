"""`similarity.npz`, written while the scores stream past: no matrix is ever in memory."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Self

import numpy as np

from vtr.errors import StoreWriteError
from vtr.evaluate.counting import Rows, Scores, computed
from vtr.evaluate.evaluator import Task
from vtr.evaluate.ranks import Blocks

_COPIED_BYTES = 1 << 22


class SimilarityFile:
    """Collects matrices (Q, P) row by row, each in a file without a name, until it is saved.

    Where re-ranking made other scores for v2t, `v2t_scores` holds them; then `scores` may only be
    ranked along rows and `v2t_scores` along columns. The files lie in the result's folder.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        self._folder, self._task = folder, task
        self._row_bytes = 4 * len(task.video_ids)
        self._order = np.argsort(task.query_text, kind="stable")
        self._texts = task.query_text[self._order]
        self._files: dict[str, IO[bytes]] = {}
        self._lock = threading.Lock()

    def watch(self, name: str, blocks: Blocks) -> Blocks:
        """Returns the same blocks; whenever they are read, they are written under a name."""
        with self._refused():
            file = self._files[name] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115

        def watched(start: int, rows: Rows) -> Scores:
            scores = computed(rows)
            with self._refused(), self._lock:
                self._write(file, start, scores)
            return scores

        return lambda: ((start, partial(watched, start, rows)) for start, rows in blocks())

    def _write(self, file: IO[bytes], start: int, scores: Scores) -> None:
        """Writes the rows of all queries of these texts, each to its place."""
        first, last = np.searchsorted(self._texts, [start, start + len(scores)])
        queries = self._order[first:last]
        rows = np.ascontiguousarray(scores[self._texts[first:last] - start], np.float32)
        cuts = [0, *(np.flatnonzero(np.diff(queries) != 1) + 1).tolist(), len(queries)]
        for begin, end in pairwise(cuts):
            file.seek(int(queries[begin]) * self._row_bytes)
            file.write(rows[begin:end].data)
        file.flush()

    def save(self, file: IO[bytes]) -> None:
        """Writes the whole archive: the matrices, `query_ids`, `video_ids`."""
        queries, videos = self._task.queries.text_ids, self._task.video_ids
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, source in self._files.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as target:
                    shape = (len(queries), len(videos))
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(target, header)
                    source.seek(0)
                    shutil.copyfileobj(source, target, _COPIED_BYTES)
            for name, ids in (("query_ids", queries), ("video_ids", videos)):
                with archive.open(f"{name}.npy", "w") as target:
                    np.lib.format.write_array(target, np.array(ids), allow_pickle=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # the disk is full: that was said already
                file.close()

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreWriteError(
                f"cannot write the scores into {self._folder}: {error.strerror or error}. Free "
                "some space, choose another folder with --out, or leave out --save-similarity"
            ) from None
