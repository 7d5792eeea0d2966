"""The text features that a model reads: pooled, with tokens, or activations.

Activations are what the frozen lower layers of a CLIP text tower make of each caption: training
only the last N layers of L never changes the output of layer L - N. It is computed once and kept
packed, so that a step of training starts there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.clip.backbone import Backbone
from vtr.errors import ConfigError
from vtr.train.kept import kept_rows
from vtr.train.model import ModelSpec
from vtr.train.texts import FOLDER, TextFeatures, embed_texts, fill_rows, token_offsets

FLOAT32_BYTES = 1 << 30
"""Up to this size activations are kept in float32, above in float16 (180,000 captions of ViT-B/32
come to about 2.6 GB in float16)."""


def embed_for(
    spec: ModelSpec,
    backbone: Backbone,
    texts: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    cache: Path | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> TextFeatures:
    """Returns captions as a model's text tower and head want them.

    >>> import vtr
    >>> run = vtr.load_run("demo-world/runs/meanP")
    >>> backbone = vtr.load_backbone(run.text_model, device="cpu")
    >>> vtr.embed_for(run.spec, backbone, ["a red star", "a blue heart"]).pooled.shape
    (2, 96)

    Args:
        spec: Of the model.
        backbone: Whose text tower the model was built on.
        texts: N captions.
        ids: Their ids; by default their places as text.
        cache: Folder to keep the features in; None keeps nothing.
        tell: Called with (done, N) where they have to be computed.

    Raises:
        ConfigError: The backbone is not the one that the model expects.
        ModelError: The head needs text tokens, and the backbone has none in the shared space.
    """
    if backbone.embedding_dim != spec.text.text_dim:
        raise ConfigError(
            f"{backbone.model_id} embeds texts in {backbone.embedding_dim} dimensions, the model "
            f"was trained on {spec.text.text_dim}: name the same backbone with --model"
        )
    if spec.text.mode == "tune":
        layers = None if spec.text.vocabulary else spec.text.layers
        return embed_activations(backbone, texts, layers=layers, ids=ids, cache=cache, tell=tell)
    needs_tokens = spec.choice.info.needs_tokens
    return embed_texts(backbone, texts, ids=ids, cache=cache, tokens=needs_tokens, tell=tell)


def embed_activations(
    backbone: Backbone,
    texts: Sequence[str],
    *,
    layers: int | None,
    ids: Sequence[str] | None = None,
    cache: Path | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> TextFeatures:
    """Returns captions with the activations below the last `layers` layers as their tokens.

    With `layers` None the embedding is trained too, and the tokens are ids. In `cache` they are
    read again by mapping the file; other options as for `embed_texts`.
    """
    features = embed_texts(backbone, texts, ids=ids, cache=cache, tell=tell)
    tokens = backbone.tokeniser.encode(texts).ids
    offsets, text = token_offsets(tokens), backbone.model.text
    if layers is None:  # exact in float32: no vocabulary has 16 million words
        column = np.concatenate([np.array(row, np.float32) for row in tokens])[:, None]
        return replace(features, tokens=column, token_offsets=offsets)
    stop = text.sizes.layers - layers
    shape = (int(offsets[-1]), text.sizes.width)
    kind = np.float32 if shape[0] * shape[1] * 4 <= FLOAT32_BYTES else np.float16
    path = None if cache is None else cache / FOLDER / _name(backbone, tokens, layers, kind)

    def fill(rows: NDArray[Any]) -> None:
        # The layers that are trained never run.
        fill_rows(
            backbone, tokens, rows, lambda ids: text.run(text.embed(ids), stop=stop), tell=tell
        )

    rows = kept_rows(path, shape, kind, fill)
    return replace(features, tokens=rows, token_offsets=offsets)


def _name(
    backbone: Backbone, tokens: Sequence[Sequence[int]], layers: int, kind: type[np.generic]
) -> str:
    digest = hashlib.sha256(backbone.weights_sha256.encode())
    settings = backbone.text_settings
    digest.update(f"{backbone.dtype} last {layers} layers, {settings}".encode())
    for row in tokens:
        digest.update(np.array([len(row), *row], np.int64).tobytes())
    return f"{digest.hexdigest()[:24]}.{np.dtype(kind).name}"
