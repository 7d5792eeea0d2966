"""Single frames and captions of frames: what the tiny CLIP is trained on.

The scenes are drawn from seeds of their own and from the training part of `words.part_of` alone:
no (shape, colour, background kind) triple of val or test is ever seen. A caption says what one
frame shows, in full or in part, never an order of events.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import product

import av
import numpy as np
from numpy.typing import NDArray

from tools.demo_clip.grammar import ANY_SHAPE, EMPTY_TEMPLATES, FRAME_TEMPLATES
from vtr.clip.preprocess import Preprocessing, resize_crop
from vtr.demo.captions import background_phrase, say
from vtr.demo.drawing import Pose, draw, paint
from vtr.demo.render import STILL_OPTIONS, Frame, acting, encode, to_pixels
from vtr.demo.scenes import stream
from vtr.demo.words import ACTIONS, BACKGROUNDS, COLOURS, SHAPES, SIZES, TONES, Look, Part, looks_of

_SHARE_BY_SPRITES = (0.06, 0.52, 0.42)
"""Of frames with no, one and two sprites."""
_SMALL, _LARGE = 14.5, 20.5
"""Up to and from which radius in pixels a sprite may be called small or large."""

_SHARE_BY_DETAIL = (0.5, 0.35, 0.15)
"""Of sprites called by colour and shape, by shape alone, by colour alone."""

# What can be said of a sprite (each part may be left out) and of a background.
_SPRITE_FACTS = {
    fact: index for index, fact in enumerate(product(("", *SHAPES), ("", *COLOURS), ("", *SIZES)))
}
_BACKGROUND_FACTS = {
    word: len(_SPRITE_FACTS) + index for index, word in enumerate((*BACKGROUNDS, *TONES))
}
NUM_FACTS = len(_SPRITE_FACTS) + len(_BACKGROUND_FACTS)


@dataclass(frozen=True)
class Sprite:
    """A sprite in one frame."""

    look: Look
    pose: Pose

    @property
    def size(self) -> str:
        """The word for its size, empty for one in between."""
        if self.pose.radius <= _SMALL:
            return "small"
        return "large" if self.pose.radius >= _LARGE else ""


@dataclass(frozen=True)
class FrameScene:
    """What one frame shows; the first of two sprites is the one a caption makes more of."""

    sprites: tuple[Sprite, ...]
    background: str
    tone: str


@dataclass(frozen=True)
class Truths:
    """What N frames show, or what N captions claim, in a form that can be compared at once."""

    facts: NDArray[np.bool_]  # (N, NUM_FACTS) bool
    # (N,) int: sprites of a frame; of a caption only where it excludes any more ("nothing but a red
    # star"), else -1.
    num_sprites: NDArray[np.int64]

    def hold_in(self, frames: Truths) -> NDArray[np.bool_]:
        """Returns (N, M): whether each of these captions is true of each of M frames.

        Claim by claim: one red ring makes "a red shape and a ring" true.
        """
        claimed = self.facts.astype(np.float32)
        met: NDArray[np.bool_] = (
            claimed @ frames.facts.T.astype(np.float32) == claimed.sum(axis=1)[:, None]
        )
        met &= (self.num_sprites < 0)[:, None] | (self.num_sprites[:, None] == frames.num_sprites)
        return met


def frame_scenes(count: int, *, seed: int, name: str, part: Part = "train") -> list[FrameScene]:
    """Returns random scenes.

    Args:
        count: How many.
        seed: Of the world of frames.
        name: Another name gives other scenes.
        part: Whose triples they may show.
    """
    rng = stream(seed, "frames", name)
    return [_scene(rng, part) for _ in range(count)]


def _scene(rng: np.random.Generator, part: Part) -> FrameScene:
    kind, tone = str(rng.choice(BACKGROUNDS)), str(rng.choice(TONES))
    looks = looks_of(part, kind)
    num_sprites = int(rng.choice(3, p=_SHARE_BY_SPRITES))
    if num_sprites == 2:
        sprites = _pair(looks, rng)
    else:
        sprites = tuple(_single(looks, rng) for _ in range(num_sprites))
    return FrameScene(sprites, kind, tone)


def _single(looks: Sequence[Look], rng: np.random.Generator) -> Sprite:
    radius = rng.choice([*SIZES.values(), rng.uniform(11, 25)])
    rest = Pose(rng.uniform(52, 76), rng.uniform(40, 56), radius, rng.normal(0, 0.15))
    action, index = str(rng.choice(ACTIONS)), int(rng.integers(60))
    return Sprite(looks[int(rng.integers(len(looks)))], acting(action, rest, index / 59, index))


def _pair(looks: Sequence[Look], rng: np.random.Generator) -> tuple[Sprite, ...]:
    """Two sprites side by side, most often a large and a small one."""
    first, second = (looks[index] for index in rng.permutation(len(looks))[:2])
    side = rng.choice([-1.0, 1.0])
    radii = (23.0, 13.0) if rng.random() < 0.7 else rng.uniform(12, 22, size=2)
    shift = rng.uniform(18, 23), rng.uniform(21, 32)
    poses = [
        Pose(64 + way * across, rng.uniform(30, 66), radius, angle)
        for way, across, radius, angle in zip(
            (side, -side), shift, radii, (rng.normal(0, 0.15), rng.normal(0, 0.8)), strict=True
        )
    ]
    return Sprite(first, poses[0]), Sprite(second, poses[1])


def draw_scenes(
    scenes: Sequence[FrameScene], *, seed: int, name: str, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """Returns what the model sees of the scenes: drawn, encoded, decoded, resized, cropped.

    Args:
        scenes: N scenes.
        seed: Of the backgrounds.
        name: As in `frame_scenes`.
        preprocessing: The model's own.

    Returns:
        (N, h, w, 3) uint8.
    """
    rng = stream(seed, "pictures", name)
    pictures = (_draw_scene(scene, rng) for scene in scenes)
    with av.open(io.BytesIO(encode(pictures, STILL_OPTIONS)), "r") as container:
        return np.stack(
            [
                resize_crop(frame.to_ndarray(format="rgb24"), preprocessing)
                for frame in container.decode(video=0)
            ]
        )


def _draw_scene(scene: FrameScene, rng: np.random.Generator) -> Frame:
    pan = 3.0 if rng.random() < 0.3 else 0.0
    canvas = paint(scene.background, scene.tone, rng, pan=pan).at(rng.uniform(0, 12))
    for sprite in scene.sprites[::-1]:
        draw(canvas, sprite.look, sprite.pose)
    return to_pixels(canvas)


def caption_frames(
    scenes: Sequence[FrameScene], rng: np.random.Generator
) -> tuple[list[str], Truths]:
    """Returns one random caption for each of N scenes, and what the captions claim.

    Captions differ in what they mention: both sprites, one or none, colour or shape or both, the
    background or not.
    """
    claims = _no_truths(len(scenes))
    texts = [_caption(scene, claims, row, rng) for row, scene in enumerate(scenes)]
    return texts, claims


def describe_frames(scenes: Sequence[FrameScene], rng: np.random.Generator) -> list[str]:
    """Returns one caption for each of N scenes that leaves nothing out."""
    texts = []
    for scene in scenes:
        templates = FRAME_TEMPLATES[len(scene.sprites)] if scene.sprites else EMPTY_TEMPLATES
        whole = [template for template in templates if "{bg}" in template]
        sprites = [f"{sprite.size} {sprite.look}".strip() for sprite in scene.sprites]
        if rng.random() < 0.3:
            sprites.reverse()
        background = background_phrase(scene.background, scene.tone, rng)
        texts.append(say(whole[int(rng.integers(len(whole)))], sprites, background, rng))
    return texts


def _caption(scene: FrameScene, claims: Truths, row: int, rng: np.random.Generator) -> str:
    """Returns a caption of `scene` and enters what it claims into `row` of `claims`."""
    sprites = [sprite for sprite in scene.sprites if rng.random() < 0.9]
    if rng.random() < 0.3:
        sprites.reverse()
    templates = FRAME_TEMPLATES[len(sprites)] if scene.sprites else EMPTY_TEMPLATES
    template = templates[int(rng.integers(len(templates)))]
    if "nothing but" in template and len(sprites) < len(scene.sprites):
        template = "{a} on {bg}"
    if not scene.sprites or "nothing but" in template:
        claims.num_sprites[row] = len(sprites)
    phrases = []
    for sprite in sprites:
        phrase, fact = _call(sprite, rng)
        phrases.append(phrase)
        claims.facts[row, _SPRITE_FACTS[fact]] = True
    tone = scene.tone if rng.random() < 0.8 else ""
    if "{bg}" in template:
        for word in filter(None, (scene.background, tone)):
            claims.facts[row, _BACKGROUND_FACTS[word]] = True
    return say(template, phrases, background_phrase(scene.background, tone, rng), rng)


def _call(sprite: Sprite, rng: np.random.Generator) -> tuple[str, tuple[str, str, str]]:
    """Returns words for a sprite, and what they claim: shape, colour, size, "" where left out."""
    detail = rng.choice(3, p=_SHARE_BY_DETAIL)
    shape = "" if detail == 2 else sprite.look.shape
    colour = "" if detail == 1 else sprite.look.colour
    size = sprite.size if rng.random() < 0.5 else ""
    words = filter(None, (size, colour, shape or ANY_SHAPE))
    return " ".join(words), (shape, colour, size)


def truths_of(scenes: Sequence[FrameScene]) -> Truths:
    """Returns what N scenes show."""
    shown = _no_truths(len(scenes))
    for row, scene in enumerate(scenes):
        for sprite in scene.sprites:
            choices = product(*(("", word) for word in (*astuple(sprite.look), sprite.size)))
            shown.facts[row, [_SPRITE_FACTS[fact] for fact in choices]] = True
        shown.facts[row, [_BACKGROUND_FACTS[w] for w in (scene.background, scene.tone)]] = True
        shown.num_sprites[row] = len(scene.sprites)
    return shown


def _no_truths(count: int) -> Truths:
    return Truths(
        facts=np.zeros((count, NUM_FACTS), dtype=np.bool_),
        num_sprites=np.full(count, -1, dtype=np.int64),
    )
