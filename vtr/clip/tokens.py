"""Text token embeddings: what the text tower makes of every token, not only of the whole text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr.clip.backbone import Backbone
from vtr.errors import ModelError

_BATCH = 64


@dataclass(frozen=True)
class TokenEmbeddings:
    """Token embeddings of N texts, one text after the other."""

    # (R, D) float16, projected like the pooled text, not normalised; from the start token to the
    # end token of each text, whose last row is the pooled text.
    rows: np.ndarray
    offsets: np.ndarray  # (N+1,) int64; text n has rows offsets[n] to offsets[n + 1]


def embed_tokens(backbone: Backbone, texts: Sequence[str]) -> TokenEmbeddings:
    """Returns what CLIP's text tower makes of every token, after ln_final and the projection.

    CLIP2Video feeds these to its Temporal Alignment Block (modules/module_clip.py
    @e941318, `return_hidden`); weighted token interaction reads them too.

    Raises:
        ModelError: A family whose tokens have no place in the shared space.
    """
    if backbone.family != "clip":
        raise ModelError(
            f"{backbone.model_id} is a {backbone.family} model: its tokens are not projected into "
            "the shared space. Heads that read tokens need a CLIP text tower"
        )
    ids = backbone.tokeniser.encode(texts).ids
    offsets, text = token_offsets(ids), backbone.model.text
    rows = np.empty((int(offsets[-1]), backbone.embedding_dim), dtype=np.float16)
    fill_rows(backbone, ids, rows, lambda batch: text.project(text.run(text.embed(batch))))
    return TokenEmbeddings(rows, offsets)


def token_offsets(ids: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Returns (N+1,) int64: where each text's tokens begin among those of all."""
    return np.cumsum([0, *map(len, ids)], dtype=np.int64)


def fill_rows(
    backbone: Backbone,
    ids: Sequence[Sequence[int]],
    rows: NDArray[Any],
    encode: Callable[[Tensor], Tensor],
    *,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Fills rows with something of every token, texts of one length together.

    Args:
        backbone: Whose text tower it is.
        ids: Of N texts, as its tokeniser gives them.
        rows: (R, W) for the tokens of all texts, one text after the other.
        encode: From (B, L) padded ids to (B, L, W).
        tell: Called with (done, N) after each batch.
    """
    offsets = token_offsets(ids)
    lengths = np.diff(offsets)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        batch = torch.from_numpy(backbone.tokeniser.pad([ids[n] for n in chosen]))
        with torch.inference_mode():
            made = encode(batch.to(backbone.device)).float().cpu().numpy()
        for place, n in enumerate(chosen):
            rows[offsets[n] : offsets[n + 1]] = made[place, : lengths[n]]
        if tell is not None:
            tell(start + len(chosen), len(order))
