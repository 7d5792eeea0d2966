"""A vision tower whose matrices are laid out once as they are multiplied by, for much to encode.

BLAS lays a matrix out anew for every product, which for the rows of 16 pictures is some 5 % of its
time. Laying out a tower takes the time of half a batch, and the memory of its weights once more.
Where oneDNN leaves MKL behind it multiplies instead, in half the time, and does so for towers too
large to be laid out as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.clip.products import laid_out, leaves_mkl_behind, multiplied
from vtr.clip.towers import QUICK_GELU, Attention, Mlp, Tower, VisionTower

# Of weights: a base model's 340 MB, not a large one's 1.2 GB; nor a toy's, which saves little.
_FEWEST_BYTES, _MOST_BYTES = 2**24, 2**29

Linear = Callable[..., nn.Module]
"""(W, bias or None, factor of W) to a layer."""

_Tower = TypeVar("_Tower", bound=Tower)


class OneDnnLinear(nn.Module):
    """scale * (W x) + bias by oneDNN; laid out where `lays_out`."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, scale: float = 1.0, *, lays_out: bool = True
    ) -> None:
        super().__init__()
        self.bias = bias
        self._used = laid_out(weight.detach() * scale) if lays_out else weight.detach()
        self._scale = 1.0 if lays_out else scale  # else a scaled weight would take its memory again

    def forward(self, values: Tensor) -> Tensor:
        """Returns (..., outputs) from (..., inputs)."""
        if self._scale == 1.0:
            return multiplied(values, self._used, self.bias)
        made = multiplied(values, self._used).mul_(self._scale)
        return made if self.bias is None else made.add_(self.bias)


class PackedLinear(nn.Module):
    """scale * (W x) + bias by MKL, laid out for as many rows as it is first given."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = weight, bias, scale
        self._rows, self._packed = 0, None

    def forward(self, values: Tensor) -> Tensor:
        """Returns (..., outputs) from (..., inputs)."""
        flat = values.reshape(-1, values.shape[-1])
        if not self._rows:
            self._rows, scaled = len(flat), self.weight * self.scale
            self._packed = torch.ops.mkl._mkl_reorder_linear_weight(scaled, self._rows)
        if len(flat) == self._rows:
            made = torch.ops.mkl._mkl_linear(flat, self._packed, self.weight, self.bias, self._rows)
        elif self.bias is None:
            made = functional.linear(flat, self.weight).mul_(self.scale)
        else:
            made = torch.addmm(self.bias, flat, self.weight.t(), alpha=self.scale)
        output: Tensor = made.view(*values.shape[:-1], -1)
        return output


class PackedPatches(nn.Module):
    """A convolution whose strides are its kernel's sides, as a product."""

    def __init__(self, convolution: nn.Conv2d, linear: Linear) -> None:
        super().__init__()
        self._side = convolution.kernel_size[0]
        self._linear = linear(convolution.weight.flatten(1), convolution.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns (B, width, grid, grid) from (B, 3, H, W)."""
        side = self._side
        patches = pixels.unfold(2, side, side).unfold(3, side, side)  # (B, 3, rows, columns, y, x)
        made: Tensor = self._linear(patches.permute(0, 2, 3, 1, 4, 5).flatten(3))
        return made.permute(0, 3, 1, 2)


class Packing:
    """Which tower runs: the one given, or for full batches a copy that is laid out for them.

    It depends on the batch alone, never on how much came before: a run that goes on where another
    was killed gives the same bits.
    """

    def __init__(self, fewest_bytes: int = _FEWEST_BYTES) -> None:
        self._fewest_bytes = fewest_bytes
        self._copy: nn.Module | None = None
        self._versions: list[tuple[int, int]] = []

    def choose(self, visual: nn.Module, *, is_full: bool) -> nn.Module:
        """Returns what embeds the next batch.

        Args:
            visual: The tower, whose weights may have changed since the last call.
            is_full: Whether the batch is of the size of most.
        """
        if not (is_full and isinstance(visual, Tower) and _is_plain(visual, self._fewest_bytes)):
            return visual
        is_small = _num_bytes(visual) <= _MOST_BYTES
        if leaves_mkl_behind():
            linear: Linear = partial(OneDnnLinear, lays_out=is_small)
        elif is_small and torch._C.has_mkl:
            linear = PackedLinear
        else:
            return visual
        versions = [(id(weight), weight._version) for weight in visual.parameters()]
        if self._copy is None or versions != self._versions:
            self._copy, self._versions = packed_tower(visual, linear), versions
        return self._copy


def quickest_text_tower(tower: nn.Module) -> nn.Module:
    """Returns what embeds texts, to be run under `torch.inference_mode`: as it is, or by oneDNN."""
    if leaves_mkl_behind() and isinstance(tower, Tower) and _is_plain(tower, _FEWEST_BYTES):
        return packed_tower(tower, partial(OneDnnLinear, lays_out=False))
    return tower


def packed_tower(tower: _Tower, linear: Linear) -> _Tower:
    """Returns a tower with the weights of another, to be run under `torch.inference_mode`."""
    shared = {id(weight): weight for weight in (*tower.parameters(), *tower.buffers())}
    tower = copy.deepcopy(tower, shared)
    for module in list(tower.modules()):
        if isinstance(module, Attention) and hasattr(module, "in_proj_weight"):
            module.packed = linear(module.in_proj_weight, module.in_proj_bias)
        if isinstance(module, Mlp) and module.activation == "quick_gelu":
            _fold_quick_gelu(module, linear)
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                setattr(module, name, linear(layer.weight, layer.bias))
    if isinstance(tower, VisionTower) and type(patches := tower.patches) is nn.Conv2d:
        tower.patches = PackedPatches(patches, linear)
    return tower


def _is_plain(tower: nn.Module, fewest_bytes: int) -> bool:
    """Whether a tower can be computed in another way, and is large enough for that to save time."""
    return _num_bytes(tower) >= fewest_bytes and all(
        weight.device.type == "cpu" and weight.dtype == torch.float32 and not weight.requires_grad
        for weight in tower.parameters()
    )


def _num_bytes(tower: nn.Module) -> int:
    return sum(weight.nbytes for weight in tower.parameters())


def _fold_quick_gelu(mlp: Mlp, linear: Linear) -> None:
    """Puts the factors of z sigmoid(1.702 z) = silu(1.702 z) / 1.702 into the layers."""
    first, last = mlp.c_fc, mlp.c_proj
    if type(first) is nn.Linear and type(last) is nn.Linear:
        widening = linear(first.weight, first.bias * QUICK_GELU, QUICK_GELU)
        narrowing = linear(last.weight, last.bias, 1 / QUICK_GELU)
        for name, layer in {"c_fc": widening, "c_proj": narrowing}.items():
            setattr(mlp, name, layer)
        mlp.activation = "silu"
