"""Numbers from ranks: against the reference, every order of the ties, and trec_eval."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import vtr
from vtr.errors import ConfigError, ModelError
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.ranks import Ranks, RetrievalRanks, rank_rows, stream_ranks

with np.load(Path(__file__).parent / "golden" / "metrics.npz", allow_pickle=False) as arrays:
    GOLDEN = {name: arrays[name] for name in arrays.files}
NAMES = ("R@1", "R@5", "R@10", "MedR", "MeanR")
CASES = sorted({name.rsplit("/", 1)[0] for name in GOLDEN})
DEFECTIVE = [case for case in CASES if any(w in case for w in ("ties", "nan", "equal", "constant"))]
SOUND = [case for case in CASES if case not in DEFECTIVE]


def evaluate(case: str) -> RetrievalRanks:
    """The ranks of a golden case; without counts, row i belongs to video i."""
    scores = GOLDEN[f"{case}/sim"]
    counts = GOLDEN.get(f"{case}/counts", np.ones(scores.shape[1], int))
    video = np.repeat(np.arange(len(counts)), counts)
    return stream_ranks(lambda: [(0, scores)], video, scores.shape[1])


def ours(case: str, direction: str) -> list[float]:
    numbers = retrieval_metrics(evaluate(case)).expected
    return [numbers[f"{direction}/{name}"] for name in NAMES]


def test_golden_cases_are_all_here() -> None:
    assert (len(SOUND), len(DEFECTIVE)) == (11, 10)


@pytest.mark.parametrize("case", SOUND)
def test_equal_to_the_reference_without_ties_and_nan(case: str) -> None:
    """Its v2t ranks caption groups; its median over captions is the lower of the middle two."""
    text_to_video, video_to_text = (GOLDEN[f"{case}/{way}"] for way in ("t2v", "v2t"))
    np.testing.assert_allclose(ours(case, "v2t_groups"), video_to_text[:5], atol=1e-5)
    mine = ours(case, "t2v")
    multi = f"{case}/counts" in GOLDEN
    if multi:
        ranks = np.sort(evaluate(case).t2v.optimistic)
        assert ranks[(len(ranks) - 1) // 2] == text_to_video[3]
        assert mine[3] == np.median(ranks)
        mine[3] = text_to_video[3]
    np.testing.assert_allclose(mine, text_to_video[:5], atol=1e-5)
    if not multi:
        assert ours(case, "v2t") == ours(case, "v2t_groups")


def test_reference_takes_the_lower_median() -> None:
    """Over captions: 2.0 where the two in the middle are 2 and 3."""
    assert GOLDEN["clip4clip/multi_even_median/t2v"][3] == 2.0
    assert ours("clip4clip/multi_even_median", "t2v")[3] == 2.5


def test_reference_counts_tied_queries_several_times() -> None:
    """24.4 % of 41 places that 20 queries share with their rivals; ours is the mean over orders."""
    case = "clip4clip/ties_quantised20"
    assert GOLDEN[f"{case}/t2v"][0] == pytest.approx(100 * 10 / 41)
    numbers = retrieval_metrics(evaluate(case))
    scores = GOLDEN[f"{case}/sim"]
    own = np.diag(scores)[:, None]
    chance = np.where((scores > own).any(axis=1), 0, 1 / (scores == own).sum(axis=1))
    assert numbers.expected["t2v/R@1"] == pytest.approx(100 * chance.mean())
    bounds = numbers.pessimistic["t2v/R@1"], numbers.optimistic["t2v/R@1"]
    assert bounds == (100 * (chance == 1).mean(), 50.0)
    assert bounds[0] < numbers.expected["t2v/R@1"] < bounds[1]


@pytest.mark.parametrize("case", ["clip4clip/all_equal6", "clip2video/square_constant"])
def test_equal_scores_are_chance(case: str) -> None:
    size = len(GOLDEN[f"{case}/sim"])
    numbers = retrieval_metrics(evaluate(case))
    for way in ("t2v", "v2t", "v2t_groups"):
        assert numbers.expected[f"{way}/R@1"] == pytest.approx(100 / size)
        assert numbers.expected[f"{way}/MedR"] == (size + 1) / 2
        assert numbers.pessimistic[f"{way}/R@1"] == 0
        assert numbers.optimistic[f"{way}/R@1"] == 100


@pytest.mark.parametrize("case", [case for case in DEFECTIVE if "nan" in case])
def test_reference_drops_nan_queries_and_ours_stops(case: str) -> None:
    """`nan_row6` reports five queries of six; a failed model may even gain by it."""
    with pytest.raises(ModelError, match="NaN"):
        evaluate(case)


@pytest.mark.parametrize("case", [case for case in DEFECTIVE if "multi_ties" in case])
def test_multi_caption_ties_lie_between_our_bounds(case: str) -> None:
    """The reference's depend on the order its sort happens to leave."""
    numbers = retrieval_metrics(evaluate(case))
    for place, name in enumerate(NAMES[:3]):
        theirs = GOLDEN[f"{case}/t2v"][place]
        low, high = (side[f"t2v/{name}"] for side in (numbers.pessimistic, numbers.optimistic))
        assert low - 1e-4 <= theirs <= high + 1e-4


def orders(better: int, tied: int, correct: int) -> list[int]:
    """The first correct rank in every order of the tied items."""
    items = [True] * correct + [False] * (tied - correct)
    return [better + 1 + order.index(True) for order in itertools.permutations(items)]


TIES = [
    (better, tied, correct)
    for better in (0, 1, 4)
    for tied in range(1, 7)
    for correct in range(1, tied + 1)
]


@pytest.mark.parametrize(("better", "tied", "correct"), TIES)
def test_every_order_of_the_ties(better: int, tied: int, correct: int) -> None:
    found = np.array(orders(better, tied, correct))
    ranks = Ranks(np.array([better]), np.array([tied]), 12, np.array([correct]))
    numbers = retrieval_metrics({"x": ranks}, ks=range(1, 13))
    for k in range(1, 13):
        assert numbers.expected[f"x/R@{k}"] == pytest.approx(100 * np.mean(found <= k), abs=1e-9)
        assert numbers.optimistic[f"x/R@{k}"] == 100 * (found.min() <= k)
        assert numbers.pessimistic[f"x/R@{k}"] == 100 * (found.max() <= k)
    assert numbers.expected["x/MeanR"] == pytest.approx(found.mean())
    assert numbers.expected["x/MedR"] == pytest.approx(found.mean())
    assert numbers.expected["x/MRR"] == pytest.approx(100 * np.mean(1 / found))
    assert numbers.optimistic["x/MRR"] == pytest.approx(100 / found.min())
    assert numbers.pessimistic["x/MRR"] == pytest.approx(100 / found.max())


def trec(scores: NDArray[Any], relevant: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """trec_eval's numbers per query; it breaks ties by document id, later ids first."""
    run = {
        f"q{q}": {f"d{d:03}": float(s) for d, s in enumerate(row)} for q, row in enumerate(scores)
    }
    qrels = {
        f"q{q}": {f"d{d:03}": int(mark) for d, mark in enumerate(row)}
        for q, row in enumerate(relevant)
    }
    measures = {"success.1,5,10", "recip_rank"}
    return pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)


def mean_of(numbers: dict[str, dict[str, float]], measure: str) -> float:
    return float(np.mean([row[measure] for row in numbers.values()]))


def test_trec_eval_on_a_thousand_tie_heavy_queries() -> None:
    """Its numbers lie between our bounds; averaged over renamed documents they meet ours."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (1000, 24)).astype(np.float32) / 6
    targets = rng.integers(0, 24, 1000)
    relevant = np.eye(24, dtype=bool)[targets]
    numbers = retrieval_metrics({"t2v": rank_rows(scores, targets)})
    averages: dict[str, list[float]] = {"success_1": [], "success_5": [], "recip_rank": []}
    for _ in range(8):
        names = rng.permutation(24)
        theirs = trec(scores[:, names], relevant[:, names])
        for measure, values in averages.items():
            values.append(100 * mean_of(theirs, measure))
    for measure, name in (("success_1", "R@1"), ("success_5", "R@5"), ("recip_rank", "MRR")):
        low, high = numbers.pessimistic[f"t2v/{name}"], numbers.optimistic[f"t2v/{name}"]
        assert all(low <= value <= high for value in averages[measure])
        assert high - low > 10
        assert np.mean(averages[measure]) == pytest.approx(numbers.expected[f"t2v/{name}"], abs=1.5)


def test_trec_eval_exactly_where_its_own_order_breaks_the_ties() -> None:
    """Later documents a hair better: no tie is left, and every query's numbers agree."""
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, (300, 24)) / 6
    relevant = rng.random((300, 24)) < 0.2
    relevant[np.arange(300), rng.integers(0, 24, 300)] = True
    theirs = trec(scores, relevant)
    parted = scores + np.arange(24) * 1e-6
    best = np.where(relevant, parted, -1).argmax(axis=1)
    ranks = rank_rows(parted, best)
    mine = retrieval_metrics({"t2v": ranks})
    assert mine.expected == mine.optimistic == mine.pessimistic
    np.testing.assert_array_equal(
        ranks.optimistic <= 5, [row["success_5"] for row in theirs.values()]
    )
    np.testing.assert_allclose(
        1 / ranks.optimistic, [row["recip_rank"] for row in theirs.values()], atol=1e-6
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 1000]), st.integers(1, 30))
def test_bounds_and_monotone_recall(seed: int, levels: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-levels, levels + 1, (size, size)).astype(np.float32) / levels
    numbers = retrieval_metrics({"t2v": rank_rows(scores, np.arange(size))}, ks=range(1, size + 1))
    recalls = [numbers.expected[f"t2v/R@{k}"] for k in range(1, size + 1)]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(recalls))
    assert recalls[-1] == pytest.approx(100)
    for name, value in numbers.expected.items():
        sign = -1 if name in ("t2v/MedR", "t2v/MeanR") else 1
        low, high = sign * numbers.pessimistic[name], sign * numbers.optimistic[name]
        assert low - 1e-9 <= sign * value <= high + 1e-9


def test_keys_and_summaries() -> None:
    ranks = Ranks(np.array([0, 1, 6, 20]), np.ones(4, int), 30)
    numbers = retrieval_metrics({"v2t": ranks}, ks=(2, 7))
    assert list(numbers.expected) == [
        f"v2t/{name}" for name in ("R@2", "R@7", "MedR", "MeanR", "MRR", "GeoMean", "SumR")
    ]
    assert numbers.expected["v2t/SumR"] == 25 + 50 + 75
    assert numbers.expected["v2t/GeoMean"] == pytest.approx((25 * 50 * 75) ** (1 / 3))
    assert numbers.num_queries == {"v2t": 4}
    with pytest.raises(ConfigError, match="R@0 means nothing"):
        retrieval_metrics({"v2t": ranks}, ks=(0,))


@pytest.mark.parametrize("k", [0, 1.5, (1, 2.5), True, "5", (), 10**30, [[1]]])
def test_what_is_no_depth_is_refused(k: Any) -> None:
    for measure in (vtr.recall, vtr.retrieval_metrics):
        with pytest.raises(ConfigError, match="whole numbers"):
            measure(np.eye(3), k=k)


def test_depths_are_one_or_several_of_python_or_numpy() -> None:
    for k in (2, np.int64(2), (2,), np.array([2])):
        assert vtr.recall(np.eye(3), k=k) == {2: 100.0}  # type: ignore[arg-type]
        assert "t2v/R@2" in vtr.retrieval_metrics(np.eye(3), k=k)  # type: ignore[call-overload]


def test_rows_of_unequal_length_and_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="scores have rows of unequal length"):
        vtr.recall([[1, 2], [3]])
    with pytest.raises(ConfigError, match="seed is -1; it must be a whole number, 0 or more"):
        vtr.retrieval_metrics(np.eye(3), seed=-1)


def test_one_query_one_video() -> None:
    ranks = stream_ranks(lambda: [(0, np.zeros((1, 1), np.float32))], np.array([0]), 1)
    assert set(retrieval_metrics(ranks).expected.values()) == {100.0, 1.0, 300.0}
