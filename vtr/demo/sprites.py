"""Draws sprites: antialiased shapes from signed distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr.demo.words import COLOURS, Look

Grid = NDArray[np.floating]
Canvas = NDArray[np.float32]

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


def draw(canvas: Canvas, look: Look, pose: Pose) -> None:
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


def _circle(x: Grid, y: Grid) -> Grid:
    distance: Grid = np.hypot(x, y) - np.float32(0.92)
    return distance


def _square(x: Grid, y: Grid) -> Grid:
    return _box(x, y, 0.76, 0.76)


def _box(x: Grid, y: Grid, half_width: float, half_height: float) -> Grid:
    distance: Grid = np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)
    return distance


def _triangle(x: Grid, y: Grid) -> Grid:
    slope = np.abs(x) * np.float32(0.894) - y * np.float32(0.447) - np.float32(0.40)
    distance: Grid = np.maximum(slope, y - np.float32(0.75))
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


def _ring(x: Grid, y: Grid) -> Grid:
    distance: Grid = np.abs(np.hypot(x, y) - np.float32(0.72)) - np.float32(0.23)
    return distance


def _cross(x: Grid, y: Grid) -> Grid:
    distance: Grid = np.minimum(_box(x, y, 0.92, 0.30), _box(x, y, 0.30, 0.92))
    return distance


def _heart(x: Grid, y: Grid) -> Grid:
    """A square on its corner with a disc on each upper side, as wide as the side is long."""
    half = np.float32(0.74)  # of the diagonal
    side, below = np.abs(x), y - np.float32(0.1)
    point = (side + np.abs(below) - half) * np.float32(0.7071)
    lobe = np.hypot(side - half / 2, below + half / 2) - half * np.float32(0.7071)
    distance: Grid = np.minimum(lobe, point)
    return distance


def _moon(x: Grid, y: Grid) -> Grid:
    bite = np.hypot(x - np.float32(0.44), y + np.float32(0.10)) - np.float32(0.74)
    distance: Grid = np.maximum(np.hypot(x, y) - np.float32(0.95), -bite)
    return distance


SHAPE_DISTANCES: dict[str, Callable[[Grid, Grid], Grid]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
    "moon": _moon,
}
"""Shape to its signed distance in units of the radius, negative inside; y points down."""
