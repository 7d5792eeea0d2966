"""The brief events of the demo world, and how often evenly spaced frames miss them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from vtr.errors import DatasetError
from vtr.json_files import read_json

_TOLERANCE_SECONDS = 1e-3


@dataclass(frozen=True)
class BriefEvent:
    """When the captioned event of one clip can be seen."""

    video_id: str  # The clip
    split: str  # Its split
    start_seconds: float  # Presentation time of the first frame of the event
    end_seconds: float  # Presentation time of the first frame after it
    num_frames: int  # Frames of the whole clip
    frames_per_second: float  # Of the clip

    def is_caught(self, pts_seconds: ArrayLike) -> bool:
        """Returns whether one of these frames, (K,) presentation times, shows the event.

        >>> BriefEvent("v", "test", 2.0, 2.4, 100, 10.0).is_caught([0.0, 2.3])
        True
        """
        times = np.asarray(pts_seconds, dtype=np.float64) + _TOLERANCE_SECONDS
        return bool(((times >= self.start_seconds) & (times < self.end_seconds)).any())


def read_events(annotations: Path) -> dict[str, BriefEvent]:
    """Returns the events by video id, from `annotations/demo.json`."""
    document = read_json(annotations, needed="the demo world's annotations", error=DatasetError)
    try:
        rate = float(document["frames_per_second"])
        entries = [entry for entry in document["videos"] if "event_start_seconds" in entry]
        events = [
            BriefEvent(
                video_id=entry["id"],
                split=entry["split"],
                start_seconds=float(entry["event_start_seconds"]),
                end_seconds=float(entry["event_end_seconds"]),
                num_frames=int(entry["num_frames"]),
                frames_per_second=rate,
            )
            for entry in entries
        ]
    except (ValueError, TypeError, KeyError):
        raise DatasetError(
            f"{annotations} is not an annotation file of the demo world; `vtr demo` writes one"
        ) from None
    return {event.video_id: event for event in events}


def expected_uniform_miss(events: Iterable[BriefEvent], *, num_frames: int) -> float:
    """Returns the share of events, 0 to 1, that `uniform` at the native rate does not see.

    From the recorded times alone: `uniform` takes frames `trunc(i (N - 1) / (K - 1))`, i = 0 to
    K - 1 (the first frame for K = 1, all of them for K >= N).

    Args:
        events: At least one.
        num_frames: The budget K, at least 1.
    """
    missed = []
    for event in events:
        budget = min(num_frames, event.num_frames)
        last, steps = event.num_frames - 1, max(budget - 1, 1)
        times = [(index * last // steps) / event.frames_per_second for index in range(budget)]
        missed.append(not event.is_caught(times))
    return sum(missed) / len(missed)
