"""Moment retrieval: the measures against plain oracles, and numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtr.errors import ConfigError
from vtr.evaluate.moments import (
    AP_IOUS,
    MomentPrediction,
    MomentQuery,
    average_precision,
    moment_metrics,
    query_values,
    temporal_iou,
)


def query(*windows: tuple[float, float], video: str = "v", **more: object) -> MomentQuery:
    return MomentQuery("q", video, np.array(windows, float), **more)  # type: ignore[arg-type]


def said(*windows: tuple[float, float], best: float | None = None) -> MomentPrediction:
    return MomentPrediction(np.array(windows, float).reshape(-1, 2), best)


def test_the_first_prediction_is_held_against_the_window_that_it_fits_best() -> None:
    rows = query_values([query((0, 10), (20, 30))], [said((22, 30), (0, 10))])
    assert rows["mIoU"] == pytest.approx([0.8])
    assert [rows[f"R1@{iou}"][0] for iou in (0.3, 0.5, 0.7)] == [1, 1, 1]
    rows = query_values([query((0, 10))], [said((5, 15), (0, 10))])
    assert (rows["R1@0.3"][0], rows["R1@0.5"][0], rows["R5@0.5"][0]) == (1, 0, 1)
    assert rows["mAP@0.5"] == pytest.approx([0.5])  # one wrong prediction stands before it


def test_a_threshold_is_reached_by_equality() -> None:
    rows = query_values([query((0, 10))], [said((0, 5))])
    assert (rows["R1@0.5"][0], rows["R1@0.7"][0]) == (1, 0)


def test_a_query_without_a_prediction_is_a_miss() -> None:
    numbers = moment_metrics([query((0, 4)), query((0, 4), video="w")], [said((0, 4)), said()])
    assert numbers["R1@0.5"]["value"] == numbers["mIoU"]["value"] == numbers["mAP"]["value"] == 50
    low, high = (numbers["R1@0.5"][end] for end in ("low", "high"))
    assert 0 <= low < 50 < high <= 100
    assert numbers["mIoU"]["n"] == 2


def test_a_window_is_found_once() -> None:
    assert average_precision(np.array([[0.9], [0.9]]), 0.5) == 1
    twice = np.array([[0.9, 0.6], [0.95, 0.0]])  # the second may not take the first's window
    assert average_precision(twice, 0.5) == 0.5
    assert average_precision(np.zeros((0, 2)), 0.5) == 0
    alike = np.array([[0.6, 0.6], [0.9, 0.0]])  # of two covered alike the last is taken
    assert (average_precision(alike, 0.5), average_precision(alike[:, ::-1], 0.5)) == (1, 0.5)


def test_a_highlight_is_a_clip_that_one_annotator_rates_very_good() -> None:
    rated = query((0, 4), ratings={0: (4, 1, 1), 1: (3, 3, 3)})
    at = [1.99, 2.0, 90.0, None]
    rows = query_values([rated] * 4 + [query((0, 4))], [said((0, 4), best=t) for t in [*at, 0.0]])
    assert rows["HIT@1"][:4].tolist() == [1, 0, 0, 0]
    numbers = moment_metrics([rated, query((0, 4))], [said((0, 4), best=0.0)] * 2)
    assert numbers["HIT@1"]["value"] == 100  # over the one query with ratings
    assert numbers["HIT@1"]["n"] == 1


def test_intervals_draw_whole_videos_and_stay_open_at_the_ends() -> None:
    same = [query((0, 4)) for _ in range(50)]
    numbers = moment_metrics(same, [said((0, 4))] * 50)
    assert numbers["mIoU"]["value"] == 100
    assert numbers["mIoU"]["low"] < 25  # fifty queries of one video are one unit
    apart = [query((0, 4), video=str(v)) for v in range(50)]
    found = moment_metrics(apart, [said((0, 4))] * 50)["mIoU"]
    assert 90 < found["low"] < found["high"] == 100


def test_counts_must_agree() -> None:
    with pytest.raises(ConfigError, match="0 predictions for 1 query; one"):
        moment_metrics([query((0, 1))], [])


spans = st.tuples(st.integers(0, 20), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1]))


def oracle_precision(predicted: list, described: list, threshold: float) -> float:
    """Every cut of the list: precision and recall, the envelope, the area under it."""
    free, hits = list(range(len(described))), []
    for p in predicted:
        overlap = {
            w: max(0, min(p[1], described[w][1]) - max(p[0], described[w][0]))
            / (max(p[1], described[w][1]) - min(p[0], described[w][0]))
            for w in free
            if min(p[1], described[w][1]) > max(p[0], described[w][0])
        }
        good = {w: iou for w, iou in overlap.items() if iou >= threshold}
        hits.append(bool(good))
        if good:
            free.remove(max(good, key=lambda w: (good[w], w)))
    points = [(sum(hits[:n]) / len(described), sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]
    area, before = 0.0, 0.0
    for recall in sorted({r for r, _ in points}):
        area += (recall - before) * max(p for r, p in points if r >= recall)
        before = recall
    return area


@given(st.lists(spans, max_size=10), st.lists(spans, min_size=1, max_size=5))
def test_average_precision_equals_a_plain_count(predicted: list, described: list) -> None:
    iou = temporal_iou(
        np.array(predicted, float).reshape(-1, 2), np.array(described, float).reshape(-1, 2)
    )
    for threshold in AP_IOUS:
        expected = oracle_precision(predicted, described, threshold)
        assert average_precision(iou, threshold) == pytest.approx(expected)
