"""What heads take from a backbone's CLIP: text layers, positions, a projection, the logit scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtr.clip.backbone import Backbone


@dataclass(frozen=True)
class ClipText:
    """Weights that heads start from, float32 on the CPU, under OpenAI's names."""

    positional_embedding: Tensor  # (77, D) the text tower's table of positions; D is its width
    # The text layers in order: attn.in_proj_weight (3D, D), attn.in_proj_bias,
    # attn.out_proj.weight, attn.out_proj.bias, ln_1.weight, ln_1.bias, mlp.c_fc.weight (4D, D),
    # mlp.c_fc.bias, mlp.c_proj.weight (D, 4D), mlp.c_proj.bias, ln_2.weight, ln_2.bias.
    blocks: Sequence[Mapping[str, Tensor]]
    visual_projection: Tensor  # (vision width, embedding dim)
    logit_scale: float  # Natural logarithm of the scale (CLIP: ln 100)

    @property
    def dim(self) -> int:
        """D, the width of the text tower."""
        return self.positional_embedding.shape[1]


def clip_text(backbone: Backbone) -> ClipText | None:
    """Returns what heads start from, or None where the text tower is not CLIP's."""
    if backbone.family != "clip":
        return None
    model = backbone.model
    return ClipText(
        positional_embedding=_own(model.text.positions),
        blocks=[
            {name: _own(value) for name, value in block.state_dict().items()}
            for block in model.text.blocks
        ],
        visual_projection=_own(model.visual.projection.weight.T),
        logit_scale=backbone.logit_scale,
    )


def _own(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float32, copy=True)
