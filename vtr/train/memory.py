"""How much memory is free, and how much a step of training takes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from vtr.errors import ModelError
from vtr.train.model import RetrievalModel
from vtr.train.vision_tower import PictureBatch

SHARE = 0.5
"""Of the memory that is free, how much pictures may take: gradients, states, codes and what else
runs come on top."""


def free_bytes(device: torch.device) -> int:
    """Returns the bytes that a device can still give; on a CPU within the limits of its group."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)
    found = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            found = [int(line.split()[1]) * 1024]
    group = Path("/sys/fs/cgroup")
    limit, used = (_lines(group / name) for name in ("memory.max", "memory.current"))
    if limit and used and limit[0].isdecimal():
        found.append(int(limit[0]) - int(used[0]))
    return max(0, min(found))


def fits(num_bytes: int, device: torch.device) -> bool:
    """Returns whether pictures may stay on a device, or in the memory of the machine."""
    return num_bytes <= SHARE * free_bytes(device)


_NO_MEMORY = ("can't allocate memory", "could not create a primitive", "could not create a memory")
"""What torch and oneDNN say where the system refuses memory."""


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Returns whether torch says that memory, of a GPU or of the machine, did not suffice."""
    told = any(text in str(error) for text in _NO_MEMORY)
    return told or isinstance(error, torch.OutOfMemoryError | MemoryError)


class ShortOfMemoryError(ModelError):
    """Memory, of a GPU or of the machine, does not hold what was to be computed."""


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Says of what memory does not hold what it was, and what needs less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ShortOfMemoryError(
            f"memory does not hold {what}: take features of fewer frames, or on a GPU --device cpu"
        ) from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def saved_bytes(model: RetrievalModel, batch: PictureBatch) -> int:
    """Returns what the backward pass of a batch keeps, weights aside; runs its forward pass."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # its memory is not given to another meanwhile
        return tensor

    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.embed_videos(batch)
    return sum(count for place, count in seen.items() if place not in weights)


def fitting_videos(model: RetrievalModel, batch: PictureBatch) -> int:
    """Returns how many videos like those of a batch fit into the memory that is free.

    A power of two: the same on another day, though a little more or less is free.
    """
    each = saved_bytes(model, batch) / len(batch)
    fits = max(1, int(SHARE * free_bytes(batch.rows.device) / max(each, 1)))
    return 1 << (fits.bit_length() - 1)
