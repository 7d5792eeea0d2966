"""Updates of low rank of both towers (LoRA, Hu et al. 2021, arXiv:2106.09685), by peft.

Query and value of every trained block get W + B A, with A (R, D) drawn and B (D, R) zero; W and all
else of the towers stays as it is. A run's towers hold the sums.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vtr.clip.towers import Attention
from vtr.extras import require_extra

_TARGETS = ("q_proj", "v_proj")
_LETTERS = "qkv"


def require_peft() -> Any:
    """Returns peft; called before a run begins, so that none is left half begun."""
    require_extra("lora", ["peft"], "--lora", needs="the package peft")
    import peft

    return peft


def adapt(tower: nn.Module, rank: int, *, seed: int) -> None:
    """Freezes a tower and gives its blocks updates of a rank, the same for the same seed."""
    peft = require_peft()
    tower.requires_grad_(False)
    found = [module for module in tower.modules() if isinstance(module, Attention)]
    if not found:  # every block is frozen
        return
    for module in found:
        module.unpack()
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_TARGETS))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        peft.inject_adapter_in_model(config, tower)


def merged_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of an adapted tower as those of a plain one."""
    merged: dict[str, Tensor] = {}
    for name, value in state.items():
        owner, _, part = name.rpartition(".k_proj.")
        if owner:
            whole = [_whole(state, f"{owner}.{letter}_proj", part) for letter in _LETTERS]
            merged[f"{owner}.in_proj_{part}"] = torch.cat(whole)
        elif not any(f".{letter}_proj." in name for letter in _LETTERS):
            merged[name] = value
    return merged


def renumbered(state: Mapping[str, Tensor], by: int) -> dict[str, Tensor]:
    """Returns weights by name with other numbers of blocks."""
    return {
        re.sub(r"^blocks\.(\d+)", lambda found: f"blocks.{int(found[1]) + by}", name): value
        for name, value in state.items()
    }


def _whole(state: Mapping[str, Tensor], owner: str, part: str) -> Tensor:
    """Returns weight or bias of a projection, its update added."""
    if f"{owner}.{part}" in state:
        return state[f"{owner}.{part}"]
    value = state[f"{owner}.base_layer.{part}"]
    if part == "bias":
        return value
    return value + state[f"{owner}.lora_B.default.weight"] @ state[f"{owner}.lora_A.default.weight"]
