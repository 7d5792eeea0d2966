"""What the demo's store shows: which samplers see the brief events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import ArrayLike

from vtr.demo.events import BriefEvent, expected_uniform_miss, read_events
from vtr.evaluate.intervals import wilson_interval
from vtr.extract.choose import DENSE, picks
from vtr.extract.samplers.base import parse_samplers
from vtr.features import FeatureStore


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
    """Returns how many events the chosen frames show.

    Args:
        label: The sampler.
        events: At least one.
        chosen_pts_seconds: Video id to the presentation times of its chosen frames, (K,).
    """
    seen = sum(event.is_caught(chosen_pts_seconds[event.video_id]) for event in events)
    return EventsShown(label, seen, len(events), *wilson_interval(seen, len(events)))


def brief_test_events(annotations: Path) -> list[BriefEvent]:
    """Returns the brief events of the test split, in the order of the annotation file."""
    return [event for event in read_events(annotations).values() if event.split == "test"]


def known_uniform_share(annotations: Path, *, num_frames: int) -> float:
    """Returns the share of brief test events that `uniform` sees, from the recorded times alone."""
    return 1 - expected_uniform_miss(brief_test_events(annotations), num_frames=num_frames)
