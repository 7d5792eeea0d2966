"""A workspace written by e6d78ac, before options were declared once: everything in it is read.

`tests/data/e6d78ac` holds a store, a finished run (`whole`) with its result, and the same training
stopped after its second epoch (`cut`). Made with that version's own commands:
`vtr train --head meanP --text frozen --epochs 4 --patience 0 --lr 0.01 --captions 2 --batch-size 4
--loss all --warmup 0.2`.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import edit_json, ramp, run_json, write_clip

import vtr
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, FingerprintError
from vtr.features.store import require_same
from vtr.train.loop import read_metrics

CLOCK = ("seconds", "pairs_per_second")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "w"
    shutil.copytree(Path(__file__).parent / "data" / "e6d78ac", folder)
    (folder / "videos").mkdir()
    file = folder / "vtr.toml"
    file.write_text(re.sub('(?m)^id = ".*"', f'id = "{demo_model_folder()}"', file.read_text()))
    for config in folder.glob("runs/*/config.json"):  # made where that version lay
        edit_json(config, text_model__id=str(demo_model_folder()))
    monkeypatch.chdir(folder)
    return folder


def test_its_interrupted_training_goes_on_as_if_never_stopped(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"other settings: --lr 0\.5 \(was 0\.01\)"):
        run_json("train", "--resume", "--lr", "0.5")
    resumed = run_json("train", "--resume", "--lr", "0.01")
    before = json.loads((workspace / "runs" / "whole" / "result.json").read_text())
    changing = ("run", "seconds", "selection")  # its words may change
    assert {k: resumed[k] for k in before if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    one, two = (read_metrics(workspace / "runs" / name) for name in ("cut", "whole"))
    for ours, theirs in zip(one, two, strict=True):
        assert {k: v for k, v in ours.items() if k not in CLOCK} == pytest.approx(
            {k: v for k, v in theirs.items() if k not in CLOCK}
        )


def test_a_resumed_training_keeps_what_its_versions_presets_decided(workspace: Path) -> None:
    """The rate of `cut` as if that version's preset had it: today's would be 0.0028."""
    config = workspace / "runs" / "cut" / "config.json"
    document = json.loads(config.read_text())
    assert document["settings"]["lr"] == 0.01
    for flag in ("lr", "loss", "warmup", "captions"):
        document["request"].pop(flag, None)
    config.write_text(json.dumps(document))
    run_json("train", "--resume")
    one, two = (read_metrics(workspace / "runs" / name) for name in ("cut", "whole"))
    assert [row.get("loss") for row in one] == pytest.approx([row.get("loss") for row in two])


def test_its_run_and_its_result_are_read(workspace: Path) -> None:
    run = vtr.load_run(workspace / "runs" / "whole")
    assert (run.sampler, run.epoch, run.seed, len(run.train_ids or ())) == ("uniform", 0, 0, 8)
    before = vtr.load_result(workspace / "runs" / "whole" / "eval" / "demo")
    document = run_json("eval", "--run", "runs/whole")
    for name, cell in before.metrics.items():
        assert document["metrics"][name]["value"] == pytest.approx(cell["value"]), name


def test_its_store_is_read_and_not_extended_with_other_frames(workspace: Path) -> None:
    store = vtr.FeatureStore(workspace / "features")
    write_clip(workspace / "videos" / f"{store.ids[0]}.mp4", ramp(4))
    shards = sorted(path.name for path in store.folder.glob("shard-*.h5"))
    assert len(store) == len(store.ledger) - sum(r.status == "failed" for r in store.ledger) > 0
    assert all(np.isfinite(store[video_id].frames).all() for video_id in store)
    changed = vtr.open_workspace(workspace, frames=store.spec.num_frames + 1, sampler="head")
    with pytest.raises(FingerprintError, match=r"made with other settings: .*samplers is .*asked"):
        vtr.extract_features(changed, device="cpu")
    assert sorted(path.name for path in store.folder.glob("shard-*.h5")) == shards
    same = replace(store.spec, decoding=store.spec.decoding + 1)
    with pytest.raises(FingerprintError, match=r"other versions: decoding is .* No option brings"):
        require_same(store.spec, same, what="it")
