"""How many items go through a tower at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from vtr.clip.towers import Architecture
from vtr.errors import ModelError

# Measured on 2 CPU cores with ViT-B/32: 8 to 32 pictures are equally fast, 1 takes twice as long
# per picture, 64 is slower again. On a GPU more pictures only cost memory.
CPU_BATCH = 16
GPU_BATCH = 256
# Of the widest tensor of a batch: glibc returns larger ones at once and pays for their pages anew.
# With ViT-B/16 8 pictures are 4 % faster than 16, with ViT-L/14 4 are 3 % faster.
_CPU_BATCH_BYTES = 24 * 2**20

_T = TypeVar("_T")


def cpu_batch(architecture: Architecture) -> int:
    """Returns how many pictures a CPU encodes at once."""
    sizes, patch = architecture.vision, architecture.patch
    tokens = (architecture.image_size // patch) ** 2 if patch else 0
    widest = 4 * tokens * sizes.mlp_width
    return max(1, min(CPU_BATCH, _CPU_BATCH_BYTES // widest)) if widest else CPU_BATCH


def run_in_batches(
    run: Callable[[int, int], _T], num_items: int, batch_size: int
) -> tuple[list[_T], int]:
    """Runs `run(start, stop)` over all items; returns the results and the batch size that worked.

    After running out of memory it goes on with smaller batches.
    """
    results: list[_T] = []
    start = 0
    while start < num_items:
        stop = min(start + batch_size, num_items)
        out_of_memory = False
        try:
            results.append(run(start, stop))
        except torch.OutOfMemoryError:
            out_of_memory = True
        # Outside the handler: the exception's traceback keeps the tensors alive until it ends.
        if not out_of_memory:
            start = stop
        elif stop - start > 1:
            batch_size = (stop - start) // 2
            torch.cuda.empty_cache()  # nothing where there is no GPU
        else:
            raise ModelError(
                "the GPU's memory does not hold a single item: close what else uses it, use "
                "float16, a smaller model, or --device cpu"
            )
    return results, batch_size
