"""`vtr report`: result folders in, one HTML page and pictures out; no figure is made up here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vtr import __version__
from vtr.charts import files, html
from vtr.charts.kinds import Chart, figure
from vtr.counts import count_text, counted
from vtr.errors import ConfigError
from vtr.evaluate.reporting import figures
from vtr.evaluate.reporting.examples import Example, draw_examples, example_parts, read_examples
from vtr.evaluate.reporting.figures import Bin
from vtr.evaluate.reporting.page import Section, page, part
from vtr.evaluate.reporting.results import Result, comparability, other_features, told_apart
from vtr.files import make_folder, publish_all
from vtr.foreign import shown

SHOWN_METRICS = ("R@1", "R@5", "R@10", "MedR", "MeanR", "MRR")
NUM_EXAMPLES = 8
PAGE = "report.html"
MIXED = (
    "The results were not all evaluated on the same queries and videos. Only results under one "
    "heading may be compared."
)
SMALL_GALLERY = 10  # videos, from which on every R@k that is shown can be missed


@dataclass(frozen=True)
class ReportOptions:
    """What to show.

    Raises:
        ConfigError: A number out of range.
    """

    title: str = "Video-text retrieval report"
    k: int = 1  # recall depth of the breakdowns
    bins: tuple[Bin, ...] | None = None  # query lengths other than those in the results
    simulation: Mapping[str, Any] | None = None  # a document of kind "vtr-simulation"
    videos: Path | None = None  # looked into where the results' own paths do not exist
    num_examples: int = NUM_EXAMPLES  # at most so many of each kind
    pictures: bool = True  # draw PNG files too

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"the recall depth is {self.k}; it must be 1 or more")
        if self.num_examples < 0:
            raise ConfigError(
                f"the number of examples is {self.num_examples}; it must be 0 or more"
            )


@dataclass(frozen=True)
class Group:
    """Results that may be compared: same protocol, same queries, same coverage."""

    results: tuple[Result, ...]  # at least one
    name: str  # the protocol's, with what sets the group apart from others of the same protocol
    charts: dict[str, list[Chart]] = field(default_factory=dict)  # by their section
    examples: dict[str, list[Example]] = field(default_factory=dict)  # by their kind

    @property
    def subject(self) -> Result:
        """Whose examples are shown: the last trained one, else the first."""
        trained = [result for result in self.results if not result.is_zero_shot]
        return trained[-1] if trained else self.results[0]

    @property
    def slug(self) -> str:
        """The name as a part of file names and links."""
        return re.sub(r"[^A-Za-z0-9_.]+", "-", self.name).strip("-")[:80]


def write_report(
    results: Sequence[Result], folder: Path, *, options: ReportOptions | None = None
) -> Path:
    """Writes `report.html` and the pictures into a folder; returns the page's path.

    Args:
        results: At least one, from `load_result`.
        folder: Made where it does not exist.
        options: What to show.

    Raises:
        ConfigError: Own bins without a table of queries.
        StoreWriteError: The file system refused.
    """
    return write_files(results, folder, options=options)[-1]


def write_files(
    results: Sequence[Result], folder: Path, *, options: ReportOptions | None = None
) -> list[Path]:
    """Writes a report like `write_report`; returns the paths of its pictures, then the page's.

    Nothing is written before everything is drawn: a folder never holds the page of one report and
    pictures of another.
    """
    options = options or ReportOptions()
    make_folder(folder, option="--out")
    groups = [_fill(group, options) for group in group_results(results)]
    made = dict(_pictures(groups, options)) if options.pictures else {}
    made[PAGE] = render(groups, options)
    publish_all({folder / name: payload for name, payload in made.items()})
    return [folder / name for name in made]


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
    groups = list(members.values())
    names = _group_names([group[0] for group in groups])
    return [Group(tuple(group), name) for group, name in zip(groups, names, strict=True)]


def _group_names(firsts: Sequence[Result]) -> list[str]:
    """Names of groups by one result of each: the protocol, and facts as long as names are equal."""
    names = [result.protocol for result in firsts]
    for fact in (_part, _policy, _presence, _queries, _digest):
        for name in {name for name in names if names.count(name) > 1}:
            places = [i for i, other in enumerate(names) if other == name]
            facts = [fact(firsts[i]) for i in places]
            if len(set(facts)) > 1:
                for i, words in zip(places, facts, strict=True):
                    names[i] = f"{name}, {words}"
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def _part(result: Result) -> str:
    return f"part {result.part('protocol').get('part', 'test')}"


def _policy(result: Result) -> str:
    policy = result.part("coverage").get("policy")
    words = {"miss": "missing counted", "restrict": "missing left out"}
    return words.get(str(policy), f"missing: {policy}")


def _presence(result: Result) -> str:
    coverage = result.part("coverage")
    return f"{count_text(coverage.get('present'))} of {counted(coverage.get('videos'), 'video')}"


def _queries(result: Result) -> str:
    return counted(result.part("protocol").get("num_queries"), "query")


def _digest(result: Result) -> str:
    return f"digest {str(result.part('protocol').get('digest'))[:8]}"


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
            figures.similarity_distribution(before, beside=after) if before else None,
            figures.similarity_distribution(after, beside=before) if after else None,
        ],
    }
    shown = {name: [c for c in found if c is not None] for name, found in parts.items()}
    examples = {
        kind: read_examples(group.subject, kind, videos=options.videos, limit=options.num_examples)
        for kind in ("success", "failure")
    }
    return replace(group, charts=shown, examples=examples)


def _has(results: Sequence[Result], direction: str) -> bool:
    return any(key.startswith(f"{direction}/R@") for r in results for key in r.metrics)


def render(groups: Sequence[Group], options: ReportOptions) -> bytes:
    """Returns the page for filled groups."""
    sections = [one for nth, group in enumerate(groups) for one in _group(group, nth, groups)]
    if options.simulation is not None:
        chart = figures.recall_by_frames(options.simulation, options.k)
        sections.append(Section("frames", "Number of frames", [html.draw(chart)]))
    number = sum(len(group.results) for group in groups)
    lead = part("line", f"{counted(number, 'result')}, drawn by vtr {__version__}.")
    if len(groups) > 1:
        lead += part("notes", [("", MIXED)], "warning")
    return page(options.title, sections, lead=lead)


def _mark(group: Group, nth: int) -> str:
    """What follows the names of a group's files and links; nothing for the first group."""
    return f"-{nth + 1}-{group.slug}" if nth else ""


def _group(group: Group, nth: int, groups: Sequence[Group]) -> Iterator[Section]:
    mark = _mark(group, nth)
    prefix = f"{group.name}: " if len(groups) > 1 else ""
    warnings = [(r.title, text) for r in group.results for text in caveats(r)]
    first = group.results[0]
    others = [(r.title, other_features(first, r)) for r in group.results[1:]]
    warnings += [(title, f"{text}.") for title, text in others if text]
    boxes = [part("notes", warnings, "warning")] if warnings else []
    summary = [_facts(group), *boxes, *_tables(group.results)]
    yield Section(f"results{mark}", f"{prefix}Results", summary)
    for name, found in group.charts.items():
        slug = name.lower().replace(" ", "-")
        yield Section(f"{slug}{mark}", f"{prefix}{name}", [html.draw(chart) for chart in found])
    for kind, examples in group.examples.items():
        parts = example_parts(examples, kind, group.subject.title)
        yield Section(f"{kind}{mark}", f"{prefix}{kind.capitalize()} cases", parts)
    yield Section(f"settings{mark}", f"{prefix}Settings", [_settings(group.results)])


def _facts(group: Group) -> Markup:
    first = group.results[0]
    protocol = first.part("protocol")
    videos, digest = counted(protocol.get("num_videos"), "video"), str(protocol.get("digest"))[:12]
    return part(
        "facts", first.protocol, _part(first), _queries(first), videos, _presence(first), digest
    )


def caveats(result: Result) -> Iterator[str]:
    """Yields what speaks against taking a result's figures at face value."""
    protocol, coverage, setup = (result.part(p) for p in ("protocol", "coverage", "setup"))
    if result.outdated:
        yield f"{result.outdated}."
    if not protocol.get("published", True):
        problems = "; ".join(str(text) for text in protocol.get("problems") or [])
        yield f"not the published protocol ({problems or 'no details'})."
    if coverage.get("present") != coverage.get("videos"):
        yield f"present: {_presence(result)} (policy {coverage.get('policy')})."
    videos = protocol.get("num_videos")
    if isinstance(videos, int) and videos <= SMALL_GALLERY:
        yield (
            f"only {videos} video{'s are' if videos > 1 else ' is'} ranked; R@k from "
            f"k = {videos} on finds every video that is there, whatever the model does."
        )
    leaked = setup.get("trained_on_test")
    if leaked:
        yield f"trained on {counted(leaked, 'video')} of this gallery."
    elif leaked is None and not result.is_zero_shot:
        yield "whether videos of this gallery were trained on is not known."
    if "test" in str(setup.get("selection", "")).lower():
        yield f"the epoch was chosen on test data ({setup['selection']})."


def _tables(results: Sequence[Result]) -> Iterator[Markup]:
    for direction, words in (*figures.DIRECTIONS.items(), ("v2t_groups", "video to caption group")):
        rows = [row for result in results for row in _metric_rows(result, direction)]
        if rows:
            yield part("table", [words, *SHOWN_METRICS, "N"], rows, kind="even")


def _metric_rows(result: Result, direction: str) -> Iterator[list[str]]:
    yield from _metric_row(part("result_name", result.title), result.metrics, direction)
    for name, found in result.part("postprocessed").items():
        note = ", sees all queries" if found.get("transductive") else ""
        title = part("result_name", result.title, f"{name}{note}")
        yield from _metric_row(title, found.get("metrics", {}), direction)


def _metric_row(
    title: Markup, metrics: Mapping[str, Mapping[str, Any]], direction: str
) -> Iterator[list[str]]:
    entries = [metrics.get(f"{direction}/{name}") for name in SHOWN_METRICS]
    if any(entries):
        count = next((entry.get("n") for entry in entries if entry), None)
        yield [title, *map(_cell, entries), count_text(count)]


def _cell(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return ""
    ends = ""
    if entry.get("low") is not None and entry.get("high") is not None:
        ends = f"[{figure(entry['low'])}, {figure(entry['high'])}]"
    return part("metric", entry["value"], figure(entry["value"]), ends)


def _settings(results: Sequence[Result]) -> Markup:
    keys = list(dict.fromkeys(key for result in results for key in result.part("setup")))
    rows = [
        [key.replace("_", " "), *(_setting(key, r.part("setup").get(key)) for r in results)]
        for key in keys
        if key != "title"
    ]
    created = [str(result.document.get("created") or "") for result in results]
    rows.append(["evaluated", *(time[:16].replace("T", " ") for time in created)])
    titles = [result.title for result in results]
    return part("table", ["setting", *titles], rows, kind="words")


def _setting(key: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if key == "fingerprint":
        return part("metric", value, str(value)[:12], "")
    return shown(value, 160)


def _pictures(groups: Sequence[Group], options: ReportOptions) -> Iterator[tuple[str, bytes]]:
    """Yields the name of every PNG file and what is in it."""
    for nth, group in enumerate(groups):
        mark = _mark(group, nth)
        for chart in (chart for found in group.charts.values() for chart in found):
            yield f"{chart.head.name}{mark}.png", files.draw(chart)
        for kind, found in group.examples.items():
            if found:
                yield f"{kind}_case_examples{mark}.png", draw_examples(found, kind)
    if options.simulation is not None:
        chart = figures.recall_by_frames(options.simulation, options.k)
        yield f"{chart.head.name}.png", files.draw(chart)
