"""Several processes training one model (torchrun): each encodes its share of every batch.

The codes of all shares are gathered, every process computes the loss of the whole batch, and

    gradient of a parameter = sum over processes of d(loss / processes) / d(parameter)

holds for parameters before the gathering (each process sees only its share of the codes) and after
it (each sees the whole batch, a share of the loss). CLIP4Clip averages where it ought to add, which
divides the gradients before its gathering by the number of processes (specs: clip4clip.md §1.6).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vtr.errors import ConfigError, WorkersLostError
from vtr.foreign import shown
from vtr.train.heads.base import Code
from vtr.train.memory import is_out_of_memory


@contextmanager
def _talking() -> Iterator[None]:
    """Says of what torch tells where another process is gone whose fault it is not."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise WorkersLostError(
            f"another of the processes that train together has ended ({shown(error, 120)}): what "
            "it printed says why. What was published is kept; once that is mended, go on with the "
            "same command and --resume"
        ) from None


@dataclass(frozen=True)
class World:
    """The processes that train together."""

    rank: int = 0  # Which one this is
    size: int = 1  # How many there are

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def gather_code(self, code: Code, sizes: Sequence[int]) -> Code:
        """Returns the codes of all processes, in their order, without gradients."""
        return tuple(self._gather(part.detach(), sizes) for part in code)

    def _gather(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        if self.size == 1:
            return part
        # bool does not travel everywhere, and every share must have the same shape.
        sent = part.new_zeros((max(sizes), *part.shape[1:]))
        sent[: len(part)] = part
        sent = sent.to(torch.uint8) if part.dtype == torch.bool else sent
        received = [torch.empty_like(sent) for _ in range(self.size)]
        with _talking():
            dist.all_gather(received, sent.contiguous())
        whole = torch.cat([r[:n] for r, n in zip(received, sizes, strict=True)])
        return whole.to(part.dtype)

    def add(self, tensor: Tensor) -> Tensor:
        """Returns the sum over all processes, in place."""
        if self.size > 1:
            with _talking():
                dist.all_reduce(tensor)
        return tensor

    def add_gradients(self, model: nn.Module) -> None:
        """Adds up the gradients of all processes; where one has none it counts as zero."""
        if self.size == 1:
            return
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self.add(parameter.grad)

    def share(self, values: list[float]) -> list[float]:
        """Returns the first process's numbers."""
        if self.size == 1:
            return values
        box: list[list[float] | None] = [values if self.is_first else None]
        with _talking():
            dist.broadcast_object_list(box, src=0)
        received = box[0]
        assert received is not None
        return received

    def wait(self) -> None:
        """Returns once all processes are here."""
        if self.size > 1:
            with _talking():
                dist.barrier()


ALONE = World()


def torch_device(name: str) -> str:
    """Returns the device; under torchrun each process's own GPU."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "cpu" if name == "auto" else name


@contextmanager
def joined_processes(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun started, within the block; alone where it did not.

    Raises:
        ConfigError: The environment names no such process, or they cannot find each other.
    """
    size, rank = (
        os.environ.get(name, usual) for name, usual in (("WORLD_SIZE", "1"), ("RANK", "0"))
    )
    if size == "1":
        yield ALONE
        return
    try:
        if not dist.is_initialized():
            if not 0 <= int(rank) < int(size):  # torch would wait for half an hour
                raise ValueError(f"RANK is {rank}, and must be below that")
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but the processes cannot find each other: {error}. Start "
            "with: torchrun --nproc-per-node N -m vtr train ..."
        ) from None
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
