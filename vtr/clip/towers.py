"""Dual encoders in plain torch: the vision and text transformers of CLIP, SigLIP and SigLIP 2.

A tower is an embedding, a stack of pre-norm blocks and a pooling:

    x <- x + MHA(LN(x))
    x <- x + c_proj(act(c_fc(LN(x))))

CLIP's vision tower puts a class token in front and reads it, its text tower is causal and reads
the first end token; SigLIP's have neither class token nor mask, and pool by attention and at the
last position. `Tower.run` starts and stops at any block. Names within a block are OpenAI's, so
that CLIP's layers go straight into heads and back; `huggingface_state` says how a Hugging Face
folder names all of it.

Sources: openai/CLIP clip/model.py; google-research/big_vision models/proj/image_text and
models/vit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional, init
from torch.overrides import TorchFunctionMode

from vtr.clip.recompute import run_block
from vtr.clip.temporal import TemporalPatches

_QUICK_GELU = 1.702
_LEGACY_END = 2  # of configurations before transformers #24773


def quick_gelu(values: Tensor) -> Tensor:
    """Returns z * sigmoid(1.702 z)."""
    # silu(z) = z * sigmoid(z) is one kernel each way, the product written out is five.
    return functional.silu(values * _QUICK_GELU).mul_(1 / _QUICK_GELU)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
}
# The same, writing over a tensor that nobody needs: a tenth of a block's time on a CPU goes into
# fresh memory for the widest tensor there is.
_OVERWRITING: Mapping[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": lambda z: functional.silu(z.mul_(_QUICK_GELU), inplace=True).mul_(
        1 / _QUICK_GELU
    ),
    "gelu": torch.ops.aten.gelu_,
    "gelu_pytorch_tanh": partial(torch.ops.aten.gelu_, approximate="tanh"),
}


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
class Architecture:
    """What a folder's config.json says of a dual encoder."""

    family: str
    """"clip" or "siglip"; SigLIP 2 differs in its text rules only."""
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


class Attention(nn.Module):
    """Multi-head attention with packed projections, named as in nn.MultiheadAttention."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self,
        tokens: Tensor,
        *,
        queries: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Returns (B, Q, D): for each query (B, Q, D), by default each token, a mix of tokens.

        A bias is added to the scores, broadcast against (B, heads, Q, K). It gets the query's type:
        the product with another is silently wrong (seen with torch 2.13 in float64).
        """
        query, key, value = self._project(tokens, queries)
        mixed = functional.scaled_dot_product_attention(
            self._split(query),
            self._split(key),
            self._split(value),
            attn_mask=None if bias is None else bias.to(query.dtype),
            is_causal=causal,
        )
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _project(self, tokens: Tensor, queries: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if hasattr(self, "q_proj"):
            given = (tokens if queries is None else queries, tokens, tokens)
            parts = (self.get_submodule(f"{letter}_proj") for letter in "qkv")
            query, key, value = (part(x) for part, x in zip(parts, given, strict=True))
            return query, key, value
        weight, offset, dim = self.in_proj_weight, self.in_proj_bias, tokens.shape[-1]
        if queries is None:
            query, key, value = functional.linear(tokens, weight, offset).chunk(3, dim=-1)
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

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the same shape."""
        hidden = self.c_fc(tokens)
        functions = ACTIVATIONS if hidden.requires_grad else _OVERWRITING
        output: Tensor = self.c_proj(functions[self.activation](hidden))
        return output


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
    ) -> Tensor:
        """Returns (B, num_outputs or K, D): the leading tokens alone; all K remain keys."""
        normed = self.ln_1(tokens)
        # Contiguous: how torch multiplies others depends on whether the weights are trained.
        queries = None if num_outputs is None else normed[:, :num_outputs].contiguous()
        kept = tokens if num_outputs is None else tokens[:, :num_outputs]
        kept = kept + self.attn(normed, queries=queries, bias=bias, causal=causal)
        output: Tensor = kept + self.mlp(self.ln_2(kept))
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
        for block in list(self.blocks)[start:stop]:
            wanted = num_outputs if block is self.blocks[-1] else None
            how = {"causal": self.causal, "num_outputs": wanted}
            tokens = run_block(block, tokens, checkpointing=self.checkpointing, **how)
        return tokens


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
    """Pictures to embeddings."""

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        sizes, patch = architecture.vision, architecture.patch
        super().__init__(sizes, causal=False)
        self.image_size = architecture.image_size
        self.temporal, self.has_class_token = temporal, architecture.family == "clip"
        num_patches = (self.image_size // patch) ** 2
        if temporal:
            self.patches: nn.Module = TemporalPatches(sizes.width, patch)
        else:
            bias = not self.has_class_token
            self.patches = nn.Conv2d(3, sizes.width, patch, stride=patch, bias=bias)
        self.positions = nn.Parameter(torch.empty(num_patches + self.has_class_token, sizes.width))
        self.ln_post = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
        if self.has_class_token:
            self.class_embedding = nn.Parameter(torch.empty(sizes.width))
            self.ln_pre = nn.LayerNorm(sizes.width, eps=sizes.epsilon)
            self.projection = nn.Linear(sizes.width, architecture.dim, bias=False)
        else:
            self.attention_pool = AttentionPool(sizes)

    def forward(self, pixels: Tensor, follows: Tensor | None = None) -> Tensor:
        """Returns (B, D), not normalised, from (B, 3, image_size, image_size)."""
        return self.pool(self.run(self.embed(pixels, follows), num_outputs=self.num_outputs))

    @property
    def num_outputs(self) -> int | None:
        """How many tokens `pool` reads; None is all of them."""
        return 1 if self.has_class_token else None

    def embed(self, pixels: Tensor, follows: Tensor | None = None) -> Tensor:
        """Returns (B, K, width): what block 0 receives."""
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"pictures of {tuple(pixels.shape[-2:])}, need {self.image_size} each")
        grid = self.patches(pixels, follows) if self.temporal else self.patches(pixels)
        tokens: Tensor = grid.flatten(2).transpose(1, 2)
        if not self.has_class_token:
            return tokens + self.positions
        tokens = torch.cat([self.class_embedding.expand(tokens.shape[0], 1, -1), tokens], dim=1)
        normed: Tensor = self.ln_pre(tokens + self.positions)
        return normed

    def pool(self, tokens: Tensor) -> Tensor:
        """Returns (B, D) from what the last block gave."""
        if self.has_class_token:
            embedding: Tensor = self.projection(self.ln_post(tokens[:, 0]))
        else:
            embedding = self.attention_pool(self.ln_post(tokens))
        return embedding


class TextTower(Tower):
    """Token ids to embeddings."""

    def __init__(self, architecture: Architecture) -> None:
        sizes = architecture.text
        super().__init__(sizes, causal=architecture.family == "clip")
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


class DualEncoder(nn.Module):
    """Two towers into one space, and the scale of their cosines."""

    def __init__(self, architecture: Architecture, *, temporal: bool = False) -> None:
        super().__init__()
        self.visual = VisionTower(architecture, temporal=temporal)
        self.text = TextTower(architecture)
        if architecture.family == "clip":
            self.logit_scale = nn.Parameter(torch.empty(()))
        else:
            self.logit_scale = nn.Parameter(torch.empty(1))
            self.logit_bias = nn.Parameter(torch.empty(1))


class _Undrawn(TorchFunctionMode):
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
        module = getattr(func, "__module__", None)
        draws = func in (Tensor.uniform_, Tensor.normal_) or module == init.__name__
        return None if draws else func(*args, **(kwargs or {}))


def blank_encoder(architecture: Architecture, *, temporal: bool) -> DualEncoder:
    """Returns a dual encoder whose parameters have names and shapes, and no memory."""
    with torch.device("meta"), _Undrawn():
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
    "logit_": "logit_",
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
    state: dict[str, Tensor] = {}
    for ours, tensor in network.state_dict().items():
        prefix = next(prefix for prefix in _PREFIXES if ours.startswith(prefix))
        name = _PREFIXES[prefix] + ours.removeprefix(prefix)
        if name.startswith("text_projection.") and not network.text.causal:
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
