"""Writes the captions of clips, from a closed grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from vtr.demo.scenes import Clip, Group, stream
from vtr.demo.words import ACTIONS

Option = TypeVar("Option")

CAPTIONS_PER_CLIP = 5
# {a} the first sprite, {b} the second, {bg} the background, {verb} "spins", {ing} "spinning".
TEMPLATES: dict[Group, tuple[str, ...]] = {
    "content": (
        "{a} {verb} on {bg}",
        "{a} {verb} in front of {bg}",
        "on {bg}, {a} {verb}",
        "there is {a} that {verb} on {bg}",
        "{a} {ing} over {bg}",
        "we see {a} {ing} against {bg}",
        "a video of {a} {ing} on {bg}",
    ),
    "order": (
        "{a} and then {b} on {bg}",
        "first {a}, then {b}, on {bg}",
        "{a} is followed by {b} on {bg}",
        "{a} comes before {b} on {bg}",
        "on {bg} we see {a}, then {b}",
        "{a} turns into {b} on {bg}",
        "on {bg} {a} comes first and {b} comes next",
    ),
    "brief": (
        "{a} flashes for a moment while {b} drifts on {bg}",
        "{a} appears for an instant near {b} on {bg}",
        "for a split second {a} pops up beside {b} on {bg}",
        "on {bg}, {a} briefly shows up while {b} floats about",
        "{b} drifts on {bg} and {a} suddenly flashes",
        "a short glimpse of {a} as {b} floats over {bg}",
        "there is a flash of {a} next to {b} on {bg}",
    ),
}
"""Group to its paraphrases; every clip gets five of them."""

BACKGROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "plain": ("a plain {tone} background", "a bare {tone} background"),
    "shaded": ("a {tone} shaded background", "a {tone} gradient"),
    "striped": ("a {tone} striped background", "{tone} stripes"),
    "checkered": ("a {tone} checkered background", "a {tone} checkerboard"),
    "dotted": ("a {tone} dotted background", "{tone} dots"),
    "cloudy": ("a {tone} cloudy background", "{tone} clouds"),
}

ACTION_PHRASES: dict[str, tuple[tuple[str, str], ...]] = {
    "moves left": (("moves left", "moving left"), ("slides to the left", "sliding to the left")),
    "moves right": (
        ("moves right", "moving right"),
        ("slides to the right", "sliding to the right"),
    ),
    "moves up": (("moves up", "moving up"), ("rises", "rising")),
    "moves down": (("moves down", "moving down"), ("sinks", "sinking")),
    "grows": (("grows", "growing"), ("gets bigger", "getting bigger")),
    "shrinks": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
    "spins": (("spins", "spinning"), ("turns around", "turning around")),
    "blinks": (("blinks", "blinking"), ("fades in and out", "fading in and out")),
    "bounces": (("bounces", "bouncing"), ("hops up and down", "hopping up and down")),
    "shakes": (("shakes", "shaking"), ("trembles", "trembling")),
}
"""Action to (what it does, what it is doing), each said in two ways."""

OTHER_WORDS = {"circle": "disc", "cross": "plus", "purple": "violet", "large": "big"}
OTHER_WORDS |= {"small": "little", "moon": "crescent"}


def clip_captions(clip: Clip, *, seed: int) -> tuple[str, ...]:
    """Returns five paraphrases, all different, each of which names all that tells the clip apart.

    The twins of a pair draw the same sentences with the sprites exchanged.
    """
    name = clip.stage if clip.group == "order" else clip.id
    rng = stream(seed, name, "captions")
    templates = TEMPLATES[clip.group]
    chosen = [templates[index] for index in rng.permutation(len(templates))[:CAPTIONS_PER_CLIP]]
    return tuple(_fill(template, clip, rng) for template in chosen)


def _fill(template: str, clip: Clip, rng: np.random.Generator) -> str:
    sizes = {"content": (clip.size,), "order": ("", ""), "brief": ("large", "small")}[clip.group]
    if clip.group == "brief":
        sizes = tuple(size if rng.random() < 0.5 else "" for size in sizes)
    sprites = [f"{size} {look}".strip() for size, look in zip(sizes, clip.looks, strict=True)]
    background = background_phrase(clip.background, clip.tone, rng)
    return say(template, sprites, background, rng, action=clip.action)


def say(
    template: str,
    sprites: Sequence[str],
    background: str,
    rng: np.random.Generator,
    *,
    action: str | None = None,
) -> str:
    """Fills a template, and calls some things by their other names."""
    if action is None:
        action = _pick(ACTIONS, rng)
    verb, ing = _pick(ACTION_PHRASES[action], rng) if action else ("", "")
    words = {
        "a": with_article(sprites[0]) if sprites else "",
        "b": with_article(sprites[-1]) if sprites else "",
        "bg": background,
        "verb": verb,
        "ing": ing,
    }
    swaps = [word for word in OTHER_WORDS if rng.random() < 0.2]
    return reword(template.format(**words), swaps)


def background_phrase(kind: str, tone: str, rng: np.random.Generator) -> str:
    """Returns one of the ways to name a background; without its tone where `tone` is empty."""
    phrase = _pick(BACKGROUND_PHRASES[kind], rng)
    return phrase.format(tone=tone) if tone else phrase.replace("{tone} ", "")


def with_article(words: str) -> str:
    """Puts the indefinite article before `words`.

    >>> with_article("orange star"), with_article("red star")
    ('an orange star', 'a red star')
    """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def reword(text: str, words: Iterable[str]) -> str:
    """Replaces each of `words` by its other name.

    >>> reword("a small red circle", ["circle", "small"])
    'a little red disc'
    """
    for word in words:
        text = re.sub(rf"\b{word}\b", OTHER_WORDS[word], text)
    return text


def _pick(options: Sequence[Option], rng: np.random.Generator) -> Option:
    return options[int(rng.integers(len(options)))]
