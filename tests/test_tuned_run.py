"""A run whose vision tower was trained: what is stored is stale, and it is given away whole."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_demo_workspace, run_app
from safetensors.torch import load_file, save_file

from vtr.errors import ModelError
from vtr.features import FeatureStore
from vtr.train import loop

pytestmark = pytest.mark.usefixtures("one_thread")

SPLITS = (("train", 6), ("val", 2), ("test", 3))
IDS = [f"{split}{n:02}" for split, count in SPLITS for n in range(count)]
TEST_IDS = IDS[-3:]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    values = itertools.count()  # each epoch is better than the one before
    monkeypatch.setattr(loop, "selection_value", lambda metrics: next(values))
    return make_demo_workspace(tmp_path, IDS, pictures=True)


def app(*words: str) -> Any:
    done = run_app(*words)
    assert done.exit_code == 0, done.stderr
    return done


def train(*words: str, name: str = "tuned") -> Path:
    how = ("--vision", "tune", "--vision-chunk", "0", "--batch-size", "4", "--epochs", "1")
    app(
        "train",
        *how,
        "--head-epochs",
        "0",
        "--lr",
        "1e-3",
        "--coef-lr",
        "1",
        "--name",
        name,
        *words,
    )
    return Path("runs") / name


def evaluated(*words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(app("eval", *words, "--json").stdout)
    return document


def test_eval_embeds_the_test_videos_with_the_towers_once(workspace: Path) -> None:
    run = train("--head", "meanP")
    first = app("eval", "--run", str(run))
    assert "embedding the pictures of 3 videos with the towers of" in first.stderr
    again = app("eval", "--run", str(run))
    assert "embedding the pictures" not in again.stderr
    (cache,) = (run / "features").iterdir()
    made = FeatureStore(cache)
    assert sorted(made.ids) == TEST_IDS
    one = evaluated("--run", str(run), "--out", "one")
    app("extract", "--from-crops", "features", "--model", str(run / "towers"), "--features", "own")
    own = FeatureStore("own")
    ours, theirs = (store.packed(TEST_IDS).frames for store in (made, own))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # float16, in batches of other sizes
    other = evaluated("--run", str(run), "--features", "own", "--out", "other")
    assert one["metrics"] == other["metrics"]


def test_stale_features_without_pictures_are_refused(workspace: Path) -> None:
    run = train("--head", "meanP")
    make_demo_workspace(workspace / "bare", IDS)
    with pytest.raises(ModelError, match=r"are stale.*--crops raw.*--model runs/tuned/towers"):
        run_app("eval", "--run", str(run), "--features", "bare/features")


def test_towers_that_are_others_than_the_run_s_are_refused(workspace: Path) -> None:
    run = train("--head", "meanP")
    weights = run / "towers" / "model.safetensors"
    changed = {name: value * 1.01 for name, value in load_file(weights).items()}
    save_file(changed, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"was trained with the text of weights .* now has"):
        run_app("eval", "--run", str(run))
    assert not (run / "features").exists()
