"""The job of a decoding worker: one video in, its chosen frames out as uint8 crops."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.clip.preprocess import Preprocessing, resize_crop
from vtr.datasets.base import Video
from vtr.extract.container import Limits
from vtr.extract.pool import Outcome
from vtr.extract.sample import FrameRequest, SampledVideo, sample_video
from vtr.extract.samplers.base import SamplerChoice
from vtr.extract.worker import Answer

HANDLER = "vtr.extract.jobs:make_handler"


@dataclass(frozen=True)
class JobConfig:
    """What all jobs of a run share; sent to every worker once."""

    choices: tuple[SamplerChoice, ...]
    num_frames: int
    candidate_fps: float | None
    seed: int
    limits: Limits
    preprocessing: Mapping[str, Any]
    thumbnails: bool = False
    hashed: bool = False


@dataclass(frozen=True)
class Decoded:
    """What came back for one video."""

    crops: NDArray[np.uint8]  # (R, h, w, 3) uint8, in presentation order
    pts_seconds: NDArray[np.float64]  # (R,) float64
    selections: Mapping[str, NDArray[np.int64]]  # Sampler label to indices into the R frames
    facts: Mapping[str, Any]  # The numbers of the ledger row
    # (R, s, s) uint8 thumbnails, or None where none were asked for.
    luma: NDArray[np.uint8] | None = None


def make_handler(config: JobConfig) -> Callable[[Video], Answer]:
    """Returns the job handler; runs once in each worker."""
    preprocessing = Preprocessing.from_dict(dict(config.preprocessing))
    if preprocessing.route == "fast":
        import torch

        torch.set_num_threads(1)
    # Allocates what the first resize allocates before the memory limit is set.
    resize_crop(np.zeros((8, 8, 3), np.uint8), preprocessing)

    def transform(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_crop(picture, preprocessing)

    def handle(video: Video) -> Answer:
        facts = file_facts(video.path, hashed=config.hashed)  # before: it may be replaced meanwhile
        sampled = sample_video(_request(video, config), transform)
        return _answer(sampled, facts, keep_luma=config.thumbnails)

    return handle


def _request(video: Video, config: JobConfig) -> FrameRequest:
    assert video.path is not None
    return FrameRequest(
        path=video.path,
        video_id=video.id,
        choices=config.choices,
        num_frames=config.num_frames,
        candidate_fps=config.candidate_fps,
        start_seconds=video.start_seconds,
        end_seconds=video.end_seconds,
        seed=config.seed,
        limits=config.limits,
        keep_luma=config.thumbnails,
    )


def _answer(sampled: SampledVideo, facts: Mapping[str, Any], *, keep_luma: bool) -> Answer:
    header: dict[str, Any] = {
        "shape": sampled.crops.shape,
        "pts_seconds": sampled.pts_seconds.tolist(),
        "selections": {label: rows.tolist() for label, rows in sampled.selections.items()},
        "facts": {
            "status": sampled.status,
            "error": f"damaged: {sampled.error}" if sampled.error else "",
            "num_candidates": sampled.num_candidates,
            "duration_seconds": sampled.duration_seconds,
            "start_seconds": sampled.start_seconds,
            "width": sampled.width,
            "height": sampled.height,
            **facts,
        },
    }
    payload = np.ascontiguousarray(sampled.crops).data.cast("B")
    if not keep_luma:
        return header, payload
    # Thumbnails are kept on stores that hold every candidate: then they are the rows'.
    assert sampled.signals.luma is not None
    assert len(sampled.signals.luma) == len(sampled.crops)
    header["luma_shape"] = sampled.signals.luma.shape
    return header, bytes(payload) + sampled.signals.luma.tobytes()


def read_answer(outcome: Outcome) -> Decoded:
    """Returns what a worker sent, as arrays over its bytes."""
    header = outcome.header
    every = np.frombuffer(outcome.payload, np.uint8)
    num_crop_bytes = math.prod(header["shape"])
    luma = header.get("luma_shape")
    return Decoded(
        every[:num_crop_bytes].reshape(header["shape"]),
        np.array(header["pts_seconds"], np.float64),
        {label: np.array(rows, np.int64) for label, rows in header["selections"].items()},
        header["facts"],
        None if luma is None else every[num_crop_bytes:].reshape(luma).copy(),
    )


def file_facts(path: Path | None, *, hashed: bool = False) -> dict[str, Any]:
    """Returns what tells a file from another in its place, by the names of the ledger.

    Args:
        path: The file.
        hashed: Read it all, for the digest of its content.
    """
    try:
        if path is None:
            return {}
        status = os.stat(path)  # noqa: PTH116  (any file name)
        facts: dict[str, Any] = {"file_bytes": status.st_size, "file_mtime_ns": status.st_mtime_ns}
        if hashed and stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                facts["file_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        return facts
    except (OSError, ValueError):
        return {}
