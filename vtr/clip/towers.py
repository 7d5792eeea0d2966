"""Dual encoders in plain torch: the vision and text transformers of CLIP, SigLIP and SigLIP 2.

A tower is an embedding, a stack of pre-norm blocks and a pooling:

    x <- x + MHA(LN(x))
    x <- x + c_proj(act(c_fc(LN(x))))

CLIP's vision tower puts a class token in front and reads it, its text tower is causal and reads
the first end token; SigLIP's have neither class token nor mask, and pool by attention and at the
last position. `Tower.run` starts and stops at any block. Names within a block are OpenAI's, so
that CLIP's layers go straight into heads and back; `vtr.clip.encoders` puts two towers together.

Sources: openai/CLIP clip/model.py; google-research/big_vision models/proj/image_text and
models/vit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.clip.recompute import run_block
from vtr.clip.temporal import TemporalPatches

QUICK_GELU = 1.702
_LEGACY_END = 2  # of configurations before transformers #24773


def quick_gelu(values: Tensor) -> Tensor:
    """Returns z * sigmoid(1.702 z)."""
    # silu(z) = z * sigmoid(z) is one kernel each way, the product written out is five.
    return functional.silu(values * QUICK_GELU).mul_(1 / QUICK_GELU)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
}
# The same, writing over a tensor that nobody needs: a tenth of a block's time on a CPU goes into
# fresh memory for the widest tensor there is.
_OVERWRITING: Mapping[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": lambda z: functional.silu(z.mul_(QUICK_GELU), inplace=True).mul_(1 / QUICK_GELU),
    "gelu": torch.ops.aten.gelu_,
    "gelu_pytorch_tanh": partial(torch.ops.aten.gelu_, approximate="tanh"),
    "silu": partial(functional.silu, inplace=True),  # of `vtr.clip.packed`
}


def _is_bare(values: Tensor, *layers: nn.Module) -> bool:
    """Whether layers are matrices on a CPU that nothing is differentiated, cast or traced through.

    BLAS then scales and adds while it multiplies; in half precision it would round more. Elsewhere
    modules are called as modules: an exporter or a compiler fuses by itself, and methods that adapt
    layers put others in their place.
    """
    return (
        values.device.type == "cpu"
        and values.dtype.itemsize >= 4
        and all(type(layer) is nn.Linear for layer in layers)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and not torch.is_autocast_enabled("cpu")
        and not _trains(values, *(part for layer in layers for part in layer.parameters()))
    )


def _trains(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _add_layer(layer: nn.Module, values: Tensor, onto: Tensor | None, scale: float = 1.0) -> Tensor:
    """Returns onto + scale * W values + b, in fresh memory; a scale is for bare layers alone."""
    alike = onto is not None and onto.dtype == values.dtype and not _trains(onto)
    if onto is not None and alike and _is_bare(values, layer):
        weight, bias = (layer.get_parameter(name) for name in ("weight", "bias"))
        summed = (onto + bias).contiguous()
        flat = summed.view(-1, summed.shape[-1])
        torch.addmm(flat, values.flatten(0, -2), weight.t(), alpha=scale, out=flat)
        return summed
    made: Tensor = layer(values if scale == 1.0 else values * scale)
    if onto is None:
        return made
    # Over what was made where nothing else needs that: fresh memory takes time.
    needed = made.requires_grad or made.dtype != onto.dtype
    return onto + made if needed else made.add_(onto)


@dataclass(frozen=True)
class Sizes:
    """A stack of blocks; all that its weights do not tell, too."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    """A key of `ACTIVATIONS`."""
    epsilon: float
    """Of the layer norms."""


@dataclass(frozen=True)
class Rope:
    """Positions as rotations of queries and keys, by row and column of a patch (arXiv:2104.09864).

    Neighbouring channels are a pair. One half of the pairs turns by the column, the other by the
    row; an angle is ((index + offset) / grid * reference) * 10000^(-i / (C / 4)).
    """

    reference: int
    """Side of the grid at which angles are whole positions."""
    offset: int = 0
    columns_first: bool = False
    """Whether the first half of the pairs turns by the column."""

    def table(self, grid: int, channels: int) -> Tensor:
        """Returns (grid ** 2, 2 channels) float32: sines, then cosines, of each channel of a head.

        Patches come row by row.
        """
        places = (torch.arange(grid, dtype=torch.float32) + self.offset) / grid * self.reference
        rates = 10000.0 ** (-torch.arange(channels // 4, dtype=torch.float32) / (channels // 4))
        angles = places[:, None] * rates
        rows, columns = angles.repeat_interleave(grid, 0), angles.repeat(grid, 1)
        halves = (columns, rows) if self.columns_first else (rows, columns)
        both = torch.cat(halves, dim=1).repeat_interleave(2, 1)
        return torch.cat([both.sin(), both.cos()], dim=1)


@dataclass(frozen=True)
class Architecture:
    """What a folder's config.json says of a dual encoder."""

    family: str
    """A key of `vtr.clip.encoders.KINDS` or `vtr.clip.families.FAMILIES`."""
    vision: Sizes
    text: Sizes
    dim: int
    """D of the shared space."""
    image_size: int
    patch: int
    vocabulary: int
    context: int
    """Positions of a text."""
    end_id: int
    """Where CLIP reads a text: the first such token; 2 means the largest id."""
    class_token: bool = True
    """Whether there is one; read where a family has both kinds."""
    rope: Rope | None = None
    pool_heads: int = 0
    """Of an attention pool that has another number than its blocks."""
    pool_queries: int = 0
    """Of CoCa's pool, of which retrieval needs the first."""
    pad_id: int | None = None
    """Of a text tower that does not look at padding."""


def turn(vectors: Tensor, rope: Tensor) -> Tensor:
    """Returns vectors (B, H, K, C) turned by a table (N, 2 C); tokens before the last N stay."""
    sines, cosines = rope.to(vectors.dtype).chunk(2, dim=-1)
    still = vectors.shape[-2] - len(rope)
    first, patches = vectors[..., :still, :], vectors[..., still:, :]
    pairs = patches.reshape(*patches.shape[:-1], -1, 2)
    across = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return torch.cat([first, patches * cosines + across * sines], dim=-2)


class Attention(nn.Module):
    """Multi-head attention with packed projections, named as in nn.MultiheadAttention."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        self.packed: nn.Module | None = None  # what multiplies in place of in_proj_weight
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self,
        tokens: Tensor,
        *,
        queries: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
        rope: Tensor | None = None,
        onto: Tensor | None = None,
    ) -> Tensor:
        """Returns (B, Q, D): for each query (B, Q, D), by default each token, a mix of tokens.

        A bias is added to the scores, broadcast against (B, heads, Q, K). It gets the query's type:
        the product with another is silently wrong (seen with torch 2.13 in float64). `rope` is what
        `Rope.table` gives; what comes out is added to `onto`.
        """
        query, key, value = map(self._split, self._project(tokens, queries))
        if rope is not None:
            query, key = turn(query, rope), turn(key, rope)
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if bias is None else bias.to(query.dtype),
            is_causal=causal,
        )
        return _add_layer(self.out_proj, mixed.transpose(1, 2).flatten(2), onto)

    def _project(self, tokens: Tensor, queries: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if hasattr(self, "q_proj"):
            given = (tokens if queries is None else queries, tokens, tokens)
            parts = (self.get_submodule(f"{letter}_proj") for letter in "qkv")
            query, key, value = (part(x) for part, x in zip(parts, given, strict=True))
            return query, key, value
        weight, offset, dim = self.in_proj_weight, self.in_proj_bias, tokens.shape[-1]
        if queries is None:
            made = self.packed(tokens) if self.packed else functional.linear(tokens, weight, offset)
            query, key, value = made.chunk(3, dim=-1)
            return query, key, value
        query = functional.linear(queries, weight[:dim], offset[:dim])
        key, value = functional.linear(tokens, weight[dim:], offset[dim:]).chunk(2, dim=-1)
        return query, key, value

    def unpack(self) -> None:
        """Makes q_proj, k_proj and v_proj modules of their own, for methods that adapt each."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        for letter, weight, bias in zip("qkv", weights, biases, strict=True):
            linear = nn.Linear(len(bias), len(bias)).to(weight)
            linear.load_state_dict({"weight": weight, "bias": bias})
            linear.requires_grad_(self.in_proj_weight.requires_grad)
            setattr(self, f"{letter}_proj", linear)
        del self.in_proj_weight, self.in_proj_bias

    def _split(self, vectors: Tensor) -> Tensor:
        width = vectors.shape[-1] // self.num_heads
        return vectors.view(*vectors.shape[:2], self.num_heads, width).transpose(1, 2)


class Mlp(nn.Module):
    """D -> width -> D."""

    def __init__(self, dim: int, width: int, activation: str) -> None:
        super().__init__()
        self.c_fc = nn.Linear(dim, width)
        self.c_proj = nn.Linear(width, dim)
        self.activation = activation

    def forward(self, tokens: Tensor, onto: Tensor | None = None) -> Tensor:
        """Returns the same shape, added to `onto`."""
        if self.activation == "quick_gelu" and _is_bare(tokens, self.c_fc, self.c_proj):
            weight, bias, factor = self.c_fc.weight, self.c_fc.bias, QUICK_GELU
            flat = tokens.flatten(0, -2)
            hidden = torch.addmm(bias, flat, weight.t(), beta=factor, alpha=factor)
            gated = functional.silu(hidden, inplace=True).view(*tokens.shape[:-1], len(bias))
            return _add_layer(self.c_proj, gated, onto, scale=1 / factor)
        hidden = self.c_fc(tokens)
        functions = ACTIVATIONS if hidden.requires_grad else _OVERWRITING
        return _add_layer(self.c_proj, functions[self.activation](hidden), onto)


class Block(nn.Module):
    """One layer; CLIP's MLPs are 4 D wide."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_width: int,
        *,
        activation: str = "quick_gelu",
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.attn = Attention(dim, num_heads)
        self.ln_1 = nn.LayerNorm(dim, eps=epsilon)
        self.mlp = Mlp(dim, mlp_width, activation)
        self.ln_2 = nn.LayerNorm(dim, eps=epsilon)

    def forward(
        self,
        tokens: Tensor,
        *,
        bias: Tensor | None = None,
        causal: bool = False,
        num_outputs: int | None = None,
        rope: Tensor | None = None,
    ) -> Tensor:
        """Returns (B, num_outputs or K, D): the leading tokens alone; all K remain keys."""
        normed = self.ln_1(tokens)
        # Contiguous: how torch multiplies others depends on whether the weights are trained.
        queries = None if num_outputs is None else normed[:, :num_outputs].contiguous()
        kept = tokens if num_outputs is None else tokens[:, :num_outputs]
        kept = self.attn(normed, queries=queries, bias=bias, causal=causal, rope=rope, onto=kept)
        output: Tensor = self.mlp(self.ln_2(kept), onto=kept)
        return output


def make_blocks(sizes: Sizes, count: int | None = None) -> nn.ModuleList:
    """Returns so many blocks of a tower, all by default."""
    return nn.ModuleList(
        Block(
            sizes.width,
            sizes.heads,
            sizes.mlp_width,
            activation=sizes.activation,
            epsilon=sizes.epsilon,
        )
        for _ in range(sizes.layers if count is None else count)
    )


class Tower(nn.Module):
    """What the two towers share: a stack of blocks that can be entered and left anywhere."""

    def __init__(self, sizes: Sizes, *, causal: bool) -> None:
        super().__init__()
        self.sizes, self.causal = sizes, causal
        self.checkpointing = False  # see `run_block`
        self.blocks = make_blocks(sizes)

    def run(
        self,
        tokens: Tensor,
        *,
        start: int = 0,
        stop: int | None = None,
        num_outputs: int | None = None,
    ) -> Tensor:
        """Returns (B, K, width): what blocks `start` to before `stop` make of tokens.

        `embed` gives what block 0 receives. Where only `num_outputs` leading tokens are wanted, the
        tower's last block skips the rest.
        """
        options = self.block_options(tokens)
        for block in list(self.blocks)[start:stop]:
            wanted = num_outputs if block is self.blocks[-1] else None
            how = {"causal": self.causal, "num_outputs": wanted, **options}
            tokens = run_block(block, tokens, checkpointing=self.checkpointing, **how)
        return tokens

    @property
    def settings(self) -> dict[str, Any]:
        """What the same weights can be run with, as config.json names it: no shape tells it."""
        return {
            "hidden_act": self.sizes.activation,
            "layer_norm_eps": self.sizes.epsilon,
            "num_attention_heads": self.sizes.heads,
        }

    def block_options(self, tokens: Tensor) -> dict[str, Tensor]:
        """Returns what else this tower's blocks are told."""
        return {}


class AttentionPool(nn.Module):
    """SigLIP's: one learned query over all tokens, then an MLP of its own."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, sizes.width))
        self.attention = Attention(sizes.width, sizes.heads)
        self.layernorm = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.mlp = Mlp(sizes.width, sizes.mlp_width, sizes.activation)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns (B, width) from (B, K, width)."""
        mixed = self.attention(tokens, queries=self.probe.expand(tokens.shape[0], -1, -1))
        output: Tensor = mixed + self.mlp(self.layernorm(mixed))
        return output[:, 0]


class VisionTower(Tower):
    """Pictures to embeddings: CLIP's; others differ in what stands around their blocks."""

    has_class_token = True
    patch_bias = False
    num_outputs: int | None = 1
    """How many tokens `pool` reads; None is all of them."""

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        sizes, patch = architecture.vision, architecture.patch
        super().__init__(sizes, causal=False)
        self.image_size, self.temporal = architecture.image_size, temporal
        if temporal:
            self.patches: nn.Module = TemporalPatches(sizes.width, patch)
        else:
            self.patches = nn.Conv2d(3, sizes.width, patch, stride=patch, bias=self.patch_bias)
        num_patches = (self.image_size // patch) ** 2
        self.positions = nn.Parameter(torch.empty(num_patches + self.has_class_token, sizes.width))
        if self.has_class_token:
            self.class_embedding = nn.Parameter(torch.empty(sizes.width))
        self.ln_pre: nn.Module = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.ln_post = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.projection: nn.Module = nn.Linear(sizes.width, architecture.dim, bias=False)

    def forward(self, pixels: Tensor, follows: Tensor | None = None) -> Tensor:
        """Returns (B, D), not normalised, from (B, 3, image_size, image_size)."""
        return self.pool(self.run(self.embed(pixels, follows), num_outputs=self.num_outputs))

    def embed(self, pixels: Tensor, follows: Tensor | None = None) -> Tensor:
        """Returns (B, K, width): what block 0 receives."""
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"pictures of {tuple(pixels.shape[-2:])}, need {self.image_size} each")
        grid = self.patches(pixels, follows) if self.temporal else self.patches(pixels)
        tokens: Tensor = grid.flatten(2).transpose(1, 2)
        if self.has_class_token:
            first = self.class_embedding.expand(tokens.shape[0], 1, -1)
            tokens = torch.cat([first, tokens], dim=1)
        normed: Tensor = self.ln_pre(tokens + self.positions)
        return normed

    def pool(self, tokens: Tensor) -> Tensor:
        """Returns (B, D) from what the last block gave."""
        embedding: Tensor = self.projection(self.ln_post(tokens[:, 0]))
        return embedding


class SiglipVision(VisionTower):
    """SigLIP's: no class token, and the pooled width is the dimension."""

    has_class_token = False
    patch_bias = True
    num_outputs = None

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        super().__init__(architecture, temporal=temporal)
        self.ln_pre = self.projection = nn.Identity()
        self.attention_pool = AttentionPool(architecture.vision)

    def pool(self, tokens: Tensor) -> Tensor:
        """Returns (B, D) from what the last block gave."""
        embedding: Tensor = self.attention_pool(self.ln_post(tokens))
        return embedding


class TextTower(Tower):
    """Token ids to embeddings.

    Attributes:
        clips: Whether it is CLIP's: later layers, tokens and positions can be used by themselves.
    """

    clips: bool

    def __init__(self, architecture: Architecture) -> None:
        sizes = architecture.text
        super().__init__(sizes, causal=architecture.family != "siglip")
        self.clips = self.causal
        self.end_id = architecture.end_id
        self.token_embedding = nn.Embedding(architecture.vocabulary, sizes.width)
        self.positions = nn.Parameter(torch.empty(architecture.context, sizes.width))
        self.ln_final = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        self.projection = nn.Linear(sizes.width, architecture.dim, bias=not self.causal)

    def forward(self, ids: Tensor) -> Tensor:
        """Returns (B, D), not normalised, from (B, L) int64 ids."""
        hidden = self.run(self.embed(ids))
        # Of a shape, not of len(), which would fix the batch of an exported graph.
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return self.project(hidden[rows, self._ends(ids)])

    def embed(self, ids: Tensor) -> Tensor:
        """Returns (B, L, width): what block 0 receives."""
        length = ids.shape[1]
        if length > len(self.positions):
            raise ValueError(f"texts of {length} tokens, need at most {len(self.positions)}")
        tokens: Tensor = self.token_embedding(ids) + self.positions[:length]
        return tokens

    def project(self, hidden: Tensor) -> Tensor:
        """Returns (..., D) from the last block's output, token by token."""
        projected: Tensor = self.projection(self.ln_final(hidden))
        return projected

    def _ends(self, ids: Tensor) -> Tensor:
        """Returns (B,): which token stands for the whole text."""
        if not self.causal:
            return torch.full_like(ids[:, 0], ids.shape[1] - 1)
        # int32, which every runtime of exported graphs can search.
        found = ids.int() if self.end_id == _LEGACY_END else (ids == self.end_id).int()
        return found.argmax(dim=-1)


class MetaClipText(TextTower):
    """MetaCLIP 2's: CLIP's, but that id 2 is its end token and no sign of an old configuration."""

    def _ends(self, ids: Tensor) -> Tensor:
        return (ids == self.end_id).int().argmax(dim=-1)
