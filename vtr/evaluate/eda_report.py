"""The figures of `vtr eda` as tables and charts, and everything written into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vtr.charts import files as chart_files
from vtr.charts import html
from vtr.charts.kinds import BarChart, Chart, Head, Histogram, Scatter
from vtr.counts import counted
from vtr.files import make_folder, publish_all
from vtr.pages import Section, page, part

LISTED = 5
MAX_BARS = 40
MOST_COLUMNS = 80  # of a histogram of whole numbers


class Table(NamedTuple):
    """A table for people."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def write_eda(facts: Mapping[str, Any], folder: Path, *, pictures: bool = True) -> None:
    """Writes eda.json, eda.html and, where asked for, every chart as PNG and SVG."""
    make_folder(folder, option="--out")
    text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)
    files = {folder / "eda.json": text.encode("utf-8", "backslashreplace")}
    found = charts_of(facts)
    if pictures:
        for chart in found:
            for kind in ("png", "svg"):
                files[folder / f"{chart.head.name}.{kind}"] = chart_files.draw(chart, kind=kind)
    blocks = [part("table", head, rows, caption=title) for title, head, rows in tables(facts)]
    drawn = [html.draw(chart) for chart in found]
    sections = [Section("figures", "Figures", blocks), Section("charts", "Charts", drawn)]
    files[folder / "eda.html"] = page(f"Dataset {facts['dataset']}", sections)
    publish_all(files)


def tables(facts: Mapping[str, Any]) -> list[Table]:
    """Returns what is printed of a document of kind "vtr-eda"."""
    kind = "test" if facts["categories"].get("test") else "all"
    bins = facts["captions"]["all"].get("bins") or []
    found = [
        Table(
            f"{facts['dataset']}: {counted(facts['videos'], 'video')}",
            ["split", "videos", "captions", "queries"],
            _count_rows((row["name"], row) for row in facts["splits"]),
        ),
        Table(
            f"categories of {'the test' if kind == 'test' else 'all'} videos",
            ["category", "videos"],
            _count_rows((row["name"], row) for row in facts["categories"].get(kind, [])[:20]),
        ),
        Table(
            "captions, by their number of words",
            ["", "captions", "mean", "min", "max", *(row["name"] for row in bins)],
            [_length_row(name, row) for name, row in facts["captions"].items() if row["num"]],
        ),
        Table(
            "duplicate captions",
            ["", "captions", "distinct", "repeated in a video", "in several videos"],
            _count_rows((name, row) for name, row in facts["duplicates"].items() if row["num"]),
        ),
        Table(
            "best recall that equal queries allow",
            ["protocol", "queries", "distinct", "R@1", "R@5", "R@10"],
            [
                [row["protocol"], f"{row['queries']:,}", f"{row['distinct']:,}"]
                + [f"{row[f'R@{k}']:.2f}" for k in (1, 5, 10)]
                for row in facts["ceilings"]
            ],
        ),
        Table("more", ["", ""], _more(facts)),
    ]
    return [table for table in found if table.rows]


_COUNTED = (
    *("num", "distinct", "repeated_within", "shared_across"),
    *("videos", "captions", "queries"),
)


def _count_rows(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[list[str]]:
    return [[name, *(f"{row[key]:,}" for key in _COUNTED if key in row)] for name, row in rows]


def _length_row(name: str, row: Mapping[str, Any]) -> list[str]:
    spread = [f"{row['num']:,}", f"{row['mean']:.2f}", str(row["min"]), str(row["max"])]
    return [name, *spread, *(f"{one['n']:,}" for one in row["bins"])]


def _more(facts: Mapping[str, Any]) -> list[list[str]]:
    words, tokens, per_video = facts["vocabulary"], facts["tokens"], facts["captions_per_video"]
    rows = []
    if words["size"]:
        common = ", ".join(word for word, _ in words["most_frequent"][:LISTED])
        text = f"{counted(words['size'], 'word')}, {words['once']:,} once; most frequent: {common}"
        rows.append(["vocabulary", text])
    if per_video.get("max"):
        counts = f"{per_video['min']} to {per_video['max']}, mean {per_video['mean']:.2f}"
        rows.append(["captions per video", counts])
    if tokens:
        cuts = [f"{r['n']:,} ({r['percent']:.2f} %) at {r['at']}" for r in tokens["truncated"]]
        takes = f"{tokens['model']} takes {tokens['max_length']} tokens"
        rows.append(["truncated", f"{', '.join(cuts)}; {takes}"])
    return [*rows, *_media_lines(facts["media"]), *_feature_lines(facts)]


def _media_lines(media: Mapping[str, Any] | None) -> Iterator[list[str]]:
    if not media:
        return
    yield ["videos", ", ".join(f"{count:,} {name}" for name, count in media["status"].items())]
    if media["reasons"]:
        reasons = (f"{count:,} {reason}" for reason, count in media["reasons"].items())
        yield ["failures", ", ".join(reasons)]
    durations = media["duration_seconds"]
    if durations["n"]:
        span = f"{durations['min']:.1f} to {durations['max']:.1f} s"
        yield ["durations", f"{span}; {_hours(durations['total'])} in all"]
        sizes = (f"{size} ({count:,})" for size, count in media["sizes"][:LISTED])
        yield ["sizes", ", ".join(sizes)]
    if media["rates"]:
        rates = (f"{rate:g} ({count:,})" for rate, count in media["rates"][:LISTED])
        yield ["frames per second", ", ".join(rates)]


def _feature_lines(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    if features := facts["features"]:
        norms, cosine = features["norms"], features["cosine_between_videos"]
        yield ["feature norms", f"mean {norms['mean']:.3f}, sd {norms['sd']:.3f}"]
        if cosine["n"]:  # one video alone has no spread
            size = f"{features['effective_dimensions']:.1f} effective dimensions of "
            size += f"{features['dimensions']}; cosine of different videos {cosine['mean']:.3f}"
            yield ["feature spread", size]
    if gap := facts["modality_gap"]:
        distance = f"{gap['distance']:.3f} between the means of captions and videos"
        yield ["modality gap", f"{distance}, {gap['separable']:.0f} % told apart by a plane"]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


# ---- charts, made of the figures alone


def charts_of(facts: Mapping[str, Any]) -> list[Chart]:
    """Returns every chart that a document of kind "vtr-eda" has figures for."""
    return [
        *_categories(facts),
        *_captions(facts),
        *_numbers(facts.get("media") or {}, facts.get("features") or {}),
        *_planes(facts.get("modality_gap") or {}),
    ]


def _categories(facts: Mapping[str, Any]) -> Iterator[BarChart]:
    named = facts.get("categories") or {}
    for split in [split for split in ("test", "train") if split in named] or list(named)[:1]:
        rows = named[split]
        if not rows:
            continue
        total, kept = sum(row["videos"] for row in rows), rows[:MAX_BARS]
        left = len(rows) - len(kept)
        more = f" The {left} smallest of {len(rows)} are not shown." if left else ""
        note = f"{facts['dataset']}, N = {counted(total, 'video')} with a category.{more}"
        name, title = f"video_category_distribution_{split}", f"Videos by category, {split}"
        names, counts = zip(*((row["name"], row["videos"]) for row in kept), strict=True)
        yield BarChart(Head(name, title, note, "videos"), names, counts)


def _captions(facts: Mapping[str, Any]) -> Iterator[Histogram]:
    name = facts["dataset"]
    found = facts["captions"]["all"]
    if found.get("counts"):
        span = f"mean {found['mean']:.2f}, {found['min']} to {counted(found['max'], 'word')}."
        note = f"{name}, N = {counted(found['num'], 'caption')}, {span}"
        head = Head("caption_lengths", "Caption length in words", note, "words", "captions")
        yield _whole_numbers(head, found["counts"])
    found = facts.get("tokens")
    if found and found["counts"]:
        cut = ", ".join(f"{row['percent']:.2f} % above {row['at']}" for row in found["truncated"])
        note = f"Tokens of {found['model']}, begin and end included; the model takes "
        note += f"{found['max_length']}. Longer: {cut}."
        head = Head("caption_tokens", "Caption length in tokens", note, "tokens", "captions")
        yield _whole_numbers(head, found["counts"])
    found = facts["captions_per_video"]
    if len(found.get("counts") or []) > 1:  # the same everywhere is no distribution
        rest = f"mean {found['mean']:.2f}; {found['without']:,} without a caption."
        note = f"{name}, N = {counted(facts['videos'], 'video')}, {rest}"
        head = Head("captions_per_video", "Captions per video", note, "captions", "videos")
        yield _whole_numbers(head, found["counts"])


def _whole_numbers(head: Head, pairs: Sequence[Sequence[int]]) -> Histogram:
    """Returns a histogram with a bar per whole number, or per few where the range is long."""
    low, high = int(pairs[0][0]), int(pairs[-1][0])
    step = -(-(high - low + 1) // MOST_COLUMNS)
    counts = [0] * ((high - low) // step + 1)
    for number, count in pairs:
        counts[(int(number) - low) // step] += int(count)
    edges = tuple(low - 0.5 + step * n for n in range(len(counts) + 1))
    return Histogram(head, edges, (("", tuple(counts)),), as_share=False)


def _numbers(media: Mapping[str, Any], features: Mapping[str, Any]) -> Iterator[Histogram]:
    if found := media.get("duration_histogram"):
        numbers = media["duration_seconds"]
        span = f"median {numbers['median']:.1f} s, {numbers['total'] / 3600:.2f} h in all."
        note = f"N = {counted(numbers['n'], 'video')}, counted from decoded frames; {span}"
        head = Head("video_durations", "Duration of the videos", note, "duration (s)", "videos")
        yield _of_counts(head, found)
    if found := features.get("norm_histogram"):
        numbers = features["norms"]
        spread = f"mean {numbers['mean']:.2f}, standard deviation {numbers['sd']:.2f}."
        of = f"{counted(numbers['n'], 'frame')} of {counted(features['sampled'], 'video')}"
        title = "Length of the frame vectors"
        head = Head("feature_norms", title, f"N = {of}; {spread}", "Euclidean norm", "frames")
        yield _of_counts(head, found)
    if found := features.get("cosine_histogram"):
        within, between = (
            features[f"cosine_{name}"] for name in ("within_video", "between_videos")
        )
        note = (
            f"{counted(within['n'], 'video')} of two frames or more; "
            f"{counted(between['n'], 'pair')} of videos. Each "
            "distribution sums to 100 %; a dashed line is its mean."
        )
        title = "Cosine between frames of a video, and between videos"
        names = {"frames within a video": "within", "different videos": "between"}
        series = tuple((name, tuple(found[key])) for name, key in names.items())
        head = Head("feature_similarity", title, note, "cosine (no unit)", "share (%)")
        means = (within.get("mean"), between.get("mean"))
        yield Histogram(head, tuple(found["edges"]), series, means)


def _of_counts(head: Head, found: Mapping[str, Any]) -> Histogram:
    return Histogram(head, tuple(found["edges"]), (("", tuple(found["counts"])),), as_share=False)


_PLANES = {
    "pca": ("Texts and videos, first two principal components", "component"),
    "tsne": ("Texts and videos, t-SNE", "t-SNE axis"),
}


def _planes(gap: Mapping[str, Any]) -> Iterator[Scatter]:
    for kind, (title, axis) in _PLANES.items():
        if kind not in gap:
            continue
        plane = gap[kind]
        note = (
            f"{counted(len(plane['texts']), 'caption')} and their videos (mean of frames), unit "
            f"vectors. The means lie {gap['distance']:.3f} apart; a plane between them tells "
            f"{gap['separable']:.0f} % of the points' kinds."
        )
        labels = [f"{axis} {n}" for n in (1, 2)]
        for n, share in enumerate(plane.get("explained_percent", ())):
            labels[n] += f" ({share:.0f} % of variance)"
        points = {name: tuple(map(tuple, plane[name])) for name in ("texts", "videos")}
        yield Scatter(Head(f"modality_gap_{kind}", title, note, *labels), tuple(points.items()))
