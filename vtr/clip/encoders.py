"""Two towers into one space: which family is built of what, and what its files call the weights.

A folder's reader (`configuration`, `open_clip`) says which `Architecture` it holds; `KINDS` says
what is built for its family.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from vtr.clip.eva import EvaVision
from vtr.clip.open_clip_names import open_clip_state, renamed
from vtr.clip.open_clip_towers import (
    ClassTokenText,
    LastTokenText,
    MeanVision,
    PerceptionVision,
    QueryVision,
)
from vtr.clip.towers import Architecture, MetaClipText, SiglipVision, TextTower, VisionTower


class DualEncoder(nn.Module):
    """Two towers into one space, and the scale of their cosines."""

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        super().__init__()
        kind = KINDS[architecture.family]
        self.family = architecture.family
        self.visual = kind.vision(architecture, temporal=temporal)
        self.text = kind.text(architecture)
        self.logit_scale = nn.Parameter(torch.empty(1 if kind.biased else ()))
        if kind.biased:
            self.logit_bias = nn.Parameter(torch.empty(1))

    def named_weights(self) -> dict[str, Tensor]:
        """Returns the weights under the names they are known by, as views; see `Kind.state`."""
        return KINDS[self.family].state(self)


class undrawn(TorchFunctionMode):
    """Leaves out the first random draw of weights that are read from files right after.

    Without memory to draw into, torch would also load its symbolic algebra: a second of CPU.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        of_init = getattr(func, "__module__", None) == init.__name__
        draws = func in (Tensor.uniform_, Tensor.normal_) or (
            of_init and func.__name__.endswith("_")
        )
        named = kwargs or {}
        drawn = args[0] if args else named.get("tensor")
        return drawn if draws and drawn is not None else func(*args, **named)


def blank_encoder(architecture: Architecture, *, temporal: bool) -> DualEncoder:
    """Returns a dual encoder whose parameters have names and shapes, and no memory."""
    with torch.device("meta"), undrawn():
        return DualEncoder(architecture, temporal=temporal)


_PREFIXES = {
    "visual.blocks.": "vision_model.encoder.layers.",
    "visual.patches.": "vision_model.embeddings.patch_embedding.",
    "visual.positions": "vision_model.embeddings.position_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.attention_pool.": "vision_model.head.",
    "visual.projection.": "visual_projection.",
    "text.blocks.": "text_model.encoder.layers.",
    "text.token_embedding.": "text_model.embeddings.token_embedding.",
    "text.positions": "text_model.embeddings.position_embedding.weight",
    "text.ln_final.": "text_model.final_layer_norm.",
    "text.projection.": "text_projection.",
}
_PARTS = {
    ".attn.": ".self_attn.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".c_fc.": ".fc1.",
    ".c_proj.": ".fc2.",
}


def huggingface_state(network: DualEncoder) -> dict[str, Tensor]:
    """Returns the weights under the names of a Hugging Face folder, as views: writing one loads it.

    There query, key and value are matrices of their own; here they are thirds of one.
    """
    return huggingface_names(network.state_dict(), causal=network.text.causal)


def huggingface_names(weights: Mapping[str, Tensor], *, causal: bool) -> dict[str, Tensor]:
    """Returns weights ("text.", "visual.") as `huggingface_state` does; SigLIP is not causal."""
    state: dict[str, Tensor] = {}
    for ours, tensor in weights.items():
        name = renamed(ours, _PREFIXES)
        if name.startswith("text_projection.") and not causal:
            name = f"text_model.head.{name.removeprefix('text_projection.')}"
        for part, theirs in _PARTS.items():
            name = name.replace(part, theirs)
        before, packed, kind = name.partition("self_attn.in_proj_")
        if packed:
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                state[f"{before}self_attn.{letter}_proj.{kind}"] = third
        else:
            state[name] = tensor
    return state


@dataclass(frozen=True)
class Kind:
    """How one family is built."""

    vision: Callable[..., VisionTower]  # Of an architecture, and `temporal`
    text: Callable[[Architecture], TextTower]
    # A network's weights under the names by which its digest is taken and its folder is written.
    state: Callable[[DualEncoder], dict[str, Tensor]]
    biased: bool = False  # Whether a bias is added to the scaled cosines


KINDS: Mapping[str, Kind] = {
    "clip": Kind(VisionTower, TextTower, huggingface_state),
    "pe": Kind(PerceptionVision, TextTower, open_clip_state),
    "eva": Kind(EvaVision, TextTower, open_clip_state),
    "clipa": Kind(MeanVision, LastTokenText, open_clip_state),
    "coca": Kind(QueryVision, ClassTokenText, open_clip_state),
    "metaclip_2": Kind(VisionTower, MetaClipText, huggingface_state),
    "siglip": Kind(SiglipVision, TextTower, huggingface_state, biased=True),
}


@dataclass
class Contents:
    """What was found in a folder: all that is needed to build its network and to fill it."""

    architecture: Architecture
    family: str  # Whose text rules apply
    weights: dict[str, Tensor]  # By the names of `state`
    state: Callable[[DualEncoder], dict[str, Tensor]]  # Where each weight goes, as views
    source: str  # The file that the sizes come from
    temporal: bool = False  # See `vtr.clip.temporal`
