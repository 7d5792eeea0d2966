"""Scores of texts against videos, block by block, in bounded memory; the best epoch by them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr.errors import ConfigError, ModelError
from vtr.features.store import PackedFrames
from vtr.train.data import Index, PictureRows, ResidentTexts, resident_videos
from vtr.train.heads.base import Code, pad_codes
from vtr.train.inner import InnerProducts, InThreads
from vtr.train.memory import within_memory
from vtr.train.model import RetrievalModel
from vtr.train.texts import TextFeatures

Scores = NDArray[np.float32]

_CELLS = 1 << 24
"""Largest block of scores: 64 MiB of float32."""

_PRODUCT_ROWS = 256
"""Texts per block, at most, where scores are inner products: few enough for their scores to be in
the cache when they are counted, more make the product no quicker."""

_PAIRS = 1 << 15
"""Pairs scored at once where a pair costs more than an inner product."""

_TRIAL_SECONDS = 0.25
"""A trial of scoring that takes longer says how long the whole will take."""

_KEPT_CODE_BYTES = 1 << 29
"""Codes of all texts are kept between passes up to this size."""


class Scorer:
    """A model, texts and videos: scores on request.

    >>> import vtr
    >>> backbone = vtr.load_backbone(vtr.open_workspace("demo-world").model, device="cpu")
    >>> texts = vtr.embed_texts(backbone, ["a red star", "a blue heart"])
    >>> videos = vtr.FeatureStore("demo-world/features", sampler="uniform").packed(dtype="float32")
    >>> vtr.Scorer(vtr.zero_shot_model(backbone.logit_scale), texts, videos).matrix().shape
    (2, 26)

    Every video is encoded once. Every text is encoded once per pass, and once in all where its
    codes are small. The scores are the head's own, WITHOUT the logit scale (`scale`), which
    changes no rank. The model is put into evaluation mode while encoding and put back.

    Args:
        model: Moved to `device`.
        texts: N texts, as the model's text tower wants them (`vtr.train.texts.embed_for`).
        videos: V videos, each with at least one frame; pictures for a model with a vision tower.
        pad: (D,) what the vision tower makes of padding, for heads that read it.
        device: Where to compute; where the model is by default.
        batch_size: Texts or videos encoded at once.

    Attributes:
        candidates: How many of its best videos a text sees together, for heads where it does; 0 as
            many as the head says. To be set before anything is scored.

    Raises:
        ConfigError: No texts, no videos, or a video without frames.
    """

    def __init__(
        self,
        model: RetrievalModel,
        texts: TextFeatures,
        videos: PackedFrames | PictureRows,
        *,
        pad: NDArray[np.float32] | None = None,
        device: torch.device | str | None = None,
        batch_size: int = 256,
    ) -> None:
        if not len(texts) or not videos.ids:
            raise ConfigError(f"nothing to score: {len(texts)} texts, {len(videos.ids)} videos")
        self.device = model.logit_scale.device if device is None else torch.device(device)
        self.batch_size = batch_size
        self.candidates = 0
        with within_memory("the model with all texts and videos"):
            self.model = model.to(self.device)
            self._texts = ResidentTexts(texts, self.device)
            self._videos = resident_videos(videos, self.device, pad)
        self._kept: dict[int, Code] = {}  # by first row
        if not self._videos.lengths.all():
            empty = videos.ids[int(np.argmin(self._videos.lengths))]
            raise ConfigError(f"video {empty!r} has no frames; leave it out of the gallery")

    @property
    def text_ids(self) -> tuple[str, ...]:
        """N ids, the rows."""
        return self._texts.ids

    @property
    def video_ids(self) -> tuple[str, ...]:
        """V ids, the columns."""
        return self._videos.ids

    @property
    def shape(self) -> tuple[int, int]:
        """(N, V)."""
        return len(self._texts), len(self._videos)

    @property
    def scale(self) -> float:
        """What training multiplied the scores with; 1 for heads whose scores are logits."""
        return float(self.model.scale().detach())

    @cached_property
    def video_codes(self) -> Code:
        """The codes of all videos."""
        index = np.arange(len(self._videos))
        step = min(self.batch_size, self._videos.at_once)
        parts = [index[i : i + step] for i in range(0, len(index), step)]
        with evaluating(self.model):
            return pad_codes([self.model.encode_videos(self._videos.batch(part)) for part in parts])

    def encode_texts(self, index: Index) -> Code:
        """Returns the codes of some texts, in the order of `index` (B,)."""
        with evaluating(self.model):
            texts = self.model.encode_texts(self._texts.batch(index))
            if not self.model.head.info.together:
                return texts
            return self.model.head.bind_best(texts, self.video_codes, self.candidates)

    def blocks(self) -> Iterator[tuple[int, Scores]]:
        """Yields (first row, (b, V) float32) until all N rows are done; may be called again."""
        for start in range(0, self.shape[0], self._height):
            yield start, self._checked(start, self.score(self._text_codes(start)))

    def stream(self) -> Iterator[tuple[int, Scores | Callable[[], Scores]]]:
        """Yields the same as `blocks`, where scores are inner products as functions that give them.

        They may be called in several threads at once.
        """
        if not self.model.head.info.indexable:
            yield from self.blocks()
            return
        inner = InThreads(self._inner, self._height)
        for start in range(0, self.shape[0], self._height):
            yield start, partial(self._product, inner, start, self._text_codes(start)[0])

    def _product(self, inner: InThreads, start: int, code: Tensor) -> Scores:
        scores = _numpy(inner(code))
        return scores if self._inner.surely_finite(code) else self._checked(start, scores)

    @cached_property
    def _inner(self) -> InnerProducts:
        return InnerProducts(self.video_codes[0])

    @property
    def _height(self) -> int:
        """Texts per block; the last has hardly fewer, as few rows are multiplied in another way."""
        num_texts, rows = self.shape[0], self.batch_size
        if self.model.head.info.indexable:
            rows = -(-num_texts // -(-num_texts // _PRODUCT_ROWS))
        return max(1, min(rows, _CELLS // len(self._videos)))

    def matrix(self) -> Scores:
        """Returns all (N, V) scores."""
        return np.concatenate([block for _, block in self.blocks()])

    def recall(self) -> Scores:
        """Returns (N, V) by what a head that `recalls` finds what it is to look at."""
        videos = self.video_codes[0].T
        starts = range(0, self.shape[0], self._height)
        with torch.no_grad():
            return np.concatenate([_numpy(self._text_codes(i)[0] @ videos) for i in starts])

    def expected_seconds(self) -> float:
        """Returns about how long `blocks` will take, from a few texts scored on this machine.

        The videos are encoded on the way, once and for all. 0 for heads whose pairs cost an inner
        product: those wait for nothing.
        """
        if self.model.head.info.indexable:
            return 0.0
        num_texts = len(self._texts)
        _ = self.video_codes
        seconds, rows = 0.0, 1
        while True:  # one text of a costly head says enough; more are needed where one is quick
            code = self.encode_texts(np.arange(rows))
            start = time.perf_counter()
            self.score(code)
            seconds = time.perf_counter() - start
            if seconds > _TRIAL_SECONDS or rows == min(num_texts, self.batch_size):
                return seconds / rows * num_texts
            rows = min(8 * rows, num_texts, self.batch_size)

    def score(self, texts: Code) -> Scores:
        """Returns (b, V) scores of encoded texts against all videos."""
        videos = self.video_codes
        with evaluating(self.model):
            if self.model.head.info.indexable:
                return _numpy(self._inner(texts[0]))
            width = max(1, _PAIRS // len(texts[0]))
            parts = [
                _numpy(self.model.head.score(texts, tuple(p[i : i + width] for p in videos)))
                for i in range(0, len(self._videos), width)
            ]
        return np.concatenate(parts, axis=1)

    def score_pairs(self, texts: Index, videos: Index) -> Scores:
        """Returns (P,) scores of chosen pairs: `texts` (P,) and `videos` (P,) are places."""
        scores = np.empty(len(texts), np.float32)
        order = np.argsort(texts, kind="stable")
        starts = np.arange(0, self.shape[0] + self._height, self._height)
        edges = np.searchsorted(texts[order], starts)
        for start, (first, last) in zip(starts.tolist(), pairwise(edges.tolist()), strict=False):
            if first == last:
                continue
            pairs, code = order[first:last], self._text_codes(start)
            with evaluating(self.model):
                values = self.model.head.score_pairs(
                    code,
                    self.video_codes,
                    torch.from_numpy(texts[pairs] - start).to(self.device),
                    torch.from_numpy(videos[pairs]).to(self.device),
                )
            scores[pairs] = _numpy(values)
        if not np.isfinite(scores).all():
            worst = int(np.argmin(np.isfinite(scores)))
            raise self._not_finite(int(texts[worst]), int(videos[worst]), scores[worst])
        return scores

    def _text_codes(self, start: int) -> Code:
        """Returns the codes of one block of texts, kept where all blocks together are small."""
        if start in self._kept:
            return self._kept[start]
        rows = np.arange(start, min(start + self._height, self.shape[0]))
        step = self.batch_size if self._texts.has_tokens else len(rows)
        parts = [self.encode_texts(rows[i : i + step]) for i in range(0, len(rows), step)]
        code = parts[0] if len(parts) == 1 else pad_codes(parts)
        size = sum(part.numel() * part.element_size() for part in code)
        if size * self.shape[0] <= _KEPT_CODE_BYTES * len(rows):
            self._kept[start] = code
        return code

    def _checked(self, start: int, scores: Scores) -> Scores:
        with np.errstate(over="ignore", invalid="ignore"):
            # One quick pass; what it doubts is read again.
            is_sound = bool(np.isfinite(scores.sum()))
        if not is_sound and not np.isfinite(scores).all():
            row, column = (int(places[0]) for places in np.nonzero(~np.isfinite(scores)))
            raise self._not_finite(start + row, column, scores[row, column])
        return scores

    def _not_finite(self, text: int, video: int, score: np.floating[Any]) -> ModelError:
        return ModelError(
            f"the score of text {self.text_ids[text]!r} and video {self.video_ids[video]!r} is "
            f"{score}: the model's weights or the features hold a value that is not finite"
        )


@contextmanager
def evaluating(model: RetrievalModel) -> Iterator[None]:
    """Puts a model into evaluation mode without gradients, and back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with within_memory("what is scored at once"), torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _numpy(scores: Tensor) -> Scores:
    array: Scores = scores.float().cpu().numpy()
    return array


Measure = Callable[[Scorer], Mapping[str, float]]

SELECTION = "mean of R@1, R@5 and R@10 in both directions"
_RECALLS = tuple(f"{way}/R@{k}" for way in ("t2v", "v2t") for k in (1, 5, 10))


@dataclass(frozen=True)
class Validation:
    """What an epoch is judged on."""

    texts: TextFeatures  # As the model reads them
    videos: PackedFrames | PictureRows  # The gallery
    measure: Measure  # Returns metrics under the keys of `evaluate` ("t2v/R@1", ...), in percent
    pad: NDArray[np.float32] | None = None  # (D,) what the vision tower makes of padding

    def __call__(self, model: RetrievalModel) -> dict[str, float]:
        """Returns the metrics of a model, which stays in the mode it was in."""
        scorer = Scorer(model, self.texts, self.videos, pad=self.pad)
        return {name: float(value) for name, value in self.measure(scorer).items()}


def selection_value(metrics: Mapping[str, float]) -> float:
    """Returns what the best epoch has most of: the mean of all recalls (`SELECTION`).

    R@1 alone moves in steps of one query, which on a small validation set is mostly chance.

    >>> round(selection_value({"t2v/R@1": 40.0, "t2v/R@5": 60.0}), 1)
    50.0
    """
    recalls = [metrics[name] for name in _RECALLS if name in metrics]
    if not recalls:
        raise ConfigError(
            f"validation gave none of {', '.join(_RECALLS)}; got {', '.join(metrics) or 'nothing'}"
        )
    return float(np.mean(recalls))
