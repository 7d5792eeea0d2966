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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from vtr.evaluate.counting import Scores
from vtr.evaluate.evaluator import Task, evaluate
from vtr.evaluate.intervals import cell, retrieval_intervals
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.ranks import Blocks
from vtr.extract.samplers.segment import middles
from vtr.features import PackedFrames
from vtr.train.heads.attentionP import AttentionPooling
from vtr.train.heads.base import Head, VideoBatch
from vtr.train.heads.maxP import MaxPooling
from vtr.train.heads.meanP import MeanPooling

Vectors = NDArray[np.float32]
RULES = ("mean", "maxP", "max-sim", "top-k", "attention")
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class PoolingOptions:
    """What the rules can be told."""

    top: int = 3  # k of "top-k", at least 1; a video with fewer frames uses all
    temperature: float = 0.1  # tau of "attention"


def frame_counts(longest: int) -> list[int]:
    """Returns 1, 2, 4, ... up to the longest video, which is always the last.

    >>> frame_counts(12)
    [1, 2, 4, 8, 12]
    """
    counts = [1]
    while counts[-1] * 2 < longest:
        counts.append(counts[-1] * 2)
    return counts if longest == counts[-1] else [*counts, longest]


def thinned(packed: PackedFrames, num_frames: int) -> VideoBatch:
    """Returns the videos with at most `num_frames` frames each, float32."""
    lengths = np.diff(packed.offsets)
    width = min(num_frames, int(lengths.max()))
    frames = np.zeros((len(lengths), width, packed.frames.shape[1]), np.float32)
    mask = np.zeros((len(lengths), width), np.bool_)
    for v, (start, length) in enumerate(zip(packed.offsets[:-1], lengths, strict=True)):
        rows = start + middles(int(length), width)
        frames[v, : len(rows)] = packed.frames[rows]
        mask[v, : len(rows)] = True
    return VideoBatch(torch.from_numpy(frames), torch.from_numpy(mask))


def rule_blocks(rule: str, texts: Vectors, videos: VideoBatch, options: PoolingOptions) -> Blocks:
    """Returns the scores of all texts (T, D) with all videos under one rule, in blocks of rows."""
    unit = normalize(torch.from_numpy(texts), dim=-1)
    score = _scoring(rule, videos, options)
    cells = len(videos) if rule in ("mean", "maxP") else 4 * videos.mask.numel()
    step = max(1, _BLOCK_BYTES // (4 * max(1, cells)))

    def blocks() -> Iterator[tuple[int, Scores]]:
        for start in range(0, len(texts), step):
            with torch.no_grad():
                scores = score(unit[start : start + step])
            yield start, scores.numpy()

    return blocks


def _scoring(rule: str, videos: VideoBatch, options: PoolingOptions) -> Callable[[Tensor], Tensor]:
    """Returns a function from unit texts (b, D) to scores (b, V)."""
    if rule in ("max-sim", "top-k"):
        most = min(1 if rule == "max-sim" else options.top, videos.mask.shape[1])
        flat = normalize(videos.frames, dim=-1).flatten(0, 1)
        there = videos.mask.sum(dim=1).clamp(max=most)

        def top_mean(texts: Tensor) -> Tensor:
            sims = (texts @ flat.T).reshape(-1, *videos.mask.shape)
            best = sims.masked_fill(~videos.mask, -torch.inf).topk(most, dim=2).values
            total: Tensor = best.masked_fill(best.isinf(), 0).sum(dim=2)
            return total / there

        return top_mean
    heads: dict[str, Callable[[], Head]] = {
        "mean": MeanPooling,
        "maxP": MaxPooling,
        # Colder than a run's head may be.
        "attention": lambda: AttentionPooling(options=SimpleNamespace(tau=options.temperature)),
    }
    head = heads[rule]()
    with torch.no_grad():
        codes = head.encode_videos(videos)
    return lambda texts: head.score((texts,), codes)


def simulate(
    task: Task,
    texts: Vectors,
    packed: PackedFrames,
    *,
    options: PoolingOptions,
    tell: Callable[[int, int], None],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Evaluates every rule at every number of frames; `texts` (T, D) are those of the task.

    A row has `rule`, `frames` (at most so many of each video), `mean_frames` (how many it had on
    average) and `metrics`: key such as "t2v/R@1" to value, low and high. `tell` is called with
    (done, total) after each combination.
    """
    longest = int(np.diff(packed.offsets).max())
    counts = frame_counts(longest)
    rows: list[dict[str, Any]] = []
    for frames in counts:
        videos = thinned(packed, frames)
        for rule in RULES:
            blocks = rule_blocks(rule, texts, videos, options)
            ranks = evaluate(task, blocks).ranks
            ends = retrieval_intervals(ranks, seed=seed)
            metrics = {
                key: cell(value, ends[key])
                for key, value in retrieval_metrics(ranks).expected.items()
            }
            mean_frames = float(videos.mask.sum() / len(videos))
            row = {"rule": rule, "frames": frames, "mean_frames": mean_frames, "metrics": metrics}
            rows.append(row)
            tell(len(rows), len(counts) * len(RULES))
    return rows
