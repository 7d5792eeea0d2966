"""What a sampler costs on real videos: decoding and choosing, then embedding what it chose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.extract.sample import FrameRequest, Transform, sample_video
from vtr.extract.samplers.base import SamplerChoice

DENSE_CHOICE = SamplerChoice("dense")


@dataclass(frozen=True)
class SamplerCost:
    """Means over the measured videos, each decoded for this sampler alone."""

    sampler: str  # Its label
    # Processor time of decoding, thumbnails, choosing and resizing, one thread.
    decode_cpu_ms: float
    frames: float  # Frames to embed
    # Time the encoder takes for them; its time per frame is measured once for all samplers.
    embed_ms: float
    videos: int  # How many videos were measured


def measure_costs(
    requests: Sequence[FrameRequest],
    choices: Sequence[SamplerChoice],
    transform: Transform,
    encode: Callable[[NDArray[np.uint8]], Any],
) -> list[SamplerCost]:
    """Decodes every video once per sampler; returns a cost for each, in the order of `choices`.

    A sampler that compares embeddings costs what `dense` costs: all candidates are embedded first.

    Args:
        requests: One per video, at least one; their samplers are replaced.
        choices: The samplers.
        transform: Makes the encoder's crop of a picture.
        encode: The encoder, on (B, ...) crops.

    Raises:
        DecodeError: A video cannot be read.
    """
    # What is loaded at the first call of either is no sampler's cost.
    first = sample_video(replace(requests[0], choices=(SamplerChoice("uniform"),)), transform).crops
    encode(first)
    embed_ms = 1e3 * _seconds(lambda: encode(first), time.perf_counter) / len(first)
    costs = []
    for choice in choices:
        decoded = DENSE_CHOICE if "embeddings" in choice.needs else choice
        own = [replace(request, choices=(decoded,)) for request in requests]
        start = time.process_time()
        frames = sum(len(sample_video(request, transform).crops) for request in own) / len(own)
        spent = 1e3 * (time.process_time() - start) / len(own)
        costs.append(SamplerCost(choice.label, spent, frames, frames * embed_ms, len(own)))
    return costs


def _seconds(action: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    action()
    return clock() - start
