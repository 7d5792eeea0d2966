"""A folder of open_clip's through the commands, and its towers in training."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import grey, make_run, run_app, run_json, write_captions, write_clip, write_config
from open_clip_goldens import either, golden, golden_folder, pixels

from vtr.api.push import _model_files
from vtr.clip.backbone import load_backbone
from vtr.clip.engines import make_engine
from vtr.clip.preprocess import normalise
from vtr.errors import ConfigError
from vtr.features import FeatureStore
from vtr.train.headlist import has_clip_layers
from vtr.train.heads.base import TextBatch
from vtr.train.model import zero_shot_model
from vtr.train.onnx import export_text_side
from vtr.train.run import load_run
from vtr.train.text_tower import build_text_tower, load_text_layers, text_spec
from vtr.train.texts import embed_tokens
from vtr.train.towers import write_towers
from vtr.train.vision_tower import PictureBatch, TunedVision, load_vision_layers, vision_spec


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips, and a model in a folder with a blank and a letter that is not ASCII."""
    folder = tmp_path_factory.mktemp("workspace")
    model = folder / "PE Core \u00e9"
    shutil.copytree(golden_folder("pe_core_b"), model)
    for n in range(6):
        write_clip(folder / "videos" / f"c{n}.mp4", [grey(30 + 40 * n) for _ in range(4)])
    write_captions(
        folder / "captions.json",
        [(f"c{n}.mp4", f"a red thing w{50 + n}", "train" if n < 4 else "test") for n in range(6)],
    )
    write_config(
        folder,
        model={"id": str(model)},
        data={"dataset": "folder", "videos": "videos", "annotations": "captions.json"},
        extract={"frames": 2, "fps": 4, "sampler": "uniform"},
    )
    run_app("extract", "-q", "--workers", "1", cwd=folder)
    return folder


def test_extract_says_how_pictures_were_made(workspace: Path) -> None:
    store = FeatureStore(workspace / "features")
    spec = store.spec
    assert spec.backbone == "PE Core \u00e9"
    assert spec.preprocessing | {"route": ""} == {
        "route": "",
        "size": [40, 40],
        "resize": "squash",
        "resize_to": [40, 40],
        "resample": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    assert spec.vision["rope"] == {"reference": 5, "offset": 1, "columns_first": True}
    backbone = load_backbone(str(workspace / "PE Core \u00e9"), device="cpu")
    picture = np.full((1, 40, 40, 3), 30, np.uint8)
    frames = store["c0.mp4"].frames.astype(np.float32)
    apart = np.abs(frames - backbone.encode_frames(picture)).max()
    assert apart < 0.05 * np.abs(frames).max()  # the codec's rounding of the grey


def test_zero_shot_evaluation(workspace: Path) -> None:
    assert run_json("eval", "--zero-shot", cwd=workspace)["setup"]["backbone"] == "PE Core \u00e9"


def test_a_run_on_projected_text_is_trained_and_evaluated(workspace: Path) -> None:
    words = ("--text", "projection", "--epochs", "1", "--batch-size", "2")
    run_app("train", *words, cwd=workspace)
    assert run_json("eval", cwd=workspace)["setup"]["text"] == "projection"


def test_search_by_the_text_tower_alone_says_the_same(workspace: Path) -> None:
    words = ("search", workspace / "videos", "a red thing", "--nearest", "--json")
    first = run_app(*words, "--model", workspace / "PE Core \u00e9", "--workers", "1")
    again = run_app(*words)
    found = [json.loads(done.stdout)["nearest"] for done in (first, again)]
    assert len(found[0]) == 6
    assert found[0] == found[1]


def pictures(name: str) -> PictureBatch:
    rows = torch.from_numpy(golden(name)["image_u8"])
    return PictureBatch(rows, torch.ones(2, 2, dtype=torch.bool))


@pytest.mark.parametrize("name", ["pe_core_b", "siglip", "clipa", "coca"])
@pytest.mark.parametrize("frozen", [-1, 1])
def test_a_tower_in_training_is_the_one_of_the_folder(name: str, frozen: int) -> None:
    backbone = load_backbone(str(golden_folder(name)), device="cpu")
    vision = TunedVision(vision_spec(backbone, frozen=frozen))
    load_vision_layers(vision, backbone)
    batch, expected = pictures(name), golden(name)["image_features"]
    tower: Any = backbone.model.visual
    if frozen > 0:
        with torch.inference_mode():
            pixels = torch.from_numpy(golden(name)["image_u8"])
            values = normalise(pixels, backbone.preprocessing, dtype=torch.float32)
            lower = tower.run(tower.embed(values), stop=1)
        batch = PictureBatch(lower.clone(), batch.mask)
    frames = vision(batch).frames
    np.testing.assert_allclose(frames.detach().flatten(0, 1), expected, rtol=0, atol=1e-5)
    frames.square().sum().backward()
    assert all(p.grad is not None for p in vision.parameters() if p.requires_grad)
    assert vision.whole_state().keys() <= tower.state_dict().keys()


def test_other_blocks_are_not_trained() -> None:
    backbone = load_backbone(str(golden_folder("eva02_b")), device="cpu")
    with pytest.raises(ConfigError, match="of the family eva, whose blocks are others"):
        vision_spec(backbone)
    assert has_clip_layers(backbone.model)  # its text tower is CLIP's
    for name in ("siglip", "clipa", "coca"):
        other = load_backbone(str(golden_folder(name)), device="cpu")
        assert not has_clip_layers(other.model)
        with pytest.raises(ConfigError, match="--text tune knows CLIP's text tower"):
            text_spec(other, "tune", video_dim=other.embedding_dim)


@pytest.mark.parametrize("name", ["pe_core_b", "eva02_b"])
def test_last_text_layers_of_a_causal_tower_are_its_own(name: str) -> None:
    backbone = load_backbone(str(golden_folder(name)), device="cpu")
    tower: Any = build_text_tower(text_spec(backbone, "tune", video_dim=48, layers=1))
    load_text_layers(tower, backbone)
    texts = ["a red thing", "man"]
    ids = torch.from_numpy(backbone.tokeniser.pad(backbone.tokeniser.encode(texts).ids))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    text = backbone.model.text
    with torch.inference_mode():
        below = text.run(text.embed(ids), stop=1)
        pooled = tower(TextBatch(torch.empty(2, 0), below, mask)).pooled
    expected = backbone.encode_texts(texts).embeddings
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-5)
    rows, offsets = embed_tokens(backbone, texts)
    np.testing.assert_allclose(rows[offsets[1:] - 1], expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", either("pe_core_b", "siglip", "clipa", "coca", "clip_gelu"))
def test_towers_are_written_as_they_came(name: str, tmp_path: Path) -> None:
    backbone = load_backbone(str(golden_folder(name)), device="cpu")
    write_towers(tmp_path / "t", backbone, like=str(golden_folder(name)))
    again = load_backbone(str(tmp_path / "t"), device="cpu")
    assert again.weights_sha256 == backbone.weights_sha256
    crops = golden(name)["image_u8"]
    np.testing.assert_array_equal(again.encode_frames(crops), backbone.encode_frames(crops))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pe_core_b", "eva02_b", "coca"])
def test_graphs_of_both_towers_compute_the_same(name: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    backbone = load_backbone(str(golden_folder(name)), device="cpu")
    assert export_text_side(backbone, zero_shot_model(1.0), tmp_path / "text.onnx") < 5e-6
    run = make_engine("onnx", "float32", backbone.model.visual).run
    with torch.inference_mode():
        made = run(pixels(name))
    np.testing.assert_allclose(made, golden(name)["image_features"], rtol=0, atol=5e-6)


def test_a_run_takes_its_text_model_along(tmp_path: Path) -> None:
    known = {"text_model": {"id": str(golden_folder("pe_core_b"))}}
    run = load_run(make_run(tmp_path / "run", dim=48, config=known))
    wanted = {"open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"}
    assert {Path(name).name for name in _model_files(run)} == wanted
