"""EVA-CLIP's vision towers, with timm's names in a block.

B and L (EVA02): queries and keys turned by place, a norm inside the attention and the MLP, and

    mlp(x) = fc2(LN(silu(fc1_g x) * fc1_x x)).

E: no rotations, GELU, and the norms behind: x <- x + norm1(attn(x)), x <- x + norm2(mlp(x)).

Sources: Sun et al. 2023 (arXiv:2303.15389); timm 1.0.31 eva.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.clip.open_clip_towers import RopeVision
from vtr.clip.towers import ACTIVATIONS, Architecture, Sizes, turn


class EvaAttention(nn.Module):
    """Keys have no bias."""

    def __init__(self, sizes: Sizes, *, split: bool) -> None:
        super().__init__()
        width = sizes.width
        self.num_heads, self.split = sizes.heads, split
        if split:
            self.q_proj = nn.Linear(width, width)
            self.k_proj = nn.Linear(width, width, bias=False)
            self.v_proj = nn.Linear(width, width)
            self.norm: nn.Module = nn.LayerNorm(width, eps=sizes.epsilon)
        else:
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.q_bias = nn.Parameter(torch.empty(width))
            self.v_bias = nn.Parameter(torch.empty(width))
            self.norm = nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, rope: Tensor | None = None) -> Tensor:
        """Returns (B, K, width) from the same."""
        if self.split:
            parts = [self.q_proj(tokens), self.k_proj(tokens), self.v_proj(tokens)]
        else:
            query, key, value = self.qkv(tokens).chunk(3, dim=-1)
            parts = [query + self.q_bias, key, value + self.v_bias]
        shape = (*tokens.shape[:2], self.num_heads, -1)
        query, key, value = (part.reshape(shape).transpose(1, 2) for part in parts)
        if rope is not None:
            query, key = turn(query, rope), turn(key, rope)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(self.norm(mixed.transpose(1, 2).flatten(2)))
        return projected


class EvaMlp(nn.Module):
    """Gated with a norm, or plain."""

    def __init__(self, sizes: Sizes, *, gated: bool) -> None:
        super().__init__()
        width, hidden = sizes.width, sizes.mlp_width
        self.gated, self.activation = gated, ACTIVATIONS[sizes.activation]
        if gated:
            self.fc1_g, self.fc1_x = nn.Linear(width, hidden), nn.Linear(width, hidden)
            self.norm = nn.LayerNorm(hidden, eps=sizes.epsilon)
        else:
            self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the same shape."""
        if self.gated:
            hidden = self.norm(functional.silu(self.fc1_g(tokens)) * self.fc1_x(tokens))
        else:
            hidden = self.activation(self.fc1(tokens))
        output: Tensor = self.fc2(hidden)
        return output


class EvaBlock(nn.Module):
    """One layer; see the module."""

    def __init__(self, sizes: Sizes, *, behind: bool) -> None:
        super().__init__()
        self.behind = behind
        self.norm1 = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.attn = EvaAttention(sizes, split=not behind)
        self.norm2 = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.mlp = EvaMlp(sizes, gated=not behind)

    def forward(
        self,
        tokens: Tensor,
        *,
        causal: bool = False,
        num_outputs: int | None = None,
        rope: Tensor | None = None,
    ) -> Tensor:
        """Returns (B, K, width); all tokens, whatever is wanted of them."""
        if self.behind:
            tokens = tokens + self.norm1(self.attn(tokens, rope))
            output: Tensor = tokens + self.norm2(self.mlp(tokens))
        else:
            tokens = tokens + self.attn(self.norm1(tokens), rope)
            output = tokens + self.mlp(self.norm2(tokens))
        return output


class EvaVision(RopeVision):
    """No norm before the blocks; the class token is read, and its blocks make all tokens."""

    patch_bias = True
    num_outputs = None

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        super().__init__(architecture, temporal=temporal)
        sizes = architecture.vision
        self.ln_pre = nn.Identity()
        # The kind with rotations is the one with everything else that is new.
        behind = architecture.rope is None
        self.blocks = nn.ModuleList(EvaBlock(sizes, behind=behind) for _ in range(sizes.layers))
