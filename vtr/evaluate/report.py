"""`vtr report`: result folders in, one HTML page and pictures out; no figure is made up here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtr import __version__
from vtr.errors import ConfigError
from vtr.evaluate.reporting import figures
from vtr.evaluate.reporting.charts import Chart, figure
from vtr.evaluate.reporting.examples import Example, example_section, read_examples
from vtr.evaluate.reporting.figures import Bin
from vtr.evaluate.reporting.page import charts, notes, page, section, table
from vtr.evaluate.reporting.results import Result, comparability, told_apart
from vtr.evaluate.reporting.text import escaped, isolated
from vtr.files import make_folder, publish

SHOWN_METRICS = ("R@1", "R@5", "R@10", "MedR", "MeanR", "MRR")
NUM_EXAMPLES = 8
SMALL_GALLERY = 10  # videos, from which on every R@k that is shown can be missed


@dataclass(frozen=True)
class ReportOptions:
    """What to show.

    Args:
        title: Of the page.
        k: Recall depth of the breakdowns.
        bins: Query lengths other than those in the results.
        simulation: A document of kind "vtr-simulation".
        videos: Folder to look for video files where the results' own paths do not exist.
        num_examples: At most so many of each kind.
        pictures: Draw PNG files too (needs matplotlib).

    Raises:
        ConfigError: A number out of range.
    """

    title: str = "Video-text retrieval report"
    k: int = 1
    bins: tuple[Bin, ...] | None = None
    simulation: Mapping[str, Any] | None = None
    videos: Path | None = None
    num_examples: int = NUM_EXAMPLES
    pictures: bool = True

    def __post_init__(self) -> None:
        if self.k < 1 or self.num_examples < 0:
            raise ConfigError(
                f"the recall depth is {self.k} and the number of examples {self.num_examples}; "
                "the depth is 1 or more, examples 0 or more"
            )


@dataclass(frozen=True)
class Group:
    """Results that may be compared: same protocol, same queries, same coverage."""

    results: tuple[Result, ...]
    charts: dict[str, list[Chart]] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)

    @property
    def subject(self) -> Result:
        """Whose examples are shown: the last trained one, else the first."""
        trained = [result for result in self.results if not result.is_zero_shot]
        return trained[-1] if trained else self.results[0]

    @property
    def name(self) -> str:
        """The protocol's."""
        return self.results[0].protocol


def write_report(
    results: Sequence[Result], folder: Path, *, options: ReportOptions | None = None
) -> Path:
    """Writes `report.html` and the pictures into a folder; returns the page's path.

    Args:
        results: At least one, from `load_result`.
        folder: Made where it does not exist.
        options: What to show.

    Raises:
        ConfigError: Own bins without a table of queries; pictures without matplotlib.
        StoreWriteError: The file system refused.
    """
    options = options or ReportOptions()
    make_folder(folder, option="--out")
    groups = [_fill(group, options) for group in group_results(results)]
    if options.pictures:
        _write_pictures(groups, folder)
        if options.simulation is not None:
            _save(figures.recall_by_frames(options.simulation, options.k), folder)
    path = folder / "report.html"
    publish(path, render(groups, options))
    return path


def report_html(results: Sequence[Result], *, options: ReportOptions | None = None) -> bytes:
    """Returns the page alone; arguments as for `write_report`."""
    options = options or ReportOptions()
    return render([_fill(group, options) for group in group_results(results)], options)


def group_results(results: Sequence[Result]) -> list[Group]:
    """Puts together what may be compared, and gives equal titles a difference."""
    titles = told_apart([result.title for result in results], [r.folder for r in results])
    members: dict[tuple[Any, ...], list[Result]] = {}
    for result, title in zip(results, titles, strict=True):
        if title != result.title:
            result = result.renamed(title)
        members.setdefault(tuple(comparability(result).values()), []).append(result)
    return [Group(tuple(group)) for group in members.values()]


def _fill(group: Group, options: ReportOptions) -> Group:
    results, k = group.results, options.k
    before = next((r for r in results if r.is_zero_shot), None)
    after = next((r for r in reversed(results) if not r.is_zero_shot), None)
    parts: dict[str, list[Chart | None]] = {
        "Recall": [
            figures.recall_comparison_chart(results),
            figures.recall_comparison_chart(results, "v2t") if _has(results, "v2t") else None,
            figures.group_recall(results, k),
            figures.order_accuracy(results),
        ],
        "Ranks": [figures.rank_histogram(results)],
        "By category": [
            figures.video_category_distribution_test(results[0]),
            figures.category_recall_comparison(results, k),
        ],
        "By query length": [figures.query_length_recall(results, k, bins=options.bins)],
        "Similarity": [
            figures.baseline_similarity_distribution(before, beside=after) if before else None,
            figures.finetuned_similarity_distribution(after, beside=before) if after else None,
        ],
    }
    shown = {name: [c for c in found if c is not None] for name, found in parts.items()}
    examples = {
        kind: read_examples(group.subject, kind, videos=options.videos, limit=options.num_examples)
        for kind in ("success", "failure")
    }
    return Group(results, shown, examples)


def _has(results: Sequence[Result], direction: str) -> bool:
    return any(key.startswith(f"{direction}/R@") for r in results for key in r.metrics)


def render(groups: Sequence[Group], options: ReportOptions) -> bytes:
    """Returns the page for filled groups."""
    sections = [part for nth, group in enumerate(groups) for part in _group(group, nth, groups)]
    if options.simulation is not None:
        chart = figures.recall_by_frames(options.simulation, options.k)
        sections.append(section("Number of frames", charts([chart]), name="frames"))
    number = sum(len(group.results) for group in groups)
    lead = (
        f"<p>{number} result{'s' if number > 1 else ''}, drawn by vtr {escaped(__version__)}.</p>"
    )
    if len(groups) > 1:
        lead += notes(
            [
                "The results were not all evaluated on the same queries and videos. Only results "
                "under one heading may be compared."
            ],
            kind="warning",
        )
    return page(options.title, lead, sections)


def _group(group: Group, nth: int, groups: Sequence[Group]) -> Iterator[str]:
    mark = f"-{nth + 1}" if nth else ""
    prefix = f"{group.name}: " if len(groups) > 1 else ""
    warnings = [text for result in group.results for text in caveats(result)]
    summary = [_facts(group), notes(warnings, kind="warning"), *_tables(group.results)]
    yield section(f"{prefix}Results", summary, name=f"results{mark}")
    for name, found in group.charts.items():
        slug = name.lower().replace(" ", "-")
        yield section(f"{prefix}{name}", charts(found), name=f"{slug}{mark}")
    for kind, title in (("success", "Success cases"), ("failure", "Failure cases")):
        blocks = example_section(group.examples.get(kind, []), kind, group.subject.title)
        yield section(f"{prefix}{title}", blocks, name=f"{kind}{mark}")
    yield section(f"{prefix}Settings", [_settings(group.results)], name=f"settings{mark}")


def _facts(group: Group) -> str:
    protocol, coverage = group.results[0].part("protocol"), group.results[0].part("coverage")
    counts = {key: _count(protocol.get(f"num_{key}")) for key in ("queries", "videos")}
    return (
        f"<p>Protocol <b>{escaped(group.name)}</b>, part {escaped(protocol.get('part', 'test'))}: "
        f"{counts['queries']} queries over {counts['videos']} videos; {_presence(coverage)}. "
        f"Digest {escaped(str(protocol.get('digest'))[:12])}. R@k and MRR are percent, MedR and "
        "MeanR are ranks; in brackets the 95 % interval.</p>"
    )


def _presence(coverage: Mapping[str, Any]) -> str:
    present, videos = (_count(coverage.get(key)) for key in ("present", "videos"))
    return f"{present} of {videos} videos are present"


def _count(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else "?"


def caveats(result: Result) -> list[str]:
    """Returns, as HTML, what speaks against taking a result's figures at face value."""
    protocol, coverage, setup = (result.part(p) for p in ("protocol", "coverage", "setup"))
    name, found = isolated(result.title, 80), []
    if not protocol.get("published", True):
        problems = "; ".join(str(text) for text in protocol.get("problems") or [])
        found.append(f"{name}: not the published protocol ({escaped(problems) or 'no details'}).")
    if coverage.get("present") != coverage.get("videos"):
        found.append(f"{name}: {_presence(coverage)} (policy {escaped(coverage.get('policy'))}).")
    videos = protocol.get("num_videos")
    if isinstance(videos, int) and videos <= SMALL_GALLERY:
        found.append(
            f"{name}: only {videos} video{'s are' if videos > 1 else ' is'} ranked; R@k from "
            f"k = {videos} on is 100 whatever the model does."
        )
    leaked = setup.get("trained_on_test")
    if leaked:
        found.append(f"{name}: {escaped(leaked)} videos of this gallery were trained on.")
    elif leaked is None and not result.is_zero_shot:
        found.append(f"{name}: whether videos of this gallery were trained on is not known.")
    if "test" in str(setup.get("selection", "")).lower():
        found.append(f"{name}: the epoch was chosen on test data ({escaped(setup['selection'])}).")
    return found


def _tables(results: Sequence[Result]) -> Iterator[str]:
    for direction, words in (*figures.DIRECTIONS.items(), ("v2t_groups", "video to caption group")):
        rows = [row for result in results for row in _metric_rows(result, direction)]
        if rows:
            yield table([words, *SHOWN_METRICS, "N"], rows, kind="even")


def _metric_rows(result: Result, direction: str) -> Iterator[list[str]]:
    yield from _metric_row(isolated(result.title, 80), result.metrics, direction)
    for name, part in result.part("postprocessed").items():
        note = ", sees all queries" if part.get("transductive") else ""
        title = f"{isolated(result.title, 80)} <small>with {escaped(name)}{note}</small>"
        yield from _metric_row(title, part.get("metrics", {}), direction)


def _metric_row(
    title: str, metrics: Mapping[str, Mapping[str, Any]], direction: str
) -> Iterator[list[str]]:
    entries = [metrics.get(f"{direction}/{name}") for name in SHOWN_METRICS]
    if any(entries):
        count = next((entry.get("n") for entry in entries if entry), None)
        yield [title, *map(_cell, entries), _count(count)]


def _cell(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return ""
    ends = ""
    if entry.get("low") is not None and entry.get("high") is not None:
        ends = f"<small>[{figure(entry['low'])}, {figure(entry['high'])}]</small>"
    return f'<span title="{escaped(entry["value"])}">{figure(entry["value"])}</span>{ends}'


def _settings(results: Sequence[Result]) -> str:
    keys = list(dict.fromkeys(key for result in results for key in result.part("setup")))
    rows = [
        [
            escaped(key.replace("_", " ")),
            *(_setting(key, result.part("setup").get(key)) for result in results),
        ]
        for key in keys
        if key != "title"
    ]
    rows.append(["evaluated", *(_minute(r.document.get("created")) for r in results)])
    return table(["setting", *(result.title for result in results)], rows, kind="words")


def _minute(created: object) -> str:
    return escaped(str(created or "")[:16].replace("T", " "))


def _setting(key: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if key == "fingerprint":
        return f'<span title="{escaped(value)}">{escaped(str(value)[:12])}</span>'
    return isolated(value, 160)


def _save(chart: Chart, folder: Path, mark: str = "") -> None:
    from vtr.evaluate.plots import save

    save(chart, folder / f"{chart.head.name}{mark}.png")


def _write_pictures(groups: Sequence[Group], folder: Path) -> None:
    from vtr.evaluate.plots import draw_examples

    for nth, group in enumerate(groups):
        mark = f"-{nth + 1}" if nth else ""
        for chart in (chart for found in group.charts.values() for chart in found):
            _save(chart, folder, mark)
        for kind, found in group.examples.items():
            if found:
                publish(folder / f"{kind}_case_examples{mark}.png", draw_examples(found, kind))
