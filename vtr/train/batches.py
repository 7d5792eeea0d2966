"""Which captions and videos meet in which step: an epoch's plan, all of it in a few array calls.

`videos` batches are video-major: a step takes B videos, encodes each once and lets it meet its
captions, so that an epoch over 180,000 pairs of 9,000 videos costs 9,000 video encodings. `pairs`
batches are the reference's: B pairs out of the shuffled list, each with its own copy of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vtr.errors import ConfigError
from vtr.train.data import Index, group_by_owner
from vtr.train.presets import ALL_CAPTIONS, BatchOptions


@dataclass(frozen=True)
class Step:
    """One step of training."""

    texts: Index  # (N,) places of captions in the training data
    videos: Index  # (B,) places of videos; in `pairs` batches one per text, repeats included
    columns: Index  # (N,) for each text, the place in `videos` of its own one


class BatchPlan:
    """Cuts epochs into steps, the same for the same seed and epoch on every machine."""

    def __init__(self, text_video: Index, options: BatchOptions, *, seed: int = 0) -> None:
        self._owner = text_video
        self._described = np.unique(text_video)
        if len(self._described) < 2:
            raise ConfigError(
                "training needs captions of at least 2 videos; there are captions of "
                f"{len(self._described)}"
            )
        self.options = options
        self.seed = seed
        self._sorted, self._offsets = group_by_owner(text_video, int(text_video.max()) + 1)

    @property
    def size(self) -> int:
        """Videos or pairs per step: what was asked for, or all there are."""
        return min(self.options.size, self._count)

    @property
    def num_steps(self) -> int:
        """Steps of an epoch."""
        if self.options.drop_last:
            return max(1, self._count // self.size)
        return -(-self._count // self.size)

    @property
    def num_pairs(self) -> int:
        """Captions met in an epoch."""
        counts = np.diff(self._offsets)
        limit = self.options.captions or int(counts.max())
        return int(np.minimum(counts, limit).sum())

    @property
    def most_wrong(self) -> int:
        """Wrong answers that a text or a video can meet in a step, at most."""
        if self.options.mode == "pairs":
            return self.size - 1
        counts = np.sort(np.diff(self._offsets)[self._described])[::-1]
        limit = self.options.captions or int(counts[0])
        return int(np.minimum(counts, limit)[: self.size - 1].sum())

    def check_share(self, processes: int) -> None:
        """Refuses a batch that leaves one of several processes without a contrast."""
        if self.size < 2 * processes:
            raise ConfigError(
                f"a batch of {self.size} cannot be shared by {processes} processes; each needs at "
                "least 2 of it"
            )

    @property
    def _count(self) -> int:
        return len(self._described) if self.options.mode == "videos" else self.num_pairs

    def epoch(self, epoch: int, *, groups: list[Index] | None = None) -> list[Step]:
        """Returns the steps of one epoch, which with the seed decides everything.

        `groups` are the videos of each step of `videos` batches; by default they are drawn.
        """
        rng = np.random.default_rng([self.seed, epoch])
        texts = self._draw(rng)
        if self.options.mode == "pairs":
            parts = self._cut(rng.permutation(texts))
            return [Step(part, self._owner[part], np.arange(len(part))) for part in parts]
        if self.options.captions == ALL_CAPTIONS:
            texts, offsets = self._sorted, self._offsets
        else:
            by_video, offsets = group_by_owner(self._owner[texts], len(self._offsets) - 1)
            texts = texts[by_video]
        videos = groups if groups is not None else self._cut(rng.permutation(self._described))
        return _video_steps(texts, offsets, videos)

    def _draw(self, rng: np.random.Generator) -> Index:
        """Returns the captions of this epoch: all, or so many of each video at random."""
        if self.options.captions == ALL_CAPTIONS:
            return np.arange(len(self._owner))
        lots = rng.random(len(self._owner))
        order = np.lexsort((lots, self._owner))  # by video, within a video at random
        rank = np.arange(len(order)) - self._offsets[self._owner[order]]
        return order[rank < self.options.captions]

    def _cut(self, items: Index) -> list[Index]:
        if self.options.drop_last:
            whole = items[: self.num_steps * self.size]
            return np.split(whole, self.num_steps)
        return np.array_split(items, self.num_steps)


def _video_steps(texts: Index, offsets: Index, groups: list[Index]) -> list[Step]:
    """Gathers all drawn captions of the videos of each step; `texts` are sorted by video."""
    videos, sizes = np.concatenate(groups), [len(group) for group in groups]
    counts = offsets[videos + 1] - offsets[videos]
    ends = counts.cumsum()
    chosen = texts[np.repeat(offsets[videos] - ends + counts, counts) + np.arange(ends[-1])]
    places = np.concatenate([np.arange(size) for size in sizes])
    cuts = ends[np.cumsum(sizes)[:-1] - 1]
    parts = (np.split(chosen, cuts), groups, np.split(np.repeat(places, counts), cuts))
    return [Step(*step) for step in zip(*parts, strict=True)]


def halve(steps: list[Step]) -> list[Step]:
    """Returns the same pairs in steps of half the size; each keeps at least two videos."""
    return [half for step in steps for half in _halves(step)]


def _halves(step: Step) -> Iterator[Step]:
    middle = len(step.videos) // 2
    if middle < 2:
        yield step
        return
    for first, last in ((0, middle), (middle, len(step.videos))):
        inside = (step.columns >= first) & (step.columns < last)
        yield Step(step.texts[inside], step.videos[first:last], step.columns[inside] - first)
