"""The contract every sampler keeps, over the files in the folder; and the few exact formulas."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr.errors import ConfigError, UnknownNameError
from vtr.extract import samplers
from vtr.extract.samplers.base import (
    SamplerChoice,
    Signals,
    check_selection,
    parse_samplers,
    sampler_names,
    sampler_options,
)
from vtr.options import load_plugin

NAMES = sampler_names()


LEVELS = {
    "constant": lambda index: np.full(len(index), 90),
    "black": lambda index: np.zeros(len(index)),
    "rising": lambda index: np.linspace(0, 255, len(index)),
    "falling": lambda index: np.linspace(255, 0, len(index)),
    "stairs": lambda index: index // 7 * 40 % 256,
    "alternating": lambda index: index % 2 * 255,
    "one-cut": lambda index: np.where(index < len(index) // 2, 0, 255),
    "flash": lambda index: np.where(index == len(index) // 3, 255, 0),
    "first-differs": lambda index: np.where(index == 0, 255, 0),
    "last-differs": lambda index: np.where(index == len(index) - 1, 1, 0),
    "extremes": lambda index: np.random.default_rng(0).choice([0, 255], len(index)),
}


def make_signals(kind: str, count: int) -> Signals:
    """Candidates with thumbnails of a kind that has broken samplers before."""
    rng = np.random.default_rng(0)
    size = 32 if count <= 40 else 8
    luma = (
        rng.integers(0, 256, (count, size, size))
        if kind == "noise"
        else LEVELS[kind](np.arange(count))[:, None, None] + np.zeros((1, size, size))
    ).astype(np.uint8)
    pts_seconds = np.cumsum(rng.choice([0.04, 0.04, 0.5], count))
    return Signals(pts_seconds, luma, luma[:, 0].astype(np.float16))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(
    kind=st.sampled_from(["noise", *LEVELS]),
    count=st.one_of(st.integers(1, 12), st.integers(1, 70), st.integers(1, 2000)),
    num_frames=st.integers(1, 64),
    seed=st.integers(0, 2**32),
)
def test_contract(name: str, kind: str, count: int, num_frames: int, seed: int) -> None:
    """`SamplerChoice.select` itself checks number, order, uniqueness and range."""
    signals = make_signals(kind, count)
    before = None if signals.luma is None else signals.luma.copy()
    choice = SamplerChoice(name)
    first = choice.select(signals, num_frames, seed=seed, video_id="v")
    assert len(first) == (count if name == "dense" else min(num_frames, count))
    assert first.dtype == np.int64
    again = choice.select(make_signals(kind, count), num_frames, seed=seed, video_id="v")
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(signals.luma, before)


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    module = load_plugin(samplers, name, kind="sampler")
    assert module.__doc__.splitlines()[0].endswith(".")
    assert not set(module.NEEDS) - {"luma", "embeddings"}
    assert module.COST
    assert all(isinstance(v, bool | int | float | str) for v in sampler_options(name).values())


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of extra samplers beside the package's own."""
    monkeypatch.setattr(samplers, "__path__", [*samplers.__path__, str(tmp_path)])
    return tmp_path


WRONG = {
    "one_too_few": "np.arange(num_frames - 1)",
    "not_sorted": "np.arange(num_frames)[::-1]",
    "repeats": "np.zeros(num_frames, np.int64)",
    "outside": "np.arange(num_frames) + 2",
    "fractions": "np.arange(num_frames) * 1.0",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_sampler_is_caught(planted: Path, name: str) -> None:
    (planted / f"{name}.py").write_text(
        f'"""Wrong."""\nimport numpy as np\nNEEDS = frozenset()\nCOST = "free"\n'
        f"def select(signals, num_frames, rng):\n    return {WRONG[name]}\n"
    )
    option = name.replace("_", "-")
    assert option in sampler_names()
    with pytest.raises(AssertionError, match=f"{option}: "):
        SamplerChoice(option).select(make_signals("noise", 4), 3, seed=0, video_id="v")


def test_random_samplers_depend_on_seed_and_video_alone(planted: Path) -> None:
    (planted / "dice.py").write_text(
        '"""Random."""\nimport numpy as np\nNEEDS = frozenset()\nCOST = "free"\n'
        "def select(signals, num_frames, rng, *, spread=1.0):\n"
        "    return np.sort(rng.choice(len(signals), num_frames, False))\n"
    )
    signals = make_signals("noise", 1000)
    picks = {
        (seed, video): tuple(
            SamplerChoice("dice").select(signals, 8, seed=seed, video_id=video).tolist()
        )
        for seed in (0, 1)
        for video in ("a", "b")
    }
    assert len(set(picks.values())) == 4
    np.random.default_rng(5).random()
    again = SamplerChoice("dice").select(signals, 8, seed=0, video_id="a")
    assert tuple(again.tolist()) == picks[0, "a"]
    assert [c.label for c in parse_samplers("dice:spread=0.5,dice:spread=1.0,dice")] == [
        "dice:spread=0.5",
        "dice",
    ]
    with pytest.raises(UnknownNameError, match="no option of sampler 'dice' named 'spred'"):
        parse_samplers("dice:spred=1")
    with pytest.raises(ConfigError, match="spread='x' is not of type float"):
        parse_samplers("dice:spread=x")
    with pytest.raises(ConfigError, match="write spread=VALUE"):
        parse_samplers("dice:spread")


def test_uniform_is_the_reference_s_formula() -> None:
    signals = make_signals("noise", 40)
    chosen = SamplerChoice("uniform").select(signals, 8, seed=0, video_id="")
    assert chosen.tolist() == [0, 5, 11, 16, 22, 27, 33, 39]
    assert SamplerChoice("uniform").select(signals, 1, seed=0, video_id="").tolist() == [0]


def test_head_and_tail() -> None:
    signals = make_signals("noise", 5)
    assert SamplerChoice("head").select(signals, 3, seed=0, video_id="").tolist() == [0, 1, 2]
    assert SamplerChoice("tail").select(signals, 3, seed=0, video_id="").tolist() == [2, 3, 4]
    assert SamplerChoice("tail").select(signals, 9, seed=0, video_id="").tolist() == [0, 1, 2, 3, 4]


def test_all_is_every_sampler_that_needs_no_dense_store() -> None:
    before = [choice.name for choice in parse_samplers("all")]
    assert before == [n for n in NAMES if n not in ("dense", "embedding-diversity")]
    after = [choice.name for choice in parse_samplers("all", embedded=True)]
    assert after == [n for n in NAMES if n != "dense"]


def test_embeddings_before_extraction_are_an_error_that_says_how() -> None:
    how = "Extract with --sampler dense, then name it"
    with pytest.raises(ConfigError, match=how):
        parse_samplers("uniform,embedding-diversity")
    with pytest.raises(ConfigError, match=how):
        SamplerChoice("embedding-diversity").select(Signals(np.arange(3.0)), 2, seed=0, video_id="")
    (choice,) = parse_samplers("embedding-diversity:same=0.1", embedded=True)
    assert choice.label == "embedding-diversity:same=0.1"


def test_budget_below_one() -> None:
    with pytest.raises(ConfigError, match="at least 1 frame"):
        SamplerChoice("uniform").select(make_signals("noise", 3), 0, seed=0, video_id="")


def test_missing_thumbnails_are_named(planted: Path) -> None:
    (planted / "looks.py").write_text(
        '"""Looks."""\nNEEDS = frozenset({"luma"})\nCOST = "cheap"\n'
        "def select(signals, num_frames, rng):\n    return signals.luma\n"
    )
    with pytest.raises(ConfigError, match="carry no thumbnails"):
        SamplerChoice("looks").select(Signals(np.arange(3.0)), 2, seed=0, video_id="")


def test_signals_are_checked() -> None:
    with pytest.raises(ValueError, match="N >= 1"):
        Signals(np.zeros(0))
    with pytest.raises(ValueError, match="2 thumbnails for 3 candidates"):
        Signals(np.zeros(3), np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"must be \(3, D\), are \(2, 5\)"):
        Signals(np.zeros(3), embeddings=np.zeros((2, 5)))
    with pytest.raises(ValueError, match="no thumbnails"):
        _ = Signals(np.zeros(3)).absolute_change


def test_check_selection_accepts_what_is_right() -> None:
    check_selection(np.array([0, 2]), num_candidates=3, budget=2, sampler="x")
