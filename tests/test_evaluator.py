"""The evaluator: coverage, absent videos, duplicates, what it keeps, what it writes."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import query_set
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.errors import DatasetError, ModelError, StoreError, UnknownNameError
from vtr.evaluate.coverage import Coverage, check_features, cover
from vtr.evaluate.evaluator import Evaluation, PostProcess, Task, evaluate, plan, score_matrix
from vtr.evaluate.intervals import bootstrap
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.observe import Observer, pair_accuracy
from vtr.evaluate.postprocess import dual_softmax, querybank_norm
from vtr.evaluate.protocol import Protocol
from vtr.evaluate.ranks import Blocks, Layout
from vtr.evaluate.result import Setup, build_result, write_result
from vtr.features import FeatureStore, PackedFrames


def covering(present: list[bool], policy: str = "miss") -> Coverage:
    absent = tuple((f"v{v}", "gone") for v, there in enumerate(present) if not there)
    return Coverage(policy, np.array(present), absent)  # type: ignore[arg-type]


def source(matrix: NDArray[np.float32], step: int = 2) -> Blocks:
    def blocks() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for start in range(0, len(matrix), step):
            yield start, matrix[start : start + step]

    return blocks


def frames_of(ids: tuple[str, ...]) -> PackedFrames:
    rows = np.ones((2 * len(ids), 3), np.float32)
    return PackedFrames(
        ids, rows, np.arange(2 * len(ids), dtype=np.float64), np.arange(len(ids) + 1) * 2
    )


def test_equal_words_are_scored_once() -> None:
    task = plan(query_set([0, 1, 2], 3, ["same", "other", "same"]), covering([True] * 3))
    assert task.texts == ("same", "other")
    assert task.query_text.tolist() == [0, 1, 0]


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_absent_videos_are_counted_misses_in_both_directions(data: st.DataObject) -> None:
    num_videos = data.draw(st.integers(2, 6))
    owners = sorted(data.draw(st.lists(st.integers(0, num_videos - 1), min_size=1, max_size=9)))
    present = data.draw(
        st.lists(st.booleans(), min_size=num_videos, max_size=num_videos).filter(any)
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    task = plan(query_set(owners, num_videos), covering(present))
    scores = rng.integers(-3, 4, (len(task.texts), sum(present))).astype(np.float32) / 3
    evaluation = evaluate(task, source(scores, data.draw(st.integers(1, 4))))
    full = np.full((len(owners), num_videos), -np.inf)
    full[:, present] = scores
    t2v = evaluation.ranks.t2v
    for q, owner in enumerate(owners):
        own = full[q, owner]
        if present[owner]:
            assert t2v.better[q] == (full[q] > own).sum()
            assert t2v.tied[q] == (full[q] == own).sum()
        else:
            assert (t2v.better[q], t2v.tied[q]) == (num_videos, 1)
    assert t2v.num_candidates == num_videos
    v2t, videos = evaluation.ranks.v2t, evaluation.ranks.videos
    assert v2t is not None
    assert videos is not None
    for n, video in enumerate(videos.tolist()):
        if not present[video]:
            assert v2t.better[n] == len(owners)
            continue
        best = max(full[q, video] for q, owner in enumerate(owners) if owner == video)
        assert v2t.better[n] == (full[:, video] > best).sum()


@given(data=st.data())
@settings(max_examples=60)
def test_absence_never_pays(data: st.DataObject) -> None:
    """A further absent video raises no number over what it gets as the worst of all videos."""
    num_videos = data.draw(st.integers(2, 7))
    owners = data.draw(st.lists(st.integers(0, num_videos - 1), min_size=1, max_size=12))
    present = data.draw(st.lists(st.booleans(), min_size=num_videos, max_size=num_videos))
    present[(gone := data.draw(st.integers(0, num_videos - 1)))] = True
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scores = rng.integers(-3, 4, (len(owners), num_videos)).astype(np.float32) / 3
    worst = scores.copy()
    worst[:, gone] = -2
    left = [there and v != gone for v, there in enumerate(present)]
    ks = (1, 2, 5, 10, 100)
    ways: dict[str, PostProcess] = {"twice": lambda s: (2 * s, None)}
    if min(scores.shape) > 1 and any(left):
        ways["dual-softmax"] = lambda s: (dual_softmax(s), dual_softmax(s.T).T)
        ways["qb-norm"] = lambda s: (querybank_norm(s, s), None)

    def measured(matrix: NDArray[np.float32], there: list[bool]) -> Evaluation:
        task = plan(query_set(owners, num_videos), covering(there))
        return evaluate(task, source(matrix[:, there]), ks=ks, postprocess=ways)

    if not any(left):
        return
    before, after, rival = (
        measured(worst, present),
        measured(worst, left),
        measured(scores, present),
    )
    no_gain(numbers_of(before, ks), numbers_of(after, ks))
    no_gain(
        {k: v for k, v in numbers_of(rival, ks).items() if "t2v" not in k}, numbers_of(after, ks)
    )
    share = 100 * np.mean([left[owner] for owner in owners])
    for ranks in (after.ranks, *after.postprocessed.values()):
        found = retrieval_metrics(ranks, ks)
        for side in (found.expected, found.optimistic, found.pessimistic):
            for key, value in side.items():
                if key.startswith("t2v/") and key.endswith(("R@100", "MRR", "GeoMean")):
                    assert value <= share + 1e-9
        if share == 0:
            low, high = bootstrap(ranks.t2v, ks, seed=0, num_resamples=50)["R@100"]
            assert low == 0 <= high < 100
            assert found.expected["t2v/MedR"] == num_videos + 1


def numbers_of(evaluation: Evaluation, ks: Sequence[int]) -> dict[str, float]:
    found = retrieval_metrics(evaluation.ranks, ks)
    sides = {"": found.expected, "best ": found.optimistic, "worst ": found.pessimistic}
    return {f"{name}{k}": v for name, side in sides.items() for k, v in side.items()}


def no_gain(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    for key, value in before.items():
        sign = -1 if key.endswith(("MedR", "MeanR")) else 1
        assert sign * after[key] <= sign * value + 1e-9, key


def test_a_miss_is_a_hit_at_no_depth() -> None:
    task = plan(query_set([0, 1, 2, 3, 4], 5), covering([True] * 4 + [False]))
    evaluation = evaluate(task, source(np.eye(5, 4, dtype=np.float32)), ks=(1, 5, 10, 1000))
    found = retrieval_metrics(evaluation.ranks, (1, 5, 10, 1000))
    for direction in ("t2v", "v2t", "v2t_groups"):
        for side in (found.expected, found.optimistic, found.pessimistic):
            assert [side[f"{direction}/R@{k}"] for k in (1, 5, 10, 1000)] == [80.0] * 4
            assert side[f"{direction}/MRR"] == 80
            assert side[f"{direction}/MeanR"] == 2  # (1 + 1 + 1 + 1 + 6) / 5


def test_a_rival_that_is_absent_is_not_beaten() -> None:
    for there in ([True, False], [False, True]):
        task = plan(query_set([0, 1], 2), covering(there))
        kept = evaluate(task, source(np.ones((2, 1), np.float32))).kept
        assert pair_accuracy(kept).tolist() == [0, 0]


def test_restrict_leaves_out_videos_and_their_queries() -> None:
    task = plan(query_set([0, 1, 2], 3), covering([True, False, True], "restrict"))
    assert task.queries.video_ids == ("v0", "v2")
    assert task.queries.query_video.tolist() == [0, 1]
    evaluation = evaluate(task, source(np.eye(2, dtype=np.float32)))
    assert retrieval_metrics(evaluation.ranks).expected["t2v/R@1"] == 100
    with pytest.raises(DatasetError, match="no query of 'toy' is left"):
        plan(query_set([1], 2), covering([True, False], "restrict"))


def test_a_score_that_is_no_number_stops_the_evaluation() -> None:
    task = plan(query_set([0, 1], 2), covering([True, True]))
    scores = np.array([[0, 1], [np.nan, 0]], np.float32)
    with pytest.raises(ModelError, match="NaN"):
        evaluate(task, source(scores))


def test_every_score_is_computed_once_where_pairs_can_be_had() -> None:
    rng = np.random.default_rng(0)
    texts, videos = (rng.standard_normal((n, 64)).astype(np.float32) for n in (120, 40))
    task = plan(
        query_set(sorted(rng.integers(0, 50, 150)), 50), covering([True] * 40 + [False] * 10)
    )
    task = replace(task, texts=task.texts[:120], query_text=rng.permutation(150) % 120)
    rounds = []

    def blocks() -> Iterator[tuple[int, NDArray[np.float32]]]:
        rounds.append("round")
        yield from source(texts @ videos.T, 7)()

    def pairs(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = np.einsum("qd,qd->q", texts[rows], videos[columns])
        return scores  # differs from the products in the last bits

    once, twice = evaluate(task, blocks, score_pairs=pairs), evaluate(task, blocks)
    assert len(rounds) == 3
    for direction, ranks in once.ranks.directions.items():
        for name in ("better", "tied", "num_correct"):
            other = getattr(twice.ranks.directions[direction], name)
            assert np.array_equal(getattr(ranks, name), other), (direction, name)


def test_scores_of_duplicate_queries_are_repeated() -> None:
    task = plan(query_set([0, 1, 1], 2, ["a", "b", "a"]), covering([True, True]))
    matrix = np.array([[1, 2], [3, 4]], np.float32)
    assert score_matrix(task, source(matrix)).tolist() == [[1, 2], [3, 4], [1, 2]]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), step=st.integers(1, 5))
def test_the_observer_keeps_what_a_plain_loop_keeps(seed: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-4, 5, (7, 8)).astype(np.float32)
    owners = np.sort(rng.integers(0, 8, 9))
    rows = rng.permutation(np.concatenate([np.arange(7), rng.integers(0, 7, 2)]))
    rivals = rng.integers(-1, 8, 8)
    ties = rng.permutation(8)
    observer = Observer(owners, rows, rivals, ties=ties, num_listed=3)
    Layout(owners, 8, rows).ranks(source(scores, step), both=False, look=observer.look)
    kept = observer.kept()
    assert kept.own.tolist() == [float(scores[r, v]) for r, v in zip(rows, owners, strict=True)]
    for row in range(7):
        best = np.sort(scores[row])[::-1][:5]
        assert kept.top_scores[row].tolist() == best.tolist()
        assert kept.top[row].tolist() == sorted(range(8), key=lambda v: (-scores[row, v], v))[:5]
        listed = sorted(range(8), key=lambda v: (-scores[row, v], ties[v]))[:3]
        assert kept.listed[row].tolist() == listed
        assert kept.listed_scores[row].tolist() == scores[row, listed].tolist()
    for q, (row, owner) in enumerate(zip(rows, owners, strict=True)):
        if rivals[owner] < 0:
            assert np.isnan(kept.rival[q])
        else:
            assert kept.rival[q] == scores[row, rivals[owner]]
    own_pairs = {(int(r), int(v)) for r, v in zip(rows, owners, strict=True)}
    others = [scores[r, v] for r in range(7) for v in range(8) if (r, v) not in own_pairs]
    assert kept.other.sum() == len(others)
    assert kept.matching.sum() == len(owners)
    assert kept.other_mean == pytest.approx(float(np.mean(others)))


@pytest.mark.parametrize("distinct", [2, 40, 10**6])
@pytest.mark.parametrize("width", [255, 256, 1301])
def test_the_best_of_a_wide_gallery_are_those_of_a_sort(width: int, distinct: int) -> None:
    rng = np.random.default_rng(width)
    scores = rng.integers(0, distinct, (30, width)).astype(np.float32)
    scores[:, rng.random(width) < 0.05] = -np.inf
    scores[3] = -np.inf
    scores[4, width // 2 :] = -np.inf
    ties, rows = rng.permutation(width), np.arange(30)
    observer = Observer(rows, rows, np.full(width, -1), ties=ties, num_listed=20)
    Layout(rows, width, rows).ranks(source(scores, 7), both=False, look=observer.look)
    kept = observer.kept()
    columns = np.arange(width)
    for row, values in enumerate(scores):
        assert kept.top[row].tolist() == np.lexsort((columns, -values))[:5].tolist()
        assert kept.listed[row].tolist() == np.lexsort((ties, -values))[:20].tolist()


def test_rivals_nearer_than_rounding_are_ties() -> None:
    scores = np.array([[0.5, 0.5 + 1e-7], [0.2, 0.9]], np.float32)
    task = plan(query_set([0, 1], 2), covering([True, True]))
    accuracy = pair_accuracy(evaluate(task, source(scores)).kept)
    assert accuracy.tolist() == [0.5, 1.0]


def test_groups_are_ranked_among_all_videos() -> None:
    task = plan(query_set([0, 1, 2], 3), covering([True] * 3))
    scores = np.array([[1, 0, 2], [0, 1, 0], [0, 0, 1]], np.float32)
    order = document_of(task, scores)["groups"]["order"]
    assert (order["n"], order["metrics"]["t2v/MeanR"]["value"]) == (2, 1.5)
    assert order["metrics"]["t2v/R@1"]["value"] == 50


def document_of(task: Task, scores: NDArray[np.float32]) -> dict[str, Any]:
    evaluation = evaluate(task, source(scores), postprocess={"twice": lambda s: (2 * s, None)})
    protocol = Protocol(name="toy", dataset="toy", summary="a toy", captions="all")
    setup = Setup("t", "meanP", "frozen", "uniform", "clip", "f" * 8, zero_shot=True)
    return build_result(evaluation, protocol, setup, packed=frames_of(task.video_ids))


def test_the_result_says_what_was_measured(tmp_path: Path) -> None:
    task = plan(query_set([0, 1, 1, 2], 4), covering([True, True, False, True]))
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((4, 3)).astype(np.float32)
    document = document_of(task, scores)
    evaluation = evaluate(task, source(scores))
    path = write_result(tmp_path / "deep" / "result", document, evaluation)
    loaded = json.loads(path.read_text())
    assert loaded["protocol"]["num_videos"] == 4
    assert loaded["coverage"] == {
        "present": 3,
        "videos": 4,
        "policy": "miss",
        "absent": [{"id": "v2", "reason": "gone"}],
    }
    expected = retrieval_metrics(evaluation.ranks).expected
    assert {k: v["value"] for k, v in loaded["metrics"].items()} == pytest.approx(expected)
    for cell in loaded["metrics"].values():
        assert cell["low"] <= cell["value"] <= cell["high"]
    twice = loaded["postprocessed"]["twice"]["metrics"]
    assert set(twice) == {k for k in expected if k.startswith("t2v/")}
    assert twice["t2v/R@1"]["value"] == pytest.approx(expected["t2v/R@1"])
    assert [b["n"] for b in loaded["breakdowns"]["category"]] == [1, 2]
    assert sum(b["n"] for b in loaded["breakdowns"]["query_words"]) == 4
    assert sum(loaded["rank_histogram"]["counts"]) == 4
    with (tmp_path / "deep" / "result" / "per_query.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["better"]) for row in rows] == evaluation.ranks.t2v.better.tolist()
    assert rows[0]["text"] == "text 0"
    assert rows[0]["top_ids"].split("|")[0] in task.queries.video_ids


def test_examples_name_the_true_clip_and_what_came_first() -> None:
    scores = np.array([[3, 1, 0], [0, 1, 9], [0, 0, 1]], np.float32)
    task = plan(query_set([0, 1, 2], 3), covering([True] * 3))
    examples = document_of(task, scores)["examples"]
    assert isinstance(examples, dict)
    assert [e["query_id"] for e in examples["success"]] == ["q0", "q2"]
    failure = examples["failure"][0]
    assert (failure["query_id"], failure["rank"]) == ("q1", 2.0)
    assert failure["retrieved"][0]["video"] == "v2"
    assert not failure["retrieved"][0]["correct"]
    assert failure["own"] == {
        "video": "v1",
        "score": 1.0,
        "correct": True,
        "pts_seconds": [2.0, 3.0],
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_broken_features_are_named_and_refused(value: float) -> None:
    packed = frames_of(("fine", "broken"))
    packed.frames[3] = value
    with pytest.raises(StoreError, match=r"1 frame embedding is .* in 1 video: broken\."):
        check_features(packed)
    check_features(frames_of(("fine",)))


class _Store(dict[str, object]):
    """Enough of a store for `cover`: what it holds and its ledger."""

    folder = Path("features")

    class Row:
        id, error = "v1", "not-a-video: text"

    ledger = (Row(),)


def test_absent_videos_carry_their_reason() -> None:
    store = _Store(v0=1)
    found = cover(query_set([0, 1, 2], 3), store)  # type: ignore[arg-type]
    assert found.absent == (("v1", "not-a-video: text"), ("v2", "not in the store"))
    assert found.line == "1 of 3 videos; 2 absent ones counted as misses"
    one = cover(query_set([0, 1], 2), store)  # type: ignore[arg-type]
    assert one.line == "1 of 2 videos; 1 absent one counted as a miss"
    with pytest.raises(
        DatasetError, match=r"2 of the 3 videos .* v1 \(not-a-video: text\).* --missing"
    ):
        cover(query_set([0], 3), store, policy="fail")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Did you mean 'restrict'"):
        cover(query_set([0], 3), store, policy="restict")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"3 of the 3 videos .* store with --features$"):
        cover(query_set([0], 3), _Store())  # type: ignore[arg-type]
    assert isinstance(store, FeatureStore) is False
