"""`vtr report`: result folders in, one HTML page and pictures out; no figure is made up here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from vtr import __version__
from vtr.api.compare import as_result
from vtr.charts import files, html
from vtr.charts.kinds import Chart, figure
from vtr.counts import count_text, counted
from vtr.datasets.files import require_folder
from vtr.errors import ConfigError
from vtr.evaluate.parts import parse_bins
from vtr.evaluate.reporting import figures
from vtr.evaluate.reporting.examples import Example, draw_examples, example_parts, read_examples
from vtr.evaluate.reporting.results import (
    Result,
    comparability,
    load_result,
    other_features,
    told_apart,
)
from vtr.files import make_folder, publish_all
from vtr.foreign import shown
from vtr.json_files import read_json
from vtr.pages import Section, page, part
from vtr.progress import note
from vtr.result_schema import RESULT_FILE
from vtr.settings import resolved, takes
from vtr.verbs.report import Options
from vtr.workspace import Workspace, workspace_here

SHOWN_METRICS = ("R@1", "R@5", "R@10", "MedR", "MeanR", "MRR")
PAGE = "report.html"
OPTIONS = "report.json"
MIXED = (
    "The results were not all evaluated on the same queries and videos. Only results under one "
    "heading may be compared."
)
SMALL_GALLERY = 10  # videos, from which on every R@k that is shown can be missed


@takes(Options)
def make_report(
    results: Sequence[Result | str | Path], out: str | Path = "report", **options: Any
) -> Path:
    """Writes one self-contained HTML page about results and returns its path; `vtr report`.

    >>> import vtr
    >>> page = vtr.make_report(["demo-world/features/zero-shot/demo"], "report", pictures=False)
    >>> page.name
    'report.html'

    Args:
        results: Results or their folders, at least one.
        out: Folder for `report.html` and the pictures.
        options: The other fields of `vtr.verbs.report.Options`, such as `title="Ours"`, `k=5`,
            `pictures=False`.

    Raises:
        ConfigError: No result, or an option that is not allowed.
        StoreWriteError: The file system refused.
    """
    if isinstance(results, str | Path) or not isinstance(results, Sequence) or not results:
        raise ConfigError(
            f"results is {results!r:.60} ({type(results).__name__}); it must be a list of at least "
            "one result or folder of one, such as [zero_shot, trained]"
        )
    checked = Options.of(out=out, **options)
    return write_report([as_result(one) for one in results], checked).page


def load_results(paths: Sequence[Path] | None) -> list[Result]:
    """Returns the results of some folders; without any those of the workspace, zero-shot first."""
    here = result_files(workspace_here())
    if not (paths or here):
        raise ConfigError(
            "there is no result to report: name one, or run `vtr eval` in this workspace first"
        )
    if not paths:
        note(f"{counted(len(here), 'result')} of this workspace")
    results = [load_result(path) for path in paths or here]
    for result in results:
        if result.outdated:
            note(f"{result.folder}: {result.outdated}")
    return results if paths else sorted(results, key=lambda result: not result.is_zero_shot)


def result_files(workspace: Workspace) -> list[Path]:
    """Returns the files of all results in a workspace, zero-shot ones first."""
    return [
        *sorted(workspace.features.glob(f"zero-shot/*/{RESULT_FILE}")),
        *sorted(workspace.runs.glob(f"*/eval/*/{RESULT_FILE}")),
        *sorted(workspace.root.glob(f"results/*/{RESULT_FILE}")),  # of `vtr demo`
    ]


class Report(NamedTuple):
    """The files of a report."""

    page: Path
    pictures: list[Path]


def write_report(results: Sequence[Result], options: Options) -> Report:
    """Writes the page and, if wanted, its charts as PNG files into the folder `options.out`.

    Nothing is written before everything is drawn: a folder never holds the page of one report and
    pictures of another.
    """
    if options.videos is not None:
        require_folder(options.videos, what="--videos")
    make_folder(options.out, option="--out")
    drawn, frames = _draw(results, options), _frames_chart(options)
    pictures = dict(_pictures(drawn, frames)) if options.pictures else {}
    used = resolved(options, results=[str(result.folder) for result in results])
    made = {**pictures, PAGE: _render(drawn, frames, options.title), OPTIONS: used}
    publish_all({options.out / name: payload for name, payload in made.items()})
    return Report(options.out / PAGE, [options.out / name for name in pictures])


def report_html(results: Sequence[Result], options: Options | None = None) -> bytes:
    """Returns the page alone."""
    options = options or Options()
    return _render(_draw(results, options), _frames_chart(options), options.title)


@dataclass(frozen=True)
class Group:
    """Results that may be compared: same protocol, same queries, same coverage."""

    results: tuple[Result, ...]  # at least one
    name: str  # the protocol's, with what sets the group apart from others of the same protocol
    number: int = 0  # on the page

    @property
    def mark(self) -> str:
        """What follows the names of its files and links; nothing for the first group."""
        slug = re.sub(r"[^A-Za-z0-9_.]+", "-", self.name).strip("-")[:80]
        return f"-{self.number + 1}-{slug}" if self.number else ""

    @property
    def subject(self) -> Result:
        """Whose examples are shown: the last trained one, else the first."""
        return next((r for r in reversed(self.results) if not r.is_zero_shot), self.results[0])


# A group, its charts by their section and its examples by their kind.
_Drawn = tuple[Group, dict[str, list[Chart]], dict[str, list[Example]]]


def group_results(results: Sequence[Result]) -> list[Group]:
    """Puts together what may be compared, and gives equal titles a difference."""
    titles = told_apart([result.title for result in results], [r.folder for r in results])
    members: dict[tuple[Any, ...], list[Result]] = {}
    for result, title in zip(results, titles, strict=True):
        renamed = result if title == result.title else result.renamed(title)
        members.setdefault(tuple(comparability(result).values()), []).append(renamed)
    names = _group_names([group[0] for group in members.values()])
    groups = zip(members.values(), names, strict=True)
    return [Group(tuple(group), name, nth) for nth, (group, name) in enumerate(groups)]


def _group_names(firsts: Sequence[Result]) -> list[str]:
    """Names of groups by one result of each: the protocol, and facts as long as names are equal."""
    names = [result.protocol for result in firsts]
    for fact in (_part, _policy, _presence, _queries, _digest):
        for name in {name for name in names if names.count(name) > 1}:
            facts = {i: fact(firsts[i]) for i, other in enumerate(names) if other == name}
            if len(set(facts.values())) > 1:
                for i, words in facts.items():
                    names[i] = f"{name}, {words}"
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def _part(result: Result) -> str:
    return f"part {result.part('protocol').get('part', 'test')}"


def _policy(result: Result) -> str:
    policy = str(result.part("coverage").get("policy"))
    words = {"miss": "missing counted", "restrict": "missing left out"}
    return words.get(policy, f"missing: {policy}")


def _presence(result: Result) -> str:
    coverage = result.part("coverage")
    return f"{count_text(coverage.get('present'))} of {counted(coverage.get('videos'), 'video')}"


def _queries(result: Result) -> str:
    return counted(result.part("protocol").get("num_queries"), "query")


def _digest(result: Result) -> str:
    return f"digest {str(result.part('protocol').get('digest'))[:8]}"


def _draw(results: Sequence[Result], options: Options) -> list[_Drawn]:
    return [
        (group, _charts(group.results, options), {
            kind: read_examples(group.subject, kind, videos=options.videos, limit=options.examples)
            for kind in ("success", "failure")
        })
        for group in group_results(results)
    ]  # fmt: skip


def _charts(results: Sequence[Result], options: Options) -> dict[str, list[Chart]]:
    k, bins = options.k, None if options.bins is None else parse_bins(options.bins)
    before = next((result for result in results if result.is_zero_shot), None)
    after = next((result for result in reversed(results) if not result.is_zero_shot), None)
    has_v2t = any(key.startswith("v2t/R@") for result in results for key in result.metrics)
    charts: dict[str, list[Chart | None]] = {
        "Recall": [
            figures.recall_comparison_chart(results),
            figures.recall_comparison_chart(results, "v2t") if has_v2t else None,
            figures.group_recall(results, k),
            figures.order_accuracy(results),
        ],
        "Ranks": [figures.rank_histogram(results)],
        "By category": [
            figures.video_category_distribution_test(results[0]),
            figures.category_recall_comparison(results, k),
        ],
        "By query length": [figures.query_length_recall(results, k, bins=bins)],
        "Similarity": [
            figures.similarity_distribution(before, beside=after) if before else None,
            figures.similarity_distribution(after, beside=before) if after else None,
        ],
    }
    return {name: [chart for chart in some if chart is not None] for name, some in charts.items()}


def _frames_chart(options: Options) -> Chart | None:
    if options.frames is None:
        return None
    simulation = read_json(options.frames, needed="the JSON of `vtr simulate`")
    return figures.recall_by_frames(simulation, options.k)


def _render(drawn: Sequence[_Drawn], frames: Chart | None, title: str) -> bytes:
    sections = [section for one in drawn for section in _sections(*one, several=len(drawn) > 1)]
    if frames is not None:
        sections.append(Section("frames", "Number of frames", [html.draw(frames)]))
    number = sum(len(group.results) for group, *_ in drawn)
    lead = part("line", f"{counted(number, 'result')}, drawn by vtr {__version__}.")
    if len(drawn) > 1:
        lead += part("notes", [("", MIXED)], "warning")
    return page(title, sections, lead=lead)


def _sections(
    group: Group,
    charts: Mapping[str, Sequence[Chart]],
    examples: Mapping[str, Sequence[Example]],
    *,
    several: bool,
) -> Iterator[Section]:
    results, mark = group.results, group.mark
    prefix = f"{group.name}: " if several else ""
    warnings = [(r.title, text) for r in results for text in caveats(r)]
    others = [(r.title, other_features(results[0], r)) for r in results[1:]]
    warnings += [(title, f"{text}.") for title, text in others if text]
    boxes = [part("notes", warnings, "warning")] if warnings else []
    summary = [_facts(results[0]), *boxes, *_tables(results)]
    yield Section(f"results{mark}", f"{prefix}Results", summary)
    for name, some in charts.items():
        slug = name.lower().replace(" ", "-")
        yield Section(f"{slug}{mark}", f"{prefix}{name}", [html.draw(chart) for chart in some])
    for kind, cases in examples.items():
        parts = example_parts(cases, kind, group.subject.title)
        yield Section(f"{kind}{mark}", f"{prefix}{kind.capitalize()} cases", parts)
    yield Section(f"settings{mark}", f"{prefix}Settings", [_settings(results)])


def _facts(result: Result) -> Markup:
    protocol = result.part("protocol")
    videos, digest = counted(protocol.get("num_videos"), "video"), str(protocol.get("digest"))[:12]
    queries, presence = _queries(result), _presence(result)
    return part("facts", result.protocol, _part(result), queries, videos, presence, digest)


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
    """Yields a table per direction, with the numbers after a post-processing below the result's."""
    for direction, words in (*figures.DIRECTIONS.items(), ("v2t_groups", "video to caption group")):
        rows = []
        for result in results:
            measured = [(part("result_name", result.title), result.metrics)]
            for name, found in result.part("postprocessed").items():
                note = ", sees all queries" if found.get("transductive") else ""
                title = part("result_name", result.title, f"{name}{note}")
                measured.append((title, found.get("metrics", {})))
            for title, metrics in measured:
                entries = [metrics.get(f"{direction}/{name}") for name in SHOWN_METRICS]
                if any(entries):
                    count = next((entry.get("n") for entry in entries if entry), None)
                    rows.append([title, *map(_cell, entries), count_text(count)])
        if rows:
            yield part("table", [words, *SHOWN_METRICS, "N"], rows, kind="even")


def _cell(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return ""
    low, high = entry.get("low"), entry.get("high")
    ends = "" if low is None or high is None else f"[{figure(low)}, {figure(high)}]"
    return part("metric", entry["value"], figure(entry["value"]), ends)


def _settings(results: Sequence[Result]) -> Markup:
    def shown_as(key: str, value: object) -> str:
        if isinstance(value, bool) or value is None:
            return {True: "yes", False: "no", None: "-"}[value]
        if key == "fingerprint" or key.endswith("_sha256"):
            return part("metric", value, str(value)[:12], "")
        return shown(value, 160)

    setups = [result.part("setup") for result in results]
    keys = list(dict.fromkeys(key for setup in setups for key in setup))
    rows = [
        [key.replace("_", " "), *(shown_as(key, setup.get(key)) for setup in setups)]
        for key in keys
        if key != "title"
    ]
    created = [str(result.document.get("created") or "") for result in results]
    rows.append(["evaluated", *(time[:16].replace("T", " ") for time in created)])
    return part("table", ["setting", *(result.title for result in results)], rows, kind="words")


def _pictures(drawn: Sequence[_Drawn], frames: Chart | None) -> Iterator[tuple[str, bytes]]:
    """Yields the name of every PNG file and what is in it."""
    for group, charts, examples in drawn:
        for chart in (chart for some in charts.values() for chart in some):
            yield f"{chart.head.name}{group.mark}.png", files.draw(chart)
        for kind, cases in examples.items():
            if cases:
                yield f"{kind}_case_examples{group.mark}.png", draw_examples(cases, kind)
    if frames is not None:
        yield f"{frames.head.name}.png", files.draw(frames)
