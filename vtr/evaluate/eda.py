"""What a dataset and its features look like before anything is trained, as plain figures.

Words are what stands between white space. Two captions are the same when their texts are equal
character by character.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.datasets.base import Dataset, split_queries
from vtr.errors import ConfigError, DatasetError
from vtr.evaluate.coverage import check_features
from vtr.evaluate.parts import WORD_BINS, Bin
from vtr.evaluate.protocol import QuerySet, load_protocol, protocol_names, queries
from vtr.features import FeatureStore

SCHEMA = 1
KIND = "vtr-eda"
TOKEN_LIMITS = (32, 77)  # what the field's code cuts at: CLIP4Clip's --max_words, CLIP's context
NUM_LISTED = 20
CEILING_KS = (1, 5, 10)
MAX_VIDEOS = 2000  # sampled evenly from larger stores
MAX_POINTS = 500  # of each kind in the plane
MAX_PERPLEXITY = 30.0
SEED = 0  # of t-SNE

Vectors = NDArray[np.floating[Any]]


def describe_dataset(
    dataset: Dataset,
    *,
    tokens: Mapping[str, Any] | None = None,
    bins: Sequence[Bin] = WORD_BINS,
) -> dict[str, Any]:
    """Returns everything that the annotations alone tell, as JSON values.

    `tokens` are `token_lengths`; `bins` are of words.
    """
    per_split = {split: split_queries(dataset, split) for split in dataset.splits}
    asked = {"all": dataset.captions, **per_split}
    texts = {name: [caption.text for caption in captions] for name, captions in asked.items()}
    owners = {name: [caption.video_id for caption in captions] for name, captions in asked.items()}
    every = Counter(owners["all"])
    return {
        "dataset": dataset.name,
        "videos": len(set(dataset.video_ids)),
        "splits": [
            {
                "name": name,
                "videos": len(members),
                "captions": sum(every.get(video_id, 0) for video_id in set(members)),
                "queries": len(per_split[name]),
            }
            for name, members in dataset.splits.items()
        ],
        "categories": categories(dataset),
        "captions": {name: caption_lengths(some, bins) for name, some in texts.items()},
        "captions_per_video": captions_per_video(dataset),
        "tokens": tokens,
        "vocabulary": vocabulary(texts["all"]),
        "duplicates": {name: duplicates(texts[name], owners[name]) for name in asked},
        "ceilings": ceilings(dataset),
        "notes": list(dataset.notes),
    }


def categories(dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    """Returns how many videos each category has, over all and per split; largest first."""
    if not dataset.categories:
        return {}
    found = {}
    for name, members in {"all": dataset.video_ids, **dataset.splits}.items():
        kinds = (dataset.categories.get(video_id) for video_id in dict.fromkeys(members))
        counts = Counter(kind for kind in kinds if kind is not None)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        found[name] = [{"name": category, "videos": count} for category, count in ranked]
    return found


def caption_lengths(texts: Sequence[str], bins: Sequence[Bin] = WORD_BINS) -> dict[str, Any]:
    """Returns lengths in words: mean, extremes, bins and the whole distribution.

    >>> caption_lengths(["a man", "a dog runs fast"])["mean"]
    3.0
    """
    words = np.array([len(text.split()) for text in texts], np.int64)
    if not len(words):
        return {"num": 0}
    return {
        "num": len(words),
        "empty": int((words == 0).sum()),
        "non_ascii": sum(not text.isascii() for text in texts),
        "min": int(words.min()),
        "max": int(words.max()),
        "mean": float(words.mean()),
        "median": float(np.median(words)),
        "bins": [{"name": b.name, "n": int(b.holds(words).sum())} for b in bins],
        "counts": _how_often(words.tolist()),
    }


def _how_often(numbers: Iterable[int]) -> list[list[int]]:
    return [[number, count] for number, count in sorted(Counter(numbers).items())]


def token_lengths(model: str, max_length: int, lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Returns lengths in tokens and how many captions lose their tail, at the usual limits.

    Of captions (C,) before truncation, begin and end included; the model takes `max_length`.
    """
    total = len(lengths)
    longer = {at: int((lengths > at).sum()) for at in sorted({*TOKEN_LIMITS, max_length})}
    return {
        "model": model,
        "max_length": max_length,
        "mean": float(lengths.mean()) if total else None,
        "max": int(lengths.max(initial=0)),
        "truncated": [
            {"at": at, "n": n, "percent": 100 * float(n / max(1, total))}
            for at, n in longer.items()
        ],
        "counts": _how_often(lengths.tolist()),
    }


def captions_per_video(dataset: Dataset) -> dict[str, Any]:
    """Returns how many captions the videos have; those without any are counted as 0."""
    found = Counter(caption.video_id for caption in dataset.captions)
    counts = np.array([found.get(video_id, 0) for video_id in dict.fromkeys(dataset.video_ids)])
    if not len(counts):
        return {}
    return {
        "min": int(counts.min()),
        "max": int(counts.max()),
        "mean": float(counts.mean()),
        "without": int((counts == 0).sum()),
        "counts": _how_often(counts.tolist()),
    }


def vocabulary(texts: Iterable[str]) -> dict[str, Any]:
    """Returns size, words that occur once, and the most frequent ones; case does not count."""
    found: Counter[str] = Counter(word for text in texts for word in text.lower().split())
    return {
        "words": sum(found.values()),
        "size": len(found),
        "once": sum(count == 1 for count in found.values()),
        "most_frequent": [list(pair) for pair in found.most_common(NUM_LISTED)],
    }


def duplicates(texts: Sequence[str], video_ids: Sequence[str]) -> dict[str, Any]:
    """Returns how often the captions of videos (C each) repeat within a video and across videos.

    >>> found = duplicates(["a", "a", "a", "b"], ["v", "v", "w", "w"])
    >>> found["distinct"], found["repeated_within"], found["shared_across"]
    (2, 1, 1)

    Returns:
        `distinct` texts; `repeated_within`: (video, text) pairs that occur more than once;
        `shared_across`: texts of more than one video, with those of the most videos.
    """
    pairs = Counter(zip(video_ids, texts, strict=True))
    videos: dict[str, int] = Counter(text for _, text in pairs)
    shared = sorted(
        ((text, count) for text, count in videos.items() if count > 1), key=lambda i: (-i[1], i[0])
    )
    return {
        "num": len(texts),
        "distinct": len(videos),
        "repeated_within": sum(count > 1 for count in pairs.values()),
        "shared_across": len(shared),
        "most_shared": [[text, count] for text, count in shared[:NUM_LISTED]],
    }


def ceilings(dataset: Dataset) -> list[dict[str, Any]]:
    """Returns the best recall that any model can reach on each protocol of a dataset.

    Protocols whose files are not there are left out.
    """
    found = []
    for name in protocol_names():
        protocol = load_protocol(name)
        if protocol.dataset != dataset.name:
            continue
        try:
            asked = queries(protocol, dataset)
        except DatasetError:
            continue
        figures = {"queries": len(asked.texts), "videos": len(asked.video_ids)}
        figures["distinct"] = len(set(asked.texts))
        best = {f"R@{k}": ceiling(asked, k) for k in CEILING_KS}
        found.append({"protocol": name, **figures, **best})
    return found


def ceiling(asked: QuerySet, k: int = 1) -> float:
    """Returns the highest t2v R@k, in percent, that equal queries of different videos allow.

    Equal texts get equal scores: of the videos that share a text only k can be among the first k.
    """
    videos: dict[str, Counter[int]] = defaultdict(Counter)
    for text, video in zip(asked.texts, asked.query_video.tolist(), strict=True):
        videos[text][video] += 1
    hits = sum(count for found in videos.values() for _, count in found.most_common(k))
    return 100 * hits / len(asked.texts)


def describe_numbers(values: Sequence[float] | NDArray[Any]) -> dict[str, Any]:
    """Returns count, extremes, mean, standard deviation and quartiles of some numbers."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return {"n": 0}
    names = ("min", "quartile", "median", "upper_quartile", "max")
    quantiles = np.quantile(numbers, (0, 0.25, 0.5, 0.75, 1)).tolist()
    spread = {"mean": float(numbers.mean()), "sd": float(numbers.std())}
    return {"n": len(numbers), **dict(zip(names, quantiles, strict=True)), **spread}


def histogram(values: Sequence[float] | NDArray[Any], bins: int = 40) -> dict[str, Any]:
    """Returns edges and counts of some numbers; empty where there are none."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return {}
    counts, edges = np.histogram(numbers, bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def describe_media(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns durations, sizes, rates and failures of the video files.

    A row per video has id, status ("ok", "partial", "failed", "missing", or "present" for a file
    that nobody has decoded), reason, duration_seconds, width, height, frames_per_second or None.
    """
    faulty = [row for row in rows if row["status"] not in ("ok", "present")]
    usable = [row for row in rows if row["status"] in ("ok", "partial")]
    rates = [row["frames_per_second"] for row in usable if row.get("frames_per_second")]
    durations = [float(row["duration_seconds"]) for row in usable]
    sizes = Counter(f"{row['width']}x{row['height']}" for row in usable)
    rounded = Counter(round(rate, 2) for rate in rates)
    return {
        "videos": len(rows),
        "status": dict(Counter(str(row["status"]) for row in rows)),
        "reasons": dict(Counter(str(row["reason"]) for row in faulty).most_common()),
        "failures": [{key: row[key] for key in ("id", "status", "reason")} for row in faulty],
        "duration_seconds": {**describe_numbers(durations), "total": sum(durations)},
        "duration_histogram": histogram(durations),
        "sizes": [list(pair) for pair in sizes.most_common(NUM_LISTED)],
        "num_sizes": len(sizes),
        "frames_per_second": describe_numbers(rates),
        "rates": [list(pair) for pair in rounded.most_common(NUM_LISTED)],
    }


# ---- features


def describe_features(store: FeatureStore, *, max_videos: int = MAX_VIDEOS) -> dict[str, Any]:
    """Returns norms of the frames and how alike the frames of a video and the videos are.

    Stores of more than `max_videos` are thinned evenly.
    """
    means, norms, within, counts = [], [], [], []
    for video_id in _sample(store.ids, max_videos):
        lengths, mean = norms_and_mean(store, video_id)
        counts.append(count := len(lengths))
        norms.append(lengths)
        # The mean cosine of two different frames follows from the length of their sum.
        if count > 1:
            within.append((float(mean @ mean) * count**2 - count) / (count * (count - 1)))
        means.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
    if not means:
        raise ConfigError(f"{store.folder} holds no features; see `vtr inspect`")
    videos, frame_norms = np.stack(means), np.concatenate(norms)
    between = (videos @ videos.T)[np.triu_indices(len(videos), 1)]
    cosines = histogram(np.concatenate([within, between]))
    if cosines:
        for name, values in {"within": np.array(within), "between": between}.items():
            cosines[name] = np.histogram(values, cosines["edges"])[0].tolist()
        del cosines["counts"]
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
        "cosine_histogram": cosines,
        "effective_dimensions": effective_dimensions(videos),
    }


def norms_and_mean(store: FeatureStore, video_id: str) -> tuple[Vectors, Vectors]:
    """Returns (K,) the lengths of a video's frames and (D,) the mean of their unit vectors."""
    packed = store.packed([video_id], dtype="float32")
    check_features(packed)
    norms = np.linalg.norm(packed.frames, axis=1)
    return norms, (packed.frames / norms[:, None]).mean(axis=0)


def effective_dimensions(vectors: Vectors) -> float:
    """Returns in how many directions vectors spread: (sum of variances)^2 / sum of their squares.

    The participation ratio of the covariance's eigenvalues: D where all directions vary alike, 1
    where a line holds everything, 0 where nothing varies.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    total = float((variances**2).sum())
    return float(variances.sum()) ** 2 / total if total > 1e-24 else 0.0


def modality_gap(texts: Vectors, videos: Vectors, *, tsne: bool = True) -> dict[str, Any]:
    """Returns how far texts (N, D) lie from their videos (N, D), and both in a plane.

    The gap is the distance between the two means of the unit vectors (Liang et al. 2022,
    "Mind the Gap", section 2). `tsne` makes a t-SNE plane too, with scikit-learn.
    """
    if texts.shape != videos.shape or texts.ndim != 2 or not len(texts):
        raise ConfigError(
            f"texts {texts.shape} and videos {videos.shape} must have the same rows and dimensions"
        )
    wide = [vectors.astype(np.float64) for vectors in (texts, videos)]
    a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in wide)
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
        from sklearn.manifold import TSNE

        perplexity = min(MAX_PERPLEXITY, (len(rows) - 1) / 3)
        mapped = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=SEED)
        points = mapped.fit_transform(joint[rows].astype(np.float32))
        found["tsne"] = {"seed": SEED, **_plane(points, len(chosen))}
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


def _sample(items: Any, limit: int) -> list[Any]:
    """Returns at most `limit` of the items, evenly spread."""
    if len(items) <= limit:
        return list(items)
    return [items[n * len(items) // limit] for n in range(limit)]
