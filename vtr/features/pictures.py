"""The pictures that a store keeps beside its embeddings: what the tower saw, before normalising.

Raw they are read at the rate of memory; WebP without loss takes a third of the room and most of a
core (about 560 frames/s). HDF5's own filters were slower than either (measured: finetune.md).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ModelError, ShardError

PictureFormat = Literal["raw", "webp"]
WEBP_SHARE = 0.33  # of the raw bytes, measured on crops of MSR-VTT

Pixels = NDArray[np.uint8]
Kept = Pixels | Sequence[bytes]
"""(R, H, W, 3) RGB, or R files of WebP."""


def require_same_making(
    made: Mapping[str, Any], seen: Mapping[str, Any], *, what: str, by: str
) -> None:
    """Refuses pictures that a model would have made in another way, whatever their size.

    `made` is the `preprocessing` of a store, `seen` the model's; `what` and `by` call them.
    """
    names = ("size", "resize", "resize_to", "resample", "frames")
    values = [(name, made.get(name, 1), seen.get(name, 1)) for name in names]
    differing = [
        f"{name} {ours} against {theirs}" for name, ours, theirs in values if ours != theirs
    ]
    if differing:
        raise ModelError(
            f"{what}, and {by!r} sees others: {', '.join(differing)}. Extract from the videos with "
            "this model (vtr extract --crops raw --model MODEL --features DIR), or use the one "
            "they were made for"
        )


@dataclass(frozen=True)
class PackedPictures:
    """The pictures of several videos in one array, without padding."""

    ids: tuple[str, ...]  # V video ids
    pixels: Pixels  # (R, H, W, 3) uint8 RGB, video after video
    offsets: NDArray[np.int64]  # (V+1,) int64; video v has rows offsets[v] to offsets[v + 1]


def to_webp(pixels: Pixels) -> list[bytes]:
    """Returns each of (R, H, W, 3) pictures as a file of WebP without loss."""
    from PIL import Image

    files = []
    for picture in pixels:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "WEBP", lossless=True, quality=0, method=0)
        files.append(buffer.getvalue())
    return files


def from_webp(files: Iterable[bytes | memoryview], out: Pixels) -> None:
    """Reads files of WebP into (R, H, W, 3); ShardError: no picture, or of another size."""
    from PIL import Image

    for file, place in zip(files, out, strict=True):
        try:
            with Image.open(io.BytesIO(file), formats=("WEBP",)) as picture:
                if picture.size != place.shape[1::-1]:  # before anything is decoded
                    raise ShardError(f"a picture of {picture.size}, not {place.shape[1::-1]}")
                place[:] = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise ShardError(f"a kept picture cannot be read: {error}") from None


def stored_bytes(kept: Kept) -> int:
    """Returns how many bytes pictures take in a shard."""
    return kept.nbytes if isinstance(kept, np.ndarray) else sum(map(len, kept))
