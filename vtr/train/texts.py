"""The text features that a model reads, made once and kept: pooled, with tokens, or activations.

Activations are what the frozen lower layers of a CLIP text tower make of each caption: training
only the last N layers of L never changes the output of layer L - N. They are kept packed, so that a
step of training starts there.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

from vtr.clip.backbone import Backbone
from vtr.errors import ConfigError, ModelError, StoreWriteError, VtrError
from vtr.files import publish, read_regular
from vtr.train.kept import kept_rows
from vtr.train.model import ModelSpec

_MOST_BYTES = 16 << 30  # four million captions at D = 1024

FOLDER = "texts"
_BATCH = 64
FLOAT32_BYTES = 1 << 30
"""Up to this size activations are kept in float32, above in float16 (180,000 captions of ViT-B/32
come to about 2.6 GB in float16)."""


@dataclass(frozen=True)
class TextFeatures:
    """N captions as the text tower sees them.

    >>> import vtr
    >>> backbone = vtr.load_backbone(vtr.open_workspace("demo-world").model, device="cpu")
    >>> vtr.embed_texts(backbone, ["a red star", "a blue heart"]).pooled.shape  # (N, D)
    (2, 96)
    """

    ids: tuple[str, ...]  # N caption ids
    pooled: NDArray[np.float32]  # (N, D) float32, not normalised
    num_truncated: int = 0  # How many captions lost their tail
    # (R, W) floating point, text after text, or None: token embeddings of W = D float16 numbers, or
    # activations within the text tower of its own width.
    tokens: NDArray[np.floating[Any]] | None = None
    # (N+1,) int64; text n has rows token_offsets[n] to token_offsets[n + 1].
    token_offsets: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.pooled.ndim != 2 or len(self.pooled) != len(self.ids):
            raise ValueError(f"{len(self.ids)} ids for pooled texts of shape {self.pooled.shape}")
        if (self.tokens is None) != (self.token_offsets is None):
            raise ValueError("tokens and token_offsets come together")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        """Sizes: the captions themselves may be 180,000."""
        rows = "" if self.tokens is None else f", {len(self.tokens):,} token rows"
        return f"<TextFeatures of {len(self):,} captions, {self.pooled.shape[1]} dimensions{rows}>"


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

    The text tower of the backbone is the one that the model was built on; `ids`, `cache` and `tell`
    are as for `embed_texts`.

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


def require_list(texts: Sequence[str]) -> None:
    """Refuses one text, which would be taken for as many as it has letters."""
    if isinstance(texts, str):
        raise ConfigError("texts is one text; give a list of them: [text]")


def embed_texts(
    backbone: Backbone,
    texts: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    cache: Path | None = None,
    tokens: bool = False,
    tell: Callable[[int, int], None] | None = None,
) -> TextFeatures:
    """Returns the features of captions, from the cache where these very captions are in it.

    >>> import vtr
    >>> backbone = vtr.load_backbone(vtr.open_workspace("demo-world").model, device="cpu")
    >>> vtr.embed_texts(backbone, ["a red star", "a blue heart"]).pooled.shape
    (2, 96)

    Args:
        backbone: Whose text tower to use.
        texts: N captions.
        ids: Their ids; by default their places as text.
        cache: Folder to keep the features in (the feature store); None keeps nothing, and so does
            a folder that cannot be written: stores are shared read-only. A file there
            is named by a digest of the model's weights, its text rules and every caption, so that
            another model or another wording never meets old numbers.
        tokens: Also the token embeddings. They are never written: computed they cost seconds,
            stored they take gigabytes (180,000 captions: about 2 GB).
        tell: Called with (done, N) where they have to be computed.

    Raises:
        ConfigError: One text in place of a list.
        ModelError: `tokens` of a tower that has none in the shared space.
    """
    require_list(texts)
    names = tuple(ids) if ids is not None else tuple(map(str, range(len(texts))))
    path = None if cache is None else cache / FOLDER / f"{_digest(backbone, texts)}.safetensors"
    kept = None if path is None else _read(path, shape=(len(texts), backbone.embedding_dim))
    if kept is None:
        embedded = backbone.encode_texts(texts, tell=tell)
        kept = embedded.embeddings, embedded.num_truncated
        if path is not None:
            # Where the file system refuses, the next run computes them anew.
            with contextlib.suppress(OSError, StoreWriteError):
                path.parent.mkdir(parents=True, exist_ok=True)
                publish(path, _bytes(*kept))
    return TextFeatures(names, *kept, *(embed_tokens(backbone, texts) if tokens else (None, None)))


def embed_tokens(
    backbone: Backbone, texts: Sequence[str]
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Returns what CLIP's text tower makes of every token, after ln_final and the projection.

    That is rows (R, D) float16, not normalised, from the start token to the end token of each
    text, whose last row is the pooled text; and their offsets (N+1,). CLIP2Video feeds them to its
    Temporal Alignment Block (modules/module_clip.py @e941318, `return_hidden`); weighted token
    interaction reads them too.
    """
    if not backbone.model.text.clips:
        raise ModelError(
            f"{backbone.model_id} is a {backbone.family} model: its tokens are not projected into "
            "the shared space. Heads that read tokens need a CLIP text tower"
        )
    ids = backbone.tokeniser.encode(texts).ids
    offsets, text = _offsets(ids), backbone.model.text
    rows = np.empty((int(offsets[-1]), backbone.embedding_dim), dtype=np.float16)
    _fill(backbone, ids, rows, lambda batch: text.project(text.run(text.embed(batch))))
    return rows, offsets


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
    offsets, text = _offsets(tokens), backbone.model.text
    if layers is None:  # exact in float32: no vocabulary has 16 million words
        column = np.concatenate([np.array(row, np.float32) for row in tokens])[:, None]
        return replace(features, tokens=column, token_offsets=offsets)
    stop = text.sizes.layers - layers
    shape = (int(offsets[-1]), text.sizes.width)
    kind = np.float32 if shape[0] * shape[1] * 4 <= FLOAT32_BYTES else np.float16
    path = None if cache is None else cache / FOLDER / _name(backbone, tokens, layers, kind)

    def fill(rows: NDArray[Any]) -> None:
        # The layers that are trained never run.
        _fill(backbone, tokens, rows, lambda ids: text.run(text.embed(ids), stop=stop), tell=tell)

    rows = kept_rows(path, shape, kind, fill)
    return replace(features, tokens=rows, token_offsets=offsets)


def _offsets(ids: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Returns (N+1,) int64: where each text's tokens begin among those of all."""
    return np.cumsum([0, *map(len, ids)], dtype=np.int64)


def _fill(
    backbone: Backbone,
    ids: Sequence[Sequence[int]],
    rows: NDArray[Any],
    encode: Callable[[Tensor], Tensor],
    *,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Fills rows (R, W) of all texts with what `encode` makes of (B, L) ids of like length."""
    offsets = _offsets(ids)
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


def _name(
    backbone: Backbone, tokens: Sequence[Sequence[int]], layers: int, kind: type[np.generic]
) -> str:
    digest = hashlib.sha256(backbone.weights_sha256.encode())
    settings = backbone.text_settings
    digest.update(f"{backbone.dtype} last {layers} layers, {settings}".encode())
    for row in tokens:
        digest.update(np.array([len(row), *row], np.int64).tobytes())
    return f"{digest.hexdigest()[:24]}.{np.dtype(kind).name}"


def _digest(backbone: Backbone, texts: Sequence[str]) -> str:
    described = backbone.describe()
    digest = hashlib.sha256()
    for part in (
        described["weights_sha256"],
        described["compute_dtype"],
        backbone.family,
        str(backbone.tokeniser.max_length),
        str(backbone.text_settings),
        *texts,
    ):
        piece = part.encode("utf-8", "surrogatepass")
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()[:24]


def _bytes(pooled: NDArray[np.float32], num_truncated: int) -> bytes:
    arrays: dict[str, NDArray[Any]] = {
        "pooled": pooled,
        "num_truncated": np.array([num_truncated], np.int64),
    }
    return save_arrays({**arrays, "sha256": _content_digest(arrays)})


def _content_digest(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for name in ("pooled", "num_truncated"):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return np.frombuffer(digest.digest(), np.uint8)


def _read(path: Path, *, shape: tuple[int, int]) -> tuple[NDArray[np.float32], int] | None:
    """Returns what the file holds; None where it is absent or damaged (then it is made anew)."""
    try:
        content = read_regular(path, needed="embedded captions", limit=_MOST_BYTES)
        arrays = load_arrays(content)
    except (VtrError, SafetensorError):
        return None
    pooled, truncated = arrays.get("pooled"), arrays.get("num_truncated")
    if pooled is None or pooled.shape != shape or pooled.dtype != np.float32:
        return None
    if truncated is None or truncated.shape != (1,):
        return None
    if not np.array_equal(arrays.get("sha256", ()), _content_digest(arrays)):
        return None
    return pooled, int(truncated[0])
