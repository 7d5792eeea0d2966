"""The options of `vtr extract` beside those of the workspace."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic

from vtr.clip.device import DTypeName, EngineName, check_engine, runs_on_cpu
from vtr.errors import ConfigError, UnknownNameError
from vtr.settings import option
from vtr.verbs._device import DeviceName
from vtr.verbs._scale import MOST_PARTS, OnRay

OF_VIDEOS = (
    "ray", "shard", "retry", "overwrite", "hash", "crops", "crops_budget", "thumbnails", "memory",
    "max_pixels",
)  # fmt: skip
"""Options that only decoding follows: `from_crops` has no use for them."""
OF_DECODING = ("videos", "dataset", "annotations", "workers", "timeout_seconds", "shard_videos")
"""Settings of a workspace that `from_crops` has no use for, and that no store depends on."""
_LEAST_MEMORY = 0.001  # GiB
RETRIES = ("failed", "partial", "changed", "damaged")


def _shard(text: str) -> str:
    with contextlib.suppress(ValueError):
        part, parts = (int(number) for number in text.split("/") if number.isdecimal())
        if 1 <= part <= parts <= MOST_PARTS:
            return f"{part}/{parts}"
    raise ValueError("no part")


def _memory(gib: float) -> float:
    if 0 < gib < _LEAST_MEMORY:  # rounded to bytes it would be no limit
        raise ValueError("too little")
    return gib


def check_retry(text: str | None, allowed: tuple[str, ...] = RETRIES) -> str | None:
    """Refuses a status that cannot be done again."""
    for name in sorted(statuses(text) - set(allowed)):
        raise UnknownNameError("status to retry", name, allowed)
    return text


def statuses(text: str | None) -> frozenset[str]:
    """Returns the statuses that a `retry` names."""
    return frozenset(name.strip() for name in (text or "").split(",") if name.strip())


class Options(OnRay):
    """How to extract; which frames of which videos is the workspace's."""

    device: DeviceName = option("auto", group="Model", metavar="DEVICE")
    """Where the model runs: auto, cpu, cuda (every GPU), cuda:1 (that one)."""
    dtype: DTypeName = option("float32", group="Model")
    """Arithmetic of the model; int8 with --engine openvino or onnx."""
    engine: EngineName = option("torch", group="Model")
    """What runs the model: torch, compiled by torch, or on the CPU by ONNX Runtime or OpenVINO
    (extras onnx, openvino). All but torch in float32 are measured against that."""
    memory: Annotated[float, pydantic.AfterValidator(_memory)] = option(
        4.0, group="Speed and limits", metavar="GIB", ge=0, le=1e6,
        allowed="GiB from 0.001 to 1000000, or 0 for no limit",
    )  # fmt: skip
    """GiB that a decoding process may take; 0 is no limit."""
    max_pixels: int | None = option(
        None, group="Speed and limits", metavar="PIXELS", unset="8K", ge=1, lt=2**31,
        allowed="a whole number from 1 to 2147483647, what FFmpeg takes",
    )  # fmt: skip
    """Largest picture to decode, in pixels."""
    thumbnails: bool = option(True, group="Frames")
    """With the dense sampler, keep small pictures for choosing frames later."""
    crops: Literal["raw", "webp", "none"] | None = option(
        None, group="Frames", unset="as the store has them, at first none"
    )
    """Keep the pictures that the model saw, to fine-tune it or to embed them anew: raw (fast to
    read) or webp (a third of the size)."""
    crops_budget: float | None = option(
        None, group="Speed and limits", metavar="GB", unset="the room on the disk", ge=1e-9, le=1e9,
        allowed="GB above 0, at most 1000000000",
    )  # fmt: skip
    """Most GB that the pictures of this run may take."""
    from_crops: Path | None = option(
        None, group="Which videos", metavar="DIR", file_key="-", unset="the videos are decoded"
    )
    """Embed the pictures of this store anew with --model, without the videos."""
    hash: bool = option(False, group="Which videos")
    """Tell changed files by their content too; every file is read once more."""
    shard: Annotated[str, pydantic.AfterValidator(_shard)] = option(
        "1/1", group="Which videos", metavar="i/n", file_key="-",
        allowed="a part: write i/n with 1 <= i <= n <= 99999, such as 2/4",
    )  # fmt: skip
    """Work on part i of n of the videos, as i/n: one per machine."""
    retry: Annotated[str | None, pydantic.AfterValidator(check_retry)] = option(
        None, group="Which videos", metavar="STATUS,...", file_key="-", unset="none"
    )
    """Do these again: failed, partial, changed (another file is there now), damaged (all videos
    of shards whose bytes changed), or several, separated by commas."""
    overwrite: bool = option(False, group="Which videos", file_key="-")
    """Start anew; the old store goes when all is done."""

    @property
    def part(self) -> tuple[int, int]:
        """(i, n) of `shard`."""
        part, parts = map(int, self.shard.split("/"))
        return part, parts

    @property
    def on_cpu(self) -> bool:
        """Whether no GPU is used, whatever the machine has."""
        return self.device == "cpu" or runs_on_cpu(self.engine)

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        check_engine(self.engine, self.dtype, self.device)
        return self

    @pydantic.model_validator(mode="after")
    def _keep_other_parts(self) -> Self:
        if self.ray is not None:
            for given, flag, instead in (
                (self.part[1] > 1, "--shard", "Ray's workers take the parts (--parts)"),
                (self.overwrite, "--overwrite", "delete the store first, then start without it"),
                (self.crops_budget, "--crops-budget", "each worker would take it for itself"),
            ):
                if given:
                    raise ConfigError(f"{flag} and --ray exclude each other: {instead}")
        if self.overwrite and self.part[1] > 1:
            raise ConfigError(
                f"--overwrite with --shard {self.shard} would delete what the other parts have "
                "made. Delete the store first, then start the parts without it"
            )
        return self
