"""8-bit codes of very many frames: half the memory to scan, and the best scored again exactly.

A flat scan alone keeps its recall with sentences: cells and graphs that find 99 of 100 frames by
frames lost up to three in four by sentences, which lie elsewhere. Even so it is used only where its
recall was measured with sentences on these very frames, and the figure goes with every answer.
"""

from __future__ import annotations

import contextlib
import mmap
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.errors import StoreWriteError
from vtr.extras import missing_packages
from vtr.progress import note
from vtr.searching.scan import Floats, Scanner, cosines

LEAST_ROWS = 300_000
"""Fewer frames are scanned exactly in no more time."""
LEAST_RECALL = 0.98
_TOP_ROWS = 4096
_RECALLED = 10
_SENTENCES = 64
_MOST_NEW = 0.1  # of the rows; so many beyond the codes are scanned exactly
_BLOCK_ROWS = 1 << 16
_READ_ROWS = 1 << 10  # 64 kB are mapped around each


def code_frames(
    folder: Path, scanner: Scanner, moments: Floats, bank: Floats, *, before: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes codes of all rows of an index into its folder, and measures what they find.

    `moments` (R, 2) are mean and deviation of each row over the unrelated sentences of `bank`
    (B, D). The codes of `before`, the facts of the index that this one adds to, are kept where most
    rows have one.

    Returns:
        `codes`, `coded_rows`, `recall`; the last alone where too little is found, nothing for few
        rows or without faiss.
    """
    count = len(scanner.frames)
    if count < LEAST_ROWS:
        return {}
    if before.get("coded_rows", 0) >= count * (1 - _MOST_NEW):
        return {name: before[name] for name in ("codes", "coded_rows", "recall")}
    if missing_packages(["faiss"]):
        note(
            f"{counted(count, 'frame is', 'frames are')} scanned exactly; pip install 'vtr[index]' "
            "halves the memory that this reads"
        )
        return {}
    import faiss

    note(f"writing 8-bit codes of {counted(count, 'frame')}, and measuring what they find")
    made = faiss.IndexScalarQuantizer(
        scanner.frames.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    made.train(np.asarray(scanner.frames[scanner.sample], np.float32))
    for start in range(0, count, _BLOCK_ROWS):
        made.add(np.asarray(scanner.frames[start : start + _BLOCK_ROWS], np.float32))
    recall = _recall(CodedScanner(scanner, made), scanner, moments, bank[:_SENTENCES])
    if recall < LEAST_RECALL:
        note(f"8-bit codes find {recall:.1%} of what an exact scan does: not used")
        return {"recall": recall}
    name = f"codes-{uuid.uuid4().hex}.faiss"
    try:
        faiss.write_index(made, str(folder / name))
    except RuntimeError as error:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        raise StoreWriteError(
            f"cannot write {folder / name}: {error}. Free some space, then search again"
        ) from None
    return {"codes": name, "coded_rows": count, "recall": recall}


def wants_codes(facts: Mapping[str, Any], count: int) -> bool:
    """Returns whether codes could be made of an index that was written without faiss."""
    return count >= LEAST_ROWS and "recall" not in facts and not missing_packages(["faiss"])


def open_scanner(folder: Path, facts: Mapping[str, Any], scanner: Scanner) -> Scanner:
    """Returns a scanner of the codes in a folder; the exact one where they cannot be used."""
    if "codes" not in facts or missing_packages(["faiss"]):
        return scanner
    import faiss

    try:
        codes = faiss.read_index(str(folder / facts["codes"]), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        note(f"{folder / facts['codes']} cannot be read, so frames are scanned exactly: {error}")
        return scanner
    if codes.ntotal != facts["coded_rows"] or codes.d != scanner.frames.shape[1]:
        return scanner
    return CodedScanner(scanner, codes, recall=facts["recall"])


class CodedScanner(Scanner):
    """Scores the best rows by their codes; all others count as minus infinity.

    `codes` is a faiss index of the first rows of `exact`, `recall` what was measured of it.
    """

    def __init__(self, exact: Scanner, codes: Any, *, recall: float | None = None) -> None:
        super().__init__(exact.frames, exact.starts, exact.stops)
        self.recall, self._codes = recall, codes
        self._sampled = self._read(self.sample)

    def scores(self, vector: Floats, *, least_videos: int = 1) -> NDArray[np.float32]:
        """Returns (R,) exact cosines of the best and of sampled rows; of all rows, if need be."""
        query, coded = np.asarray(vector, np.float32), self._codes.ntotal
        rows = self._codes.search(query[None], min(_TOP_ROWS, coded))[1][0]
        scores = np.full(len(self.frames), -np.inf, np.float32)
        scores[coded:] = self.scan(vector, coded)
        scores[self.sample] = self._sampled @ query
        rows = np.sort(rows[rows >= 0])
        scores[rows] = cosines(self._read(rows), query)
        if np.isfinite(self.best(scores)).sum() < least_videos:
            return self.scan(vector)
        return scores

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns some rows; the pages around them, which come along, are given back."""
        found = np.empty((len(rows), self.frames.shape[1]), np.float32)
        mapped = getattr(self.frames, "_mmap", None)
        for start in range(0, len(rows), _READ_ROWS):
            found[start : start + _READ_ROWS] = self.frames[rows[start : start + _READ_ROWS]]
            if mapped is not None:
                mapped.madvise(mmap.MADV_DONTNEED)
        return found

    def of_video(self, n: int, scores: Floats, vector: Floats) -> Floats:
        """Returns the scores of all rows of a video, which the codes give for the best alone."""
        rows = self.rows(n)
        return self.exact(rows.start, rows.stop, vector)


def _recall(coded: CodedScanner, exact: Scanner, moments: Floats, bank: Floats) -> float:
    """Returns the share of the ten best videos, and of the greatest outliers, that codes find."""
    shares = []
    for vector in bank:
        ours, truth = coded.scores(vector), exact.scan(vector)
        count = min(_RECALLED, len(exact.starts))
        least = np.partition(exact.best(truth), -count)[-count]
        chosen = np.argsort(-exact.best(ours), kind="stable")[:count]
        shares.append(float((exact.best(truth)[chosen] >= least - 1e-6).mean()))
        outliers = [((s - moments[:, 0]) / moments[:, 1])[exact.alive].max() for s in (ours, truth)]
        shares.append(float(outliers[0] >= outliers[1] - 0.01))
    return float(min(np.mean(shares[::2]), np.mean(shares[1::2])))
