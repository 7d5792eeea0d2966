"""The text features that a model reads: pooled, with tokens, or activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vtr.clip.backbone import Backbone
from vtr.errors import ConfigError
from vtr.train.activations import embed_activations
from vtr.train.model import ModelSpec
from vtr.train.texts import TextFeatures, embed_texts


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
        return embed_activations(
            backbone,
            texts,
            layers=None if spec.text.vocabulary else spec.text.layers,
            ids=ids,
            cache=cache,
            tell=tell,
        )
    needs_tokens = spec.choice.info.needs_tokens
    return embed_texts(backbone, texts, ids=ids, cache=cache, tokens=needs_tokens, tell=tell)
