"""What training may change of the text side: nothing, a projection behind it, its last layers.

Each tower maps a `TextBatch` to a `TextBatch` in the dimension of the frames:

- `frozen`: the backbone's own text embedding, as it is.
- `projection`: an MLP behind the frozen embedding t of size d, onto the frames' size D:
      u = sqrt(d) t / |t|,    m = W2 gelu(W1 u + b1) + b2,    W1 (hidden, d), W2 (D, hidden)
  and t + |t| m / sqrt(d) where d = D, with W2 = 0 and b2 = 0 at first, so that training starts
  from zero-shot; m itself where the sizes differ. That is how ViT-B/32 text (512) meets ViT-H-14
  video (1024). The recipe is that of two-tower retrieval on MSR-VTT, whose authors do not publish
  the inside of their MLP; this one is ours.
- `tune`: the last N layers of a CLIP text tower, its final norm and its projection. The layers
  below never change, so their output is computed once per caption and kept (`activations`). Where
  the embedding is trained too, there is nothing below, and the ids of the tokens are read.

A tower that reads more than the pooled text gets it in `TextBatch.tokens`: text tokens for a head
that wants them, activations below the trained layers for `tune`.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.clip.backbone import Backbone
from vtr.clip.recompute import run_block
from vtr.clip.towers import Sizes, make_blocks
from vtr.errors import ConfigError
from vtr.train.dropout import RowDropout
from vtr.train.heads.base import TextBatch, in_own_type
from vtr.train.lora import merged_state, renumbered
from vtr.train.presets import TEXT_MODES, TextMode


@dataclass(frozen=True)
class TextSpec:
    """Everything needed to build a text tower again without its backbone."""

    mode: TextMode  # "frozen", "projection" or "tune"
    text_dim: int  # Size of the backbone's text embedding
    video_dim: int  # Size of the frames' features
    hidden: int = 0  # `projection`: width of the MLP; 0 is twice `text_dim`
    dropout: float = 0.0  # `projection`: of the hidden layer
    layers: int = 0  # `tune`: how many of the last text layers are trained
    vocabulary: int = 0  # `tune`: rows of the token table, where it is trained too; else 0
    context: int = 0  # `tune`: positions of a text, likewise
    width: int = 0  # `tune`: width of the text tower
    heads: int = 0  # `tune`: attention heads per layer
    mlp_width: int = 0  # `tune`: width of the MLP in each layer
    activation: str = "quick_gelu"  # `tune`: "quick_gelu" or "gelu"
    epsilon: float = 1e-5  # `tune`: of the layer norms

    def __post_init__(self) -> None:
        if self.mode not in TEXT_MODES:
            raise ConfigError(f"--text is {self.mode!r}; allowed: {', '.join(TEXT_MODES)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"the projection's dropout is {self.dropout}; allowed: 0 to below 1")
        if self.mode != "projection" and self.text_dim != self.video_dim:
            raise ConfigError(
                f"the text embedding has {self.text_dim} dimensions, the frames of the store "
                f"{self.video_dim}: they cannot be compared as they are. Use --text projection, "
                "which learns to map one to the other, or --model with the backbone of the store"
            )


class TextTower(nn.Module):
    """The part of the text side that training sees.

    Attributes:
        pretrained: Its weights come from the backbone, so that they learn at their own, lower rate.
        short: Whether training computes in bfloat16; weights and results keep their own type.
        checkpointing: Whether training keeps the blocks' inputs only, see `run_block`.
    """

    pretrained = False
    short = False
    checkpointing = False


class FrozenText(TextTower):
    """The backbone's text embedding as it is; no parameters."""

    def forward(self, texts: TextBatch) -> TextBatch:
        """Returns its argument."""
        return texts


class ProjectedText(TextTower):
    """An MLP behind the frozen embedding; see the module."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        hidden = spec.hidden or 2 * spec.text_dim
        self.residual = spec.text_dim == spec.video_dim
        self.inner = nn.Linear(spec.text_dim, hidden)
        self.outer = nn.Linear(hidden, spec.video_dim)
        self.dropout = RowDropout(spec.dropout)
        if self.residual:
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)

    @in_own_type
    def forward(self, texts: TextBatch) -> TextBatch:
        """Returns the pooled texts, and the tokens where there are any, each mapped alone."""
        tokens = None if texts.tokens is None else self._map(texts.tokens)
        return TextBatch(self._map(texts.pooled), tokens, texts.token_mask)

    def _map(self, vectors: Tensor) -> Tensor:
        root = math.sqrt(vectors.shape[-1])
        norm = vectors.norm(dim=-1, keepdim=True)
        unit = vectors * (root / norm.clamp_min(torch.finfo(vectors.dtype).tiny))
        mapped: Tensor = self.outer(self.dropout(functional.gelu(self.inner(unit))))
        return vectors + mapped * (norm / root) if self.residual else mapped


class TunedText(TextTower):
    """The last layers of a CLIP text tower; see the module."""

    pretrained = True

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        sizes = Sizes(**{one.name: getattr(spec, one.name) for one in fields(Sizes)})
        self.layers = make_blocks(sizes)
        self.ln_final = nn.LayerNorm(spec.width, eps=spec.epsilon)
        self.text_projection = nn.Linear(spec.width, spec.text_dim, bias=False)
        self.embeds = spec.vocabulary > 0
        if self.embeds:
            self.token_embedding = nn.Embedding(spec.vocabulary, spec.width)
            self.positions = nn.Parameter(torch.zeros(spec.context, spec.width))

    def whole_state(self, total: int) -> dict[str, Tensor]:
        """Returns the weights by their names in the whole tower, which has `total` layers."""
        whole = {
            re.sub(r"^layers\.", "blocks.", re.sub(r"^text_", "", name)): value
            for name, value in merged_state(self.state_dict()).items()
        }
        return renumbered(whole, total - len(self.layers))

    @in_own_type
    def forward(self, texts: TextBatch) -> TextBatch:
        """Returns pooled texts and tokens, from the activations below the first layer.

        Args:
            texts: `tokens` (N, W, width) are what `activations` gave, (N, W, 1) ids where the
                embedding is trained; `token_mask` (N, W) is True from the start to the end token;
                `pooled` is not read.
        """
        if texts.tokens is None or texts.token_mask is None:
            raise ConfigError("--text tune needs the activations of every caption, got none")
        hidden, mask = texts.tokens, texts.token_mask
        if self.embeds:
            hidden = self.token_embedding(hidden[..., 0].long()) + self.positions[: mask.shape[1]]
        # What stands behind the end token reaches nothing (each token sees only those before it),
        # but a NaN there would survive the multiplication by zero.
        hidden = torch.where(mask[..., None], hidden, 0.0)
        with torch.autocast(mask.device.type, torch.bfloat16, enabled=self.short and self.training):
            for layer in self.layers:
                hidden = run_block(layer, hidden, checkpointing=self.checkpointing, causal=True)
            tokens: Tensor = self.text_projection(self.ln_final(hidden))
        tokens = tokens.to(self.ln_final.weight.dtype)
        last = mask.sum(1) - 1
        pooled = tokens[torch.arange(len(tokens), device=tokens.device), last]
        return TextBatch(pooled, tokens, mask)


def build_text_tower(spec: TextSpec, *, seed: int = 0) -> TextTower:
    """Returns an untrained tower; `tune` still needs `load_text_layers` or a checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if spec.mode == "projection":
            return ProjectedText(spec)
        return TunedText(spec) if spec.mode == "tune" else FrozenText()


def text_spec(
    backbone: Backbone,
    mode: TextMode,
    *,
    video_dim: int,
    layers: int = 0,
    frozen: int | None = None,
    dropout: float = 0.0,
) -> TextSpec:
    """Returns the tower's sizes on a backbone."""
    text_dim = backbone.embedding_dim
    if mode != "tune":
        return TextSpec(mode, text_dim, video_dim, dropout=dropout)
    if not backbone.model.text.clips:
        raise ConfigError(
            f"--text tune knows CLIP's text tower; {backbone.model_id} is a {backbone.family} "
            "model. Use --text projection"
        )
    total = backbone.model.text.sizes.layers
    if not 0 <= layers <= total:
        raise ConfigError(
            f"--tune-layers is {layers}; the text tower of {backbone.model_id} has {total} layers: "
            f"allowed are 1 to {total}, or 0 for all"
        )
    embeds = frozen is not None and frozen < 0
    sizes = replace(backbone.model.text.sizes, layers=layers or max(total - max(frozen or 0, 0), 0))
    return TextSpec(
        mode,
        text_dim,
        video_dim,
        vocabulary=backbone.architecture.vocabulary if embeds else 0,
        context=backbone.architecture.context if embeds else 0,
        **asdict(sizes),
    )


def load_text_layers(tower: TunedText, backbone: Backbone) -> None:
    """Copies the backbone's last layers, final norm and projection into the tower."""
    text = backbone.model.text
    blocks = list(text.blocks)[len(text.blocks) - len(tower.layers) :]
    pairs = [*zip(tower.layers, blocks, strict=True), (tower.ln_final, text.ln_final)]
    for ours, theirs in [*pairs, (tower.text_projection, text.projection)]:
        ours.load_state_dict(theirs.state_dict())
    if tower.embeds:
        tower.token_embedding.load_state_dict(text.token_embedding.state_dict())
        tower.positions.data.copy_(text.positions)
