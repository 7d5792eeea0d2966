"""Towers of Perception Encoder, CLIPA and CoCa: CLIP's blocks, read and pooled in other ways.

Sources: Bolya et al. 2025 (arXiv:2504.13181); Li et al. 2023 (arXiv:2305.07017); Yu et al. 2022
(arXiv:2205.01917); open_clip 3.3.0 transformer.py and coca_model.py, timm 1.0.31 eva.py.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.clip.recompute import run_block
from vtr.clip.towers import Architecture, AttentionPool, TextTower, VisionTower


class RopeVision(VisionTower):
    """A tower whose blocks may turn queries and keys by the patches' places."""

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        super().__init__(architecture, temporal=temporal)
        self.rope, self.grid = architecture.rope, self.image_size // architecture.patch
        self.projection = nn.Linear(self.sizes.width, architecture.dim)

    @property
    def settings(self) -> dict[str, Any]:
        """As of any tower, and how angles are made of places."""
        return super().settings | ({"rope": asdict(self.rope)} if self.rope else {})

    def block_options(self, tokens: Tensor) -> dict[str, Tensor]:
        """Returns the table of angles."""
        if self.rope is None:
            return {}
        table = self.rope.table(self.grid, self.sizes.width // self.sizes.heads)
        return {"rope": table.to(tokens.device)}


class PerceptionVision(RopeVision):
    """Perception Encoder's: rotations in every block, pooled by attention over all tokens."""

    num_outputs = None

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        self.has_class_token = architecture.class_token
        super().__init__(architecture, temporal=temporal)
        sizes = architecture.vision
        pool = replace(sizes, heads=architecture.pool_heads, mlp_width=4 * sizes.width)
        self.attention_pool = AttentionPool(pool)

    def pool(self, tokens: Tensor) -> Tensor:
        """Returns (B, D) from what the last block gave."""
        embedding: Tensor = self.projection(self.attention_pool(self.ln_post(tokens)))
        return embedding


class MeanVision(VisionTower):
    """CLIPA's: no norm before the blocks; the mean of the patches, then the norm."""

    num_outputs = None

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        super().__init__(architecture, temporal=temporal)
        self.ln_pre = nn.Identity()

    def pool(self, tokens: Tensor) -> Tensor:
        """Returns (B, D); the class token is not in the mean."""
        embedding: Tensor = self.projection(self.ln_post(tokens[:, 1:].mean(dim=1)))
        return embedding


class LastTokenText(TextTower):
    """CLIPA's: every token sees all, padding too, and the last position is read."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.causal = self.clips = False


class QueryPool(nn.Module):
    """CoCa's: learned queries over all tokens; the first one's answer is the picture."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        dim, width = architecture.dim, architecture.vision.width
        self.query = nn.Parameter(torch.empty(architecture.pool_queries, dim))
        self.attn = nn.MultiheadAttention(
            dim, architecture.pool_heads, kdim=width, vdim=width, batch_first=True
        )
        epsilon = architecture.vision.epsilon
        self.ln_q, self.ln_k = nn.LayerNorm(dim, eps=epsilon), nn.LayerNorm(width, eps=epsilon)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns (B, D) from (B, K, width)."""
        keys = self.ln_k(tokens)
        # The other queries are for CoCa's captions; none of them sees another.
        query = self.ln_q(self.query[:1]).expand(tokens.shape[0], -1, -1)
        mixed: Tensor = self.attn(query, keys, keys, need_weights=False)[0]
        return mixed[:, 0]


class QueryVision(VisionTower):
    """CoCa's."""

    num_outputs = None

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        super().__init__(architecture, temporal=temporal)
        dim = architecture.dim
        self.attn_pool = QueryPool(architecture)
        self.ln_post = nn.LayerNorm(dim, eps=self.sizes.epsilon)
        self.projection = nn.Linear(dim, dim, bias=False)

    def pool(self, tokens: Tensor) -> Tensor:
        """Returns (B, D) from what the last block gave."""
        embedding: Tensor = self.projection(self.ln_post(self.attn_pool(tokens)))
        return embedding


class ClassTokenText(TextTower):
    """CoCa's: a class token behind the text is read."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.clips = False
        width = self.sizes.width
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(architecture.context + 1, width))

    def forward(self, ids: Tensor) -> Tensor:
        """Returns (B, D), not normalised, from (B, L) int64 ids padded with 0 to the full L."""
        hidden, bias = self.embed(ids), self._mask(ids)
        for block in self.blocks:
            hidden = run_block(block, hidden, checkpointing=self.checkpointing, bias=bias)
        return self.project(hidden[:, -1])

    def embed(self, ids: Tensor) -> Tensor:
        """Returns (B, L + 1, width): what block 0 receives."""
        if ids.shape[1] + 1 != len(self.positions):
            raise ValueError(f"texts of {ids.shape[1]} tokens, need {len(self.positions) - 1}")
        last = self.class_embedding.expand(ids.shape[0], 1, -1)
        tokens: Tensor = torch.cat([self.token_embedding(ids), last], dim=1) + self.positions
        return tokens

    def _mask(self, ids: Tensor) -> Tensor:
        """Returns (B, 1, L + 1, L + 1): 0 where a token may look, else -inf.

        Tokens look back only. What the class token does not see is shifted by one in the published
        models: a key is hidden from it where the id *before* it is padding.
        """
        places = torch.arange(len(self.positions), device=ids.device)
        shifted = functional.pad(ids != 0, (1, 0), value=True)
        others = (places < len(self.positions) - 1)[:, None]
        seen = (places <= places[:, None]) & (shifted[:, None] | others)
        return torch.where(seen, 0.0, -torch.inf)[:, None]
