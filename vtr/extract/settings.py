"""What an extraction is asked to do, and the store spec that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vtr.arithmetic import usable_cores
from vtr.clip.device import ENGINES
from vtr.errors import ConfigError
from vtr.extract.limits import DECODING, THUMBNAIL_SIZE, Limits
from vtr.extract.samplers.base import SamplerChoice, parse_samplers
from vtr.features.pictures import PictureFormat
from vtr.features.spec import FeatureSpec


class Encoder(Protocol):
    """What extraction asks of a backbone; `vtr.clip.Backbone` is one."""

    @property
    def device(self) -> Any:
        """Where it runs."""

    def describe(self) -> dict[str, Any]:
        """Returns the fields of `FeatureSpec` that the backbone decides."""

    @property
    def encode_frames(self) -> Callable[..., NDArray[np.float32]]:
        """Returns (B, D) embeddings, not normalised, of (B, h, w, 3) crops.

        A backbone whose frames see their neighbours, whose description says `linear_patch: 3d`,
        is also told `offsets` (n + 1,): where the n clips begin, and B at the end.
        """

    def pad_embedding(self) -> NDArray[np.float32]:
        """Returns (D,) the answer to an all-zero normalised image."""


@dataclass(frozen=True)
class ExtractSettings:
    """How frames are chosen and work is cut."""

    # All choose from one decode.
    samplers: tuple[SamplerChoice, ...] = field(default_factory=lambda: parse_samplers("uniform"))
    num_frames: int = 12  # Budget K per video and sampler
    candidate_fps: float | None = 1.0  # Candidates per second; None is every frame
    # By which share of their distance candidates come later at most, each by another one.
    candidate_jitter: float = 0.0
    seed: int = 0  # Seed of the random samplers
    storage_dtype: str = "float16"  # "float16" or "float32"
    # Keep brightness thumbnails beside a dense store's embeddings, so that samplers that compare
    # pictures can be applied later; ignored without the `dense` sampler.
    thumbnails: bool = True
    # Keep the pictures that the tower saw beside their embeddings; None keeps none.
    pictures: PictureFormat | None = None
    picture_bytes: int | None = None  # Most that the pictures of one run may take; None: no limit
    shard_videos: int = 256  # Inputs per shard, at most
    # Bytes of embeddings and pictures per shard, at most (one video may exceed it).
    shard_bytes: int = 256 << 20
    workers: int = field(default_factory=usable_cores)  # Decoding processes
    hash_files: bool = False  # Keep a digest of every file's content, and tell changed files by it
    timeout_seconds: float = 300.0  # Wall-clock limit per video
    memory_bytes: int = 4 << 30  # Address space a worker may add after its start
    batch_size: int | None = None  # Frames per call of the encoder; None leaves it to the device
    limits: Limits = field(default_factory=Limits)  # Caps on what is decoded

    @property
    def keeps_thumbnails(self) -> bool:
        """Whether the store will hold thumbnails: only where it holds every candidate."""
        return self.thumbnails and any(choice.name == "dense" for choice in self.samplers)


def feature_spec(encoder: Encoder, settings: ExtractSettings) -> FeatureSpec:
    """Returns what the store's numbers depend on.

    Library versions count to the minor number: patch releases do not move features.

    Raises:
        ConfigError: Several samplers, or `dense`, with a backbone that sees neighbouring frames.
    """
    described: Mapping[str, Any] = encoder.describe()
    check_selections(described, [choice.label for choice in settings.samplers])
    engine = described.get("engine", "torch")
    return FeatureSpec(**described, **chosen_fields(settings, engine=engine))


def check_selections(described: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Refuses several samplers, or `dense`, with a backbone that sees neighbouring frames."""
    if described.get("linear_patch") == "3d" and (len(labels) > 1 or "dense" in labels):
        raise ConfigError(
            f"{described['backbone']} (linear_patch 3d) sees each frame together with its "
            "neighbours in the selection, so that its features fit one selection only; the "
            f"samplers are {', '.join(sorted(labels))}. Name one other than dense, a store for each"
        )


def chosen_fields(settings: ExtractSettings, *, engine: str = "torch") -> dict[str, Any]:
    """Returns the fields of `FeatureSpec` that the settings decide, and the versions."""
    labels = tuple(sorted(choice.label for choice in settings.samplers))
    return {
        "storage_dtype": settings.storage_dtype,
        "candidate_fps": settings.candidate_fps,
        "candidate_jitter": settings.candidate_jitter,
        "num_frames": None if labels == ("dense",) else settings.num_frames,
        "samplers": labels,
        "seed": settings.seed,
        "decoding": DECODING,
        "thumbnail_side": THUMBNAIL_SIZE if settings.keeps_thumbnails else None,
        "versions": library_versions("av", "pillow", *encoding_libraries(engine)),
    }


def encoding_libraries(engine: str) -> tuple[str, ...]:
    """Returns the packages whose versions move embeddings."""
    return ("torch", "transformers", *ENGINES[engine][:1])


def library_versions(*names: str) -> dict[str, str]:
    """Returns the versions of libraries, to the minor number."""
    return {name: ".".join(version(name).split("+")[0].split(".")[:2]) for name in names}
