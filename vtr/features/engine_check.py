"""What a store says of how far its encoder was from torch in float32: `engine-*.json`.

Not in the shards: those of two runs are equal to the byte, and their first frames need not be.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vtr.errors import StoreError
from vtr.files import publish
from vtr.json_files import as_fields, read_json

PREFIX = "engine-"


@dataclass(frozen=True)
class EngineCheck:
    """The measure of one run's first frames; see `vtr.clip.fidelity`."""

    fingerprint: str  # Of the store
    frames: int  # How many were compared
    sentences: int  # To which their order was taken
    worst_cosine: float  # Of a frame, after the mean was taken off
    mean_cosine: float  # Over the frames
    same_order: float  # Share of pairs of frames that keep their order
    falls_short: bool  # Whether one is below what needs no remark

    def write(self, folder: Path, part: tuple[int, int]) -> None:
        """Writes it beside the shards; parts at work side by side have a file each."""
        name = f"{PREFIX}{part[0]:03d}of{part[1]:03d}.json"
        publish(folder / name, json.dumps(asdict(self), indent=2).encode())


def read_engine_check(folder: Path, fingerprint: str) -> EngineCheck | None:
    """Returns the worst of what the runs of a store measured; None where none had to.

    Raises:
        StoreError: One cannot be read.
    """
    made = []
    for path in sorted(folder.glob(f"{PREFIX}*.json")):
        values = read_json(path, needed="an engine check", error=StoreError)
        made.append(as_fields(EngineCheck, values, source=path, error=StoreError))
    ours = [asdict(one) for one in made if one.fingerprint == fingerprint]
    if not ours:
        return None
    worst = {name: min(one[name] for one in ours) for name in ours[0]}
    return EngineCheck(**{**worst, "falls_short": any(one["falls_short"] for one in ours)})
