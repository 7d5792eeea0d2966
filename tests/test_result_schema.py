"""Results that were edited or damaged are refused in words, by whoever reads them."""

from typing import Any

import pytest

from vtr.errors import ConfigError
from vtr.result_schema import require_result

CELL = {"value": 50.0, "low": 40, "high": 60.0, "n": 4}


def result(**changes: Any) -> dict[str, Any]:
    whole = {"protocol": {"name": "p"}, "metrics": {"t2v/R@1": CELL}, "similarity": {"edges": [0]}}
    return whole | changes


def of_success(**example: Any) -> dict[str, Any]:
    return {"examples": {"success": [example]}}


def test_a_sound_result_passes() -> None:
    require_result(result(**of_success(rank=1.0, retrieved=[{"video": "a"}])), source="r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": None}, "protocol is None; allowed: an object"),
        ({"metrics": {"t2v/R@1": 2**63}}, r"t2v/R@1 is 9223\d+; allowed: an object with value"),
        ({"metrics": {"a": CELL | {"low": None}}}, "a: low is None; allowed: a number"),
        ({"metrics": {"a": CELL | {"value": 10**400}}}, r"a: value is 10+; allowed: a number"),
        ({"similarity": {"edges": [{"a": 1}]}}, r"similarity: edges is \[\{'a': 1\}\]; allowed"),
        (of_success(rank=1.0, retrieved=[1.0]), "retrieved is .*a list of objects"),
        (of_success(rank=1.0, own={"pts_seconds": ["x"]}), r"pts_seconds is \['x'\]; allowed: num"),
        ({"breakdowns": {"category": [{"name": "x", "n": 1}]}}, "category is .* name, n and m"),
        ({"groups": {"g": {"metrics": {"a": "x"}}}}, "groups: g: metrics: a is 'x'; allowed: an"),
        ({"videos": {"paths": {"a": 1e308}}}, "videos: paths: a is 1e.308; allowed: a path"),
        ({"videos": {"paths": ["a"]}}, "videos: paths is .*; allowed: an object"),
        (of_success(text="a"), "success: 0 is .*; allowed: an object with rank"),
        ({"examples": {"failure": [{"rank": "x"}]}}, "failure: 0: rank is 'x'; allowed: a number"),
        (of_success(rank=2, own={"score": []}), r"own: score is \[\]; allowed: a number"),
        ({"coverage": {"policy": []}}, r"coverage: policy is \[\]; allowed: a text or null"),
        ({"setup": {"fingerprint": 7}}, "setup: fingerprint is 7; allowed: a text"),
        ({"setup": {"trained_on_test": "x"}}, "trained_on_test is 'x'; allowed: a number"),
        ({"metrics": None}, "metrics is None; allowed: an object"),
        ({"groups": {"g": {"n": 1}}}, "groups: g is .*; allowed: an object with metrics"),
        ({"pairs": {"order": {"accuracy": None}}}, "order: accuracy is None; allowed: a number"),
        (
            {"similarity": {"edges": [0], "matching": [1], "other": [2]}},
            "similarity is .*; allowed: edges, one more",
        ),
        ({"rank_histogram": {"edges": [1, 2]}}, "rank_histogram is .*; allowed: edges, one more"),
        ({"coverage": {"present": 10**400}}, r"coverage: present is 10+; allowed: a number that"),
    ],
)
def test_a_field_of_another_type_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^r: .*{message}"):
        require_result(result(**changes), source="r")


def test_the_numbers_of_a_card_need_their_intervals() -> None:
    bare = result(metrics={"t2v/R@1": {"value": 1.0}})
    require_result(bare, source="r")
    with pytest.raises(ConfigError, match=r"t2v/R@1 is .*; allowed: an object with value, low"):
        require_result(bare, source="r", for_card=True)


def test_a_card_needs_all_that_it_states() -> None:
    with pytest.raises(ConfigError, match=r"^r: protocol is .*; allowed: an object with name, pub"):
        require_result(result(), source="r", for_card=True)


@pytest.mark.parametrize("metrics", [{}, {"t2v/R@5": CELL}, {"t2v/R@1": CELL, "v2t/R@5": CELL}])
def test_a_card_needs_the_first_recall_of_each_direction(metrics: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^r: metrics is .*; allowed: .* with [tv]2[tv]/R@1"):
        require_result(result(metrics=metrics), source="r", for_card=True)
