"""Reports: every figure is the result's own, nothing in it runs, and it stays small."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from builders import contents, run_app, run_json, write_clip
from hypothesis import given
from hypothesis import strategies as st

from vtr.api.report import group_results, report_html, write_report
from vtr.charts.drawing import cut, width_of, wrapped
from vtr.charts.files import draw, save
from vtr.charts.kinds import axis_ticks, round_up
from vtr.charts.marks import marker, style
from vtr.errors import ConfigError, StoreWriteError
from vtr.evaluate.coverage import Coverage
from vtr.evaluate.evaluator import Evaluation, plan
from vtr.evaluate.observe import KeptScores
from vtr.evaluate.parts import parse_bins
from vtr.evaluate.protocol import QuerySet, load_protocol
from vtr.evaluate.ranks import Ranks, RetrievalRanks
from vtr.evaluate.reporting import figures
from vtr.evaluate.reporting.examples import Example, Frame, Hit, Strip, read_strip
from vtr.evaluate.reporting.results import Result, load_result, read_rows, told_apart
from vtr.evaluate.result import Setup, build_result, write_result
from vtr.features import PackedFrames
from vtr.foreign import csv_table, escaped, shown
from vtr.pages import Section, part
from vtr.pages import page as render_page
from vtr.verbs.report import Options

WORDS = ("a", "man", "dog", "is", "running", "cooking", "in", "the", "kitchen", "park")
CATEGORIES = ("sports/actions", "movie/comedy", "music", "news & <politics>", "documentary")


def make_video(path: Path, num_frames: int = 40) -> Path:
    pictures = [np.full((64, 96, 3), (6 * n, 255 - 6 * n, 90), np.uint8) for n in range(num_frames)]
    for n, picture in enumerate(pictures):
        picture[:, : 2 * n + 2] = (20, 60, 200)
    return write_clip(path, pictures, fps=10, codec="mpeg4")


def make_result(
    folder: Path,
    *,
    title: str = "meanP",
    strength: float = 0.3,
    count: int = 200,
    seed: int = 0,
    categories: Sequence[str] = CATEGORIES,
    texts: Callable[[int], str] | None = None,
    video_name: Callable[[int], str] = lambda n: f"video{n}",
    paths: Mapping[str, str] | None = None,
    setup: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a result folder as `vtr eval` does, of made-up ranks; one query per video."""
    made = np.random.default_rng(7)
    words, label = made.integers(4, 24, count), made.integers(0, len(categories), count)
    say = texts or (lambda n: " ".join(WORDS[(n + i) % len(WORDS)] for i in range(words[n])))
    every, names = np.arange(count), tuple(video_name(n) for n in range(count))
    asked = QuerySet(
        protocol="msrvtt-1kA",
        part="test",
        video_ids=names,
        texts=tuple(say(n) for n in range(count)),
        text_ids=tuple(f"query {n}" for n in range(count)),
        query_video=every,
        categories={name: categories[i] for name, i in zip(names, label, strict=True)},
    )
    rng = np.random.default_rng(seed)
    ranks = []
    for _ in range(2):
        better = np.minimum(rng.geometric(strength, count) - 1, count - 2)
        better[:3], better[10] = 0, count - 2  # the first examples
        ties = 1 + (rng.random(count) < 0.05)
        ties[:3] = 1
        ranks.append(Ranks(better, ties, count))
    edges = np.linspace(-0.1, 0.5, 41)
    spread = rng.normal(0.2 + 0.2 * strength, 0.05, count), rng.normal(0.12, 0.05, 20 * count)
    matching, other = (np.histogram(scores.clip(-0.1, 0.5), edges)[0] for scores in spread)
    own = 0.3 - 0.0001 * every
    top = (every[:, None] + np.arange(4) + (ranks[0].better > 0)[:, None]) % count
    scores = own[:, None] - (0.2 - 0.001 * every[:, None]) * np.arange(4)
    kept = KeptScores(
        own, top, scores, np.full(count, np.nan), edges, matching, other, 0.12, top, scores
    )
    found = RetrievalRanks(ranks[0], ranks[1], ranks[1], every, every)
    task = plan(asked, Coverage("miss", np.ones(count, np.bool_), ()))
    evaluation = Evaluation(task, found, kept, (1, 5, 10), {})
    times = np.tile([0.5, 1.5, 2.5, 3.5], count)
    packed = PackedFrames(names, np.ones((4 * count, 2)), times, np.arange(0, 4 * count + 1, 4))
    facts = {"backbone": "tiny", "fingerprint": "f" * 64, "zero_shot": strength < 0.25}
    facts |= {"selection": "val t2v/R@1", "seed": seed, **(setup or {})}
    words_of = {"head": "meanP", "text": "frozen", "sampler": "uniform", **facts}
    document = build_result(
        evaluation, load_protocol("msrvtt-1kA"), Setup(title=title, **words_of),
        packed=packed, paths={name: Path(path) for name, path in (paths or {}).items()},
    )  # fmt: skip
    write_result(folder, document, evaluation)
    return folder


def edited(folder: Path, **sections: Any) -> Result:
    """Changes keys of a result's sections, or whole sections, and reads it again."""
    document = json.loads((folder / "result.json").read_text())
    for name, changes in sections.items():
        document[name] = {**document[name], **changes}
    (folder / "result.json").write_text(json.dumps(document))
    return load_result(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """A zero-shot and a trained result; the videos of two examples exist."""
    root = tmp_path_factory.mktemp("results")
    video = make_video(root / "clip.mp4")
    (root / "broken.mp4").write_bytes(b"not a video")
    paths = {"video0": str(video), "video1": str(root / "broken.mp4"), "video10": str(video)}
    first = make_result(root / "a", title="before", strength=0.2, paths=paths)
    second = make_result(root / "b", title="after", strength=0.4, seed=1, paths=paths)
    return [load_result(first), load_result(second / "result.json")]


def words_of(*results: Result) -> str:
    return "".join(_Page(report_html(results)).text)


class _Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.titles: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.titles += [value for name, value in attrs if name == "title" and value]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def all_figures(result: Result) -> list[float]:
    found = [
        result.metrics[f"{direction}/{name}"]["value"]
        for direction in ("t2v", "v2t")
        for name in ("R@1", "R@5", "R@10", "MedR", "MeanR", "MRR")
    ]
    for name in ("category", "query_words"):
        found += [row["metrics"]["t2v/R@1"]["value"] for row in result.breakdown(name)]
    return found


def test_figures_of_the_page_are_those_of_the_result(pair: list[Result]) -> None:
    page = _Page(report_html(pair))
    cells = [text.strip() for text in page.text]
    for result in pair:
        for key in ("t2v/R@1", "t2v/MeanR", "v2t/R@10", "v2t/MRR"):
            assert str(result.metrics[key]["value"]) in page.titles  # unrounded
        for value in all_figures(result):
            assert f"{value:,.1f}" in cells
        for row in result.breakdown("category"):
            entry = row["metrics"]["t2v/R@1"]
            assert f"[{entry['low']:,.1f}, {entry['high']:,.1f}]" in cells
            assert f"{row['n']:,}" in cells
        histogram = result.part("rank_histogram")["counts"]
        assert any(f": {histogram[0]:,} (" in text for text in page.text)


def test_charts_hold_the_figures_of_the_result_exactly(pair: list[Result]) -> None:
    chart = figures.recall_comparison_chart(pair)
    assert [point.value for one in chart.series for point in one.points] == [
        result.metrics[f"t2v/{name}"]["value"] for result in pair for name in figures.RECALLS
    ]
    by_category = figures.category_recall_comparison(pair)
    rows = {row["name"]: row for row in pair[1].breakdown("category")}
    for point in by_category.series[1].points:
        entry = rows[point.label]["metrics"]["t2v/R@1"]
        assert (point.value, point.low, point.high) == (entry["value"], entry["low"], entry["high"])
        assert point.n == rows[point.label]["n"]
    similarity = figures.similarity_distribution(pair[1])
    assert similarity.series[0][1] == tuple(pair[1].part("similarity")["matching"])
    assert sum(similarity.heights()[0]) == pytest.approx(100)


def test_own_bins_are_counted_like_those_of_the_evaluation(pair: list[Result]) -> None:
    bins = parse_bins("1-10, 11-20, 21+")
    ours = figures.count_bins(pair[0], bins, 1)
    for row, theirs in zip(ours, pair[0].breakdown("query_words"), strict=True):
        assert row["name"] == theirs["name"]
        assert row["n"] == theirs["n"]
        assert row["metrics"]["t2v/R@1"]["value"] == pytest.approx(
            theirs["metrics"]["t2v/R@1"]["value"]
        )
    chart = figures.query_length_recall(pair, bins=parse_bins("4,5-6,7+"))
    assert chart.labels == ("4", "5-6", "7+")
    assert sum(point.n or 0 for point in chart.series[0].points) == 200


def test_forty_series_look_different(pair: list[Result]) -> None:
    assert len({(style(n), marker(n, 0, 0)) for n in range(40)}) == 40
    assert len({style(n, areas=True) for n in range(40)}) == 40
    shown = [pair[0].renamed(f"result {n}") for n in range(9)]
    page = report_html(shown).decode()
    keys = re.findall(r'<ul class="legend">(.*?)</ul>', page)
    for legend in (keys[0], next(found for found in keys if "swatch" in found and "t 8<" in found)):
        looks = re.findall(r"<svg (.*?)</svg></li>|<svg (.*?)</svg><bdi>", legend)
        assert len(looks) == len(set(looks)) == 9


def test_ranks_of_very_many_results_are_those_of_two(pair: list[Result]) -> None:
    shown = [pair[0].renamed(f"result {n}") for n in range(43)]
    for count, names in ((42, [one.title for one in shown[:42]]), (43, ["result 0", "result 42"])):
        chart = figures.rank_histogram(shown[:count])
        assert [name for name, _ in chart.series] == names
        assert ("Of 43 results the first and the last." in chart.head.note) == (count == 43)


def test_a_depth_without_figures_is_refused(pair: list[Result]) -> None:
    with pytest.raises(ConfigError, match="no result has R@3 of its parts; --k may be 1, 5, 10"):
        report_html(pair, Options(k=3, pictures=False))


def test_a_table_that_lost_rows_is_refused(tmp_path: Path) -> None:
    result = load_result(make_result(tmp_path / "cut", count=60))
    lines = result.per_query.read_text().splitlines(keepends=True)
    result.per_query.write_text("".join(lines[:41]))
    for bins in (None, "1-9,10+"):
        with pytest.raises(ConfigError, match=r"has 40 rows and result\.json counts 60 for t2v"):
            report_html([result], Options(bins=bins, pictures=False))


def test_similarity_before_and_after_training_shares_an_axis(pair: list[Result]) -> None:
    def moved(scale: float) -> Result:
        part = pair[1].part("similarity")
        edges = [scale * edge for edge in part["edges"]]
        return replace(
            pair[1], document={**pair[1].document, "similarity": {**part, "edges": edges}}
        )

    near, far = moved(2.0), moved(100.0)
    for before, after, span in ((pair[0], near, (-0.2, 1.0)), (pair[0], far, None)):
        first = figures.similarity_distribution(before, beside=after)
        second = figures.similarity_distribution(after, beside=before)
        assert first.span == second.span == span
        assert first.ends == (span or (-0.1, 0.5))
    page = _Page(report_html([pair[0], near]))
    places = [float(a["x"].rstrip("%")) for name, a in page.tags if name == "rect" and "x" in a]
    assert min(places) >= 0
    assert max(places) < 100


def test_a_query_s_own_video_stands_out(pair: list[Result]) -> None:
    page = _Page(report_html(pair, Options(examples=3)))
    hits = [
        attrs["class"] for attrs in page.of("div") if "hit" in (attrs.get("class") or "").split()
    ]
    assert hits == ["hit correct", *["hit"] * 3] * 3 + ["hit correct", *["hit"] * 4] * 3
    places = [text.strip() for text in page.text if text.strip().endswith("own video")]
    assert places == ["1. own video"] * 3 + ["own video"] * 3


def test_small_bins_are_marked(pair: list[Result]) -> None:
    chart = figures.query_length_recall(pair[:1], bins=parse_bins("1-4,5+"))
    marked = {point.label: point.is_small for point in chart.series[0].points}
    assert marked == {"1-4": True, "5+": False}
    options = Options(bins="1-4,5+", pictures=False)
    page = report_html(pair[:1], options=options)
    assert b"too few to say much" in page
    assert page.count(b' faded"') == 1


@pytest.mark.parametrize(
    "text", ["", "a", "5-1", "1-10,10-20", "1+,5-6", "3-", "1--2", "²", "1_0", "9" * 5000]
)
def test_bins_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--bins"):
        parse_bins(text)


def test_words_that_are_no_count_are_refused(tmp_path: Path) -> None:
    result = load_result(make_result(tmp_path / "r", count=60))
    rows = list(csv.reader(result.per_query.read_text().splitlines()))
    for cell in ("x", "-1", "1_0", "9" * 5000):
        rows[7][rows[0].index("words")] = cell
        result.per_query.write_bytes(csv_table(rows[0], rows[1:]))
        with pytest.raises(ConfigError, match=r"per_query\.csv has no whole number of words \('"):
            figures.count_bins(result, parse_bins("1-9,10+"), 1)


def test_the_contents_name_every_section(pair: list[Result]) -> None:
    page = report_html(pair).decode()
    sections = re.findall(r'<section id="([^"]+)"><h2>([^<]+)</h2>', page)
    assert len(sections) > 5
    assert re.findall(r'<li><a href="#([^"]+)">([^<]+)</a></li>', page) == sections


def test_the_page_needs_nothing_and_runs_nothing(pair: list[Result]) -> None:
    page = _Page(report_html(pair))
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "audio"}
    policy = next(m for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] is not None
    assert "default-src 'none'" in policy["content"]
    sources = [image["src"] or "" for image in page.of("img")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert all((link["href"] or "").startswith("#") for link in page.of("a"))
    assert not [name for name, attrs in page.tags if name != "a" and "href" in attrs]
    assert not re.search(r"url\(|@import|https?:", report_html(pair).decode())


HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"'><svg onload=document.title='owned'>",
    "</style></title><b>bold</b> &lt;i&gt; \x00 \u202e reversed",
    "-->]]>{{7*7}}${7*7} \ud800",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = make_result(
        tmp_path_factory.mktemp("hostile") / "r",
        title=HOSTILE[0],
        count=60,
        categories=HOSTILE[:4],
        texts=lambda n: HOSTILE[n % 4],
        video_name=lambda n: f"{n}{HOSTILE[n % 4]}",
        setup={"selection": HOSTILE[1], "head": HOSTILE[2], "trained_on_test": 3},
    )
    result = load_result(folder)
    first, *others = result.examples("failure")
    return edited(
        folder,
        protocol={"name": HOSTILE[3], "published": False, "problems": [HOSTILE[0]]},
        groups={HOSTILE[4]: result.breakdown("category")[0]},
        examples={"failure": [{**first, "text": HOSTILE[4]}, *others]},
    )


def test_ids_captions_and_categories_are_only_text(hostile: Result, pair: list[Result]) -> None:
    page = report_html([hostile], Options(title=HOSTILE[2]))
    parsed, plain = _Page(page), _Page(report_html(pair))
    assert {name for name, _ in parsed.tags} <= {name for name, _ in plain.tags} | {"abbr"}
    assert not [attrs for _, attrs in parsed.tags if any(a.startswith("on") for a in attrs)]
    everything = "".join(parsed.text)
    for text in HOSTILE[:3]:
        assert text in everything
    assert "\0" not in everything


@given(st.text())
def test_escaped_text_comes_back_as_shown(text: str) -> None:
    parsed = _Page(f'<p title="{escaped(text)}">{escaped(text)}</p>'.encode())
    assert [name for name, _ in parsed.tags] == ["p"]
    assert "".join(parsed.text) == shown(text)
    assert (parsed.tags[0][1]["title"] or "") == shown(text)
    marks = dict.fromkeys(map(ord, "\u200c\u200d\u200e\u200f"))
    assert shown(text).translate(marks).isprintable()


@pytest.mark.parametrize("text", ["👩\u200d👩\u200d👧", "क्\u200dष", "שלום\u200f!"])
def test_text_keeps_the_joiners_and_marks_that_it_needs(text: str) -> None:
    assert shown(text) == text
    # An override would turn what follows.
    assert shown(f"{text}\u202e") == rf"{text}\u202e"


def test_results_of_other_protocols_stand_under_their_own_heading(
    pair: list[Result], tmp_path: Path
) -> None:
    other = make_result(tmp_path / "other", title="before", count=60)
    groups = group_results([*pair, load_result(other)])
    assert [len(group.results) for group in groups] == [2, 1]
    assert [r.title for group in groups for r in group.results] == [
        "before (a)",
        "after",
        "before (other)",
    ]
    assert "Only results under one heading may be compared" in words_of(*pair, load_result(other))
    assert "Only results under one heading" not in words_of(*pair)


def test_results_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [tmp_path / name / "eval" / "p" for name in ("one", "two")]
    assert told_apart(["x", "x"], folders) == ["x (one)", "x (two)"]
    assert told_apart(["x", "y"], folders) == ["x", "y"]
    beside = [*folders, tmp_path / "two" / "eval" / "p-motion"]
    assert told_apart(["x"] * 3, beside) == [
        "x (one/eval/p)",
        "x (two/eval/p)",
        "x (two/eval/p-motion)",
    ]
    assert told_apart(["x", "x"], [folders[0]] * 2) == ["x (1)", "x (2)"]


def test_results_written_before_titles_said_so_are_marked(tmp_path: Path) -> None:
    plain = load_result(make_result(tmp_path / "a", title="hn", count=60))
    setup = {"rerank": 5, "trained_on_test": 2}
    old = load_result(make_result(tmp_path / "b", title="hn", count=60, setup=setup))
    found = group_results([plain, old, old])[0].results
    name = "hn, first 5 re-ranked, trained on 2 test videos"
    assert [result.title for result in found] == ["hn", f"{name} (1)", f"{name} (2)"]


def test_what_speaks_against_a_result_is_said(tmp_path: Path) -> None:
    setup = {"trained_on_test": 12, "selection": "best on test"}
    folder = make_result(tmp_path / "r", count=60, setup=setup)
    absent = [{"id": "video3", "reason": "missing"}]
    coverage = {"present": 58, "videos": 60, "policy": "restrict", "absent": absent}
    page = words_of(edited(folder, coverage=coverage))
    assert "present: 58 of 60 videos (policy restrict)" in page
    assert "trained on 12 videos of this gallery" in page
    assert "the epoch was chosen on test data (best on test)" in page
    assert "ranked; R@k" not in page
    (folder / "per_query.csv").unlink()
    page = words_of(edited(folder, protocol={"num_videos": 7}))
    assert "only 7 videos are ranked; R@k from k = 7 on finds every video" in page


def test_one_of_a_thing_is_one(tmp_path: Path) -> None:
    folder = make_result(tmp_path / "r", count=60, setup={"trained_on_test": 1})
    (folder / "per_query.csv").unlink()
    one = {"num_queries": 1, "num_videos": 1}
    page = words_of(edited(folder, coverage={"present": 0, "videos": 1}, protocol=one))
    assert "1 query over 1 video; present: 0 of 1 video." in page
    assert "trained on 1 video of this gallery" in page
    assert "meanP, trained on 1 test video:" in page
    assert not re.search(r"\b1 (videos|queries)\b", page)


def test_recall_by_frames_is_drawn_from_the_simulation(pair: list[Result], tmp_path: Path) -> None:
    rows = [
        {"rule": rule, "frames": n, "metrics": {"t2v/R@1": {"value": 10.0 * i + n}}}
        for i, rule in enumerate(("mean", "maxP"))
        for n in (1, 2, 4)
    ]
    simulation = {"kind": "vtr-simulation", "rows": rows}
    chart = figures.recall_by_frames(simulation)
    assert chart.series[1] == (
        "maxP",
        ((1.0, 11.0, None, None), (2.0, 12.0, None, None), (4.0, 14.0, None, None)),
    )
    (tmp_path / "frames.json").write_text(json.dumps(simulation))
    page = report_html(pair, Options(frames=tmp_path / "frames.json"))
    assert b"against the number of frames" in page
    with pytest.raises(ConfigError, match="not a 'vtr-simulation'"):
        figures.recall_by_frames({"kind": "other"})
    for damage in ({"rule": None}, {"frames": "x"}, {"metrics": {"t2v/R@1": {"value": "9"}}}):
        row = {key: value for key, value in {**rows[0], **damage}.items() if value is not None}
        with pytest.raises(ConfigError, match="damaged: a row of it has no rule, frames or num"):
            figures.recall_by_frames({**simulation, "rows": [row]})
    nan = {"value": float("nan")}
    for row in (3, {**rows[0], "metrics": {"t2v/R@1": nan}}, {**rows[0], "metrics": []}):
        with pytest.raises(ConfigError, match="damaged"):
            figures.recall_by_frames({**simulation, "rows": [row]})


def test_strips_show_the_frames_asked_for(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4")
    strip = read_strip("v", video, [0.52, 1.5, 3.0])
    assert [frame.pts_seconds for frame in strip.frames] == pytest.approx([0.5, 1.5, 3.0])
    greens = [int(np.median(frame.picture[:, -8:, 1])) for frame in strip.frames]
    assert greens == pytest.approx([255 - 6 * n for n in (5, 15, 30)], abs=12)
    assert strip.frames[0].picture.shape == (96, 144, 3)
    spread = read_strip("v", video, [])
    assert not spread.chosen
    assert [frame.pts_seconds for frame in spread.frames] == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert len(read_strip("v", video, np.arange(0, 4, 0.1).tolist()).frames) == 6


def test_strips_say_why_there_are_no_pictures(tmp_path: Path) -> None:
    assert read_strip("v", None, [1.0]).problem == "the video file is not here"
    (tmp_path / "x.mp4").write_bytes(b"nothing of a video")
    assert read_strip("v", tmp_path / "x.mp4", [1.0]).problem.startswith("cannot be decoded: ")


@given(st.floats(1e-6, 1e6))
def test_axes_end_at_round_numbers_above(value: float) -> None:
    assert value * (1 - 1e-9) <= round_up(value) <= 2.01 * value
    ticks = axis_ticks(0, round_up(value))
    assert ticks[0] == 0
    assert 3 <= len(ticks) <= 7
    assert ticks[-1] <= round_up(value) * (1 + 1e-9)


def test_a_result_of_100_000_queries_gives_a_small_page(tmp_path: Path) -> None:
    """The page grows with what is shown, not with the queries."""
    folder = make_result(tmp_path / "r", count=60)
    result = load_result(folder)
    row = result.breakdown("category")[0]
    absent = [{"id": str(n), "reason": "gone"} for n in range(20000)]
    rows = (
        (f"q{n}", f"v{n // 20}", 1 + n % 40, "c", n % 977, 1 + n % 2, n % 977 + 1, "a text")
        for n in range(100_000)
    )
    header = ["query_id", "video_id", "words", "category", "better", "tied", "rank", "text"]
    (folder / "per_query.csv").write_bytes(csv_table(header, rows))
    result = edited(
        folder,
        breakdowns={"category": [{**row, "name": f"category {n}"} for n in range(5000)]},
        coverage={"absent": absent},
        protocol={"num_videos": 5000},
        metrics={key: {**e, "n": 100_000} for key, e in result.metrics.items() if "t2v/" in key},
    )
    page = report_html([result], Options(bins="1-20,21+", pictures=False))
    assert len(page) < 200_000
    assert b"4960 smallest of 5000 categories are not shown" in page


def test_damaged_results_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*No such file"):
        load_result(tmp_path)
    whole = '{"kind": "vtr-result", "schema": 1, "metrics": '
    for text, message in (
        ("{", "not whole JSON"),
        ("[1]", "holds a list"),
        ('{"kind": "vtr-result", "schema": 99}', r"reads schema 1\. A newer vtr wrote it: update"),
        ('{"kind": "vtr-eda", "schema": 1}', "no result: its kind is 'vtr-eda'"),
        (f"{whole}{{}}}}", "no metrics"),
        (f'{whole}{{"t2v/R@1": {{"value": "9"}}}}}}', "no number"),
    ):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_result(tmp_path)


EIGHT = {
    "video_category_distribution_test",
    "recall_comparison_chart",
    "category_recall_comparison",
    "query_length_recall",
    "baseline_similarity_distribution",
    "finetuned_similarity_distribution",
    "success_case_examples",
    "failure_case_examples",
}


def test_groups_of_one_protocol_are_told_apart(tmp_path: Path) -> None:
    results = [
        load_result(make_result(tmp_path / "a", count=60)),
        edited(
            make_result(tmp_path / "b", count=60),
            coverage={"present": 59, "absent": [{"id": "video59", "reason": "missing"}]},
        ),
    ]
    policy = {"policy": "restrict"}
    restricted = edited(make_result(tmp_path / "c", count=60), coverage=policy)
    assert [group.name for group in group_results(results)] == [
        "msrvtt-1kA, 60 of 60 videos",
        "msrvtt-1kA, 59 of 60 videos",
    ]
    assert [group.name for group in group_results([*results, restricted])] == [
        "msrvtt-1kA, missing counted, 60 of 60 videos",
        "msrvtt-1kA, missing counted, 59 of 60 videos",
        "msrvtt-1kA, missing left out",
    ]
    assert [group.name for group in group_results(results[1:])] == ["msrvtt-1kA"]
    page = write_report(results, Options(out=tmp_path / "out", examples=0)).page.read_text()
    headings = re.findall(r'<section id="([^"]+)"><h2>([^<]+)</h2>', page)
    for names in zip(*headings, strict=True):
        assert len(set(names)) == len(names)
    assert ("results-2-msrvtt-1kA-59-of-60-videos", "msrvtt-1kA, 59 of 60 videos: Results") in (
        headings
    )
    drawn = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert {"rank_histogram", "rank_histogram-2-msrvtt-1kA-59-of-60-videos"} <= drawn
    assert "60 queries, 60 videos, 59 of them present" in page


def test_an_interrupted_report_leaves_the_one_before(
    pair: list[Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vtr.api import report

    options = Options(out=tmp_path, examples=1)
    write_report(pair[:1], options)
    before = contents(tmp_path)

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "draw_examples", interrupted)  # the last pictures
    with pytest.raises(KeyboardInterrupt):
        write_report(pair, options)
    assert contents(tmp_path) == before


def test_the_folder_is_made_before_anything_is_drawn(tmp_path: Path) -> None:
    cut = load_result(make_result(tmp_path / "cut", count=60))
    cut.per_query.write_text("")  # would be missed, were anything drawn
    with pytest.raises(StoreWriteError, match="cannot make the folder"):
        write_report([cut], Options(out=cut.folder / "result.json"))


def test_the_eight_plots_lie_beside_the_page(pair: list[Result], tmp_path: Path) -> None:
    rows = [{"rule": "mean", "frames": n, "metrics": {"t2v/R@1": {"value": n}}} for n in (1, 2)]
    simulation = {"kind": "vtr-simulation", "rows": rows}
    (tmp_path / "frames.json").write_text(json.dumps(simulation))
    options = Options(out=tmp_path / "out", examples=2, frames=tmp_path / "frames.json")
    page, pictures = write_report(pair, options)
    assert page == tmp_path / "out" / "report.html"
    assert set(pictures) == set(page.parent.glob("*.png"))
    drawn = {path.stem for path in page.parent.glob("*.png")}
    assert drawn >= EIGHT | {"rank_histogram", "recall_by_frames", "recall_comparison_chart_v2t"}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in page.parent.glob("*.png"))


@pytest.mark.parametrize("text", ["一个男人在厨房里做饭" * 15, "a man cooks " * 15, "w" * 300, ""])
def test_captions_in_pictures_break_before_the_edge(text: str) -> None:
    lines = wrapped(text, 700, 14)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert max(width_of(line, 14) for line in lines) <= 700
    assert len(lines) <= 6


@given(st.text(max_size=80), st.floats(20, 300), st.booleans())
def test_a_name_is_cut_to_its_room(text: str, width: float, bold: bool) -> None:
    name = shown(text)
    kept = cut(name, width, 12, bold=bold)
    assert width_of(kept, 12, bold=bold) <= width
    assert kept == name or "…" in kept


def test_plots_take_hostile_text(hostile: Result, tmp_path: Path) -> None:
    chart = figures.category_recall_comparison([hostile])
    assert draw(chart) == draw(chart)  # the same chart, the same bytes
    save(chart, tmp_path / "x.svg")
    drawn = (tmp_path / "x.svg").read_bytes()
    names = {element.tag.partition("}")[2] for element in ElementTree.fromstring(drawn).iter()}
    assert names == {"svg", "style", "rect", "text", "line", "path"}
    for text in HOSTILE[:4]:
        assert escaped(text).encode()[:8] in drawn
    assert b"var(" not in drawn  # few programs know variables
    with pytest.raises(ConfigError, match=r"must end in .png or .svg"):
        save(chart, tmp_path / "x.pdf")


# ---- in the browser


def browse(page: Path, *arguments: str) -> str:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={page.parent / 'profile'}", *arguments, page.as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.decode()


@pytest.mark.slow
def test_injection_is_inert_in_the_browser(hostile: Result, tmp_path: Path) -> None:
    """Without our policy scripts would run, so that the test sees escaping alone."""
    page = report_html([hostile], Options(pictures=False))
    bare = re.sub(rb'<meta http-equiv="Content-Security-Policy"[^>]*>', b"", page)
    assert bare != page
    control = b"<script>document.documentElement.id = 'ran'</script></body>"
    (tmp_path / "page.html").write_bytes(bare.replace(b"</body>", control))
    seen = browse(tmp_path / "page.html", "--dump-dom")
    assert 'id="ran"' in seen  # scripts do run here
    assert "<title>Video-text retrieval report</title>" in seen
    assert "<script>document.title" not in seen
    (tmp_path / "page.html").write_bytes(page.replace(b"</body>", control))
    assert 'id="ran"' not in browse(tmp_path / "page.html", "--dump-dom")  # the policy holds


def asked(page: bytes, folder: Path, question: str, *, width: int) -> str:
    """What a script finds out about a page, whose document it calls d, in a window so wide."""
    (folder / "report.html").write_bytes(page)
    frame = (
        f"<iframe id=f src=report.html style='width:{width}px;height:900px;border:0'></iframe>"
        "<script>f.onload = () => { const d = f.contentDocument, w = f.contentWindow;"
        f"document.title = {question} }}</script>"
    )
    (folder / "frame.html").write_text(frame)
    seen = browse(
        folder / "frame.html", "--allow-file-access-from-files", "--virtual-time-budget=3000",
        "--dump-dom",
    )  # fmt: skip
    found = re.search("<title>(.*?)</title>", seen)
    return found[1]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_fits_a_phone_and_a_screen(pair: list[Result], tmp_path: Path, width: int) -> None:
    sizes = "d.documentElement.scrollWidth + ' of ' + d.documentElement.clientWidth"
    assert asked(report_html(pair), tmp_path, sizes, width=width) == f"{width} of {width}"
    hint = "w.getComputedStyle(d.querySelector('.even-scroll'), '::before').content"
    words = asked(report_html(pair), tmp_path, hint, width=width)
    assert ("goes on to the right" in words) == (width == 390)  # there the table does


@pytest.mark.slow
@pytest.mark.parametrize(("width", "rows"), [(390, 2), (760, 1), (1100, 1)])
def test_six_wide_frames_stand_in_full_rows(tmp_path: Path, width: int, rows: int) -> None:
    frames = tuple(Frame(float(n), np.zeros((96, 171, 3), np.uint8)) for n in range(6))
    case = Example("q", "a man", 1.0, (Hit(Strip("v", frames), 0.5, "1", True),))
    page = render_page("Cases", [Section("cases", "Cases", [part("example", case)])])
    tops = (
        "[...d.querySelectorAll('.strip img')].map(i => Math.round(i.getBoundingClientRect().top))"
    )
    found = asked(page, tmp_path, tops, width=width).split(",")
    assert sorted(map(found.count, dict.fromkeys(found))) == [6 // rows] * rows


# ---- the command


def test_the_command_prints_the_path_of_the_page(pair: list[Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = [result.folder for result in pair]
    words = ("--no-pictures", "--bins", "1-8,9+", "--title", "Ours")
    done = run_app("report", *given, "--out", out, *words)
    assert done.output.strip() == str(out / "report.html")
    assert b"<h1>Ours</h1>" in (out / "report.html").read_bytes()
    assert not list(out.glob("*.png"))
    used = json.loads((out / "report.json").read_text())
    assert (used["bins"], used["results"]) == ("1-8,9+", [str(folder) for folder in given])
    (out / "of_another_report.png").touch()
    assert run_json("report", *given, "--out", out, "--no-pictures")["pictures"] == []


def test_videos_that_moved_are_found_by_as_much_of_their_path_as_is_there(tmp_path: Path) -> None:
    for folder in ("old/a", "old/b"):  # files of one name, told apart by the folder
        (tmp_path / folder).mkdir(parents=True)
        make_video(tmp_path / folder / "x.mp4")
    names = [f"video{i}" for i in range(100)]
    paths = {name: str(tmp_path / "old" / "ab"[i % 2] / "x.mp4") for i, name in enumerate(names)}
    result = load_result(make_result(tmp_path / "result", count=100, paths=paths))
    shutil.move(tmp_path / "old", tmp_path / "new")
    (tmp_path / "new" / "b" / "x.mp4").write_bytes(b"no video")
    options = Options.of(videos=tmp_path / "new", examples=4)
    page = report_html([result], options).decode()
    assert "the video file is not here" not in page
    assert "data:image/jpeg" in page  # of new/a
    assert "cannot be decoded" in page  # of new/b
    with pytest.raises(ConfigError, match=r"--videos .*there is no such folder"):
        write_report([result], Options.of(out=tmp_path / "out", videos=tmp_path / "old"))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^k is 0; it must be a whole number, 1 or more$"):
        Options.of(k=0)
    with pytest.raises(ConfigError, match=r"^examples is -1; it must be a whole number, 0"):
        Options.of(examples=-1)


def test_the_command_takes_the_results_of_the_workspace(here: Path) -> None:
    with pytest.raises(ConfigError, match="run `vtr eval`"):
        run_app("report", "--no-pictures")
    make_result(here / "runs" / "one" / "eval" / "msrvtt-1kA", count=60)
    make_result(here / "features" / "zero-shot" / "msrvtt-1kA", count=60, strength=0.1)
    folders = run_json("report", "--no-pictures")["results"]
    assert [Path(folder).parent.name for folder in folders] == ["zero-shot", "eval"]
    for name, strength in (("a-trained", 0.4), ("b-zero-shot", 0.1)):  # as `vtr demo` has them
        make_result(here / "results" / name, count=60, strength=strength)
    document = run_json("report", "--no-pictures", "--examples", "0")
    names = [Path(folder).name for folder in document["results"]]
    assert names == ["msrvtt-1kA", "b-zero-shot", "msrvtt-1kA", "a-trained"]


def test_a_paragraph_of_any_length_is_read_and_the_limit_of_others_stays(tmp_path: Path) -> None:
    table, before = tmp_path / "table.csv", csv.field_size_limit()
    table.write_text(f"query,rank\n{'a' * 300_000},1\nb,2\n", encoding="utf-8")
    rows = read_rows(table, ("query", "rank"))
    assert len(next(rows)["query"]) == 300_000
    assert csv.field_size_limit() == before < 300_000
    assert [row["rank"] for row in rows] == ["2"]
