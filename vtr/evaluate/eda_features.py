"""Cached features in figures: norms, spread, and how far texts lie from videos."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.eda import describe_numbers, histogram
from vtr.features import FeatureStore

MAX_VIDEOS = 2000  # sampled evenly from larger stores
MAX_POINTS = 500  # of each kind in the plane
MAX_PERPLEXITY = 30.0

Vectors = NDArray[np.floating[Any]]


def describe_features(store: FeatureStore, *, max_videos: int = MAX_VIDEOS) -> dict[str, Any]:
    """Returns norms of the frames and how alike the frames of a video and the videos are.

    Stores of more than `max_videos` are thinned evenly.

    Raises:
        ConfigError: The store holds no features.
    """
    means, norms, within, counts = [], [], [], []
    for video_id in _sample(store.ids, max_videos):
        frames = store[video_id].frames.astype(np.float32)
        norms.append(np.linalg.norm(frames, axis=1))
        mean = (frames / np.maximum(norms[-1], 1e-12)[:, None]).mean(axis=0)
        counts.append(len(frames))
        # The mean cosine of two different frames follows from the length of their sum.
        if len(frames) > 1:
            total = float((mean @ mean) * len(frames) ** 2)
            within.append((total - len(frames)) / (len(frames) * (len(frames) - 1)))
        means.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
    if not means:
        raise ConfigError(f"{store.folder} holds no features; see `vtr inspect`")
    videos, frame_norms = np.stack(means), np.concatenate(norms)
    cosines = videos @ videos.T
    between = cosines[np.triu_indices(len(videos), 1)]
    return {
        "store": str(store.folder),
        "fingerprint": store.fingerprint,
        "videos": len(store),
        "sampled": len(videos),
        "dimensions": int(videos.shape[1]),
        "frames_per_video": describe_numbers(counts),
        "norms": describe_numbers(frame_norms),
        "norm_histogram": histogram(frame_norms),
        "cosine_within_video": describe_numbers(within),
        "cosine_between_videos": describe_numbers(between),
        "cosine_histogram": _two_histograms(np.array(within), between),
        "effective_dimensions": effective_dimensions(videos),
    }


def _two_histograms(within: Vectors, between: Vectors) -> dict[str, Any]:
    found = histogram(np.concatenate([within, between]))
    if found:
        for name, values in {"within": within, "between": between}.items():
            found[name] = np.histogram(values, found["edges"])[0].tolist()
        del found["counts"]
    return found


def effective_dimensions(vectors: Vectors) -> float:
    """Returns in how many directions vectors spread: (sum of variances)^2 / sum of their squares.

    The participation ratio of the covariance's eigenvalues: D where all directions vary alike, 1
    where a line holds everything, 0 where nothing varies.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    total = float((variances**2).sum())
    return float(variances.sum()) ** 2 / total if total > 1e-24 else 0.0


def modality_gap(
    texts: Vectors, videos: Vectors, *, tsne: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Returns how far texts (N, D) lie from their videos (N, D), and both in a plane.

    The gap is the distance between the two means of the unit vectors (Liang et al. 2022,
    "Mind the Gap", section 2). `tsne` makes a t-SNE plane too, with scikit-learn.

    Raises:
        ConfigError: Other shapes, or nothing in them.
    """
    if texts.shape != videos.shape or texts.ndim != 2 or not len(texts):
        raise ConfigError(
            f"texts {texts.shape} and videos {videos.shape} must have the same rows and dimensions"
        )
    a, b = _unit(texts), _unit(videos)
    gap = a.mean(axis=0) - b.mean(axis=0)
    joint = np.concatenate([a, b])
    centred = joint - joint.mean(axis=0)
    _, strengths, axes = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T
    explained = strengths**2 / max(float((strengths**2).sum()), 1e-24)
    chosen = np.array(_sample(range(len(a)), MAX_POINTS))
    rows = np.concatenate([chosen, len(a) + chosen])
    shares = [100 * float(share) for share in explained[:2]]
    found = {
        "pairs": len(a),
        "distance": float(np.linalg.norm(gap)),
        "text_mean_norm": float(np.linalg.norm(a.mean(axis=0))),
        "video_mean_norm": float(np.linalg.norm(b.mean(axis=0))),
        "matching_cosine": describe_numbers((a * b).sum(axis=1)),
        "separable": separability(a, b),
        "pca": {"explained_percent": shares, **_plane(plane[rows], len(chosen))},
    }
    if tsne and len(rows) >= 4:
        found["tsne"] = {"seed": seed, **_plane(_tsne(joint[rows], seed), len(chosen))}
    return found


def separability(texts: Vectors, videos: Vectors) -> float:
    """Returns the percent of points that the plane between the two means puts on the right side.

    50 is no gap at all, 100 two clouds that a plane tells apart.
    """
    direction = texts.mean(axis=0) - videos.mean(axis=0)
    middle = (texts.mean(axis=0) + videos.mean(axis=0)) / 2
    right = ((texts - middle) @ direction > 0).mean() + ((videos - middle) @ direction < 0).mean()
    return 50 * float(right)


def _plane(points: Vectors, num_texts: int) -> dict[str, Any]:
    wide = points if points.shape[1] > 1 else np.pad(points, ((0, 0), (0, 1)))
    rounded = wide.astype(np.float64).round(5)
    return {"texts": rounded[:num_texts].tolist(), "videos": rounded[num_texts:].tolist()}


def _tsne(points: Vectors, seed: int) -> Vectors:
    from sklearn.manifold import TSNE

    perplexity = min(MAX_PERPLEXITY, (len(points) - 1) / 3)
    plane: Vectors = TSNE(
        n_components=2, perplexity=perplexity, init="pca", random_state=seed
    ).fit_transform(points.astype(np.float32))
    return plane


def _unit(vectors: Vectors) -> Vectors:
    wide = vectors.astype(np.float64)
    unit: Vectors = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit


def _sample(items: Any, limit: int) -> list[Any]:
    """Returns at most `limit` of the items, evenly spread."""
    if len(items) <= limit:
        return list(items)
    return [items[n * len(items) // limit] for n in range(limit)]
