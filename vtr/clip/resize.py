"""Resizing pictures, in two ways that agree within two grey levels: Pillow's and torch's.

The horizontal pass always comes first. Pillow did so for ten years and CLIP was trained with it;
Pillow 13 resizes some tall pictures vertically first (Pillow #9549), and as each pass clips to
0..255 that moves single pixels by up to 28 levels. So the exact way asks Pillow for one pass at a
time: the result is that of the classical order with every version.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from vtr.clip import aten

Filter = Literal["bicubic", "bilinear"]
FILTERS = {"bicubic": 3, "bilinear": 2}  # Pillow's numbers, as configurations say them
_FILTER_RADIUS = {"bicubic": 2.0, "bilinear": 1.0}

# Beyond this ratio of the sides most of a resized picture would be thrown away by the crop, and a
# 1x4096 one would need a gigabyte: only what the crop keeps is computed then.
_SLENDER = 8


def resize_window(
    picture: np.ndarray,
    resized: tuple[int, int],
    window: tuple[int, int, int, int],
    *,
    resample: Filter,
    fast: bool,
) -> np.ndarray:
    """Returns a window (top, left, rows, columns) of a picture (H, W, 3) uint8, resized."""
    height, width = picture.shape[:2]
    top, left, rows, columns = window
    if resized == (height, width):
        return np.ascontiguousarray(picture[top : top + rows, left : left + columns])
    # `fast` computes the whole resized picture; far from square that is slower than `exact`.
    slender = max(height, width) > _SLENDER * min(height, width)
    if fast and not slender:
        return _resize_fast(picture, resized, window, resample)
    return _resize_exact(picture, resized, window, resample)


def _resize_fast(
    picture: np.ndarray, resized: tuple[int, int], window: tuple[int, int, int, int], resample: str
) -> np.ndarray:
    """The `fast` route. Cropping the source first was measured: no gain worth its rounding."""
    # torch warns about read-only arrays and refuses negative strides: those are copied.
    picture = np.require(picture, requirements=["C", "W"])
    held = aten.library()
    if held is None:
        output = interpolate(picture, resized, resample)
    else:
        output = aten.resize(held, picture, resized, resample=resample)
    top, left, rows, columns = window
    return output[top : top + rows, left : left + columns].copy()


def interpolate(picture: np.ndarray, size: tuple[int, int], resample: str) -> np.ndarray:
    """Returns what `vtr.clip.aten.resize` does, by torch itself."""
    import torch
    from torch.nn.functional import interpolate

    channels_last = torch.from_numpy(picture).permute(2, 0, 1).unsqueeze(0)
    output = interpolate(channels_last, size=size, mode=resample, antialias=True)
    return output[0].permute(1, 2, 0).numpy()


def _resize_exact(
    picture: np.ndarray, resized: tuple[int, int], window: tuple[int, int, int, int], resample: str
) -> np.ndarray:
    """The `exact` route: horizontal pass, crop of the columns, vertical pass, crop of the rows."""
    from PIL import Image

    top, left, rows, columns = window
    image = Image.fromarray(picture).resize((resized[1], picture.shape[0]), FILTERS[resample])
    image = image.crop((left, 0, left + columns, picture.shape[0]))
    if resized[0] > _SLENDER * rows:
        return _vertical_pass(np.asarray(image), resized[0], top, rows, _FILTER_RADIUS[resample])
    image = image.resize((columns, resized[0]), FILTERS[resample])
    return np.array(image.crop((0, top, columns, top + rows)))


def _vertical_pass(
    picture: np.ndarray, resized_height: int, top: int, rows: int, radius: float
) -> np.ndarray:
    """Rows `top` to `top + rows` of Pillow's vertical pass, without computing the others.

    The same integers as Pillow's Resample.c: weights in double, normalised, rounded half away from
    zero to 22 bits; sums rounded and clipped to 0..255.
    """
    bits = 22
    height = picture.shape[0]
    scale = height / resized_height
    filter_scale = max(scale, 1.0)
    output = np.empty((rows, *picture.shape[1:]), dtype=np.uint8)
    for row in range(rows):
        centre = (top + row + 0.5) * scale
        first = max(0, int(centre - radius * filter_scale + 0.5))
        last = min(height, int(centre + radius * filter_scale + 0.5))
        distances = np.abs((np.arange(first, last) - centre + 0.5) * (1.0 / filter_scale))
        weights = _cubic(distances) if radius > 1 else np.maximum(0.0, 1.0 - distances)
        weights = weights * (1.0 / weights.sum()) * (1 << bits)
        integers = np.trunc(weights + np.copysign(0.5, weights)).astype(np.int64)
        sums = np.tensordot(integers, picture[first:last].astype(np.int64), axes=1)
        output[row] = np.clip((sums + (1 << (bits - 1))) >> bits, 0, 255)
    return output


def _cubic(distances: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -1/2 at `distances` >= 0."""
    a, x = -0.5, distances
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
