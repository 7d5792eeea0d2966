"""Import, extract, evaluate, export, evaluate again: the whole way on generated videos."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import golden, patchwork, perturbed, put, run_json, tensors, write_clip
from huggingface_hub.repocard import ModelCard, metadata_load

from tests import test_import_command as imports
from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.folder import write_clip_folder
from vtr.demo import demo_model_folder
from vtr.errors import CheckpointError, ConfigError, ModelError
from vtr.features.importing import import_arrays
from vtr.train.data import ResidentTexts
from vtr.train.heads.base import TextBatch
from vtr.train.heads.meanP import MeanPooling
from vtr.train.model import ModelSpec, RetrievalModel, build_model
from vtr.train.run import load_run, write_run
from vtr.train.text_tower import FrozenText, TextSpec, text_spec
from vtr.train.texts import embed_for
from vtr.train.towers import merged

METRIC = {"value": 40.0, "low": 31.25, "high": 48.5, "n": 1000}


def write_videos(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        write_clip(folder / f"{name}.mp4", patchwork(3, seed=number), fps=1)


def tiny_run(folder: Path, **config: Any) -> Path:
    model = RetrievalModel(FrozenText(), MeanPooling(), 2.0)
    spec = ModelSpec("meanP", 8, TextSpec("frozen", 8, 8))
    write_run(folder, model, spec, config=config, train_ids=["b", "a"])
    return folder


def result(**setup: Any) -> dict[str, Any]:
    names = ("R@1", "R@5", "R@10", "MedR", "MeanR")
    return {
        "kind": "vtr-result",
        "protocol": {"name": "1k-A", "published": True, "num_queries": 1000, "num_videos": 1000},
        "coverage": {"present": 999, "videos": 1000, "policy": "miss"},
        "setup": {
            "trained_on_test": 0, "sampler": "uniform", "fingerprint": "f" * 64, "seed": 7,
            "rerank": None,
        } | setup,
        "metrics": {f"{way}/{name}": METRIC for way in ("t2v", "v2t") for name in names},
    }  # fmt: skip


def put_result(run: Path, document: Any, name: str = "1k-A") -> None:
    path = run / "eval" / name / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.mark.slow
def test_imported_checkpoints_extract_and_evaluate(here: Path) -> None:
    words = imports.tiny.write_tokeniser(here / "words", 300)
    torch.save(imports.published("seqTransf"), here / "m.bin")
    made = run_json(
        "import", "clip4clip", here / "m.bin", "--head", "seqTransf", "--clip", words,
        "--out", "imported",
    )  # fmt: skip
    write_videos(here / "videos", ["a", "b", "c"])
    captions = {"a.mp4": ["w1 w2"], "b.mp4": ["w3"], "c.mp4": ["w4 w5"]}
    put(here / "notes" / "captions.json", captions)
    common = (
        "--videos",
        here / "videos",
        "--annotations",
        here / "notes",
        "--features",
        here / "features",
    )
    run_json("extract", *common, "--model", made["clip"], "--workers", "1")
    first = run_json("eval", *common, "--run", made["run"], "--device", "cpu")
    assert first["setup"]["head"] == "seqTransf:layers=2"
    assert first["setup"]["trained_on_test"] is None
    out = here / "given"
    run_json("export", "--run", made["run"], "--out", out)
    card = (out / "README.md").read_text()
    assert "not known whether it was trained on these videos" in card
    assert "clip4clip, file m.bin" in card
    assert str(here) not in card
    again = run_json("eval", *common, "--run", out, "--device", "cpu")
    assert again["metrics"] == first["metrics"]


def test_the_card_gives_every_number_its_facts(tmp_path: Path) -> None:
    run = tiny_run(
        tmp_path / "good",
        features={"sampler": "uniform", "frames": 12, "fingerprint": "f" * 64},
        data={"dataset": "msrvtt", "train_split": "1kA-train"},
        settings={"seed": 3},
        selection="t2v R@1 on validation",
    )
    put_result(run, result())
    facts = run_json("export", "--run", run, "--out", tmp_path / "out")
    assert facts["files"] == [
        "README.md", "best.safetensors", "config.json", "export.json", "train_ids.txt",
    ]  # fmt: skip
    options = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (options["run"], options["onnx"]) == (str(run), False)
    card = (tmp_path / "out" / "README.md").read_text()
    for expected in (
        "# good\n",
        "| head | `meanP` |",
        f"| fingerprint of the features | {'f' * 64} |",
        "| sampler | uniform (12 frames) |",
        "| training split | 1kA-train |",
        "| videos trained on | 2 (train_ids.txt) |",
        "| best epoch | 0, chosen by: t2v R@1 on validation |",
        "| seed | 3 |",
        "### 1k-A\n",
        "1,000 queries, 1,000 videos; coverage 999 of 1,000 (miss)",
        "| t2v | 1,000 | 40.0 [31.2, 48.5] | ",
    ):
        assert expected in card, expected
    assert "trained on" not in card.partition("## Results")[2]
    back = load_run(tmp_path / "out")
    assert back.train_ids == frozenset({"a", "b"})
    assert float(back.model.logit_scale.detach()) == 2.0


def front_matter(folder: Path) -> Any:
    """The card's YAML, as the hub reads and checks it."""
    return metadata_load(folder / "README.md")


def test_the_card_begins_as_the_hub_wants_it(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", text_model={"id": "openai/clip-vit-base-patch32"})
    run_json("export", "--run", run, "--out", tmp_path / "bare")
    bare = front_matter(tmp_path / "bare")
    assert bare["base_model"] == "openai/clip-vit-base-patch32"
    assert bare["library_name"] == "vtr"
    assert bare["license"] == "unknown"
    assert "meanP" in bare["tags"]
    assert "model-index" not in bare
    put_result(run, result())
    run_json("export", "--run", run, "--out", tmp_path / "out")
    found = front_matter(tmp_path / "out")
    (index,) = found["model-index"]
    (measured,) = index["results"]
    assert index["name"] == "run"
    assert measured["dataset"]["name"] == "1k-A"
    assert {"type": "recall", "value": 40.0, "name": "t2v R@1"} in measured["metrics"]
    assert [metric["name"] for metric in measured["metrics"]].count("v2t R@10") == 1


def test_results_of_one_protocol_are_told_apart_on_the_card(tmp_path: Path) -> None:
    """The hub joins what has one dataset, and showed several values of one name."""
    run = tiny_run(tmp_path / "run")
    put_result(run, result())
    put_result(run, result(rerank=50, sampler="motion"), "again")
    run_json("export", "--run", run, "--out", tmp_path / "out")
    (entry,) = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()["model-index"]
    names = [metric["name"] for found in entry["results"] for metric in found["metrics"]]
    assert len(names) == len(set(names)) == 12
    assert "t2v R@1, sampler motion, re-ranked 50" in names
    assert "t2v R@1, sampler uniform, re-ranked nothing" in names


def test_the_python_on_the_card_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = load_backbone(str(demo_model_folder()), device="cpu")
    dim = backbone.embedding_dim
    (tmp_path / "arrays").mkdir()
    wanted = backbone.encode_texts(["a man is cooking"]).embeddings[0]
    for name, frames in (("right", [wanted, wanted]), ("wrong", [-wanted])):
        np.save(tmp_path / "arrays" / f"{name}.npy", np.array(frames, np.float32))
    run = tmp_path / "run"
    spec = ModelSpec("meanP", dim, TextSpec("frozen", dim, dim))
    config = {"text_model": {"id": str(demo_model_folder().resolve())}}
    model = RetrievalModel(FrozenText(), MeanPooling(), 2.0)
    write_run(run, model, spec, config=config, train_ids=None)
    run_json("export", "--run", run, "--out", tmp_path / "out")
    import_arrays(tmp_path / "arrays", tmp_path / "out" / "features")
    (tmp_path / "out" / demo_model_folder().name).symlink_to(demo_model_folder().resolve())
    monkeypatch.chdir(tmp_path / "out")
    capsys.readouterr()
    exec(Path("README.md").read_text().partition("```python")[2].partition("```")[0], {})
    assert capsys.readouterr().out == "right\n"


def test_the_card_warns(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    put_result(run, result(trained_on_test=12) | {"protocol": result()["protocol"] | {
        "published": False
    }})  # fmt: skip
    run_json("export", "--run", run, "--out", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**trained on 12 of these videos**" in card
    assert "NOT the published lists" in card
    assert "| seed | unknown |" in card


def test_a_damaged_list_of_training_videos_is_named(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    (run / "train_ids.txt").write_bytes(b"video1\n\xff\xfe\n")
    with pytest.raises(ModelError, match=r"train_ids\.txt is damaged \(.*cannot refuse to test on"):
        load_run(run)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    run_json("export", "--run", run, "--out", tmp_path / "out")
    assert "was never evaluated" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"--out .*out is in use"):
        run_json("export", "--run", run, "--out", tmp_path / "out")
    with pytest.raises(ConfigError, match="there is no such folder"):
        run_json("export", "--run", tmp_path / "absent", "--out", tmp_path / "new")
    put_result(run, "{")
    with pytest.raises(ConfigError, match=r"result\.json is not whole JSON"):
        run_json("export", "--run", run, "--out", tmp_path / "new")
    put_result(run, {"kind": "other"})
    with pytest.raises(ConfigError, match=r"is no result of vtr eval"):
        run_json("export", "--run", run, "--out", tmp_path / "new")
    (run / "best.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"best\.safetensors cannot be read"):
        run_json("export", "--run", run, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_onnx_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path / "run")
    monkeypatch.setattr("vtr.train.onnx._PACKAGES", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"needs no_such_package: pip install 'vtr\[onnx\]'"):
        run_json("export", "--run", run, "--out", tmp_path / "out", "--onnx")
    assert not (tmp_path / "out").exists()


def tuned_run(tmp_path: Path, *, layers: int) -> tuple[Path, RetrievalModel, ModelSpec]:
    """A run whose trained text layers differ from the backbone's in every number."""
    words = imports.tiny.write_tokeniser(tmp_path / "words", 300)
    state, clip = tensors(golden("clip_tiny"), "clip/"), tmp_path / "clip"
    write_clip_folder(clip, state, tokeniser=words)
    backbone = load_backbone(str(clip), device="cpu")
    spec = ModelSpec("meanP", 128, text_spec(backbone, "tune", video_dim=128, layers=layers))
    model = build_model(spec, backbone=backbone)
    perturbed(model.text_tower, 0.02)
    write_run(tmp_path / "run", model, spec, config={"text_model": {"id": str(clip)}})
    return clip, model, spec


@pytest.mark.parametrize("layers", [1, 0])
def test_tuned_layers_come_into_their_places(tmp_path: Path, layers: int) -> None:
    """The merged model against the run's own tower, which starts from kept activations."""
    clip, model, spec = tuned_run(tmp_path, layers=layers)
    backbone = load_backbone(str(clip), device="cpu")
    texts = ["w1", "w5 w7 w9 w200 w3 w4 w4 w4", "w20 w21"]
    activations = ResidentTexts(embed_for(spec, backbone, texts), torch.device("cpu"))
    ids = torch.from_numpy(backbone.tokeniser.pad(backbone.tokeniser.encode(texts).ids))
    whole = merged(model, backbone).model.text
    with torch.inference_mode():
        expected = model.text_tower(activations.batch(np.arange(3))).pooled
        found, before = whole(ids), backbone.model.text(ids)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert float((found - before).abs().max()) > 0.01, "and the backbone is left as it was"


def exported_text(tmp_path: Path, backbone: Backbone, texts: list[str]) -> Any:
    """What the exported graph makes of texts."""
    facts = run_json("export", "--run", tmp_path / "run", "--out", tmp_path / "out", "--onnx")
    assert "text.onnx" in facts["files"]
    ids = backbone.tokeniser.pad(backbone.tokeniser.encode(texts).ids)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(tmp_path / "out" / "text.onnx"))
    return session.run(None, {"input_ids": ids})[0]


@pytest.mark.slow
def test_the_onnx_graph_of_tuned_text(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    clip, model, spec = tuned_run(tmp_path, layers=1)
    backbone = load_backbone(str(clip), device="cpu")
    texts = ["w5 w7 w9 w200", "w20 w21 w1"]
    activations = ResidentTexts(embed_for(spec, backbone, texts), torch.device("cpu"))
    found = exported_text(tmp_path, backbone, texts)
    with torch.inference_mode():
        expected = model.text_tower(activations.batch(np.arange(2))).pooled.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_failed_export_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path / "run", text_model={"id": str(tmp_path / "nowhere")})
    monkeypatch.setattr("vtr.train.onnx._PACKAGES", ())
    with pytest.raises(ModelError, match="nowhere"):
        run_json("export", "--run", run, "--out", tmp_path / "out", "--onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["frozen", "projection"])
def test_the_onnx_graph_computes_what_torch_computes(tmp_path: Path, mode: Any) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    words = imports.tiny.write_tokeniser(tmp_path / "words", 300)
    state, clip = tensors(golden("clip_tiny"), "clip/"), tmp_path / "clip"
    write_clip_folder(clip, state, tokeniser=words)
    dim = 64 if mode == "projection" else 128
    spec = ModelSpec("meanP", dim, TextSpec(mode, 128, dim))
    model = build_model(spec)
    config = {"text_model": {"id": str(clip)}}
    write_run(tmp_path / "run", model, spec, config=config)
    backbone = load_backbone(str(clip), device="cpu")
    texts = ["w1", "w5 w7 w9 w200 w3 w4 w4 w4", "", "w20 w21"]
    found = exported_text(tmp_path, backbone, texts)
    embedded = torch.from_numpy(backbone.encode_texts(texts).embeddings)
    with torch.inference_mode():
        expected = model.text_tower(TextBatch(embedded)).pooled.numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)
