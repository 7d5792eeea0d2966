"""What the captions of single frames say: words and sentences, beside those of the clips.

They say what is visible in a frame, never which of two things came first: `FRAME_TEMPLATES` has
none of `ORDER_WORDS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain

from vtr.demo.captions import ACTION_PHRASES, BACKGROUND_PHRASES, OTHER_WORDS, TEMPLATES
from vtr.demo.words import ACTIONS, BACKGROUNDS, COLOURS, SHAPES, SIZES, TONES

ORDER_WORDS = frozenset(
    {"then", "first", "second", "before", "after", "followed", "comes", "later", "into"}
)

EMPTY_TEMPLATES = ("nothing but {bg}", "only {bg}", "{bg} and nothing else", "an empty scene, {bg}")
"""Sentences about a frame without sprites."""

FRAME_TEMPLATES: dict[int, tuple[str, ...]] = {
    0: ("{bg}", "a picture of {bg}", "something on {bg}", "there is something in front of {bg}"),
    1: (
        "{a}",
        "a picture of {a}",
        "{a} on {bg}",
        "{a} in front of {bg}",
        "{bg} with {a} on it",
        "there is {a} on {bg}",
        "we see {a} over {bg}",
        "nothing but {a} against {bg}",
        "{a} {verb} on {bg}",
        "on {bg}, {a} {verb}",
        "{a} {ing} over {bg}",
        "a video of {a} {ing} on {bg}",
    ),
    2: (
        "{a} and {b}",
        "{a} next to {b}",
        "{a} and {b} on {bg}",
        "on {bg} we see {a} and {b}",
        "{a} beside {b} on {bg}",
        "{bg} with {a} near {b}",
        "{a} flashes near {b} on {bg}",
        "{b} floats over {bg} and {a} appears",
        "{b} drifts on {bg}, {a} shows up",
    ),
}
"""Number of sprites that a sentence names to such sentences about a frame. Verbs are drawn at
random: no frame shows them, as with the captions of photographs."""

ANY_SHAPE = "shape"
"""What a sprite is called where its own shape is not said."""


def vocabulary() -> tuple[str, ...]:
    """Returns every word of the grammar, sorted; the tokenizer knows each as one token."""
    lists: Iterable[Iterable[str]] = (
        *TEMPLATES.values(),
        EMPTY_TEMPLATES,
        *FRAME_TEMPLATES.values(),
        chain.from_iterable(BACKGROUND_PHRASES.values()),
        chain.from_iterable(chain.from_iterable(ACTION_PHRASES.values())),
        (*SHAPES, *COLOURS, *BACKGROUNDS, *TONES, *SIZES, *ACTIONS),
        OTHER_WORDS.values(),
        ORDER_WORDS,
        ("a", "an", ANY_SHAPE),
    )
    text = " ".join(chain.from_iterable(lists))
    return tuple(sorted(set(re.findall("[a-z]+", re.sub(r"\{\w+\}", " ", text)))))
