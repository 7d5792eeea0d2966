"""Products with one matrix over and over on a CPU: by oneDNN, with the matrix laid out once for it.

torch multiplies float32 by MKL. oneDNN is part of torch as well, has kernels of its own for AMD's
processors, and gives equal rows and columns equal scores to the last bit where MKL does so for most
shapes alone (seen with torch 2.13 for 16 to 1,024 rows, 2 to 2,990 columns).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor


def has_onednn() -> bool:
    """Whether torch was built with oneDNN."""
    is_built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_built


@cache
def leaves_mkl_behind() -> bool:
    """Whether this processor has instructions that oneDNN uses and MKL does not: AMD's AVX-512.

    Measured on an EPYC, one thread: 1,024 x 512 times 512 x 2,990 in 12.7 ms, by MKL in 29.3 ms.
    """
    if not has_onednn() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def laid_out(matrix: Tensor) -> Tensor:
    """Returns a float32 matrix (N, D) as `multiplied` takes it; it takes as much memory again."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix)
    return packed


def multiplied(values: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns values matrix' + bias (..., N) by oneDNN, without a gradient.

    Args:
        values: (..., D) float32.
        matrix: (N, D) float32, as it is or from `laid_out`, which saves a twentieth of the time.
        bias: (N,) float32.
    """
    made: Tensor = torch.ops.mkldnn._linear_pointwise(values, matrix, bias, "none", [], "")
    return made
