"""Paints backgrounds: muted textures, still or slowly panning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
