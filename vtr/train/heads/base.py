"""What every head has in common: its inputs, its two-stage scoring, its description."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtr.clip.encoders import DualEncoder
from vtr.errors import ConfigError

Code = tuple[Tensor, ...]
Made = TypeVar("Made")

_PAIRS_AT_ONCE = 1 << 8
_ELEMENTS_AT_ONCE = 1 << 23
"""Numbers in a block of scores: 32 MiB of float32, a few times over while it is computed."""


@dataclass(frozen=True)
class HeadInfo:
    """What a head needs and what it offers; of `indexable`, `rows`, `recalls` one holds at most."""

    needs_tokens: bool = False  # It reads text token embeddings, not only the pooled text
    needs_order: bool = False  # Its score depends on the order of the frames
    needs_pad: bool = False  # It reads what the vision tower makes of padding (`VideoBatch.pad`)
    # A video becomes vectors that do not depend on the text, and the score is their inner product
    # with the text's: an index can serve it.
    indexable: bool = True
    # A video becomes a few unit vectors (V, M, D), left aligned by a mask (V, M), and the score is
    # the best inner product: an index of rows, such as that of `vtr search`, can serve it.
    rows: bool = False
    # The first tensors of its codes are unit vectors whose inner products say which videos
    # `--rerank` has it look at; else the mean of the frames does.
    recalls: bool = False
    # A text sees the best videos by that together (`Head.bind`) before it is scored, so that the
    # head is asked only with `--rerank`.
    together: bool = False

    @property
    def index(self) -> str:
        """What of a video an index can hold: "yes" (its vector), "rows", "recall" or "no"."""
        kinds = {"yes": self.indexable, "rows": self.rows, "recall": self.recalls}
        return next((kind for kind, holds in kinds.items() if holds), "no")

    # The score is a cosine that the learned logit scale multiplies; else it is a logit.
    scaled: bool = True
    cost: str = "one inner product"  # Cost of one text-video pair in a few words
    source: str = ""  # Paper or repository @commit


@dataclass(frozen=True)
class TextBatch:
    """N texts in the dimension of the frames; ConfigError for masks that cannot be."""

    pooled: Tensor  # (N, D) floating point, not normalised; a head computes in its own type
    # (N, W, D) embeddings from the start token to the end token, left aligned, not normalised; what
    # stands after the end token is arbitrary. None where the head does not need them.
    tokens: Tensor | None = None
    # (N, W) bool, True from the start token to the end token; whole numbers 0 and 1 become that.
    token_mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.token_mask is not None:
            mask = _checked(self.token_mask, self.tokens, "text")
            object.__setattr__(self, "token_mask", mask)

    def __len__(self) -> int:
        return len(self.pooled)

    def to(self, dtype: torch.dtype) -> TextBatch:
        """Returns the same numbers in another type."""
        tokens = None if self.tokens is None else self.tokens.to(dtype)
        return TextBatch(self.pooled.to(dtype), tokens, self.token_mask)


@dataclass(frozen=True)
class VideoBatch:
    """V videos; ConfigError, with the row, for a video without frames or with a hole between."""

    # (V, K, D) floating point, not normalised, left aligned, in presentation order; padded places
    # may hold anything, NaN included. A head computes in its own type.
    frames: Tensor
    # (V, K) bool, or whole numbers 0 and 1, which become that; at least one True in each row, and
    # none behind a False. Looked at on the CPU only: on a GPU that would make each batch wait for
    # the one before.
    mask: Tensor
    pad: Tensor | None = None  # (D,) the vision tower's output for padding, for heads that need it

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", _checked(self.mask, self.frames, "video"))
        if not self.mask.numel() and not len(self.mask):  # no videos: of one frame each
            object.__setattr__(self, "frames", self.frames.new_zeros(0, 1, self.frames.shape[2]))
            object.__setattr__(self, "mask", self.mask.new_zeros(0, 1))

    def __len__(self) -> int:
        return len(self.frames)

    def to(self, dtype: torch.dtype) -> VideoBatch:
        """Returns the same numbers in another type."""
        pad = None if self.pad is None else self.pad.to(dtype)
        return VideoBatch(self.frames.to(dtype), self.mask, pad)


def _checked(mask: Tensor, vectors: Tensor, whose: str) -> Tensor:
    """Returns a (B, K) mask as bool; refuses what cannot be one of (B, K, D) vectors."""
    if mask.is_floating_point() or mask.is_complex():
        raise ConfigError(
            f"the mask of a {whose} batch is {mask.dtype}; allowed: bool, or whole numbers 0 and 1"
        )
    if vectors.ndim != 3 or mask.shape != vectors.shape[:2]:
        raise ConfigError(
            f"a {whose} batch of shape {tuple(vectors.shape)} with a mask of shape "
            f"{tuple(mask.shape)}; needed: (B, K, D) and (B, K)"
        )
    flags = mask.bool()
    if flags.device.type == "cpu":
        holes = (flags[:, 1:] & ~flags[:, :-1]).any(dim=1).nonzero()[:, 0].tolist()
        if holes:
            raise ConfigError(
                f"the mask in row {holes[0]} of the {whose} batch has a hole: True behind False "
                f"({len(holes)} of {len(flags)} rows). Move what is valid to the left"
            )
        empty = (~flags.any(dim=1)).nonzero()[:, 0].tolist()
        if empty and whose == "text":
            raise ConfigError(
                f"the text in row {empty[0]} of the batch has no tokens; even an empty text has "
                "its start and its end token"
            )
        if empty:
            raise ConfigError(
                f"the video in row {empty[0]} of the batch has no frames ({len(empty)} of "
                f"{len(flags)} rows are empty); a video needs at least 1. Leave it out of the ids"
            )
    return flags


def in_own_type(encode: Callable[[Any, Any], Made]) -> Callable[[Any, Any], Made]:
    """Gives a module its batch in the type of its weights, or without any in at least float32."""

    @functools.wraps(encode)
    def converted(module: nn.Module, batch: TextBatch | VideoBatch) -> Made:
        given = (batch.pooled if isinstance(batch, TextBatch) else batch.frames).dtype
        weight = next((p for p in module.parameters() if p.is_floating_point()), None)
        own = torch.promote_types(given, torch.float32) if weight is None else weight.dtype
        return encode(module, batch if given == own else batch.to(own))

    return converted


class Head(nn.Module):
    """A text-video similarity in two stages, so that each text and each video is encoded once.

    A code is a tuple of tensors whose first axis counts the texts or the videos. The codes of one
    item never depend on its batch neighbours, its padding or the batch size. Codes of videos
    encoded with different K can be joined after `pad_codes`.

    Attributes:
        info: What it needs and offers with its options.
        origin: Where its first weights came from, one phrase for the run's record.
    """

    info = HeadInfo()
    origin: str = "random weights"
    candidates: int = 0
    """How many of its best videos a text sees together where nothing else is said."""

    def __init__(self, dim: int = 0, options: Any = None) -> None:
        super().__init__()
        self.options = options
        self.info = self.info_with(options)

    @classmethod
    def info_with(cls, options: Any) -> HeadInfo:
        """Returns what it needs and offers with some options; by default `info` with any."""
        return cls.info

    def __init_subclass__(cls, **options: Any) -> None:
        """Lets a head be given features of any type, such as the float16 of a store."""
        super().__init_subclass__(**options)
        for name in ("encode_texts", "encode_videos"):
            if name in vars(cls):
                setattr(cls, name, in_own_type(vars(cls)[name]))

    def draw_weights(self) -> None:
        """Draws weights as the references do; by default they are what torch has drawn."""

    def start_from(self, clip: DualEncoder) -> str:
        """Copies what the reference copies from CLIP's text layers; says in a phrase what."""
        return ""

    @in_own_type
    def encode_texts(self, texts: TextBatch) -> Code:
        """Returns the texts' part of the score; by default the normalised pooled text (N, D)."""
        return (normalise(texts.pooled),)

    @abstractmethod
    def encode_videos(self, videos: VideoBatch) -> Code:
        """Returns the videos' part of the score."""

    def score(self, texts: Code, videos: Code) -> Tensor:
        """Returns (N, V) scores: by default the inner products of the codes' first tensors."""
        return texts[0] @ videos[0].T

    def similarity(self, texts: TextBatch, videos: VideoBatch) -> Tensor:
        """Returns (N, V) scores without the logit scale."""
        return self.score(self.encode_texts(texts), self.encode_videos(videos))

    def score_pairs(
        self, texts: Code, videos: Code, text_index: Tensor, video_index: Tensor
    ) -> Tensor:
        """Returns (P,) scores of chosen pairs: of places (P,) int64 in N texts and V videos."""
        if self.info.indexable:
            pairs = split_pairs(text_index, video_index, _PAIRS_AT_ONCE)
            return torch.cat(
                [
                    (texts[0].index_select(0, rows) * videos[0].index_select(0, columns)).sum(
                        dim=-1
                    )
                    for rows, columns in pairs
                ]
            )
        # One row of scores per distinct text: no pair is computed that was not asked for.
        order = text_index.argsort(stable=True)
        distinct, counts = torch.unique_consecutive(text_index[order], return_counts=True)
        rows = [
            self.score(select_code(texts, text[None]), select_code(videos, columns))[0]
            for text, columns in zip(
                distinct, torch.split(video_index[order], counts.tolist()), strict=True
            )
        ]
        scores = torch.cat(rows) if rows else texts[0].new_zeros(0)
        return scores[order.argsort()]

    def bind(self, texts: Code, videos: Code, candidates: Tensor) -> Code:
        """Returns the codes of texts that have seen candidates (N, C) int64, places in V, together.

        Neither the order of the candidates nor other texts have a say in it. The scores of one text
        depend on its candidates only through this.
        """
        return texts

    def bind_best(self, texts: Code, videos: Code, count: int = 0) -> Code:
        """Returns texts that have seen their best `count` videos (0: `candidates`) by recall."""
        if not self.info.together:
            return texts
        with torch.no_grad():
            best = (texts[0] @ videos[0].T).topk(min(count or self.candidates, len(videos[0])))
        return self.bind(texts, videos, best.indices)

    def training_terms(self, texts: Code, videos: Code) -> Sequence[tuple[float, Tensor]]:
        """Returns the (N, V) scores that training pulls on, each with its weight in the loss."""
        return [(1.0, self.score(texts, videos))]

    def regulariser(self, texts: Code, videos: Code) -> Tensor | None:
        """Returns a scalar to add to the loss of matching rows (text i, video i), or None."""
        return None


def normalise(vectors: Tensor) -> Tensor:
    """Returns unit vectors; a zero vector stays zero, with a zero gradient, and NaN stays NaN."""
    norm = vectors.norm(dim=-1, keepdim=True)
    unit: Tensor = vectors / norm.masked_fill(norm == 0, torch.inf)
    return unit


def masked_frames(videos: VideoBatch) -> Tensor:
    """Returns the frames with zeros in padded places, whatever stood there."""
    return _zero_padding(videos.frames, videos.mask)


def _zero_padding(frames: Tensor, mask: Tensor) -> Tensor:
    # Looking costs a thousandth of the copy; on a GPU it would wait for the device.
    if mask.device.type == "cpu" and bool(mask.all()):
        return frames
    return torch.where(mask[..., None], frames, 0.0)


def masked_mean(frames: Tensor, mask: Tensor) -> Tensor:
    """Returns (V, D) means over valid frames; `frames` (V, K, D) must be finite everywhere.

    Without gradients the sum is taken in double where the device has it: then the same frames in
    another order score alike to the last bit, as a mean should.
    """
    count = mask.sum(1, keepdim=True).clamp_min(1)
    if not frames.requires_grad and frames.device.type != "mps":
        total = _zero_padding(frames, mask).sum(1, dtype=torch.float64)
        return (total / count).to(frames.dtype)
    return torch.einsum("vkd,vk->vd", frames, mask.to(frames.dtype)) / count


def split_pairs(
    text_index: Tensor, video_index: Tensor, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields chosen pairs, `size` of them at a time; one empty part where there are none."""
    return zip(torch.split(text_index, size), torch.split(video_index, size), strict=True)


def score_in_chunks(
    score: Callable[[Code, Code], Tensor], texts: Code, videos: Code, *, elements_per_pair: int
) -> Tensor:
    """Returns (N, V) scores, computed in blocks of texts x videos so that memory stays bounded.

    `elements_per_pair` is how many numbers `score` holds for one text and one video.
    """
    num_texts, num_videos = len(texts[0]), len(videos[0])
    if not num_texts or not num_videos:
        return texts[0].new_zeros(num_texts, num_videos)
    pairs = max(_ELEMENTS_AT_ONCE // elements_per_pair, 1)
    if num_texts * num_videos <= pairs:
        return score(texts, videos)
    # Wide blocks: what is prepared per text or per video is then prepared seldom.
    columns = min(num_videos, max(round(pairs**0.5), pairs // num_texts))
    rows, blocks = max(pairs // columns, 1), list(_blocks(videos, columns))
    parts = (torch.cat([score(r, c) for c in blocks], dim=1) for r in _blocks(texts, rows))
    return torch.cat(list(parts))


def _blocks(code: Code, size: int) -> Iterator[Code]:
    return zip(*(torch.split(part, size) for part in code), strict=True)


def select_code(code: Code, index: Tensor) -> Code:
    """Returns the codes of the chosen texts or videos, in the order of `index` (M,) int64."""
    return tuple(part[index] for part in code)


def pad_codes(codes: Sequence[Code]) -> Code:
    """Joins codes along the first axis; shorter ones are filled with zeros (masks with False)."""
    return tuple(_pad_parts(parts) for parts in zip(*codes, strict=True))


def _pad_parts(parts: Sequence[Tensor]) -> Tensor:
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    padded = []
    for part in parts:
        missing = [large - size for large, size in zip(shape, part.shape[1:], strict=True)]
        # functional.pad counts axes from the last one, and wants (before, after) for each.
        widths = [width for amount in reversed(missing) for width in (0, amount)]
        padded.append(functional.pad(part, widths) if any(missing) else part)
    return torch.cat(padded)


def valid_tokens(texts: TextBatch) -> tuple[Tensor, Tensor]:
    """Returns tokens (N, W, D) with zeros behind the end token, and their mask (N, W) bool."""
    if texts.tokens is None or texts.token_mask is None:
        raise ConfigError(
            "this head reads text tokens, but the texts come as one vector each. Embed them with "
            "tokens, or choose a head that needs the pooled text alone (see vtr heads)"
        )
    mask = texts.token_mask
    return torch.where(mask[..., None], texts.tokens, 0.0), mask


def check_option(valid: bool, name: str, value: object, allowed: str) -> None:
    """Raises ConfigError where the value of a head's option is out of range."""
    if not valid:
        raise ConfigError(f"{name}={value} is out of range; allowed: {allowed}")
