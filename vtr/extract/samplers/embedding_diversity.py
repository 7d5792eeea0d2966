"""Frames whose embeddings differ most: for a dense store, after extraction.

Greedy farthest point on the L2-normalised embeddings: from the most typical frame (the medoid:
smallest summed cosine distance to all, lowest index on ties), add the frame whose smallest cosine
distance to the chosen ones is largest (ties within 0.000001, the rounding of float32: the lowest
index). With K = 1 it is the most typical frame. Source: Gonzalez, Clustering to minimize the
maximum intercluster distance (1985), as in `diversity`, on what the retrieval itself compares.

Option: `same` (0.0001, cosine distance): a frame this close to a chosen one shows nothing new; the
middles of the longest runs without a frame are added instead.

Needs the embeddings of all candidates: extract with `--sampler dense`, then name it to a command
that reads that store. Costs one float32 copy of the embeddings.
"""

from __future__ import annotations

import numpy as np

from vtr.extract.samplers.base import Indices, Signals
from vtr.extract.samplers.common import Floats, check_range, fill_gaps, spread

NEEDS: frozenset[str] = frozenset({"embeddings"})
COST = "cached embeddings of a dense store, K products per candidate"

TIE = 1e-6


def select(
    signals: Signals, num_frames: int, rng: np.random.Generator, *, same: float = 1e-4
) -> Indices:
    """Returns the indices; an embedding of zeros is at distance 1 from all others.

    Raises:
        ValueError: An embedding holds NaN or infinity.
    """
    check_range("embedding-diversity", "same", same, high=2)
    if signals.embeddings is None:
        raise ValueError("these candidates have no embeddings")
    rows = signals.embeddings.astype(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("the embeddings hold NaN or infinity; a store never does")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norms > 0, norms, 1)
    closeness = rows @ rows.sum(axis=0, dtype=np.float64).astype(np.float32)
    medoid = int(np.argmax(closeness >= closeness.max() - TIE * len(rows)))

    def distances_to(index: int) -> Floats:
        distances: Floats = np.maximum(1 - rows @ rows[index], 0)
        return distances

    order, gains = spread(distances_to, medoid, num_frames, tie=TIE)
    return fill_gaps(np.sort(order[gains > same]), len(rows), num_frames)
