"""How far a faster way of embedding pictures is from torch in float32, and how far is too far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.clip.backbone import Backbone
from vtr.counts import counted
from vtr.errors import ModelError
from vtr.progress import note

# Below the first a store says so, below the second nothing is written (docs/guide.md, *Engines*).
LIMITS: Mapping[str, tuple[float, float]] = {
    "worst_cosine": (0.99, 0.95),
    "mean_cosine": (0.995, 0.98),
    "same_order": (0.99, 0.97),
}
_APART = 0.005  # Frames whose cosines to a sentence differ by less have no order worth keeping
_ALIKE = 0.02  # Share of its length by which a frame must differ from the mean to be centred


def check(
    backbone: Backbone, exact: Backbone, frames: NDArray[np.uint8], sentences: Sequence[str]
) -> dict[str, Any]:
    """Compares two ways of running one model on (n, h, w, 3) frames.

    Returns the figures of `compare`, and whether one falls short of what needs no remark.

    Raises:
        ModelError: One is below its limit.
    """
    alone = list(range(len(frames) + 1))  # for towers that see neighbours, too
    found, right = (one.encode_frames(frames, offsets=alone) for one in (backbone, exact))
    measured = compare(found, right, exact.encode_texts(sentences).embeddings)
    described = backbone.describe()
    how = f"{described.get('engine', 'torch')} in {described['compute_dtype']}"
    figures = ", ".join(f"{n.replace('_', ' ')} {v:.4f}" for n, v in measured.items())
    told = f"{how} on the first {counted(len(frames), 'frame')} against torch in float32: {figures}"
    if any(not measured[name] >= least for name, (_, least) in LIMITS.items()):
        wanted = ", ".join(f"{n.replace('_', ' ')} {least}" for n, (_, least) in LIMITS.items())
        raise ModelError(
            f"{told}; needed at least: {wanted}. Nothing was written. Use another --dtype or "
            "--engine; float32 and torch are always right"
        )
    short = any(measured[name] < fair for name, (fair, _) in LIMITS.items())
    note(f"{'warning: ' if short else ''}{told}{', which the store says' if short else ''}")
    counts = {"frames": len(frames), "sentences": len(sentences)}
    return {**counts, **measured, "falls_short": short}


def compare(
    found: NDArray[np.float32], right: NDArray[np.float32], texts: NDArray[np.float32]
) -> dict[str, float]:
    """Returns worst and mean cosine of (n, D) embeddings, and how many pairs keep their order.

    Cosines are taken after the mean of `right` is taken off both, which all frames of a CLIP share,
    unless the frames hardly differ from it. Order is that of two frames' cosines to a sentence,
    counted over all pairs and sentences for which they differ by more than 0.005; 1 where there is
    none. Frames for which `right` is not finite do not count; others of `found` that are not have
    the cosine -1.
    """
    known = np.isfinite(right).all(axis=1)
    right, found = right[known].astype(np.float64), found[known].astype(np.float64)
    sound = np.asarray(np.isfinite(found).all(axis=1))
    found = np.where(sound[:, None], found, 0.0)
    centre = right.mean(axis=0) if len(right) else 0.0
    differs = np.linalg.norm(right - centre, axis=1) > _ALIKE * np.linalg.norm(right, axis=1)
    if np.count_nonzero(differs) < 2:
        centre, differs = 0.0, np.ones(len(right), bool)
    cosines = np.where(sound, (_unit(found - centre) * _unit(right - centre)).sum(axis=1), -1.0)
    cosines = cosines[np.flatnonzero(differs)]
    if not len(cosines):
        return dict.fromkeys(LIMITS, 1.0)
    scores, wanted = (_unit(rows) @ _unit(texts).T for rows in (found, right))
    first, second = np.triu_indices(len(right), 1)
    gaps, moved = wanted[first] - wanted[second], scores[first] - scores[second]
    same: NDArray[np.bool_] = (gaps * moved)[np.abs(gaps) > _APART] > 0
    return {
        "worst_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "same_order": float(same.mean()) if same.size else 1.0,
    }


def _unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    made: NDArray[np.float64] = rows / np.maximum(
        np.linalg.norm(rows, axis=1, keepdims=True), 1e-12
    )
    return made
