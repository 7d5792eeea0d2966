"""A text sees its best videos together, and what it saw decides among them: only with `--rerank N`.

    i_m = t + W sum over w of softmax_w(<e_m, LN(h_w)> / sqrt(D)) LN(h_w)        m = 0 .. M
    recall = <i_0^, c^>,  c = mean over f of x^_f
    b_m = i_m + Wo sum over the frames f of all N candidates of a_f Wv LN(x_f)   m = 1 .. M
          a = softmax over all these frames of <Wq LN(i_m), Wk LN(x_f)> / sqrt(D)
    q_m = b_m + MLP(LN(b_m))
    score = mean over m >= 1 of <q_m^, v / |v|>,  v = sum over valid f of g_f x^_f
            g = softmax over valid f of <q_m^, x^_f> / tau

h are the words, x the frames, after seqTransf's layers where `layers` asks for them, ^ is a unit
vector, e_m are learned indicators that bind words to queries.
The candidates are the N best by recall. They take part in the softmax together, so that each one's
score depends on the others; a text that has not seen any is scored with q_m = i_m. In training the
candidates are the best `candidates` videos of the batch, and both recall and score are pulled on.
W, Wo and the last layer of the MLP start at zero: untrained, it is `attentionP` on unit frames.

2,369,536 parameters at D = 512 with three indicators, 12,648,960 more with four layers.
Source: TokenBinder, Zhang et al., WACV 2025, arXiv 2409.19865: query indicators, broad view by the
first of them, focused view by cross-attention over the candidates together. Built from the abstract
and published summaries: the formulas here are our own form of it, on frames of a frozen tower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtr.train.heads.base import (
    Code,
    HeadInfo,
    TextBatch,
    VideoBatch,
    check_option,
    masked_mean,
    normalise,
    score_in_chunks,
    valid_tokens,
)
from vtr.train.heads.blocks import (
    LayerOptions,
    SequenceHead,
    identity,
    initialise_weights,
    pooled_cosines,
    zeroed,
)

_ELEMENTS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class Options(LayerOptions):
    """What users may set."""

    indicators: int = 3  # Queries that see the candidates, beside the one that finds them
    candidates: int = 20  # How many videos a text sees together where no --rerank N says so
    tau: float = 0.1  # Temperature of the softmax over a video's frames, of cosines

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(1 <= self.indicators <= 64, "indicators", self.indicators, "1 to 64")
        check_option(2 <= self.candidates <= 4096, "candidates", self.candidates, "2 to 4096")
        check_option(0.0001 <= self.tau <= 10000, "tau", self.tau, "0.0001 to 10000")


class TokenBinder(SequenceHead):
    """See the module.

    Codes: texts (i_0^ (N, D), q (N, M, D)); videos (c^ (V, D), unit frames (V, K, D), their inner
    products (V, K, K), keys and values (V, K, D), mask (V, K)).
    """

    info = HeadInfo(
        needs_tokens=True,
        indexable=False,
        recalls=True,
        together=True,
        cost="M K inner products, after attention over N K frames",
        source="TokenBinder, arXiv 2409.19865 (description)",
    )
    rest = "the rest as text and mean are"

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        if self.num_layers:
            self.transformerClip.apply(initialise_weights)
            initialise_weights(self.frame_position_embeddings)
        self.candidates = options.candidates
        self.indicators = nn.Parameter(torch.randn(1 + options.indicators, dim))
        self.word_norm, self.word_out = nn.LayerNorm(dim), zeroed(nn.Linear(dim, dim))
        self.query_norm, self.frame_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q_proj, self.k_proj, self.v_proj = (identity(dim) for _ in range(3))
        self.out_proj = zeroed(nn.Linear(dim, dim))
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), zeroed(nn.Linear(2 * dim, dim))
        )

    def draw_weights(self) -> None:
        """Draws no more: some weights begin as what they are."""

    def encode_texts(self, texts: TextBatch) -> Code:
        """Returns the query that finds videos (N, D), and those that will see them (N, M, D)."""
        tokens, mask = valid_tokens(texts)
        words = self.word_norm(tokens)
        seen = _attend(self.indicators, words, words, mask)
        bound = texts.pooled[:, None] + self.word_out(seen)
        return normalise(bound[:, 0]), bound[:, 1:]

    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns the six parts of the code."""
        frames, mask = self.contextual_frames(videos), videos.mask
        unit, normed = normalise(frames), self.frame_norm(frames)
        kept = (
            torch.where(mask[..., None], part, 0.0)
            for part in (self.k_proj(normed), self.v_proj(normed))
        )
        return normalise(masked_mean(unit, mask)), unit, unit @ unit.mT, *kept, mask

    def bind(self, texts: Code, videos: Code, candidates: Tensor) -> Code:
        """Returns the codes of texts that have seen their candidates (N, C) together."""
        length, dim = videos[3].shape[1:]
        step = max(1, _ELEMENTS_AT_ONCE // max(1, 2 * candidates.shape[1] * length * dim))
        chunks = zip(torch.split(texts[1], step), torch.split(candidates, step), strict=True)
        bind: Callable[..., Tensor] = partial(self._bind, videos=videos)
        if len(candidates) > step and torch.is_grad_enabled():
            # The candidates' frames of all chunks would pile up: they are gathered again later.
            bind = partial(checkpoint, bind, use_reentrant=False)
        return texts[0], torch.cat([bind(*chunk) for chunk in chunks])

    def _bind(self, queries: Tensor, candidates: Tensor, *, videos: Code) -> Tensor:
        keys, values, mask = (part[candidates].flatten(1, 2) for part in videos[3:])
        asked = self.q_proj(self.query_norm(queries))
        bound = queries + self.out_proj(_attend(asked, keys, values, mask))
        made: Tensor = bound + self.mlp(bound)
        return made

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) cosines, in chunks; of texts as they are, see `bind`."""
        held = 4 * texts[1].shape[1] * (videos[1].shape[1] + 1)
        return score_in_chunks(self._score, texts, videos, elements_per_pair=held)

    def _score(self, texts: Code, videos: Code) -> Tensor:
        (_, queries), (_, frames, gram, _, _, mask) = texts, videos
        cosines = torch.einsum("nmd,vkd->nvmk", normalise(queries), frames)
        logits = (cosines / self.options.tau).masked_fill(~mask[:, None], -torch.inf)
        return pooled_cosines(logits.softmax(dim=-1), cosines, gram[:, None]).mean(dim=-1)

    def training_terms(self, texts: Code, videos: Code) -> Sequence[tuple[float, Tensor]]:
        """Returns recall and score, each with half the weight."""
        recall = texts[0] @ videos[0].T
        return [(0.5, recall), (0.5, self.score(self.bind_best(texts, videos), videos))]


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """(N, M, D) what queries (N, M, D) or (M, D) gather from values (N, L, D), masked (N, L)."""
    logits = queries @ keys.mT / math.sqrt(keys.shape[-1])
    return logits.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1) @ values
