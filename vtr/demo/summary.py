"""What the demo's store shows: which samplers saw the brief events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtr.demo.events import BriefEvent, expected_uniform_miss, read_events
from vtr.features import FeatureStore

Z_95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


@dataclass(frozen=True)
class SamplerSight:
    """How many brief events one sampler's frames show.

    Args:
        sampler: Its label.
        seen: Test events of which at least one chosen frame shows something.
        events: Test events in all.
        low: Lower end of the 95 % Wilson interval of the share, 0 to 1.
        high: Upper end.
        frames_per_video: Mean number of chosen frames over all videos.
    """

    sampler: str
    seen: int
    events: int
    low: float
    high: float
    frames_per_video: float


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a share (Wilson 1927, JASA 22, p. 209).

    >>> [round(end, 3) for end in wilson_interval(5, 10)]
    [0.237, 0.763]

    Args:
        hits: 0 to `trials`.
        trials: At least 1.
    """
    share, spread = hits / trials, Z_95**2 / trials
    middle = share + spread / 2
    half = Z_95 * math.sqrt(share * (1 - share) / trials + spread / trials / 4)
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def sights(store_folder: Path, annotations: Path) -> list[SamplerSight]:
    """Returns, for every sampler in the store, how many brief test events it saw."""
    events = [event for event in read_events(annotations).values() if event.split == "test"]
    labels = FeatureStore(store_folder).spec.samplers
    return [_sight(FeatureStore(store_folder, sampler=label), events) for label in labels]


def _sight(store: FeatureStore, events: Sequence[BriefEvent]) -> SamplerSight:
    ids = [event.video_id for event in events]
    packed = store.packed(ids)
    cuts = packed.offsets.tolist()
    seen = sum(
        event.is_caught(packed.pts_seconds[cuts[v] : cuts[v + 1]]) for v, event in enumerate(events)
    )
    low, high = wilson_interval(seen, len(events))
    total = len(store.packed().frames)
    return SamplerSight(str(store.sampler), seen, len(events), low, high, total / len(store))


def known_uniform_share(annotations: Path, *, num_frames: int) -> float:
    """Returns the share of brief test events that `uniform` sees, from the recorded times alone."""
    events = [event for event in read_events(annotations).values() if event.split == "test"]
    return 1 - expected_uniform_miss(events, num_frames=num_frames)
