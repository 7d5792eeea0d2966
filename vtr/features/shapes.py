"""What an array of features of others means: its axes, its padding, the precision it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.features.foreign import UnusableError

Rows = NDArray[np.float32]

_SIZES = frozenset(
    {256, 384, 512, 640, 768, 1024, 1152, 1280, 1408, 1536, 1664, 2048, 3072, 4096}
)  # fmt: skip
"""D of the towers and networks that are in use."""
_MOST_LOSS = 1e-3  # float16 keeps 11 bits: 2**-11 of each value that it can hold as a normal number


def plain_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Returns (n, D) of an array, without the axes of size 1 that batches and pooling leave.

    >>> plain_shape((1, 12, 512)), plain_shape((12, 1, 512)), plain_shape((12, 512, 1, 1))
    ((12, 512), (12, 512), (12, 512))
    >>> plain_shape((512,)), plain_shape((1, 512))
    ((1, 512), (1, 512))

    Raises:
        UnusableError: It has no such two axes, or one of them is empty.
    """
    sizes = tuple(shape) if len(shape) <= 2 else tuple(size for size in shape if size != 1)
    if len(sizes) == 1:
        sizes = (1, *sizes)
    if len(sizes) != 2 or not all(sizes):
        raise UnusableError(f"wrong-shape: {tuple(shape)}; expected (n, D) with n >= 1")
    return sizes[0], sizes[1]


def common_size(shapes: Sequence[tuple[int, int]], named: int | None) -> int:
    """Returns D, which most arrays have as their last axis, or as the user named it.

    Raises:
        ConfigError: The arrays look like (D, n), or not one has the named size.
    """
    (first, num_first), (last, num_last) = (
        Counter(shape[axis] for shape in shapes).most_common(1)[0] for axis in (0, 1)
    )
    if named is not None:
        if all(named not in shape for shape in shapes):
            raise ConfigError(f"--dim is {named}, but the arrays are {shapes[0]} and the like")
        return named
    likely = last in _SIZES and first not in _SIZES
    if num_first >= num_last and first > last and not likely:
        raise ConfigError(
            f"the arrays are {shapes[0]} and the like: either D = {last} with more rows than "
            f"dimensions, or (D, n) with D = {first}. Say which with --dim {last} or --dim {first}"
        )
    return last


def read_rows(array: NDArray[Any], dim: int, *, turned: bool) -> tuple[Rows, int]:
    """Returns the rows of an array, and how many follow that are padding.

    The array is of any shape that `plain_shape` takes; with `turned` one of (D, n) is turned.

    Raises:
        UnusableError: It has another shape or type, or values that nothing can be compared with.
    """
    if array.dtype.kind != "f":
        raise UnusableError(
            f"wrong-type: {array.dtype}; whole numbers are quantised by a scale that is not told"
        )
    rows = array.reshape(plain_shape(array.shape))
    if turned and rows.shape[1] != dim == rows.shape[0]:
        rows = rows.T
    if rows.shape[1] != dim:
        raise UnusableError(f"wrong-shape: {rows.shape[1]} dimensions, expected {dim}")
    blank = ~rows.any(axis=1) | np.isnan(rows).all(axis=1)
    used = len(rows) - int(np.argmin(blank[::-1])) if not blank.all() else len(rows)
    with np.errstate(over="ignore", under="ignore"):
        kept = rows[:used].astype(np.float32)
    if not np.isfinite(rows[:used]).all():
        raise UnusableError("not-finite: a value is NaN or infinite")
    if blank[:used].any():
        raise UnusableError("all-zero: a row is all zeros")
    if not np.isfinite(kept).all() or not kept.any(axis=1).all():
        raise UnusableError("not-finite: a value is too large or too small for float32")
    return kept, len(rows) - used


def fits_float16(rows: Rows) -> bool:
    """Returns whether float16 changes every row by less than a thousandth of its length."""
    with np.errstate(over="ignore", under="ignore"):
        half = rows.astype(np.float16).astype(np.float64)
    exact = rows.astype(np.float64)
    if not np.isfinite(half).all():
        return False
    lost = np.linalg.norm(half - exact, axis=1)
    return bool((lost <= _MOST_LOSS * np.linalg.norm(exact, axis=1)).all())
