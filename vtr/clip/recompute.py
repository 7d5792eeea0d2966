"""Blocks whose inputs alone are kept for the backward pass (Chen et al. 2016, arXiv:1604.06174)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def run_block(block: nn.Module, tokens: Tensor, *, checkpointing: bool, **how: Any) -> Tensor:
    """Returns what a block makes of tokens (B, K, D); `how` is as `Block.forward` takes it.

    With `checkpointing` only the tokens are kept for the backward pass, which runs the block again.
    """
    if not (checkpointing and torch.is_grad_enabled()):
        output: Tensor = block(tokens, **how)
        return output
    from torch.utils.checkpoint import checkpoint

    again: Tensor = checkpoint(block, tokens, use_reentrant=False, preserve_rng_state=False, **how)
    return again
