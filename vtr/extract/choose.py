"""Choosing frames after the fact: any sampler on a store that holds every candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.extract.samplers.base import Indices, SamplerChoice, Signals, parse_samplers
from vtr.features.store import FeatureStore as StoredFeatures

DENSE = "dense"
DEFAULT_FRAMES = 12


class FeatureStore(StoredFeatures):
    """A store seen through any sampler: one that is stored, or one applied to every candidate.

    >>> import vtr
    >>> store = vtr.FeatureStore("demo-world/features", sampler="motion", frames=4)
    >>> store["test-order-000a"].frames.shape  # (K, D)
    (4, 96)

    Args:
        folder: The store.
        sampler: Whose frames to return, with options; on a store made with `--sampler dense` any,
            without touching the videos. The only sampler of the store by default.
        frames: The budget K; by default that of the store, or 12 where it has none.
        seed: Of a random sampler that is applied now.
        skip_damaged: Leave damaged shards out, naming them in `damaged`, where others are sound.

    Raises:
        StoreError: No store there, or damaged shards.
        FingerprintError: The shards do not belong together.
        ConfigError: No such sampler, several, or one that needs what the store does not hold.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        sampler: str | None = None,
        frames: int | None = None,
        seed: int = 0,
        skip_damaged: bool = False,
    ) -> None:
        if frames is not None and (not isinstance(frames, int | np.integer) or frames < 1):
            raise ConfigError(f"frames is {frames!r:.60}; it must be a whole number, 1 or more")
        self._budget, self._seed = frames, seed
        super().__init__(folder, sampler=sampler, skip_damaged=skip_damaged)

    def _see_through(self, sampler: str) -> None:
        held, budget = self.spec.samplers, self._budget
        as_stored = sampler == DENSE or budget in (None, self.spec.num_frames)
        if (as_stored and sampler in held) or (budget is None and DENSE not in held):
            super()._see_through(sampler)
            return
        choice, count = single_sampler(sampler), budget or DEFAULT_FRAMES
        require_dense(self, f"sampler {choice.label!r} with {counted(count, 'frame')}")
        self.sampler = DENSE
        chosen = picks(self, choice, count, seed=self._seed)
        self.__dict__.update(vars(self.with_selection(choice.label, chosen)))


def single_sampler(text: str) -> SamplerChoice:
    """Reads the name of one sampler with its options; ConfigError where there are several."""
    chosen = parse_samplers(text, embedded=True)
    if len(chosen) != 1:
        raise ConfigError(f"--sampler is {text!r}; here it must be a single sampler")
    return chosen[0]


def require_dense(store: StoredFeatures, what: str) -> None:
    """Raises ConfigError where a store does not hold every candidate."""
    if DENSE not in store.spec.samplers:
        raise ConfigError(
            f"{what} needs all candidates, and {store.folder} holds only the frames of "
            f"{', '.join(store.spec.samplers)} ({store.spec.num_frames} per video). Extract with "
            "--sampler dense once; then every sampler can be applied without the videos"
        )


def picks(
    dense: StoredFeatures,
    choice: SamplerChoice,
    num_frames: int,
    *,
    seed: int = 0,
    ids: Iterable[str] | None = None,
) -> Mapping[str, Indices]:
    """Returns what a sampler chooses, as indices into the candidates of each video (all, or `ids`).

    `dense` is a store that holds every candidate, seen through `dense`.
    """
    signals = ((i, stored_signals(dense, i, choice)) for i in (dense if ids is None else ids))
    return {i: choice.select(seen, num_frames, seed=seed, video_id=i) for i, seen in signals}


def stored_signals(dense: StoredFeatures, video_id: str, choice: SamplerChoice) -> Signals:
    """Returns what a sampler may look at, from the store: only what it asks for.

    Raises:
        ConfigError: It compares pictures, and the store holds no thumbnails.
    """
    if "luma" in choice.needs and dense.spec.thumbnail_side is None:
        raise ConfigError(
            f"sampler {choice.name!r} compares pictures, and {dense.folder} holds no thumbnails. "
            "Extract with --sampler dense without --no-thumbnails, or name a sampler that needs "
            "none (`vtr samplers` lists them)"
        )
    features = dense[video_id]
    luma = dense.thumbnails(video_id) if "luma" in choice.needs else None
    embedded = "embeddings" in choice.needs
    return Signals(
        features.pts_seconds, luma, features.frames.astype(np.float32) if embedded else None
    )
