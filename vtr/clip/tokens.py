"""Text token embeddings: what the text tower makes of every token, not only of the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

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

    Args:
        backbone: Of the CLIP family.
        texts: N raw texts; N may be 0.

    Raises:
        ModelError: A family whose tokens have no place in the shared space.
    """
    if backbone.family != "clip":
        raise ModelError(
            f"{backbone.model_id} is a {backbone.family} model: its tokens are not projected into "
            "the shared space. Heads that read tokens need a CLIP text tower"
        )
    ids = backbone.tokeniser.encode(texts).ids
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    offsets = np.concatenate(([0], lengths.cumsum()))
    rows = np.empty((int(offsets[-1]), backbone.embedding_dim), dtype=np.float16)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        hidden = _hidden(backbone, backbone.tokeniser.pad([ids[n] for n in chosen]))
        for place, n in enumerate(chosen):
            rows[offsets[n] : offsets[n + 1]] = hidden[place, : lengths[n]]
    return TokenEmbeddings(rows, offsets)


def _hidden(backbone: Backbone, ids: np.ndarray) -> np.ndarray:
    text = backbone.model.text
    with torch.inference_mode():
        projected = text.project(text.run(text.embed(torch.from_numpy(ids).to(backbone.device))))
    hidden: np.ndarray = projected.float().cpu().numpy()
    return hidden
