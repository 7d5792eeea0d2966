"""A run whose vision tower was trained: what is stored is stale, and it is given away whole."""

import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_demo_workspace, patchwork, random_store, run_app, run_json, write_clip
from hub_server import TOKEN, serving
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

import vtr
from vtr.clip.backbone import load_backbone
from vtr.clip.preprocess import normalise
from vtr.demo import demo_model_folder
from vtr.errors import CheckpointError, ConfigError, ModelError
from vtr.features import FeatureStore
from vtr.train import loop
from vtr.train.run import load_run

SPLITS = (("train", 6), ("val", 2), ("test", 3))
IDS = [f"{split}{n:02}" for split, count in SPLITS for n in range(count)]
TEST_IDS = IDS[-3:]


@pytest.fixture
def workspace(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    values = itertools.count()  # each epoch is better than the one before
    monkeypatch.setattr(loop, "selection_value", lambda metrics: next(values))
    return make_demo_workspace(here, IDS, pictures=True)


def train(*words: str, name: str = "tuned") -> Path:
    how = ("--vision", "tune", "--vision-chunk", "0", "--batch-size", "4", "--epochs", "1")
    rates = ("--head-epochs", "0", "--lr", "1e-3", "--coef-lr", "1")
    run_app("train", *how, *rates, "--name", name, *words)
    return Path("runs") / name


def evaluated(*words: str) -> Any:
    return run_json("eval", *words)


def test_eval_embeds_the_test_videos_with_the_towers_once(workspace: Path) -> None:
    run = train("--head", "meanP")
    first = run_app("eval", "--run", str(run))
    assert "embedding the pictures of 3 videos with the towers of" in first.stderr
    again = run_app("eval", "--run", str(run))
    assert "embedding the pictures" not in again.stderr
    (cache,) = (run / "features").iterdir()
    made = FeatureStore(cache)
    assert sorted(made.ids) == TEST_IDS
    one = evaluated("--run", str(run), "--out", "one")
    run_app(
        "extract", "--from-crops", "features", "--model", str(run / "towers"), "--features", "own"
    )
    own = FeatureStore("own")
    ours, theirs = (store.packed(TEST_IDS).frames for store in (made, own))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # float16, in batches of other sizes
    other = evaluated("--run", str(run), "--features", "own", "--out", "other")
    assert one["metrics"] == other["metrics"]


def test_temporal_towers_see_the_selection_of_a_dense_store(workspace: Path) -> None:
    """Which neighbours a frame has is the selection's; all candidates would be other ones."""
    random_store(workspace / "dense", IDS, samplers=("dense",), num_frames=5, pictures=True)
    how = ("--features", "dense", "--sampler", "head")
    run = train("--head", "meanP", "--preset", "clip4clip", "--linear-patch", "3d", *how)
    assert evaluated("--run", str(run), *how)["setup"]["sampler"] == "head"
    (cache,) = (run / "features").iterdir()
    made = FeatureStore(cache)
    assert (made.spec.linear_patch, made.spec.samplers) == ("3d", ("head",))
    towers = load_backbone(str(run / "towers"), device="cpu")
    pictures = FeatureStore(workspace / "dense", sampler="dense").pictures(TEST_IDS[:1]).pixels[:3]
    expected = towers.encode_frames(pictures, offsets=[0, 3])
    np.testing.assert_allclose(made[TEST_IDS[0]].frames, expected, atol=2e-3)


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
    lost = r"runs/tuned/towers {}.*Copy the run's folder again, or train again"
    with pytest.raises(CheckpointError, match=lost.format("holds other weights than this run")):
        run_app("eval", "--run", str(run))
    assert not (run / "features").exists()
    shutil.rmtree(run / "towers")
    for words in (("eval", "--run"), ("train", "--vision", "tune", "--start")):
        with pytest.raises(CheckpointError, match=lost.format("is not there")):
            run_app(*words, str(run))


def test_what_is_given_away_is_a_run_and_a_model_that_transformers_loads(workspace: Path) -> None:
    run = train("--head", "seqTransf:layers=1")
    with pytest.raises(ConfigError, match="--features is about the export of a store"):
        run_app("export", "--run", run.name, "--out", "given", "--features", "features")
    run_app("export", "--run", run.name, "--out", "given")
    assert "vtr extract --model FOLDER/towers" in Path("given/README.md").read_text()
    run.rename("elsewhere")
    theirs = CLIPModel.from_pretrained("given/towers").eval()
    ours = load_backbone("given/towers", device="cpu")
    assert ours.weights_sha256 == load_run("given").weights_sha256
    crops = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), np.uint8)
    pixels = normalise(torch.from_numpy(crops), ours.preprocessing, dtype=torch.float32)
    with torch.inference_mode():
        expected = theirs.get_image_features(pixel_values=pixels)
    expected = getattr(expected, "pooler_output", expected)
    np.testing.assert_allclose(ours.encode_frames(crops), expected, atol=1e-5)
    run_app("extract", "--from-crops", "features", "--model", "given/towers", "--features", "own")
    assert evaluated("--run", "given", "--features", "own")["metrics"]
    write_clip(workspace / "clips" / "a.mp4", patchwork(8))
    model = ("--model", "given/towers")
    found = run_app("search", "clips", "a red thing", *model, "--index", "index", "--json")
    assert "a.mp4" in found.stdout


def test_its_towers_go_to_the_hub_and_come_back(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run = train("--head", "meanP")
    with serving() as hub:
        vtr.push(run, "me/tuned", hub_url=hub.url)
        files = hub.repos["models", "me/tuned"].files
        assert str(workspace).encode() not in b"".join(files.values())
        made = vtr.pull("me/tuned", "pulled", hub_url=hub.url)
        run.rename("elsewhere")
        assert vtr.push(made, "me/tuned", hub_url=hub.url).sent == ["README.md", "vtr.json"]
        assert b"base_model" not in hub.repos["models", "me/tuned"].files["README.md"]
    here = evaluated("--run", "elsewhere", "--out", "one")
    assert evaluated("--run", str(made), "--out", "two")["metrics"] == here["metrics"]


def test_the_reference_s_files_hold_the_optimiser_and_training_goes_on_from_them(
    workspace: Path,
) -> None:
    head = "seqTransf:layers=1:positions=12"
    run = train("--preset", "clip4clip", "--head", head, "--freeze-layers", "1")
    run_app("export", "--run", str(run), "--out", "given", "--reference")
    weights = torch.load("given/pytorch_model.bin.0", weights_only=True)
    document = torch.load("given/pytorch_opt.bin.0", weights_only=True)
    assert document["epoch"] == 0
    groups = [
        {"params": [torch.nn.Parameter(weights[name].float()) for name in names]}
        for names in reference_groups(weights)
    ]
    optimiser = torch.optim.SGD(groups, lr=1.0)
    optimiser.load_state_dict(document["optimizer_state_dict"])  # torch compares the groups
    names = [name for group in reference_groups(weights) for name in group]
    parameters = [value for group in groups for value in group["params"]]
    moved = {
        name: optimiser.state[value]
        for name, value in zip(names, parameters, strict=True)
        if value in optimiser.state
    }
    assert all(state["next_v"].shape == weights[name].shape for name, state in moved.items())
    assert len({state["step"] for state in moved.values()}) == 1
    layer = "clip.visual.transformer.resblocks.{}.attn.in_proj_weight"
    assert layer.format(0) not in moved, "frozen"
    assert {layer.format(1), "clip.visual.proj", "clip.logit_scale"} < moved.keys()
    last = load_file(run / "last.safetensors").items()
    kept = [value for key, value in last if key.endswith(".next_m")]
    for name in ("clip.visual.proj", "clip.text_projection"):
        assert any(torch.equal(moved[name]["next_m"].T, value) for value in kept), name
    assert any(torch.equal(moved[layer.format(2)]["next_m"], value) for value in kept)


def reference_groups(names: Iterable[str]) -> list[list[str]]:
    """Names of CLIP4Clip's four groups, by its rules (prep_optimizer)."""
    return [
        [n for n in names if ("bias" in n) == escapes and ("clip." in n) == clip]
        for escapes in (False, True)
        for clip in (True, False)
    ]


def test_training_goes_on_from_an_imported_checkpoint(workspace: Path) -> None:
    head = "seqTransf:layers=1:positions=12"
    run = train("--preset", "clip4clip", "--head", head)
    run_app("export", "--run", str(run), "--out", "given", "--reference")
    heads = ("--vision-heads", "3", "--text-heads", "3", "--clip", str(demo_model_folder()))
    file = "given/pytorch_model.bin.0"
    run_app("import", "clip4clip", file, "--head", "seqTransf", "--out", "imported", *heads)
    bare = ("import", "clip4clip", file, "--head", "seqTransf", "--out", "bare", *heads[4:])
    told = run_app(*bare).stderr
    assert "the vision tower gets 1 attention head, width / 64" in told, "no shape shows it"
    assert "the text tower gets 1 attention head" in told
    assert "--text-heads 3" in told
    done = run_app("eval", "--run", "imported/run")
    assert "embedding the pictures of 3 videos with the towers of" in done.stderr
    head = "seqTransf:layers=1:positions=32"  # as many as CLIP has for words
    further = train("--head", head, "--start", "imported/run", name="further")
    config = json.loads((further / "config.json").read_text())
    assert config["text_model"]["id"] == str(Path("imported/clip").resolve())
    assert evaluated("--run", str(further))["metrics"]
