"""Plans the clips of the demo world: who appears where, when, and in which split.

Three groups, in every split:

- `content`: one sprite with an action. Every (look, background kind) is unique within a split, so
  one frame tells the clips apart.
- `order`: twins. Each half of a clip is one frame held still; the other twin has the same two
  halves in the other order. See `Clip.twin`.
- `brief`: a small sprite drifts for 10 to 12 seconds; for 0.3 to 0.6 seconds a large one flashes
  beside it, and only this event tells a clip from the four others that share its stage.

Nothing is random but through `stream`: the same seed and name give the same numbers whatever else
was drawn before, so clips can be rendered in any order and in any process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, cycle, islice
from typing import Literal

import numpy as np

from vtr.demo.words import ACTIONS, BACKGROUNDS, PARTS, ROUND, TONES, Look, Part, looks_of

Group = Literal["content", "order", "brief"]
FRAMES_PER_SECOND = 10
CLIPS_PER_GROUP: Mapping[Part, int] = {"train": 80, "val": 20, "test": 60}
"""Clips of each of the three groups in the full world; 680 in all with `ORDER_FACTOR`."""
ORDER_FACTOR: Mapping[Part, int] = {"train": 3, "val": 3}
"""Splits with more twins than clips of another group. A text tower that read single frames has no
notion of "then": from 40 pairs it learns them by heart, from 120 it learns the rule (measured:
seqLSTM 50 and 100 % within the test pairs). Ten pairs cannot choose an epoch either (measured:
seqTransf 81 % in the epoch that 10 pairs chose, 94 % in the last)."""
CLIPS_PER_STAGE = 5
"""How many brief clips share everything but their event."""
_FAINT = {"dark": "blue", "pale": "yellow"}
"""The colour that is nearly as bright as the background; no event has it."""


@dataclass(frozen=True)
class Event:
    """When the captioned sprite of a brief clip can be seen, in frames."""

    first_frame: int
    num_frames: int

    @property
    def frames(self) -> range:
        """The frames that show it."""
        return range(self.first_frame, self.first_frame + self.num_frames)

    @property
    def start_seconds(self) -> float:
        """Presentation time of its first frame."""
        return self.first_frame / FRAMES_PER_SECOND

    @property
    def end_seconds(self) -> float:
        """Presentation time of the first frame without it."""
        return (self.first_frame + self.num_frames) / FRAMES_PER_SECOND


@dataclass(frozen=True)
class Clip:
    """One clip, described completely: `vtr.demo.render` draws it from this and the seed alone."""

    id: str  # Also the name of its file, without extension
    part: Part  # Its split
    group: Group  # Its group
    # content: the sprite; order: the first, the second; brief: the event, the distractor.
    looks: tuple[Look, ...]
    background: str  # Kind of background
    tone: str  # "dark" or "pale"
    num_frames: int  # At `FRAMES_PER_SECOND`
    # Names the random numbers of background and positions. Twins share it, and so do the brief
    # clips with the same distractor.
    stage: str
    action: str = ""  # What the sprite of a content clip does, else empty
    size: str = ""  # "small" or "large" where a content clip has one size throughout, else empty
    twin: str | None = None  # The id of the clip with the same frames in the other order
    event: Event | None = None  # In brief clips

    @property
    def description(self) -> tuple[object, ...]:
        """What the clip shows, as captions can say it; unique in the whole world."""
        return (self.group, self.looks, self.background, self.tone, self.action, self.size)


def stream(seed: int, *names: str) -> np.random.Generator:
    """Returns the random numbers that belong to `names`."""
    digest = hashlib.sha256("\0".join([f"vtr demo {seed}", *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def plan_world(
    seed: int, *, clips_per_group: Mapping[Part, int] = CLIPS_PER_GROUP
) -> tuple[Clip, ...]:
    """Returns every clip of the world; ValueError for an odd number or more than there are."""
    clips: list[Clip] = []
    for part in PARTS:
        count = clips_per_group.get(part, 0)
        if count % 2 or count < 0:
            raise ValueError(f"clips_per_group[{part!r}] is {count}; twins need an even number")
        clips += _content_clips(seed, part, count)
        clips += _order_clips(seed, part, count // 2 * ORDER_FACTOR.get(part, 1))
        clips += _brief_clips(seed, part, count)
    return tuple(clips)


def _content_clips(seed: int, part: Part, count: int) -> Iterator[Clip]:
    rng = stream(seed, part, "content")
    things = [(look, kind) for kind in BACKGROUNDS for look in looks_of(part, kind)]
    if count > len(things):
        raise ValueError(f"{part} has {len(things)} different content clips, not {count}")
    chosen = rng.permutation(len(things))[:count]
    actions = [ACTIONS[index % len(ACTIONS)] for index in rng.permutation(count)]
    for number, (choice, action) in enumerate(zip(chosen, actions, strict=True)):
        look, kind = things[choice]
        if action == "spins" and look.shape in ROUND:
            action = "bounces"
        name = f"{part}-content-{number:03d}"
        yield Clip(
            id=name,
            part=part,
            group="content",
            looks=(look,),
            background=kind,
            tone=TONES[rng.integers(2)],
            num_frames=int(rng.integers(40, 61)),
            stage=name,
            action=action,
            size="" if action in ("grows", "shrinks") else ("small", "large")[rng.integers(2)],
        )


def _order_clips(seed: int, part: Part, num_pairs: int) -> Iterator[Clip]:
    rng = stream(seed, part, "order")
    used: set[frozenset[Look]] = set()
    for number, kind in enumerate(islice(cycle(BACKGROUNDS), num_pairs)):
        free = [
            pair
            for pair in combinations(looks_of(part, kind), 2)
            if _apart(*pair) and frozenset(pair) not in used
        ]
        if not free:
            raise ValueError(f"{part} has fewer than {num_pairs} different pairs of twins")
        pair = free[rng.integers(len(free))]
        used.add(frozenset(pair))
        looks = pair if rng.random() < 0.5 else pair[::-1]
        stage = f"{part}-order-{number:03d}"
        tone = TONES[rng.integers(2)]
        num_frames = int(rng.choice([60, 80]))
        for letter, other, order in (("a", "b", looks), ("b", "a", looks[::-1])):
            yield Clip(
                id=stage + letter,
                part=part,
                group="order",
                looks=order,
                background=kind,
                tone=tone,
                num_frames=num_frames,
                stage=stage,
                twin=stage + other,
            )


def _brief_clips(seed: int, part: Part, count: int) -> Iterator[Clip]:
    rng = stream(seed, part, "brief")
    kinds = cycle(BACKGROUNDS)
    used: set[tuple[str, str, Look]] = set()
    for first in range(0, count, CLIPS_PER_STAGE):
        kind, tone = next(kinds), TONES[rng.integers(2)]
        looks = looks_of(part, kind)
        free = [look for look in looks if (kind, tone, look) not in used]
        if not free:
            raise ValueError(f"{part} has too few different stages for {count} brief clips")
        distractor = free[rng.integers(len(free))]
        used.add((kind, tone, distractor))
        events = [
            look for look in looks if _apart(look, distractor) and look.colour != _FAINT[tone]
        ]
        num_frames = int(rng.integers(100, 121))
        numbers = range(first, min(first + CLIPS_PER_STAGE, count))
        for number, choice in zip(numbers, rng.permutation(len(events)), strict=False):
            length = int(rng.integers(3, 7))
            yield Clip(
                id=f"{part}-brief-{number:03d}",
                part=part,
                group="brief",
                looks=(events[choice], distractor),
                background=kind,
                tone=tone,
                num_frames=num_frames,
                stage=f"{part}-stage-{first // CLIPS_PER_STAGE:03d}",
                event=Event(int(rng.integers(8, num_frames - 8 - length)), length),
            )


def _apart(one: Look, other: Look) -> bool:
    return one.shape != other.shape and one.colour != other.colour
