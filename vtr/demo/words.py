"""What the demo world is made of: the closed lists of things, and who may use which of them.

`part_of` is the whole leak rule: a thing is a (shape, colour, background kind) triple, and every
triple belongs to exactly one of train, val and test.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "moon")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (226, 48, 54),
    "orange": (248, 138, 30),
    "yellow": (250, 216, 52),
    "green": (58, 180, 84),
    "cyan": (54, 204, 214),
    "blue": (52, 92, 224),
    "purple": (140, 66, 190),
    "pink": (246, 128, 184),
}
BACKGROUNDS = ("plain", "shaded", "striped", "checkered", "dotted", "cloudy")
TONES = ("dark", "pale")
SIZES: dict[str, float] = {"small": 13.0, "large": 23.0}
"""Radius of a sprite in pixels of the 128 x 96 frame."""
ACTIONS = (
    *("moves left", "moves right", "moves up", "moves down", "grows", "shrinks"),
    *("spins", "blinks", "bounces", "shakes"),
)
ROUND = frozenset({"circle", "ring"})
"""Shapes whose spinning cannot be seen."""


@dataclass(frozen=True)
class Look:
    """What a sprite looks like in any frame: shape and colour."""

    shape: str
    colour: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


LOOKS = tuple(Look(shape, colour) for shape, colour in product(SHAPES, COLOURS))


def part_of(look: Look, background: str) -> Part:
    """Returns which split may show `look` on a background of this kind.

    A Latin-square rule: `(shape + 3 colour + 5 background) mod 8` is 0 or 1 for test, 2 for val,
    else train. Every shape meets every colour and every background in the training part, but 96
    of the 384 triples are seen in test clips alone and 48 in val clips alone.

    >>> part_of(Look("circle", "red"), "plain"), part_of(Look("circle", "yellow"), "dotted")
    ('test', 'val')
    """
    colour = tuple(COLOURS).index(look.colour)
    residue = SHAPES.index(look.shape) + 3 * colour + 5 * BACKGROUNDS.index(background)
    residue %= 8
    return "test" if residue < 2 else "val" if residue == 2 else "train"


def looks_of(part: Part, background: str) -> tuple[Look, ...]:
    """Returns every look that `part` may show on a background of this kind."""
    return tuple(look for look in LOOKS if part_of(look, background) == part)
