"""Comparing results: against plain oracles, and refusing what cannot be compared."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from builders import run_app
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr.errors import ConfigError, StoreWriteError
from vtr.evaluate.compare import Comparison, Side, compare, per_query, setting_differences, sides_of
from vtr.evaluate.ranks import Ranks
from vtr.evaluate.reporting.results import Result, load_result, read_ranks
from vtr.foreign import csv_table

QUICK = 500  # random swaps
Change = Mapping[str, Mapping[str, Any]]  # of sections of a document


def make(
    folder: Path,
    better: Sequence[int],
    *,
    tied: Sequence[int] | None = None,
    per_video: int = 1,
    v2t: Sequence[int] | None = None,
    setup: Mapping[str, Any] | None = None,
    change: Change = MappingProxyType({}),
) -> Result:
    """Writes a result of these ranks; `per_video` consecutive queries share a video."""
    folder.mkdir(parents=True)
    count = len(better)
    videos = 100
    protocol = {"name": "demo", "part": "test", "digest": "d" * 64}
    document: dict[str, Any] = {
        "schema": 1,
        "kind": "vtr-result",
        "protocol": {**protocol, "num_videos": videos, "num_queries": count},
        "coverage": {"present": videos, "videos": videos, "policy": "miss", "absent": []},
        "setup": {"title": folder.name, "head": "meanP", "seed": 0, "run": None, **(setup or {})},
        "metrics": {"t2v/R@1": {"value": 0.0}},
    }
    for name, keys in change.items():
        document[name] |= keys
    (folder / "result.json").write_text(json.dumps(document))
    rows = [
        (f"q{n}", f"v{n // per_video}", value, 1 if tied is None else tied[n], f"text {n}")
        for n, value in enumerate(better)
    ]
    header = ["query_id", "video_id", "better", "tied", "text"]
    (folder / "per_query.csv").write_bytes(csv_table(header, rows))
    if v2t is not None:
        lines = [(f"v{n}", value, 1, 1) for n, value in enumerate(v2t)]
        table = csv_table(["video_id", "better", "tied", "correct"], lines)
        (folder / "per_video.csv").write_bytes(table)
    return load_result(folder)


def versus(a: Result, b: Result, num_resamples: int = QUICK) -> Comparison:
    return compare(sides_of([a, b]), num_resamples=num_resamples)[0]


def of(comparison: Comparison, metric: str) -> Any:
    return next(m for m in comparison.metrics if m.metric == metric)


def test_differences_are_those_of_the_metrics(tmp_path: Path) -> None:
    a = make(tmp_path / "a", [0, 0, 3, 12, 0, 7], v2t=[0, 5, 4])
    b = make(tmp_path / "b", [0, 4, 0, 0, 0, 2], v2t=[0, 0, 4])
    found = versus(a, b)
    recall = of(found, "t2v/R@1")
    assert (recall.a, recall.b) == pytest.approx((50.0, 100 * 4 / 6))
    assert recall.difference == pytest.approx(100 / 6)
    assert recall.n == 6
    mean = of(found, "t2v/MeanR")
    assert (mean.a, mean.b, mean.difference) == pytest.approx((14 / 3, 2.0, 2 - 14 / 3))
    assert of(found, "v2t/R@1").difference == pytest.approx(100 / 3)
    assert of(found, "v2t/R@1").n == 3
    assert [change.query_id for change in found.gained] == ["q3", "q2"]
    assert [change.query_id for change in found.lost] == ["q1"]
    assert (found.lost[0].rank_a, found.lost[0].rank_b) == (1.0, 5.0)
    assert found.lost[0].text == "text 1"


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_p_values_are_those_of_all_swaps(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    """The oracle goes through all 2^Q ways of swapping the two results query by query."""
    root = tmp_path_factory.mktemp("swaps")
    a = make(root / "a", [x for x, _ in pairs])
    b = make(root / "b", [y for _, y in pairs])
    found = of(versus(a, b, 4000), "t2v/MeanR")
    gaps = np.array([y - x for x, y in pairs], float)
    totals = [abs(np.dot(signs, gaps)) for signs in itertools.product((1, -1), repeat=len(gaps))]
    exact = np.mean([total >= abs(gaps.sum()) - 1e-9 for total in totals])
    assert found.p_value == pytest.approx(exact, abs=0.05)
    assert found.difference == pytest.approx(gaps.mean())


def test_a_result_against_itself_shows_no_difference(tmp_path: Path) -> None:
    better = np.random.default_rng(0).integers(0, 20, 50).tolist()
    found = versus(make(tmp_path / "a", better), make(tmp_path / "b", better))
    assert {m.difference for m in found.metrics} == {0.0}
    assert {m.p_value for m in found.metrics} == {1.0}
    assert (found.gained, found.lost, found.settings) == ((), (), ())


def test_swapping_the_sides_swaps_the_sign(tmp_path: Path) -> None:
    a = make(tmp_path / "a", [0, 3, 0, 5, 1, 1, 0, 9])
    b = make(tmp_path / "b", [0, 0, 0, 2, 1, 4, 3, 0])
    forth, back = versus(a, b), versus(b, a)
    for one, other in zip(forth.metrics, back.metrics, strict=True):
        assert one.difference == pytest.approx(-other.difference)
    assert [c.query_id for c in forth.gained] == [c.query_id for c in back.lost]


def test_captions_of_one_video_move_together(tmp_path: Path) -> None:
    """Ten copies of each query are no new evidence: the interval does not shrink."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    single = versus(make(tmp_path / "a1", a.tolist()), make(tmp_path / "b1", b.tolist()))
    copied = versus(
        make(tmp_path / "a2", a.repeat(10).tolist(), per_video=10),
        make(tmp_path / "b2", b.repeat(10).tolist(), per_video=10),
    )
    one, ten = of(single, "t2v/R@1"), of(copied, "t2v/R@1")
    assert ten.difference == pytest.approx(one.difference)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.15)


OTHER_QUERIES: Change = {"protocol": {"digest": "e" * 64}}
OTHER_PROTOCOL: Change = {"protocol": {"name": "msrvtt-1kA", "digest": "e" * 64}}
OTHER_COVERAGE: Change = {"coverage": {"absent": [{"id": "v1", "reason": "missing"}]}}
OTHER_POLICY: Change = {"coverage": {"policy": "restrict"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (OTHER_PROTOCOL, r"protocol.name is 'demo' and 'msrvtt-1kA'; head is 'meanP' and 'maxP'"),
        (OTHER_QUERIES, r"protocol.digest is 'd+….* and 'e+…'"),
        (OTHER_COVERAGE, r"coverage.absent is \[\] and \['v1'\]"),
        (OTHER_POLICY, r"coverage.policy is 'miss' and 'restrict'.*both with the same --missing"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    a = make(tmp_path / "a", [0, 1])
    b = make(tmp_path / "b", [0, 1], setup={"head": "maxP"}, change=change)
    with pytest.raises(ConfigError, match=message):
        versus(a, b)


def test_the_policy_is_named_where_it_is_the_cause(tmp_path: Path) -> None:
    """Leaving missing videos out changes the digest and the counts as well."""
    restricted = {**OTHER_POLICY, "protocol": {"digest": "e" * 64, "num_queries": 1}}
    setup = {"title": "zero-shot, uniform"}
    a = make(tmp_path / "demo", [0, 1], setup=setup)
    b = make(tmp_path / "demo-restrict", [0], setup=setup, change=restricted)
    with pytest.raises(
        ConfigError,
        match=r"'zero-shot, uniform \(demo\)' and 'zero-shot, uniform \(demo-restrict\)' cannot.*: "
        "coverage.policy is 'miss' and 'restrict'. Evaluate both with the same --missing",
    ):
        versus(a, b)


def test_tables_of_other_queries_are_refused(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", [0, 1, 2]), make(tmp_path / "b", [0, 1, 2])
    text = b.per_query.read_text().replace("q1,", "x1,")
    b.per_query.write_text(text)
    with pytest.raises(ConfigError, match="they differ from row 2 on"):
        versus(a, b)
    b.per_query.write_text("\n".join(text.splitlines()[:2]) + "\n")
    with pytest.raises(ConfigError, match="differ from row 2 on"):
        versus(a, b)


def test_damaged_tables_are_refused_in_words(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", [0, 1]), make(tmp_path / "b", [0, 1])
    for text, message in (
        ("query_id,video_id,better\n", "lacks the column 'tied'"),
        ("query_id,video_id,better,tied\n", "has no rows"),
        *(
            (f"query_id,video_id,better,tied\nq0,v0,{cells}\n", "'q0' has no whole ranks")
            for cells in ("x,1", "-1,1", "1_0,1", "0,1_0", "²,1", "1.0,1", f"{'9' * 5000},1", ",1")
        ),
        ("query_id,video_id,better,tied\nq0,v0\n", "line 2 has too few columns"),
        ("query_id,video_id,better,tied\nq0,v0,99,99\n", "contradicts itself"),
    ):
        b.per_query.write_text(text)
        with pytest.raises(ConfigError, match=message):
            versus(a, b)
    b.per_query.unlink()
    with pytest.raises(ConfigError, match="written by `vtr eval`"):
        versus(a, b)
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare([Side("a", (a,))])


def test_v2t_is_left_out_with_a_note_where_there_is_no_table(tmp_path: Path) -> None:
    found = versus(make(tmp_path / "a", [0, 1], v2t=[0, 1]), make(tmp_path / "b", [0, 1]))
    assert {m.metric.partition("/")[0] for m in found.metrics} == {"t2v"}
    assert len(found.notes) == 1
    assert found.notes[0].startswith("b: no v2t")


def test_seeds_are_grouped_and_averaged(tmp_path: Path) -> None:
    runs = [[0, 0, 1, 5], [0, 1, 0, 5], [0, 0, 0, 5]]
    a = [make(tmp_path / f"a{n}", r, setup={"seed": n}) for n, r in enumerate(runs)]
    b = make(tmp_path / "b", [0, 0, 0, 0], setup={"head": "maxP"})
    sides = sides_of([a[0], b, *a[1:]], by_seed=True)
    assert [(side.title, len(side.results)) for side in sides] == [("a0, 3 seeds", 3), ("b", 1)]
    recall = of(compare(sides, num_resamples=QUICK)[0], "t2v/R@1")
    assert recall.a == pytest.approx((50 + 50 + 75) / 3)
    assert recall.sd_a == pytest.approx(np.std([50, 50, 75], ddof=1))
    assert recall.sd_b is None
    assert recall.b == 100
    with pytest.raises(ConfigError, match="have the same seed"):
        sides_of([a[0], make(tmp_path / "copy", runs[0])], by_seed=True)


def test_gains_and_losses_add_up_to_the_difference_over_seeds(tmp_path: Path) -> None:
    """A query that one seed of three finds is a third of a query."""
    rng = np.random.default_rng(5)
    sides = [
        Side(name, tuple(make(tmp_path / f"{name}{n}", rng.integers(0, 3, 80).tolist(),
                              tied=rng.integers(1, 3, 80).tolist()) for n in range(3)))
        for name in "ab"
    ]  # fmt: skip
    found = compare(sides, num_resamples=QUICK)[0]
    gained, lost = (
        sum(change.found_b - change.found_a for change in changes)
        for changes in (found.gained, found.lost)
    )
    assert gained > 0 > lost
    assert 100 * (gained + lost) / 80 == pytest.approx(of(found, "t2v/R@1").difference)


def test_runs_of_other_settings_are_not_one_group(tmp_path: Path) -> None:
    """What the result itself does not say, such as the learning rate, the run's file does."""
    results = []
    for n, rate in enumerate((0.001, 0.003)):
        run = tmp_path / f"run{n}"
        setup = {"run": f"elsewhere/run{n}", "seed": n}
        results.append(make(run / "eval" / "demo", [0, 1], setup=setup))
        config = {"settings": {"lr": rate, "seed": n}, "model": {"head": "meanP"}, "device": n}
        (run / "config.json").write_text(json.dumps(config))
    assert len(sides_of(results, by_seed=True)) == 2
    assert setting_differences(*results) == [
        ("seed", 0, 1),
        ("settings.lr", 0.001, 0.003),
        ("settings.seed", 0, 1),
    ]


def test_several_sides_are_corrected_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    base = rng.integers(0, 4, 60)
    results = [make(tmp_path / "base", base.tolist())]
    for n, shift in enumerate((1, 2, 0)):
        better = np.maximum(base - shift * rng.integers(0, 2, 60), 0)
        results.append(make(tmp_path / f"other{n}", better.tolist()))
    found = compare(sides_of(results), num_resamples=QUICK)
    for metric in ("t2v/R@1", "t2v/MRR"):
        raw = [of(c, metric).p_value for c in found]
        order = np.argsort(raw, kind="stable")
        holm, largest = [0.0] * 3, 0.0
        for place, i in enumerate(order):
            largest = max(largest, min(1.0, raw[i] * (3 - place)))
            holm[i] = largest
        assert [of(c, metric).p_adjusted for c in found] == pytest.approx(holm)
    alone = versus(results[0], results[1])
    assert [m.p_adjusted for m in alone.metrics] == [m.p_value for m in alone.metrics]


def test_per_query_values_under_ties() -> None:
    ranks = Ranks(np.array([0, 1]), np.array([2, 1]), 10)
    assert per_query(ranks, "R@1").tolist() == [50.0, 0.0]
    assert per_query(ranks, "MeanR").tolist() == [1.5, 2.0]
    assert per_query(ranks, "MRR") == pytest.approx([75.0, 50.0])


def test_groups_of_captions_are_read_from_their_own_columns(tmp_path: Path) -> None:
    result = make(tmp_path / "a", [0] * 8)
    header = ["video_id", "better", "tied", "correct", "group_better", "group_tied"]
    rows = [("v0", 1, 3, 2, 0, 1), ("v1", 0, 1, 1, 4, 2)]
    (tmp_path / "a" / "per_video.csv").write_bytes(csv_table(header, rows))
    v2t, groups = read_ranks(result, "v2t").ranks, read_ranks(result, "v2t_groups").ranks
    assert (v2t.better.tolist(), v2t.num_correct.tolist()) == ([1, 0], [2, 1])
    assert (groups.better.tolist(), groups.tied.tolist()) == ([0, 4], [1, 2])
    assert groups.num_candidates == 100


# ---- the command


def command(*arguments: object, width: int = 80) -> Any:
    return run_app("compare", *map(str, arguments), width=width)


def test_the_command_prints_a_table_and_the_changes(tmp_path: Path) -> None:
    make(tmp_path / "a", [0, 0, 3, 12])
    make(tmp_path / "b", [0, 4, 0, 0], setup={"head": "maxP"})
    done = command(tmp_path / "a", tmp_path / "b", "--resamples", 200, "--show", 1)
    assert "b against a" in done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["t2v/R@1", "50.00", "75.00", "+25.00"] in [line[:4] for line in lines]
    assert "head: 'meanP', 'maxP'" in done.output
    assert "gained at 1: 2 queries\n  q3: rank 13 -> 1: text 3\nlost at 1: 1" in done.output


def test_a_correction_is_told_only_where_there_is_one(tmp_path: Path) -> None:
    names = ["a", "the result of the second run", "c"]
    for n, name in enumerate(names):
        make(tmp_path / name, [0, 0, 3, n])
    folders = [tmp_path / name for name in names]
    one = command(*folders[:2], "--resamples", 50).output
    assert "Holm" not in one
    assert "for each metric by itself\n* p below 0.05\n" in one
    lines = one.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("metric"))
    assert lines[first].split()[:4] == ["metric", "A", "B", "difference"]
    assert {"A: a", "B: the result of the second run"} <= set(lines[:first])
    assert "…" not in "".join(lines[first : first + 20])
    two = command(*folders, "--resamples", 50).output
    assert two.count("p (Holm): corrected for the 2 results that are set against the first") == 2
    assert all(len(line) <= 80 for line in one.splitlines())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_words_are_folded_at_the_width_of_the_terminal(tmp_path: Path, width: int) -> None:
    """The table keeps its figures whole; every line of words fits."""
    make(tmp_path / "a", [0, 0, 3, 12], setup={"title": "zero-shot " * 12})
    chosen = "mean of R@1, R@5 and R@10 in both directions on the videos of the validation split"
    make(tmp_path / "b", [0, 4, 0, 0], setup={"title": "meanP", "selection": chosen})
    folders = (tmp_path / "a", tmp_path / "b")
    lines = command(*folders, "--resamples", 50, width=width).output.splitlines()
    table = [line for line in lines if line.startswith(("metric ", "t2v", "v2t"))]
    assert len(table) > 5
    assert max(len(line) for line in lines if line not in table) <= width
    assert chosen in " ".join(" ".join(lines).split())


def test_seeds_are_told_without_contradiction(tmp_path: Path) -> None:
    runs = [[0, 0, 1, 5], [0, 1, 0, 5], [0, 0, 0, 5]]
    for n, better in enumerate(runs):
        make(tmp_path / f"a{n}", better, setup={"seed": n})
    make(tmp_path / "b", [0, 0, 1, 0], setup={"head": "maxP"})
    folders = [tmp_path / name for name in ("a0", "a1", "a2", "b")]
    shown = command(*folders, "--seeds", "--resamples", 50).output
    assert "mean ± standard deviation of the seeds" in shown
    assert "gained at 1: 1.3 queries in the mean over ties and seeds; 2 queries found more" in shown
    assert "lost at 1: 0.7 queries in the mean over ties and seeds; 1 query found less" in shown


def test_what_only_one_side_was_trained_with_is_one_line(tmp_path: Path) -> None:
    make(tmp_path / "a", [0, 3])
    for name, rate in (("b", 0.1), ("c", 0.2)):
        make(tmp_path / name / "eval" / "p", [0, 0], setup={"run": name, "text": name})
        config = {"settings": {"lr": rate, "epochs": 3}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    b, c = (tmp_path / name / "eval" / "p" for name in "bc")
    done = command(tmp_path / "a", b, "--resamples", 50)
    assert (
        "\n  text: None, 'b'\n  and 2 settings of the training of p; the other has none"
        in done.output
    )
    assert "settings.lr" not in done.output
    done = command(b, c, "--resamples", 50)
    assert "settings.lr: 0.1, 0.2" in done.output
    assert "settings of the training" not in done.output


def test_the_command_writes_json(tmp_path: Path) -> None:
    make(tmp_path / "a", [0, 3])
    make(tmp_path / "b", [0, 0])
    out = tmp_path / "out.json"
    done = command(tmp_path / "a", tmp_path / "b", "--resamples", 50, "--json", "--out", out)
    document = json.loads(done.stdout)
    assert document == json.loads(out.read_text())
    assert (document["options"]["resamples"], document["options"]["seed"]) == (50, 0)
    comparison = document["comparisons"][0]
    assert comparison["b"]["results"] == [str(tmp_path / "b")]
    assert comparison["gained"][0]["query_id"] == "q1"


def test_the_place_of_the_json_is_made_or_refused_beforehand(tmp_path: Path) -> None:
    folders = [make(tmp_path / name, [0, 3]).folder for name in "ab"]
    out = tmp_path / "new" / "deep" / "out.json"
    command(*folders, "--resamples", 50, "--out", out)
    assert json.loads(out.read_text())["kind"] == "vtr-comparison"
    with pytest.raises(ConfigError, match=r"--out is .*/out\.csv; its name must end in \.json$"):
        command(*folders, "--out", tmp_path / "out.csv")
    (folders[0] / "per_query.csv").unlink()  # would be missed, were anything compared
    refusal = r"^cannot make the folder .*out\.json: .*Choose another with --out"
    with pytest.raises(StoreWriteError, match=refusal):
        command(*folders, "--out", out / "x.json")


def test_numbers_out_of_range_are_named_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", [0, 3]).folder
    for words, message in (
        (
            ("-k", 0),
            "--k is 0; it must be a whole number, 1 or more: so many places count as found",
        ),
        (("--show", -1), "--show is -1; it must be a whole number, 0 or more"),
    ):
        with pytest.raises(ConfigError, match=f"^{message}$"):
            command(folder, folder, *words)
