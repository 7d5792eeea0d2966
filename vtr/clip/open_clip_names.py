"""What open_clip's files call the weights of our towers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from vtr.clip.encoders import DualEncoder

FROM_TIMM = ("pe", "eva", "siglip")
"""Families whose picture tower open_clip takes from timm."""
_ROOTED = ("clip", "clipa")
_TEXT = {
    "blocks.": "transformer.resblocks.",
    "positions": "positional_embedding",
    "class_embedding": "cls_emb",
    "projection.": "text_projection.",
}
_NATIVE = {
    "blocks.": "transformer.resblocks.",
    "patches.": "conv1.",
    "positions": "positional_embedding",
    "projection.weight": "proj",
}
_TIMM = {
    "patches.": "patch_embed.proj.",
    "positions": "pos_embed",
    "class_embedding": "cls_token",
    "ln_pre.": "norm_pre.",
    "ln_post.": "norm.",
    "projection.": "head.",
    "attention_pool.probe": "attn_pool.latent",
    "attention_pool.attention.out_proj.": "attn_pool.proj.",
    "attention_pool.attention.": "attn_pool.",
    "attention_pool.layernorm.": "attn_pool.norm.",
    "attention_pool.": "attn_pool.",
}
_TIMM_PARTS = {
    ".attn.in_proj_": ".attn.qkv.",
    ".out_proj.": ".proj.",
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}


def open_clip_state(network: DualEncoder, *, text: str | None = None) -> dict[str, Tensor]:
    """Returns the weights under the names of open_clip's files, as views: writing one loads it.

    `text` is what the names of the text tower begin with where a file has it otherwise.
    """
    timm = network.family in FROM_TIMM
    if text is None:
        text = "" if network.family in _ROOTED else "text."
    state: dict[str, Tensor] = {}
    # CLIP multiplies by a matrix from the right, SigLIP has a linear map.
    linear = network.text.projection.bias is not None
    for ours, tensor in network.state_dict().items():
        tower, _, name = ours.partition(".")
        if tower == "text":
            theirs = renamed(name, _TEXT)
            turned = theirs == "text_projection.weight" and not linear
            state[text + (theirs.removesuffix(".weight") if turned else theirs)] = (
                tensor.T if turned else tensor
            )
        elif tower == "visual" and timm:
            state |= {f"visual.trunk.{n}": view for n, view in _timm_views(name, tensor).items()}
        elif tower == "visual":
            theirs = renamed(name, _NATIVE)
            state[f"visual.{theirs}"] = tensor.T if theirs == "proj" else tensor
        else:
            state[ours] = tensor
    return state


def renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """Returns a name with another beginning, by the first that it has; else as it is."""
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _timm_views(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Returns one of our weights under timm's names; its pool keeps the query apart."""
    before, packed, kind = name.partition("attention_pool.attention.in_proj_")
    if packed and not before:
        dim = len(tensor) // 3
        return {f"attn_pool.q.{kind}": tensor[:dim], f"attn_pool.kv.{kind}": tensor[dim:]}
    if name == "positions":
        tensor = tensor[None]
    elif name == "class_embedding":
        tensor = tensor[None, None]
    theirs = renamed(name, _TIMM)
    for part, other in _TIMM_PARTS.items():
        theirs = theirs.replace(part, other)
    return {theirs: tensor}
