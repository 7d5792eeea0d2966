"""The charts of `vtr eda`, made of its figures alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vtr.charts.kinds import BarChart, Chart, Head, Histogram, Scatter

MAX_BARS = 40


def charts_of(facts: Mapping[str, Any]) -> list[Chart]:
    """Returns every chart that a document of kind "vtr-eda" has figures for."""
    charts: list[Chart | None] = [
        *_categories(facts), _lengths(facts), _tokens(facts), _per_video(facts),
        _durations(facts.get("media") or {}), _norms(facts), _cosines(facts),
        *(_plane(facts, kind) for kind in _PLANES),
    ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def _categories(facts: Mapping[str, Any]) -> Iterator[BarChart]:
    named = facts.get("categories") or {}
    for split in [split for split in ("test", "train") if split in named] or list(named)[:1]:
        rows = named[split]
        if not rows:
            continue
        total, kept = sum(row["videos"] for row in rows), rows[:MAX_BARS]
        left = len(rows) - len(kept)
        more = f" The {left} smallest of {len(rows)} are not shown." if left else ""
        note = f"{facts['dataset']}, N = {total:,} videos with a category.{more}"
        name, title = f"video_category_distribution_{split}", f"Videos by category, {split}"
        names, counts = zip(*((row["name"], row["videos"]) for row in kept), strict=True)
        yield BarChart(Head(name, title, note, "videos"), names, counts)


def _lengths(facts: Mapping[str, Any]) -> Histogram | None:
    found = facts["captions"]["all"]
    if not found.get("counts"):
        return None
    span = f"mean {found['mean']:.2f}, {found['min']} to {found['max']} words."
    note = f"{facts['dataset']}, N = {found['num']:,} captions, {span}"
    head = Head("caption_lengths", "Caption length in words", note, "words", "captions")
    return _whole_numbers(head, found["counts"])


def _tokens(facts: Mapping[str, Any]) -> Histogram | None:
    found = facts.get("tokens")
    if not found or not found["counts"]:
        return None
    cut = ", ".join(f"{row['percent']:.2f} % above {row['at']}" for row in found["truncated"])
    note = f"Tokens of {found['model']}, begin and end included; the model takes "
    note += f"{found['max_length']}. Longer: {cut}."
    head = Head("caption_tokens", "Caption length in tokens", note, "tokens", "captions")
    return _whole_numbers(head, found["counts"])


def _per_video(facts: Mapping[str, Any]) -> Histogram | None:
    found = facts["captions_per_video"]
    if len(found.get("counts") or []) < 2:  # the same everywhere is no distribution
        return None
    rest = f"mean {found['mean']:.2f}; {found['without']:,} without a caption."
    note = f"{facts['dataset']}, N = {facts['videos']:,} videos, {rest}"
    head = Head("captions_per_video", "Captions per video", note, "captions", "videos")
    return _whole_numbers(head, found["counts"])


def _whole_numbers(head: Head, pairs: Sequence[Sequence[int]], limit: int = 80) -> Histogram:
    """Returns a histogram with a bar per whole number, or per few where the range is long."""
    low, high = int(pairs[0][0]), int(pairs[-1][0])
    step = -(-(high - low + 1) // limit)
    counts = [0] * ((high - low) // step + 1)
    for number, count in pairs:
        counts[(int(number) - low) // step] += int(count)
    edges = tuple(low - 0.5 + step * n for n in range(len(counts) + 1))
    return Histogram(head, edges, (("", tuple(counts)),), as_share=False)


def _counts(head: Head, found: Mapping[str, Any]) -> Histogram:
    return Histogram(head, tuple(found["edges"]), (("", tuple(found["counts"])),), as_share=False)


def _durations(media: Mapping[str, Any]) -> Histogram | None:
    if not media.get("duration_histogram"):
        return None
    numbers = media["duration_seconds"]
    span = f"median {numbers['median']:.1f} s, {numbers['total'] / 3600:.2f} h in all."
    note = f"N = {numbers['n']:,} videos, counted from decoded frames; {span}"
    head = Head("video_durations", "Duration of the videos", note, "duration (s)", "videos")
    return _counts(head, media["duration_histogram"])


def _norms(facts: Mapping[str, Any]) -> Histogram | None:
    features = facts.get("features")
    if not features or not features["norm_histogram"]:
        return None
    numbers = features["norms"]
    spread = f"mean {numbers['mean']:.2f}, standard deviation {numbers['sd']:.2f}."
    note = f"N = {numbers['n']:,} frames of {features['sampled']:,} videos; {spread}"
    head = Head("feature_norms", "Length of the frame vectors", note, "Euclidean norm", "frames")
    return _counts(head, features["norm_histogram"])


def _cosines(facts: Mapping[str, Any]) -> Histogram | None:
    features = facts.get("features")
    if not features or not features["cosine_histogram"]:
        return None
    found = features["cosine_histogram"]
    within, between = (features[f"cosine_{name}"] for name in ("within_video", "between_videos"))
    note = (
        f"{within['n']:,} videos of two frames or more; {between['n']:,} pairs of videos. Each "
        "distribution sums to 100 %; a dashed line is its mean."
    )
    title = "Cosine between frames of a video, and between videos"
    names = {"frames within a video": "within", "different videos": "between"}
    series = tuple((name, tuple(found[key])) for name, key in names.items())
    head = Head("feature_similarity", title, note, "cosine (no unit)", "share (%)")
    means = (within.get("mean"), between.get("mean"))
    return Histogram(head, tuple(found["edges"]), series, means)


_PLANES = {
    "pca": ("Texts and videos, first two principal components", "component"),
    "tsne": ("Texts and videos, t-SNE", "t-SNE axis"),
}


def _plane(facts: Mapping[str, Any], kind: str) -> Scatter | None:
    gap = facts.get("modality_gap")
    if not gap or kind not in gap:
        return None
    plane, (title, axis) = gap[kind], _PLANES[kind]
    note = (
        f"{len(plane['texts']):,} captions and their videos (mean of frames), unit vectors. The "
        f"means lie {gap['distance']:.3f} apart; a plane between them tells "
        f"{gap['separable']:.0f} % of the points' kinds."
    )
    labels = [f"{axis} {n}" for n in (1, 2)]
    for n, share in enumerate(plane.get("explained_percent", ())):
        labels[n] += f" ({share:.0f} % of variance)"
    points = {name: tuple(map(tuple, plane[name])) for name in ("texts", "videos")}
    return Scatter(Head(f"modality_gap_{kind}", title, note, *labels), tuple(points.items()))
