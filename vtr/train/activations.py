"""What the frozen lower layers of a CLIP text tower make of each caption, computed once.

Training only the last N layers of L never changes the output of layer L - N: it is kept packed, so
that a step of training starts there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.clip.backbone import Backbone
from vtr.clip.tokens import fill_rows, token_offsets
from vtr.train.texts import TextFeatures, embed_texts, keep

FLOAT32_BYTES = 1 << 30
"""Up to this size activations are kept in float32, above in float16 (180,000 captions of ViT-B/32
come to about 2.6 GB in float16)."""

_FOLDER = "texts"


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

    Args:
        backbone: Of the CLIP family.
        texts: N captions.
        layers: How many of the last layers are trained; None trains the embedding too, and the
            tokens are ids.
        ids: Their ids; by default their places as text.
        cache: Folder to keep the activations in, read again by mapping the file; None keeps them
            in memory only.
        tell: Called with (done, N) where they have to be computed, pooled and then activations.
    """
    features = embed_texts(backbone, texts, ids=ids, cache=cache, tell=tell)
    tokens = backbone.tokeniser.encode(texts).ids
    offsets, text = token_offsets(tokens), backbone.model.text
    if layers is None:  # exact in float32: no vocabulary has 16 million words
        ids_column = np.concatenate([np.array(row, np.float32) for row in tokens])[:, None]
        return TextFeatures(
            features.ids, features.pooled, features.num_truncated, ids_column, offsets
        )
    stop = text.sizes.layers - layers
    width = text.sizes.width
    shape = (int(offsets[-1]), width)
    kind = np.float32 if shape[0] * width * 4 <= FLOAT32_BYTES else np.float16
    path = None if cache is None else cache / _FOLDER / _name(backbone, tokens, layers, kind)
    rows = None if path is None else _read(path, shape, kind)
    if rows is None:
        rows = np.empty(shape, kind)
        # The layers that are trained never run.
        fill_rows(
            backbone, tokens, rows, lambda ids: text.run(text.embed(ids), stop=stop), tell=tell
        )
        if path is not None:
            keep(path, rows.tobytes())
    return TextFeatures(features.ids, features.pooled, features.num_truncated, rows, offsets)


def _name(
    backbone: Backbone, tokens: Sequence[Sequence[int]], layers: int, kind: type[np.generic]
) -> str:
    digest = hashlib.sha256(backbone.weights_sha256.encode())
    settings = backbone.text_settings
    digest.update(f"{backbone.dtype} last {layers} layers, {settings}".encode())
    for row in tokens:
        digest.update(np.array([len(row), *row], np.int64).tobytes())
    return f"{digest.hexdigest()[:24]}.{np.dtype(kind).name}"


def _read(path: Path, shape: tuple[int, int], kind: type[np.generic]) -> NDArray[Any] | None:
    """Returns the kept activations; None where the file is absent or of another size."""
    wanted = shape[0] * shape[1] * np.dtype(kind).itemsize
    if not path.is_file() or path.stat().st_size != wanted or not wanted:
        return None
    # Copy-on-write: torch refuses arrays that it must not write to, though nobody does.
    return np.memmap(path, dtype=kind, mode="c", shape=shape)
