"""Dropout that draws the same for an item however its batch is cut.

A batch is encoded whole, in parts that fit into memory, or in shares of several processes. The
numbers of a generator depend on how many were drawn before; these follow from the item alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Index = NDArray[np.int64]
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))
_LAST_SHIFT = 31
_BITS = 24  # of a number that decides: as many as float32 tells apart


class RowDropout(nn.Dropout):
    """Dropout of codes, items along the first axis; without keys torch's generator draws."""

    keys: Tensor | None = None  # (N,) int64, one of each item

    def forward(self, input: Tensor) -> Tensor:
        """Returns the input, in training with a share p of it zero and the rest enlarged."""
        if self.keys is None or not self.training or not self.p:
            return super().forward(input)
        columns = torch.arange(input[0].numel(), device=input.device) * _GOLDEN
        # One module may see vectors and their tokens.
        rows = _mixed(self.keys + input.ndim)
        drawn = _mixed(rows[:, None] + columns).bitwise_and_((1 << _BITS) - 1)
        kept = (drawn >= self.p * (1 << _BITS)).view(input.shape)
        return input * kept.to(input.dtype).div_(1 - self.p)


@contextmanager
def keyed(
    modules: Sequence[RowDropout],
    index: Index,
    place: Index,
    *,
    side: int,
    device: torch.device | None = None,
) -> Iterator[None]:
    """Lets modules draw by what stands in a batch, and by the seed of torch's generator.

    Args:
        modules: Of one model.
        index: (N,) which items.
        place: (N,) where in the whole batch they stand: one may be there twice.
        side: 0 for texts, 1 for videos.
        device: Where the modules compute.
    """
    for number, module in enumerate(modules):
        parts = (torch.initial_seed(), side, number)
        seed = np.random.SeedSequence(parts).generate_state(1, np.uint64).astype(np.int64)
        items = torch.from_numpy(np.stack([index, place]).astype(np.int64))
        keys = _mixed(_mixed(items[0] * _GOLDEN + int(seed[0])) + items[1])
        module.keys = keys.to(device)
    try:
        yield
    finally:
        for module in modules:
            module.keys = None


def _mixed(numbers: Tensor) -> Tensor:
    """Returns int64 numbers whose bits all depend on all bits (splitmix64, Steele et al. 2014)."""
    for shift, factor in _ROUNDS:
        numbers = _folded(numbers, shift).mul_(factor)
    return _folded(numbers, _LAST_SHIFT)


def _folded(numbers: Tensor, shift: int) -> Tensor:
    high = numbers >> shift
    return high.bitwise_and_((1 << (64 - shift)) - 1).bitwise_xor_(numbers)
