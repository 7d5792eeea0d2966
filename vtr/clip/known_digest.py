"""The digest of a model's weights: taken once, remembered while its files are the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from vtr.clip.hub import weight_files
from vtr.marks import Remembered, is_settled, mark_of


class KnownDigest:
    """What is known of the digest of weights that are loaded as they stand in a folder's files.

    Make it before they are read, and ask it afterwards.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, weight_files(folder)
        self._states = self._look()

    def _look(self) -> list[os.stat_result]:
        try:
            return [path.stat() for path in self._files]
        except OSError:  # told by what reads them
            return []

    def _line(self, names: Iterable[str]) -> str | None:
        """Returns what stands for these weights; None where a file is another one by now."""
        marks = [mark_of(state) for state in self._states]
        if not marks or marks != [mark_of(state) for state in self._look()]:
            return None
        listed = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
        return " ".join((listed, *marks))

    def get(self, names: Iterable[str]) -> str | None:
        """Returns the digest that was taken of the weights of these names before, if any."""
        line = self._line(names)
        for known in Remembered("weights", self._folder).lines:
            mark, _, digest = known.rpartition(" ")
            if line is not None and mark == line:
                return digest
        return None

    def keep(self, names: Iterable[str], digest: str) -> None:
        """Remembers a digest, unless the files are so new that they may change unseen."""
        line = self._line(names)
        if line is not None and all(map(is_settled, self._states)):
            Remembered("weights", self._folder).replace({f"{line} {digest}"})
