"""The figures of `vtr eda` as tables, and everything written into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vtr.charts import files as chart_files
from vtr.charts import html
from vtr.counts import counted
from vtr.evaluate.eda_charts import charts_of
from vtr.evaluate.reporting.page import Section, page, part
from vtr.files import make_folder, publish_all

LISTED = 5


class Table(NamedTuple):
    """A table for people."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def write_eda(facts: Mapping[str, Any], folder: Path, *, pictures: bool = True) -> None:
    """Writes eda.json, eda.html and, where asked for, every chart as PNG and SVG.

    Raises:
        StoreWriteError: The file system refused.
    """
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
            _counts((row["name"], row) for row in facts["splits"]),
        ),
        Table(
            f"categories of {'the test' if kind == 'test' else 'all'} videos",
            ["category", "videos"],
            _counts((row["name"], row) for row in facts["categories"].get(kind, [])[:20]),
        ),
        Table(
            "captions, by their number of words",
            ["", "captions", "mean", "min", "max", *(row["name"] for row in bins)],
            [_lengths(name, row) for name, row in facts["captions"].items() if row["num"]],
        ),
        Table(
            "duplicate captions",
            ["", "captions", "distinct", "repeated in a video", "in several videos"],
            _counts((name, row) for name, row in facts["duplicates"].items() if row["num"]),
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


def _counts(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[list[str]]:
    return [[name, *(f"{row[key]:,}" for key in _COUNTED if key in row)] for name, row in rows]


def _lengths(name: str, row: Mapping[str, Any]) -> list[str]:
    spread = [f"{row['num']:,}", f"{row['mean']:.2f}", str(row["min"]), str(row["max"])]
    return [name, *spread, *(f"{one['n']:,}" for one in row["bins"])]


def _more(facts: Mapping[str, Any]) -> list[list[str]]:
    words, tokens, per_video = facts["vocabulary"], facts["tokens"], facts["captions_per_video"]
    rows = []
    if words["size"]:
        common = ", ".join(word for word, _ in words["most_frequent"][:LISTED])
        text = f"{words['size']:,} words, {words['once']:,} once; most frequent: {common}"
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
        size = f"{features['effective_dimensions']:.1f} effective dimensions of "
        size += f"{features['dimensions']}; cosine of different videos "
        yield ["feature spread", f"{size}{cosine.get('mean', float('nan')):.3f}"]
    if gap := facts["modality_gap"]:
        distance = f"{gap['distance']:.3f} between the means of captions and videos"
        yield ["modality gap", f"{distance}, {gap['separable']:.0f} % told apart by a plane"]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
