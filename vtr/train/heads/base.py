"""What every head has in common: its inputs, its two-stage scoring, its description."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Code = tuple[Tensor, ...]


@dataclass(frozen=True)
class HeadInfo:
    """What a head needs and what it offers.

    Args:
        needs_tokens: It reads text token embeddings, not only the pooled text.
        needs_order: Its score depends on the order of the frames.
        needs_pad: It reads what the vision tower makes of padding (`VideoBatch.pad`).
        indexable: A video becomes vectors that do not depend on the text, and the score is their
            inner product with the text's: an index can serve it.
        scaled: The score is a cosine that the learned logit scale multiplies; else it is a logit.
        cost: Cost of one text-video pair in a few words.
        source: Paper or repository @commit.
    """

    needs_tokens: bool = False
    needs_order: bool = False
    needs_pad: bool = False
    indexable: bool = True
    scaled: bool = True
    cost: str = "one inner product"
    source: str = ""


@dataclass(frozen=True)
class TextBatch:
    """N texts in the dimension of the frames.

    Args:
        pooled: (N, D) float32, not normalised.
        tokens: (N, W, D) float32 embeddings from the start token to the end token, left aligned,
            not normalised; what stands after the end token is arbitrary. None where the head does
            not need them.
        token_mask: (N, W) bool, True from the start token to the end token.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    token_mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pooled)


@dataclass(frozen=True)
class VideoBatch:
    """V videos.

    Args:
        frames: (V, K, D) float32, not normalised, left aligned, in presentation order; padded
            places may hold anything, NaN included.
        mask: (V, K) bool; at least one True in each row.
        pad: (D,) the vision tower's output for padding, for heads that need it.
    """

    frames: Tensor
    mask: Tensor
    pad: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frames)


class Head(nn.Module):
    """A text-video similarity in two stages, so that each text and each video is encoded once.

    A code is a tuple of tensors whose first axis counts the texts or the videos. The codes of one
    item never depend on its batch neighbours, its padding or the batch size. Codes of videos
    encoded with different K can be joined after `pad_codes`.
    """

    info: HeadInfo

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

    def training_terms(self, texts: Code, videos: Code) -> Sequence[tuple[float, Tensor]]:
        """Returns the (N, V) scores that training pulls on, each with its weight in the loss."""
        return [(1.0, self.score(texts, videos))]

    def regulariser(self, texts: Code, videos: Code) -> Tensor | None:
        """Returns a scalar to add to the loss of matching rows (text i, video i), or None."""
        return None


def normalise(vectors: Tensor, *, dim: int = -1) -> Tensor:
    """Returns unit vectors; a zero vector stays zero, with a zero gradient."""
    norm = vectors.norm(dim=dim, keepdim=True)
    return torch.where(norm > 0, vectors / norm.clamp_min(torch.finfo(vectors.dtype).tiny), 0.0)


def masked_frames(videos: VideoBatch) -> Tensor:
    """Returns the frames with zeros in padded places, whatever stood there."""
    return torch.where(videos.mask[..., None], videos.frames, 0.0)


def masked_mean(frames: Tensor, mask: Tensor) -> Tensor:
    """Returns (V, D) means over valid frames; `frames` (V, K, D) must be finite everywhere."""
    weights = mask.to(frames.dtype)
    return torch.einsum("vkd,vk->vd", frames, weights) / weights.sum(1, keepdim=True).clamp_min(1)
