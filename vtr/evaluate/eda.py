"""What a dataset and its features look like before anything is trained, as plain figures.

Words are what stands between white space. Two captions are the same when their texts are equal
character by character.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.datasets.base import Dataset, split_queries
from vtr.errors import DatasetError
from vtr.evaluate.protocol import QuerySet, load_protocol, protocol_names, queries
from vtr.evaluate.reporting.figures import Bin

SCHEMA = 1
KIND = "vtr-eda"
WORD_BINS = (Bin(1, 10), Bin(11, 20), Bin(21, None))
TOKEN_LIMITS = (32, 77)  # what the field's code cuts at: CLIP4Clip's --max_words, CLIP's context
NUM_LISTED = 20
CEILING_KS = (1, 5, 10)


@dataclass(frozen=True)
class TokenLengths:
    """How long the captions are for a model."""

    model: str  # The model's id
    max_length: int  # Tokens that fit, begin and end included
    lengths: NDArray[np.int64]  # (C,) tokens per caption before truncation, begin and end included


def describe_dataset(
    dataset: Dataset,
    *,
    tokens: TokenLengths | None = None,
    bins: Sequence[Bin] = WORD_BINS,
) -> dict[str, Any]:
    """Returns everything that the annotations alone tell, as JSON values; `bins` are of words."""
    asked = {
        "all": dataset.captions,
        **{split: split_queries(dataset, split) for split in dataset.splits},
    }
    texts = {name: [caption.text for caption in captions] for name, captions in asked.items()}
    return {
        "dataset": dataset.name,
        "videos": len(set(dataset.video_ids)),
        "splits": splits(dataset),
        "categories": categories(dataset),
        "captions": {name: caption_lengths(some, bins) for name, some in texts.items()},
        "captions_per_video": captions_per_video(dataset),
        "tokens": None if tokens is None else token_lengths(tokens),
        "vocabulary": vocabulary(texts["all"]),
        "duplicates": {
            name: duplicates(texts[name], [caption.video_id for caption in captions])
            for name, captions in asked.items()
        },
        "ceilings": ceilings(dataset),
        "notes": list(dataset.notes),
    }


def splits(dataset: Dataset) -> list[dict[str, Any]]:
    """Returns, per split, its videos and the captions that are its queries."""
    every: dict[str, int] = Counter(caption.video_id for caption in dataset.captions)
    return [
        {
            "name": name,
            "videos": len(members),
            "captions": sum(every.get(video_id, 0) for video_id in set(members)),
            "queries": len(split_queries(dataset, name)),
        }
        for name, members in dataset.splits.items()
    ]


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
        "bins": [
            {
                "name": one.name,
                "n": int(((words >= one.low) & (words <= (one.high or words.max()))).sum()),
            }
            for one in bins
        ],
        "counts": _how_often(words.tolist()),
    }


def _how_often(numbers: Iterable[int]) -> list[list[int]]:
    return [[number, count] for number, count in sorted(Counter(numbers).items())]


def token_lengths(tokens: TokenLengths) -> dict[str, Any]:
    """Returns lengths in tokens and how many captions lose their tail, at the usual limits."""
    lengths = tokens.lengths
    longer = {at: lengths > at for at in sorted({*TOKEN_LIMITS, tokens.max_length})}
    return {
        "model": tokens.model,
        "max_length": tokens.max_length,
        "mean": float(lengths.mean()) if len(lengths) else None,
        "max": int(lengths.max(initial=0)),
        "truncated": [
            {
                "at": limit,
                "n": int(is_longer.sum()),
                "percent": 100 * float(is_longer.mean()) if len(lengths) else 0.0,
            }
            for limit, is_longer in longer.items()
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

    A model gives equal texts equal scores, so of the videos that share a text only k can be among
    the first k.
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
    low, high = float(numbers.min()), float(numbers.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(numbers, np.linspace(low, high, bins + 1))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def describe_media(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns durations, sizes, rates and failures of the video files.

    Args:
        rows: One per video: id, status ("ok", "partial", "failed", "missing", or "present" for a
            file that nobody has decoded), reason, duration_seconds, width, height, and
            frames_per_second or None.
    """
    faulty = [row for row in rows if row["status"] not in ("ok", "present")]
    usable = [row for row in rows if row["status"] in ("ok", "partial")]
    rates = [row["frames_per_second"] for row in usable if row.get("frames_per_second")]
    rounded = Counter(round(rate, 2) for rate in rates)
    durations = [float(row["duration_seconds"]) for row in usable]
    sizes = Counter(f"{row['width']}x{row['height']}" for row in usable)
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
