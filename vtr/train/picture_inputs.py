"""What a trained vision tower reads: pictures, or what its frozen blocks make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr.clip.backbone import Backbone
from vtr.clip.loading import weights_digest
from vtr.clip.preprocess import normalise
from vtr.clip.temporal import follows_in_clip
from vtr.train.data import PictureRows
from vtr.train.kept import kept_rows
from vtr.train.vision_tower import EMBEDDING, VisionSpec

Kept = Literal["float16", "float32"]

_FOLDER = "activations"
_CPU_PICTURES, _GPU_PICTURES = 32, 256


def read_rows(
    spec: VisionSpec,
    backbone: Backbone,
    pictures: PictureRows,
    *,
    kept: Kept = "float16",
    cache: Path | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> PictureRows:
    """Returns pictures as a trained tower reads them.

    Args:
        spec: Of the tower; where it begins above block 0, the blocks below it run here, once.
        backbone: Whose lower blocks.
        pictures: (R, H, W, 3) uint8.
        kept: Type of the activations. float16 differs from pictures by 2e-4 relative, float32 not
            in a bit.
        cache: Folder of the store to keep activations in, named by a digest of the weights, of the
            block and of every picture; None, and a folder that cannot be written, keep them in
            memory only.
        tell: Called with (done, R) where they have to be computed.
    """
    if not spec.first:
        return pictures
    sizes, tower = spec.architecture.vision, backbone.model.visual
    # The last block makes only what is read of it.
    last = tower.num_outputs if spec.first == sizes.layers else None
    shape = (pictures.num_rows, last or len(tower.positions), sizes.width)
    pad: Tensor | bool = False
    if pictures.pad is not False:
        # As many as are run together otherwise: see `_parts`.
        zeros = torch.zeros(_CPU_PICTURES, 3, *spec.preprocessing.size, device=backbone.device)
        with torch.inference_mode():
            pad = _lower(backbone, zeros, None, spec.first)[0].clone()
    path = None
    if cache is not None and shape[0]:
        path = cache / _FOLDER / f"{_digest(spec, backbone, pictures)}.{kept}"
    rows = kept_rows(
        path, shape, kept, lambda rows: _fill(rows, spec, backbone, pictures, tell=tell)
    )
    return PictureRows(pictures.ids, rows, pictures.offsets, pad)


def _fill(
    rows: NDArray[Any],
    spec: VisionSpec,
    backbone: Backbone,
    pictures: PictureRows,
    *,
    tell: Callable[[int, int], None] | None,
) -> None:
    """Fills `rows`, a few whole videos at a time: patches may look at neighbouring frames."""
    with torch.inference_mode():
        for first, last in _parts(pictures.offsets, backbone.device):
            start, stop = (int(pictures.offsets[v]) for v in (first, last))
            crops = torch.from_numpy(
                np.require(pictures.span(first, last), requirements=["C", "W"])
            )
            pixels = normalise(crops.to(backbone.device), spec.preprocessing, dtype=torch.float32)
            offsets = (pictures.offsets[first : last + 1] - start).tolist()
            follows = follows_in_clip(offsets, stop - start) if spec.temporal else None
            found = _lower(backbone, pixels, follows, spec.first)
            rows[start:stop] = found.cpu().numpy()
            if tell is not None:
                tell(stop, len(rows))


def _lower(backbone: Backbone, pixels: Tensor, follows: Tensor | None, first: int) -> Tensor:
    tower = backbone.model.visual
    return tower.run(tower.embed(pixels, follows), stop=first, num_outputs=tower.num_outputs)


def _parts(offsets: NDArray[np.int64], device: torch.device) -> Iterator[tuple[int, int]]:
    """Yields (first, last) of runs of videos of about as many pictures as suit a device.

    No run has fewer where there are as many: products of few rows, such as the last block makes,
    are rounded in another way.
    """
    wanted = _GPU_PICTURES if device.type == "cuda" else _CPU_PICTURES
    first, count = 0, len(offsets) - 1
    while first < count:
        last = min(int(np.searchsorted(offsets, offsets[first] + wanted)), count)
        if offsets[-1] - offsets[last] < wanted:
            last = count
        yield first, last
        first = last


def _digest(spec: VisionSpec, backbone: Backbone, pictures: PictureRows) -> str:
    """Names activations by all they come from: what lies above may be trained meanwhile."""
    lower = {}
    for name, value in backbone.model.visual.state_dict().items():
        part, _, rest = name.partition(".")
        if part in EMBEDDING or (part == "blocks" and int(rest.partition(".")[0]) < spec.first):
            lower[name] = value
    digest = hashlib.sha256(f"{weights_digest(lower)} {backbone.dtype}".encode())
    settings = (spec.first, spec.temporal, spec.preprocessing, backbone.describe()["vision"])
    digest.update(repr(settings).encode())
    digest.update(np.ascontiguousarray(pictures.offsets).data)
    for first, last in _parts(pictures.offsets, torch.device("cuda")):
        digest.update(np.ascontiguousarray(pictures.span(first, last)).data)
    return digest.hexdigest()[:24]
