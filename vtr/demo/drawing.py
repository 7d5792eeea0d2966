"""Paints backgrounds, muted textures still or slowly panning, and sprites on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr.demo.words import COLOURS, Look

WIDTH, HEIGHT = 128, 96
"""Frame size in pixels. The centre square, 96 pixels, is what the model sees."""

_MARGIN = 42
"""Pixels of texture beyond the right edge, for the longest pan."""

# Base and second colour of each tone; the sprites' colours are far more saturated than these.
_PALETTES: dict[str, tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...]] = {
    "dark": (
        ((32, 36, 46), (56, 62, 76)),
        ((38, 32, 34), (66, 56, 58)),
        ((28, 40, 38), (50, 68, 64)),
        ((34, 32, 48), (58, 56, 78)),
    ),
    "pale": (
        ((228, 226, 220), (200, 198, 190)),
        ((222, 228, 232), (192, 200, 208)),
        ((232, 224, 226), (206, 196, 198)),
        ((224, 230, 220), (196, 204, 190)),
    ),
}

Texture = NDArray[np.float32]
Blend = NDArray[np.floating]
Grid = NDArray[np.floating]


@dataclass(frozen=True)
class Background:
    """A wide texture that the clip looks at through a moving window."""

    texture: Texture  # (HEIGHT, WIDTH + margin, 3) float32 in 0..255
    pixels_per_second: float = 0.0  # Speed of the pan; 0 stands still

    def at(self, seconds: float) -> Texture:
        """Returns the background of one frame, (HEIGHT, WIDTH, 3) float32, a fresh array."""
        offset = self.pixels_per_second * seconds
        left = int(offset)
        fraction = np.float32(offset - left)
        view = self.texture[:, left : left + WIDTH]
        if not fraction:
            return view.copy()
        return view + fraction * (self.texture[:, left + 1 : left + 1 + WIDTH] - view)


def paint(kind: str, tone: str, rng: np.random.Generator, *, pan: float = 0.0) -> Background:
    """Returns a background of this kind and tone."""
    palettes = _PALETTES[tone]
    base, second = np.asarray(palettes[rng.integers(len(palettes))], dtype=np.float32)
    x = np.arange(WIDTH + _MARGIN, dtype=np.float32)[None, :]
    y = np.arange(HEIGHT, dtype=np.float32)[:, None]
    blend = _BLENDS[kind](x, y, rng)
    texture = base + np.clip(blend, 0.0, 1.0)[..., None] * (second - base)
    return Background(texture.astype(np.float32), pan)


def _plain(x: Blend, y: Blend, rng: np.random.Generator) -> Blend:
    return np.full((y.size, x.size), rng.uniform(0.0, 0.6), dtype=np.float32)


def _shaded(x: Blend, y: Blend, rng: np.random.Generator) -> Blend:
    """From one tone to the other and a little beyond, top to bottom, slightly tilted."""
    tilt = rng.uniform(-0.25, 0.25)
    ramp = y / HEIGHT + tilt * (x / WIDTH - 0.5)
    return ramp if rng.random() < 0.5 else 1.0 - ramp


def _edge(wave: Blend, pixels: float) -> Blend:
    """Turns a wave of period 2 pi into bands whose edges are about one pixel wide."""
    blend: Blend = np.clip(0.5 + np.sin(wave) * pixels / (2 * np.pi), 0.0, 1.0)
    return blend


def _striped(x: Blend, y: Blend, rng: np.random.Generator) -> Blend:
    period = rng.uniform(11.0, 15.0)
    angle = rng.choice([0.0, 0.5, 0.8, 2.3, 2.6])
    along = x * np.cos(angle) + y * np.sin(angle)
    return _edge((2 * np.pi / period * along + rng.uniform(0, 6)).astype(np.float32), period)


def _checkered(x: Blend, y: Blend, rng: np.random.Generator) -> Blend:
    period = rng.uniform(22.0, 28.0)
    columns = _edge(2 * np.pi / period * x + np.float32(rng.uniform(0, 6)), period)
    rows = _edge(2 * np.pi / period * y + np.float32(rng.uniform(0, 6)), period)
    return columns + rows - 2 * columns * rows


def _dotted(x: Blend, y: Blend, rng: np.random.Generator) -> Blend:
    period = rng.uniform(12.0, 15.0)
    column = (x + np.float32(rng.uniform(0, 9))) % period - period / 2
    row = (y + np.float32(rng.uniform(0, 9))) % period - period / 2
    blend: Blend = np.clip(0.27 * period - np.hypot(column, row) + 0.5, 0.0, 1.0)
    return blend


def _cloudy(x: Blend, y: Blend, rng: np.random.Generator) -> Blend:
    """A few soft waves in random directions."""
    total = np.full((y.size, x.size), 0.5, dtype=np.float32)
    for _ in range(6):
        angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(24.0, 60.0)
        wave = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)
        total += np.float32(0.2) * np.sin(wave + rng.uniform(0, 2 * np.pi)).astype(np.float32)
    return total


_BLENDS: dict[str, Callable[[Blend, Blend, np.random.Generator], Blend]] = {
    "plain": _plain,
    "shaded": _shaded,
    "striped": _striped,
    "checkered": _checkered,
    "dotted": _dotted,
    "cloudy": _cloudy,
}


_RIM = 0.11
"""Width of the darker rim, in radii."""


@dataclass(frozen=True)
class Pose:
    """Where a sprite is in one frame."""

    x: float  # Centre, pixels from the left edge
    y: float  # Centre, pixels from the top edge
    radius: float  # Of the circle around the shape, pixels
    angle: float = 0.0  # Turn, radians, clockwise on the screen
    opacity: float = 1.0  # 0 to 1


def draw(canvas: Texture, look: Look, pose: Pose) -> None:
    """Paints one sprite into `canvas`, (height, width, 3) float32 in 0..255, in place."""
    height, width, _ = canvas.shape
    reach = pose.radius + 2.0
    top, bottom = max(int(pose.y - reach), 0), min(int(pose.y + reach) + 2, height)
    left, right = max(int(pose.x - reach), 0), min(int(pose.x + reach) + 2, width)
    if top >= bottom or left >= right or pose.opacity <= 0:
        return
    x = ((np.arange(left, right, dtype=np.float32) + 0.5 - pose.x) / pose.radius)[None, :]
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5 - pose.y) / pose.radius)[:, None]
    cosine, sine = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    inside = -SHAPE_DISTANCES[look.shape](cosine * x + sine * y, cosine * y - sine * x)
    cover = np.clip(inside * pose.radius + 0.5, 0.0, 1.0) * np.float32(pose.opacity)
    light = 0.72 + 0.28 * np.clip((inside - _RIM) * pose.radius + 0.5, 0.0, 1.0)
    light = light * (1.03 - 0.10 * y)  # lit from above
    colour = np.asarray(COLOURS[look.colour], dtype=np.float32)
    region = canvas[top:bottom, left:right]
    region += cover[..., None] * (light[..., None] * colour - region)


def _box(x: Grid, y: Grid, half_width: float, half_height: float) -> Grid:
    distance: Grid = np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)
    return distance


def _star(x: Grid, y: Grid) -> Grid:
    """Five points: folds the plane into a tenth, where the outline is one straight edge."""
    sector = np.float32(2 * np.pi / 5)
    angle = np.arctan2(x, -y)
    folded = np.abs((angle + sector / 2) % sector - sector / 2)
    radius = np.hypot(x, y)
    tip_x, inner_x = 1.0, 0.45 * np.cos(np.pi / 5)
    inner_y = 0.45 * np.sin(np.pi / 5)
    normal = np.asarray([inner_y, tip_x - inner_x]) / np.hypot(inner_y, tip_x - inner_x)
    across, up = radius * np.cos(folded), radius * np.sin(folded)
    distance: Grid = (across - np.float32(tip_x)) * normal[0] + up * normal[1]
    return distance


def _heart(x: Grid, y: Grid) -> Grid:
    """A square on its corner with a disc on each upper side, as wide as the side is long."""
    half = np.float32(0.74)  # of the diagonal
    side, below = np.abs(x), y - np.float32(0.1)
    point = (side + np.abs(below) - half) * np.float32(0.7071)
    lobe = np.hypot(side - half / 2, below + half / 2) - half * np.float32(0.7071)
    distance: Grid = np.minimum(lobe, point)
    return distance


SHAPE_DISTANCES: dict[str, Callable[[Grid, Grid], Grid]] = {
    "circle": lambda x, y: np.hypot(x, y) - np.float32(0.92),
    "square": lambda x, y: _box(x, y, 0.76, 0.76),
    "triangle": lambda x, y: np.maximum(
        np.abs(x) * np.float32(0.894) - y * np.float32(0.447) - np.float32(0.40),
        y - np.float32(0.75),
    ),
    "star": _star,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - np.float32(0.72)) - np.float32(0.23),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.92, 0.30), _box(x, y, 0.30, 0.92)),
    "heart": _heart,
    "moon": lambda x, y: np.maximum(
        np.hypot(x, y) - np.float32(0.95),
        np.float32(0.74) - np.hypot(x - np.float32(0.44), y + np.float32(0.10)),
    ),
}
"""Shape to its signed distance in units of the radius, negative inside; y points down."""
