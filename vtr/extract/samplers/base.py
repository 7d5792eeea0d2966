"""What a sampler sees, how users name one, and how its answer is checked."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.extract import samplers
from vtr.extract.samplers.common import Floats, Luma, absolute_change, squared_change
from vtr.extract.samplers.common import Indices as Indices
from vtr.options import (
    NamedChoice,
    OptionValue,
    load_plugin,
    plugin_names,
    read_options,
    split_choice,
    types_of,
)


@dataclass(frozen=True)
class Signals:
    """What samplers may look at, one entry per candidate frame."""

    pts_seconds: NDArray[np.float64]  # (N,) float64, presentation times, ascending, N >= 1
    luma: Luma | None = None  # (N, h, w) uint8 brightness thumbnails, where a sampler asked
    embeddings: Floats | None = None  # (N, D) finite, as a dense store has them, not normalised

    def __post_init__(self) -> None:
        count = len(self.pts_seconds)
        if self.pts_seconds.ndim != 1 or not count:
            raise ValueError(f"pts_seconds must be (N,) with N >= 1, is {self.pts_seconds.shape}")
        if self.luma is not None and len(self.luma) != count:
            raise ValueError(f"{len(self.luma)} thumbnails for {count} candidates")
        shape = (count, 0) if self.embeddings is None else self.embeddings.shape
        if len(shape) != 2 or shape[0] != count:
            raise ValueError(f"embeddings must be ({count}, D), are {shape}")

    def __len__(self) -> int:
        return len(self.pts_seconds)

    @property
    def pictures(self) -> Luma:
        """The thumbnails, for a sampler whose NEEDS names them."""
        if self.luma is None:
            raise ValueError("these candidates have no thumbnails")
        return self.luma

    @cached_property
    def absolute_change(self) -> NDArray[np.float64]:
        """(N,) mean absolute luma change from the frame before, 0 to 255; entry 0 is 0."""
        return absolute_change(self.pictures)

    @cached_property
    def squared_change(self) -> NDArray[np.float64]:
        """(N,) mean squared luma change from the frame before, 0 to 65025; entry 0 is 0."""
        return squared_change(self.pictures)


class SamplerChoice(NamedChoice):
    """One sampler with its options, as typed by a user; its label names the selection in a store.

    >>> SamplerChoice("motion", {"global_share": 0.25}).label
    'motion:global_share=0.25'
    """

    @property
    def needs(self) -> frozenset[str]:
        """The signals this sampler reads beside the time stamps."""
        needs: frozenset[str] = _module(self.name).NEEDS
        return needs

    def select(self, signals: Signals, num_frames: int, *, seed: int, video_id: str) -> Indices:
        """Returns the indices of the chosen candidates, checked against the contract.

        The seed of the run fixes random choices together with the video's id.

        Raises:
            ConfigError: K below 1, or a signal that this sampler needs is absent.
        """
        if num_frames < 1:
            raise ConfigError(f"--frames is {num_frames}; a sampler needs at least 1 frame")
        if "luma" in self.needs and signals.luma is None:
            raise ConfigError(
                f"sampler {self.name!r} compares pictures, but these candidates carry no "
                "thumbnails. Extract again with this sampler named"
            )
        if "embeddings" in self.needs and signals.embeddings is None:
            raise ConfigError(_needs_dense_store(self.name))
        count = len(signals)
        if num_frames >= count:
            return np.arange(count)
        select = _module(self.name).select
        chosen = select(signals, num_frames, sampler_rng(seed, video_id), **self.options)
        budget = count if self.name == "dense" else num_frames
        check_selection(chosen, num_candidates=count, budget=budget, sampler=self.name)
        return np.asarray(chosen, dtype=np.int64)


def sampler_rng(seed: int, video_id: str) -> np.random.Generator:
    """Returns the generator of one video: the same for any order, worker or machine."""
    digest = hashlib.sha256(f"{seed}\0{video_id}".encode("utf-8", "backslashreplace")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def check_selection(
    chosen: NDArray[np.int64], *, num_candidates: int, budget: int, sampler: str
) -> None:
    """Raises AssertionError where a sampler breaks its contract: that is a bug, not user error."""
    indices = np.asarray(chosen)
    assert indices.ndim == 1, f"{sampler}: indices of shape {indices.shape}"
    assert np.issubdtype(indices.dtype, np.integer), f"{sampler}: dtype {indices.dtype}"
    assert len(indices) == budget, f"{sampler}: {len(indices)} indices, not {budget}"
    assert (np.diff(indices) > 0).all(), f"{sampler}: not sorted and unique: {indices}"
    assert not budget or (indices[0] >= 0 and indices[-1] < num_candidates), (
        f"{sampler}: out of range 0..{num_candidates - 1}: {indices}"
    )


def sampler_names() -> list[str]:
    """Returns the names of all samplers."""
    return plugin_names(samplers)


def parse_samplers(
    text: str | Iterable[str], *, embedded: bool = False
) -> tuple[SamplerChoice, ...]:
    """Reads `--sampler`: names with options, separated by commas; `all` is every one but `dense`.

    Args:
        text: What the user typed, or the words of it.
        embedded: Whether every candidate has its embedding already (a dense store). Without,
            `all` leaves out the samplers that need them, and naming one is an error.

    >>> [choice.label for choice in parse_samplers("uniform, head")]
    ['uniform', 'head']

    Raises:
        UnknownNameError: No such sampler or option.
        ConfigError: An option value of the wrong type or out of range, nothing named, or a
            sampler that needs embeddings before there are any.
    """
    parts = text.split(",") if isinstance(text, str) else list(text)
    words = [part.strip() for part in parts if part.strip()]
    names = [name for w in words for name in (_everything(embedded) if w == "all" else [w])]
    if not names:
        raise ConfigError(f"--sampler is empty. Known: {', '.join(sampler_names())}")
    choices = {choice.label: choice for choice in map(_parse_choice, names)}
    for choice in choices.values():
        if "embeddings" in choice.needs and not embedded:
            raise ConfigError(_needs_dense_store(choice.name))
    return tuple(choices.values())


def _everything(embedded: bool) -> list[str]:
    return [
        name
        for name in sampler_names()
        if name != "dense" and (embedded or "embeddings" not in SamplerChoice(name).needs)
    ]


def _needs_dense_store(name: str) -> str:
    return (
        f"sampler {name!r} compares embeddings, which no candidate has before extraction. "
        f"Extract with --sampler dense, then name it to what reads that store: "
        f"vtr train --sampler {name}, vtr eval --sampler {name}"
    )


def _parse_choice(word: str) -> SamplerChoice:
    name, pairs = split_choice(word, sampler_names(), kind="sampler")
    defaults = sampler_options(name)
    options = dict(read_options(pairs, types_of(defaults), owner=("sampler", name)))
    changed = {key: value for key, value in options.items() if value != defaults[key]}
    if changed:  # the sampler refuses its option values now, not at the first of many videos
        signals = Signals(np.arange(3.0), np.zeros((3, 2, 2), np.uint8), np.ones((3, 2)))
        _module(name).select(signals, 2, np.random.default_rng(0), **changed)
    return SamplerChoice(name, changed)


def sampler_options(name: str) -> dict[str, OptionValue]:
    """Returns the options of a sampler with their defaults."""
    parameters = inspect.signature(_module(name).select).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


@lru_cache(maxsize=64)  # for every video; listing the folder costs half a millisecond
def _module(name: str) -> ModuleType:
    return load_plugin(samplers, name, kind="sampler")


def describe_samplers() -> list[dict[str, Any]]:
    """Returns what `vtr samplers` says of every sampler."""
    return [
        {
            "name": name,
            "summary": (_module(name).__doc__ or "").splitlines()[0],
            "options": sampler_options(name),
            "needs": sorted(_module(name).NEEDS),
            "cost": _module(name).COST,
        }
        for name in sampler_names()
    ]
