"""What pooling and the number of frames buy: every pooling rule on cached frames, no training.

The rules, for unit texts t and unit frames f_1..f_n of a video (x_k before normalising):

- mean        normalise(mean_k f_k) . t                       meanP of CLIP4Clip @508ffa3
- maxP        normalise(max_k f_k, per dimension) . t         maxP of CLIP_video @91bcaf6
- max-sim     max_k f_k . t                                   the best single frame
- top-k       mean of the k largest f_k . t
- attention   normalise(sum_k a_k x_k) . t, a = softmax_k(f_k . t / tau)
              query scoring (Bain et al. 2022, arXiv 2205.08508), tau 0.1

mean, maxP and attention are the heads meanP, maxP and attentionP themselves.
Each for 1, 2, 4, ... frames, taken from the middle of equal parts of the cached ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray

from vtr.errors import ConfigError, UnknownNameError
from vtr.evaluate.counting import Scores
from vtr.evaluate.evaluator import Task, evaluate
from vtr.evaluate.intervals import retrieval_intervals
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.ranks import Blocks
from vtr.features import PackedFrames
from vtr.train.heads.attentionP import AttentionPooling
from vtr.train.heads.base import Head, VideoBatch
from vtr.train.heads.maxP import MaxPooling
from vtr.train.heads.meanP import MeanPooling

Vectors = NDArray[np.float32]
RULES = ("mean", "maxP", "max-sim", "top-k", "attention")
COLDEST = 1e-6
"""Below it similarities over the temperature leave float32; the best frame alone has long won."""
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class PoolingOptions:
    """What the rules can be told."""

    rules: tuple[str, ...] = RULES  # Which of `RULES` to compare
    top: int = 3  # k of "top-k", at least 1; a video with fewer frames uses all
    temperature: float = 0.1  # tau of "attention", at least `COLDEST`

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule not in RULES:
                raise UnknownNameError("pooling rule", rule, RULES)
        if self.top < 1 or not self.temperature >= COLDEST:
            raise ConfigError(
                f"top is {self.top} and temperature {self.temperature}; top must be 1 or more and "
                f"the temperature {COLDEST} or more, such as 0.1"
            )


@dataclass(frozen=True)
class Gallery:
    """V videos with up to n frames each, ready for all rules."""

    frames: Vectors  # (V, n, D) float32, zeros where `mask` is False
    mask: NDArray[np.bool_]  # (V, n) bool


def frame_counts(longest: int) -> list[int]:
    """Returns 1, 2, 4, ... up to the longest video, which is always the last.

    >>> frame_counts(12)
    [1, 2, 4, 8, 12]
    """
    counts = [1]
    while counts[-1] * 2 < longest:
        counts.append(counts[-1] * 2)
    return counts if longest == counts[-1] else [*counts, longest]


def thin(num_frames: int, wanted: int) -> NDArray[np.int64]:
    """Returns which of `num_frames` frames stay: the middles of `wanted` equal parts.

    >>> thin(12, 4).tolist()
    [1, 4, 7, 10]
    """
    count = min(num_frames, wanted)
    return np.asarray((2 * np.arange(count) + 1) * num_frames // (2 * count), np.int64)


def gallery(packed: PackedFrames, num_frames: int) -> Gallery:
    """Returns the videos with at most `num_frames` frames each."""
    lengths = np.diff(packed.offsets)
    width = min(num_frames, int(lengths.max()))
    frames = np.zeros((len(lengths), width, packed.frames.shape[1]), np.float32)
    mask = np.zeros((len(lengths), width), np.bool_)
    for v, (start, length) in enumerate(zip(packed.offsets[:-1], lengths, strict=True)):
        rows = start + thin(int(length), width)
        frames[v, : len(rows)] = packed.frames[rows]
        mask[v, : len(rows)] = True
    return Gallery(frames, mask)


def rule_blocks(
    rule: str, texts: Vectors, videos: Gallery, options: PoolingOptions | None = None
) -> Blocks:
    """Returns the scores of all texts (T, D) with all videos under one rule, in blocks of rows.

    Raises:
        UnknownNameError: No such rule.
    """
    texts = unit(texts)
    options = options or PoolingOptions()
    score = _scoring(rule, videos, options)
    cells = len(videos.mask) if rule in ("mean", "maxP") else 4 * videos.mask.size
    step = max(1, _BLOCK_BYTES // (4 * max(1, cells)))

    def blocks() -> Iterator[tuple[int, Scores]]:
        for start in range(0, len(texts), step):
            yield start, score(texts[start : start + step])

    return blocks


def unit(vectors: Vectors) -> Vectors:
    """Returns the vectors (..., D) at length 1; zero vectors stay zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: Vectors = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    return result


def _scoring(rule: str, videos: Gallery, options: PoolingOptions) -> Callable[[Vectors], Scores]:
    """Returns a function from unit texts (b, D) to scores (b, V)."""
    if rule in ("max-sim", "top-k"):
        top = 1 if rule == "max-sim" else options.top
        flat = unit(videos.frames).reshape(videos.mask.size, -1)

        def top_mean(texts: Vectors) -> Scores:
            sims = (texts @ flat.T).reshape(-1, *videos.mask.shape)
            best = np.sort(np.where(videos.mask, sims, -np.inf), axis=2)[:, :, ::-1][:, :, :top]
            valid = np.isfinite(best)
            total: Scores = np.where(valid, best, 0).sum(axis=2) / valid.sum(axis=2)
            return total.astype(np.float32)

        return top_mean
    heads: dict[str, Callable[[], Head]] = {
        "mean": MeanPooling,
        "maxP": MaxPooling,
        # Colder than a run's head may be.
        "attention": lambda: AttentionPooling(options=SimpleNamespace(tau=options.temperature)),
    }
    if rule not in heads:
        raise UnknownNameError("pooling rule", rule, RULES)
    head = heads[rule]()
    with torch.no_grad():
        codes = head.encode_videos(
            VideoBatch(torch.from_numpy(videos.frames), torch.from_numpy(videos.mask))
        )

    def score(texts: Vectors) -> Scores:
        with torch.no_grad():
            scores: Scores = head.score((torch.from_numpy(texts),), codes).numpy()
        return scores

    return score


@dataclass(frozen=True)
class SimulatedRow:
    """One rule at one number of frames."""

    rule: str  # One of `RULES`
    frames: int  # At most so many frames of each video
    mean_frames: float  # How many it had on average
    metrics: dict[str, dict[str, float]]  # Key such as "t2v/R@1" to value, low and high


def simulate(
    task: Task,
    texts: Vectors,
    packed: PackedFrames,
    *,
    options: PoolingOptions | None = None,
    seed: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> list[SimulatedRow]:
    """Evaluates every rule at every number of frames; `texts` (T, D) are those of the task.

    `tell` is called with (done, total) after each combination.
    """
    options = options or PoolingOptions()
    longest = int(np.diff(packed.offsets).max())
    counts = frame_counts(longest)
    rows: list[SimulatedRow] = []
    for frames in counts:
        videos = gallery(packed, frames)
        for rule in options.rules:
            blocks = rule_blocks(rule, texts, videos, options)
            ranks = evaluate(task, blocks).ranks
            ends = retrieval_intervals(ranks, seed=seed)
            metrics = {
                key: {"value": value, "low": ends[key][0], "high": ends[key][1]}
                for key, value in retrieval_metrics(ranks).expected.items()
            }
            mean_frames = float(videos.mask.sum() / len(videos.mask))
            rows.append(SimulatedRow(rule, frames, mean_frames, metrics))
            if tell is not None:
                tell(len(rows), len(counts) * len(options.rules))
    return rows
