"""The brief events of the demo world, and which samplers see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from vtr.errors import DatasetError
from vtr.evaluate.intervals import wilson_interval
from vtr.extract.choose import DENSE, picks
from vtr.extract.samplers.base import parse_samplers
from vtr.features import FeatureStore
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


def known_uniform_share(events: Iterable[BriefEvent], *, num_frames: int) -> float:
    """Returns the share of events, 0 to 1, that `uniform` at the native rate sees.

    From the recorded times alone: `uniform` takes frames `trunc(i (N - 1) / (K - 1))`, i = 0 to K -
    1 (the first frame for K = 1, all of them for K >= N).
    """
    missed = []
    for event in events:
        budget = min(num_frames, event.num_frames)
        last, steps = event.num_frames - 1, max(budget - 1, 1)
        times = [(index * last // steps) / event.frames_per_second for index in range(budget)]
        missed.append(not event.is_caught(times))
    return 1 - sum(missed) / len(missed)


@dataclass(frozen=True)
class EventsShown:
    """How many brief events one sampler's frames show."""

    sampler: str  # Its label
    seen: int  # Test events of which at least one chosen frame shows something
    events: int  # Test events in all
    low: float  # Lower end of the 95 % Wilson interval of the share, 0 to 1
    high: float  # Upper end

    @property
    def share(self) -> float:
        """Share of the events seen, 0 to 1."""
        return self.seen / self.events


def events_shown(
    store_folder: Path, annotations: Path, *, num_frames: int, seed: int = 0
) -> list[EventsShown]:
    """Returns how many brief test events every sampler sees, the best first.

    Every sampler on a store that holds every candidate; else the samplers it was made with.
    """
    events = brief_test_events(annotations)
    ids = [event.video_id for event in events]
    labels = FeatureStore(store_folder).spec.samplers
    found = []
    if DENSE in labels:
        dense = FeatureStore(store_folder, sampler=DENSE)
        times = {video_id: dense[video_id].pts_seconds for video_id in ids}
        for choice in parse_samplers("all", embedded=True):
            chosen = picks(dense, choice, num_frames, seed=seed, ids=ids)
            shown = {video_id: times[video_id][chosen[video_id]] for video_id in ids}
            found.append(count_shown(choice.label, events, shown))
    else:
        for label in labels:
            store = FeatureStore(store_folder, sampler=label)
            found.append(count_shown(label, events, {i: store[i].pts_seconds for i in ids}))
    return sorted(found, key=lambda one: (-one.seen, one.sampler))


def count_shown(
    label: str, events: Sequence[BriefEvent], chosen_pts_seconds: Mapping[str, ArrayLike]
) -> EventsShown:
    """Returns how many events the chosen frames show, by their presentation times (K,)."""
    seen = sum(event.is_caught(chosen_pts_seconds[event.video_id]) for event in events)
    return EventsShown(label, seen, len(events), *wilson_interval(seen, len(events)))


def brief_test_events(annotations: Path) -> list[BriefEvent]:
    """Returns the brief events of the test split, in the order of the annotation file."""
    return [event for event in read_events(annotations).values() if event.split == "test"]
