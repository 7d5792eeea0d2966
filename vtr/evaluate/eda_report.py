"""The figures of `vtr eda` as tables, and everything written into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr.charts import files as chart_files
from vtr.charts import html
from vtr.counts import counted
from vtr.evaluate.eda_charts import charts_of
from vtr.evaluate.reporting.page import Section, page, part
from vtr.files import make_folder, publish_all

LISTED = 5


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
    sections = [
        Section("figures", "Figures", blocks),
        Section("charts", "Charts", [html.draw(chart) for chart in found]),
    ]
    files[folder / "eda.html"] = page(f"Dataset {facts['dataset']}", sections)
    publish_all(files)


def tables(facts: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns (title, headings, rows) of everything that is printed."""
    found = [
        (
            f"{facts['dataset']}: {counted(facts['videos'], 'video')}",
            ["split", "videos", "captions", "queries"],
            [
                [row["name"], *(f"{row[key]:,}" for key in ("videos", "captions", "queries"))]
                for row in facts["splits"]
            ],
        ),
        ("captions, by their number of words", _length_headings(facts), _length_rows(facts)),
        ("duplicate captions", _DUPLICATE_HEADINGS, _duplicate_rows(facts)),
        (
            "best recall that equal queries allow",
            ["protocol", "queries", "distinct", "R@1", "R@5", "R@10"],
            [
                [row["protocol"], f"{row['queries']:,}", f"{row['distinct']:,}"]
                + [f"{row[f'R@{k}']:.2f}" for k in (1, 5, 10)]
                for row in facts["ceilings"]
            ],
        ),
        ("more", ["", ""], _more(facts)),
    ]
    split = "test" if facts["categories"].get("test") else "all"
    categories = facts["categories"].get(split)
    if categories:
        rows = [[row["name"], f"{row['videos']:,}"] for row in categories[:20]]
        title = f"categories of {'the test' if split == 'test' else 'all'} videos"
        found.insert(1, (title, ["category", "videos"], rows))
    return [entry for entry in found if entry[2]]


_DUPLICATE_HEADINGS = ["", "captions", "distinct", "repeated in a video", "in several videos"]


def _length_headings(facts: Mapping[str, Any]) -> list[str]:
    bins = facts["captions"]["all"].get("bins") or []
    return ["", "captions", "mean", "min", "max", *(row["name"] for row in bins)]


def _length_rows(facts: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            f"{row['num']:,}",
            f"{row['mean']:.2f}",
            str(row["min"]),
            str(row["max"]),
            *(f"{b['n']:,}" for b in row["bins"]),
        ]
        for name, row in facts["captions"].items()
        if row["num"]
    ]


def _duplicate_rows(facts: Mapping[str, Any]) -> list[list[str]]:
    keys = ("num", "distinct", "repeated_within", "shared_across")
    return [
        [name, *(f"{row[key]:,}" for key in keys)]
        for name, row in facts["duplicates"].items()
        if row["num"]
    ]


def _more(facts: Mapping[str, Any]) -> list[list[str]]:
    words, tokens, rows = facts["vocabulary"], facts["tokens"], []
    if words["size"]:
        common = ", ".join(word for word, _ in words["most_frequent"][:LISTED])
        text = f"{words['size']:,} words, {words['once']:,} once; most frequent: {common}"
        rows.append(["vocabulary", text])
    per_video = facts["captions_per_video"]
    if per_video.get("max"):
        counts = f"{per_video['min']} to {per_video['max']}, mean {per_video['mean']:.2f}"
        rows.append(["captions per video", counts])
    if tokens:
        cut = ", ".join(
            f"{r['n']:,} ({r['percent']:.2f} %) at {r['at']}" for r in tokens["truncated"]
        )
        rows.append(["truncated", f"{cut}; {tokens['model']} takes {tokens['max_length']} tokens"])
    return [*rows, *_media_lines(facts), *_feature_lines(facts)]


def _media_lines(facts: Mapping[str, Any]) -> list[list[str]]:
    media = facts["media"]
    if not media:
        return []
    status = ", ".join(f"{count:,} {name}" for name, count in media["status"].items())
    rows = [["videos", status]]
    if media["reasons"]:
        text = ", ".join(f"{count:,} {reason}" for reason, count in media["reasons"].items())
        rows.append(["failures", text])
    durations = media["duration_seconds"]
    if durations["n"]:
        span = f"{durations['min']:.1f} to {durations['max']:.1f} s"
        rows.append(["durations", f"{span}; {_hours(durations['total'])} in all"])
        sizes = ", ".join(f"{size} ({count:,})" for size, count in media["sizes"][:LISTED])
        rows.append(["sizes", sizes])
    if media["rates"]:
        text = ", ".join(f"{rate:g} ({count:,})" for rate, count in media["rates"][:LISTED])
        rows.append(["frames per second", text])
    return rows


def _feature_lines(facts: Mapping[str, Any]) -> list[list[str]]:
    features, gap, rows = facts["features"], facts["modality_gap"], []
    if features:
        norms = features["norms"]
        rows.append(["feature norms", f"mean {norms['mean']:.3f}, sd {norms['sd']:.3f}"])
        spread = (
            f"{features['effective_dimensions']:.1f} effective dimensions of "
            f"{features['dimensions']}; cosine of different videos "
            f"{features['cosine_between_videos'].get('mean', float('nan')):.3f}"
        )
        rows.append(["feature spread", spread])
    if gap:
        text = f"{gap['distance']:.3f} between the means of captions and videos"
        rows.append(["modality gap", f"{text}, {gap['separable']:.0f} % told apart by a plane"])
    return rows


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
