"""The public calls: every one has an example that runs, and the numbers are those of the parts."""

import doctest
import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import demo_backbone, make_run, random_store
from hypothesis import given
from hypothesis import strategies as st

import vtr
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, ModelError
from vtr.evaluate.metrics import hits
from vtr.evaluate.ranks import rank_rows


def test_every_public_name_has_an_example_that_runs(here: Path) -> None:
    """Where `vtr demo` has made the demo world and `meanP` was trained on it (a small one here)."""
    sizes: dict[Any, int] = dict.fromkeys(("train", "val", "test"), 2)
    world = vtr.demo_workspace("demo-world", clips_per_group=sizes)
    vtr.extract_features(world, device="cpu", workers=1)
    run = vtr.train_head(
        world, "meanP", sampler="uniform", epochs=1, name="meanP", device="cpu", patience=0
    )
    for model in (run, None):
        vtr.evaluate_run(world, model, device="cpu")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name in sorted(set(vtr.__all__) - {"__version__"}):
        thing = getattr(vtr, name)
        text = inspect.getdoc(thing) or ""
        assert len(text.splitlines()[0]) > 10, name
        assert thing.__module__.startswith("vtr."), name
        example = doctest.DocTestParser().get_doctest(text, {}, f"vtr.{name}", None, 0)
        assert len(example.examples) >= 2, f"vtr.{name} has no example"
        if name.startswith("mteb_") and find_spec("mteb") is None:
            continue  # an extra
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


@given(
    st.integers(1, 6), st.integers(1, 6), st.data(),
)  # fmt: skip
def test_recall_is_that_of_the_ranks(rows: int, columns: int, data: st.DataObject) -> None:
    cells = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=columns, max_size=columns)
    scores = np.array(data.draw(st.lists(cells, min_size=rows, max_size=rows)))
    targets = np.array(
        data.draw(st.lists(st.integers(0, columns - 1), min_size=rows, max_size=rows))
    )
    ranks = rank_rows(scores, targets)
    wanted = {k: pytest.approx(100 * hits(ranks, k).mean()) for k in (1, 3)}
    assert vtr.recall(scores.tolist(), targets.tolist(), k=(1, 3)) == wanted
    numbers = vtr.retrieval_metrics(scores, targets, k=(1, 3))
    assert numbers["t2v/R@1"].value == wanted[1]
    for number in numbers.values():
        assert number.low <= number.value + 1e-9
        assert number.value <= number.high + 1e-9
    assert numbers["t2v/R@1"].pessimistic <= numbers["t2v/R@1"].value + 1e-9
    assert numbers["t2v/R@1"].value <= numbers["t2v/R@1"].optimistic + 1e-9


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([[1.0, 2.0]], None, r"no diagonal: give targets"),
        ([1.0, 2.0], None, r"shape \(2,\); they must be"),
        ([[1.0, 2.0]], [2], r"targets run from 2 to 2; scores have columns 0 to 1"),
        ([[1.0, 2.0]], [0, 1], r"a whole number for each of 1 query"),
        ([[1.0, 2.0]], [0.0], r"targets are float64"),
        ([["a", "b"]], [0], r"they must be numbers"),
        (np.zeros((0, 0)), None, r"shape \(0, 0\)"),
    ],
)
def test_what_does_not_fit_is_refused(scores: object, targets: object, message: str) -> None:
    for call in (vtr.recall, vtr.retrieval_metrics):
        with pytest.raises(ConfigError, match=message):
            call(scores, targets)  # type: ignore[operator]


def test_a_score_that_is_none_is_refused() -> None:
    with pytest.raises(ModelError, match="nan"):
        vtr.recall([[float("nan"), 1.0]], [0])
    with pytest.raises(ConfigError, match="R@0 means nothing; k must be whole numbers"):
        vtr.recall([[1.0]], [0], k=0)


def test_scores_of_texts_and_a_store(tmp_path: Path) -> None:
    random_store(tmp_path / "features", ["a", "b", "c"], failed=["b"])
    store = vtr.FeatureStore(tmp_path / "features")
    texts = ["a red square", "a blue circle"]
    scores = vtr.score_matrix(texts, store, model=str(demo_model_folder()), device="cpu")
    features = vtr.embed_texts(demo_backbone(), texts)
    model = vtr.zero_shot_model(demo_backbone().logit_scale)
    wanted = vtr.Scorer(model, features, store.packed(dtype="float32")).matrix()
    np.testing.assert_array_equal(scores, wanted)
    assert scores.shape == (2, 2)
    one = vtr.score_matrix(texts, store, ids=["c"], model=str(demo_model_folder()))
    np.testing.assert_allclose(one, scores[:, 1:], atol=1e-6)
    run = make_run(tmp_path / "run")
    np.testing.assert_allclose(vtr.score_matrix(texts, store, run), scores, atol=1e-6)
    with pytest.raises(ConfigError, match="give a list of them"):
        vtr.embed_texts(demo_backbone(), "a text")
    with pytest.raises(ConfigError, match="give a list of them"):
        vtr.score_matrix("a text", store)  # type: ignore[arg-type]
