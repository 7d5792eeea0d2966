"""`vtr import`: published layouts in, folders that extraction and evaluation take out.

Numbers: outputs of CLIP4Clip@508ffa3 and CLIP2Video@e941318 in float32 (tests/golden).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import golden, run_app, tensors, with_zeros, without
from torch import Tensor, nn

from tests import test_import_clip_folder as tiny
from vtr.clip.backbone import load_backbone
from vtr.clip.checkpoint_files import read_tensors
from vtr.errors import CheckpointError, ConfigError, HubOfflineError
from vtr.train.heads.base import Head, TextBatch, VideoBatch
from vtr.train.importing import bare_names, complete_head, load_head, split_state
from vtr.train.run import load_run

HEADS = ["meanP", "maxP", "seqLSTM", "seqTransf", "tightTransf"]
CLIP2VIDEO = ["meanP", "seqTransf", "tab_action", "tab_plain", "tdb_mlp", "tdb_selfA", "tdb_sub"]
State = dict[str, Tensor]


def vtr(*words: str | Path) -> dict[str, Any]:
    """Runs `vtr import ... --json`; errors come out as they are."""
    done = run_app("import", *words, "--json")
    return json.loads(done.stdout) | {"stderr": done.stderr}


def imported(folder: Path, state: Any, *more: str | Path, head: str = "meanP") -> dict[str, Any]:
    """Imports a state dict of CLIP4Clip, or of CLIP2Video by its head, from `m.bin` to `out`."""
    torch.save(state, folder / "m.bin")
    system = "clip2video" if head.startswith("clip2video") else "clip4clip"
    return vtr(system, folder / "m.bin", "--head", head, "--out", folder / "out", *more)


def published(head: str) -> State:
    """What CLIP4Clip saves: the fine-tuned CLIP in half precision, the head in float32."""
    clip = tensors(golden("clip_tiny"), "clip/")
    clip["logit_scale"] = torch.from_numpy(golden(f"clip4clip_{head}")["logit_scale"])
    return {f"clip.{name}": tensor for name, tensor in clip.items()} | tensors(
        golden(f"clip4clip_{head}")
    )


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tokeniser(tmp_path_factory.mktemp("words"), 300)


# --- CLIP4Clip


@pytest.mark.parametrize("name", HEADS)
def test_clip4clip_logits_equal_the_reference(name: str) -> None:
    arrays = golden(f"clip4clip_{name}")
    clip, state, _ = split_state(published(name), what="file")
    choice = complete_head(name, state)
    head, notes = load_head(choice, 128, state)
    scale = clip["logit_scale"].exp() if head.info.scaled else torch.tensor(1.0)
    texts = TextBatch(torch.from_numpy(arrays["text"]))
    with torch.inference_mode():
        for case in ("", "_short"):
            mask = torch.from_numpy(arrays[f"video_mask{case}"]).bool()
            scores = head.similarity(texts, VideoBatch(torch.from_numpy(arrays["video"]), mask))
            np.testing.assert_allclose(
                (scores * scale).numpy(), arrays[f"sim_eval{case}"], atol=1e-5
            )
    layers = {"seqTransf": "seqTransf:layers=2", "tightTransf": "tightTransf:layers=2"}
    assert choice.label == layers.get(name, name)
    unused = "dropped frame_position_embeddings.weight, which the reference never reads"
    assert notes == ((unused,) if name == "seqLSTM" else ())


def test_pixels_and_words_to_logits(tmp_path: Path, words: Path) -> None:
    """The whole way on the imported folders: the reference's features, and the head on them."""
    arrays, state = golden("clip_tiny"), published("seqTransf")
    facts = imported(tmp_path, state, "--clip", words, head="seqTransf")
    run = load_run(facts["run"])
    assert run.train_ids is None
    assert run.epoch == 0
    assert run.config["imported"]["system"] == "clip4clip"
    assert facts["head"] == run.spec.head == "seqTransf:layers=2"
    assert "which videos it was trained on is unknown" in facts["stderr"]
    backbone = load_backbone(run.text_model, device="cpu")
    assert run.text_model == str((tmp_path / "out" / "clip").resolve())
    assert run.config["features"]["weights_sha256"] == backbone.weights_sha256
    texts = backbone.encode_texts(tiny.spell(arrays["ids"])).embeddings
    frames = tiny.image_features(backbone, arrays["frames"], [0, 4, 8]).reshape(2, 4, -1)
    np.testing.assert_allclose(texts, arrays["text_features"], atol=1e-5)
    np.testing.assert_allclose(frames.reshape(8, -1), arrays["frame_features_2d"], atol=1e-5)
    clip, head_state, _ = split_state(state, what="file")
    alone, _ = load_head(complete_head("seqTransf", head_state), 128, head_state)
    mask = torch.ones(2, 4, dtype=torch.bool)
    theirs = torch.from_numpy(arrays["frame_features_2d"]).reshape(2, 4, -1)
    given = TextBatch(torch.from_numpy(arrays["text_features"])), VideoBatch(theirs, mask)
    videos = VideoBatch(torch.from_numpy(frames), mask)
    with torch.inference_mode():
        expected = alone.similarity(*given) * clip["logit_scale"].exp()
        scores = run.model.head.similarity(TextBatch(torch.from_numpy(texts)), videos)
        np.testing.assert_allclose(scores * run.model.scale(), expected, atol=2e-5)


def test_temporal_checkpoints_come_out_temporal(tmp_path: Path, words: Path) -> None:
    arrays = golden("clip_tiny")
    state = published("meanP") | {
        f"clip.{name}": tensor for name, tensor in tiny.temporal_state(arrays).items()
    }
    facts = imported(tmp_path, state, "--clip", words)
    assert facts["linear_patch"] == "3d"
    backbone = load_backbone(facts["clip"], device="cpu")
    features = tiny.image_features(backbone, arrays["frames"], [0, 4, 8])
    np.testing.assert_allclose(features, arrays["frame_features_3d_perturbed"], atol=1e-5)
    assert load_run(facts["run"]).config["features"]["linear_patch"] == "3d"


# --- CLIP2Video


def random_clip(dim: int) -> State:
    """A CLIP under OpenAI's names whose space has the size of the head's goldens."""
    rng = np.random.default_rng(5)
    state = {
        name: torch.from_numpy(rng.normal(0, 0.1, array.shape).astype(np.float16))
        for name, array in tensors(golden("clip_tiny"), "clip/").items()
    }
    state["visual.proj"], state["text_projection"] = torch.rand(64, dim), torch.rand(128, dim)
    return {f"clip.{name}": tensor for name, tensor in state.items()}


def clip2video_scores(
    head: Head, arrays: dict[str, np.ndarray], case: str
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities without the scale on a golden's inputs, and the reference's with it."""
    given = {k.split("/")[-1]: v for k, v in arrays.items() if k.startswith(f"{case}/in/")}
    mask = torch.from_numpy(given["video_mask"]).bool()
    frames = torch.from_numpy(given["frames"])
    padding = frames[~mask]
    videos = VideoBatch(frames, mask, padding[0] if len(padding) else torch.zeros(64))
    texts = TextBatch(torch.from_numpy(given["text"]))
    if "text_tokens" in given:
        token_mask = torch.from_numpy(given["attention_mask"]).bool()
        texts = TextBatch(texts.pooled, torch.from_numpy(given["text_tokens"]), token_mask)
    name = f"{case}/fixed/sim" if f"{case}/fixed/sim" in arrays else f"{case}/ref/sim"
    with torch.inference_mode():
        return head.similarity(texts, videos).numpy(), arrays[name]


@pytest.mark.parametrize("config", CLIP2VIDEO)
def test_clip2video_logits_equal_the_reference(config: str) -> None:
    arrays = golden(f"clip2video_{config}")
    options = json.loads(str(arrays["config_json"]))
    clip, state, _ = split_state(tensors(arrays), what="file")
    text = f"clip2video:pad_to=12:heads=4:weight={options['center_weight']}"
    head, _ = load_head(complete_head(text, state), 64, state)
    for case in ("full", "ragged"):
        scores, expected = clip2video_scores(head, arrays, case)
        scaled = scores * clip["logit_scale"].exp().numpy()
        np.testing.assert_allclose(scaled, expected, atol=2e-5)


def test_clip2video_files_make_runs(tmp_path: Path, words: Path) -> None:
    arrays = golden("clip2video_tdb_selfA")
    state = random_clip(64) | tensors(arrays)
    facts = imported(tmp_path, state, "--clip", words, head="clip2video:pad_to=12:heads=4")
    run = load_run(facts["run"])
    assert run.spec.head == "clip2video:alignment=off:heads=4:layers=2:pad_to=12"
    assert load_backbone(run.text_model, device="cpu").embedding_dim == run.spec.dim == 64
    scores, expected = clip2video_scores(run.model.head, arrays, "ragged")
    np.testing.assert_allclose(scores * run.model.scale().item(), expected, atol=2e-5)


@pytest.mark.real
def test_clip2video_towers_equal_the_reference(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "golden" / "clip2video_clip_towers.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in VTR_REAL_DATA/golden")
    with np.load(path) as file:
        arrays = dict(file)
    words = tiny.write_tokeniser(tmp_path / "words", 120)
    head = tensors(golden("clip2video_meanP")) | {
        f"trans_layernorm.{kind}": torch.ones(48) for kind in ("weight", "bias")
    }
    clip = {f"clip.{name}": tensor for name, tensor in tensors(arrays).items()}
    heads = (
        "--text-heads",
        str(arrays["heads_text"]),
        "--vision-heads",
        str(arrays["heads_vision"]),
    )
    facts = imported(tmp_path, head | clip, "--clip", words, *heads, head="clip2video")
    backbone = load_backbone(facts["clip"], device="cpu")
    images = tiny.image_features(backbone, arrays["in/image"], [0, 3])
    np.testing.assert_allclose(images, arrays["out/image"], atol=1e-5)
    np.testing.assert_allclose(backbone.pad_embedding(), arrays["out/image_of_zeros"][0], atol=1e-5)
    text, ids = backbone.model.text, torch.from_numpy(arrays["in/ids"])
    with torch.inference_mode():
        tokens = text.project(text.run(text.embed(ids))).numpy()
        pooled = text(ids).numpy()
    np.testing.assert_allclose(tokens, arrays["out/text_hidden"], atol=1e-5)
    np.testing.assert_allclose(pooled, arrays["out/text"], atol=1e-5)


# --- OpenAI


class Holder(nn.Module):
    """Modules nested by the names of a state dict, so that TorchScript saves that layout."""

    def __init__(self, state: State) -> None:
        super().__init__()
        children: dict[str, State] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, {})[rest] = tensor
            else:
                self.register_parameter(first, nn.Parameter(tensor))
        for name, child in children.items():
            self.add_module(name, Holder(child))


class Archived(Holder):
    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.register_buffer("context_length", torch.tensor(77))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("kind", ["archive", "state dict"])
def test_openai_files(tmp_path: Path, words: Path, kind: str) -> None:
    arrays = golden("clip_tiny")
    state = tensors(arrays, "clip/")
    path = tmp_path / "ViT-B-32.pt"
    jit: Any = torch.jit
    if kind == "archive":
        jit.trace(Archived(state), torch.zeros(1), check_trace=False).save(str(path))
    else:
        torch.save(state, path)
    facts = vtr("openai", path, "--clip", words, "--out", tmp_path / "clip")
    assert facts["image_size"] == 32
    backbone = load_backbone(facts["clip"], device="cpu")
    features = tiny.image_features(backbone, arrays["frames"], [0, 8])
    np.testing.assert_allclose(features, arrays["frame_features_2d"], atol=1e-5)


# --- refusals


@pytest.mark.parametrize(
    ("head", "edit", "message"),
    [
        ("meanP", dict, r"parameters of meanP; .* of seqTransf:layers=2\. Write --head seqTransf$"),
        ("seqLSTM", dict, r"of seqLSTM; .* of seqTransf:layers=2\. Write --head seqTransf$"),
        (
            "seqTransf",
            without("transformerClip.resblocks.1.ln_1.bias"),
            r"'seqTransf:layers=2' at D = 128\. missing: \S+resblocks\.1\.ln_1\.bias$",
        ),
        (
            "seqTransf:layers=3",
            without("transformerClip.resblocks.1.ln_1.bias"),
            r"missing: transformerClip\.resblocks\.1\.ln_1\.bias, .*resblocks\.2\.attn\.in_proj_w",
        ),
        (
            "seqTransf",
            with_zeros("transformerClip.resblocks.0.mlp.c_fc.bias", 3),
            r"c_fc\.bias \(file \(3,\), needed \(512,\)\)",
        ),
        ("seqTransf", with_zeros("other", 1), r"unexpected: other$"),
        (
            "seqTransf",
            without("clip.ln_final.bias"),
            r"OpenAI's names\)\. missing: ln_final\.bias$",
        ),
        ("seqTransf", with_zeros("clip.head", 1), r"unexpected: head$"),
        ("seqTransf", dict.clear, r"has no parameters named clip\.\*, only none"),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_written(
    tmp_path: Path, words: Path, head: str, edit: Callable[[State], None], message: str
) -> None:
    state = published("seqTransf")
    edit(state)
    with pytest.raises(CheckpointError, match=message):
        imported(tmp_path, state, "--clip", words, head=head)
    assert not (tmp_path / "out").exists()


def test_settings_that_cannot_be(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = published("meanP")
    with pytest.raises(ConfigError, match="clip4clip has no head 'xpool'; its heads are meanP"):
        imported(tmp_path, state, "--clip", words, head="xpool")
    with pytest.raises(ConfigError, match="say nothing without --train-split"):
        imported(tmp_path, state, "--clip", words, "--dataset", "msrvtt")
    with pytest.raises(ConfigError, match=r"--out .* is in use"):
        imported(tmp_path, state, "--clip", words, "--out", tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = "nobody/nothing is not in the local cache .* --clip DIR names a folder"
    with pytest.raises(HubOfflineError, match=told):
        imported(tmp_path, state, "--clip", "nobody/nothing")


def test_the_ids_of_a_split_are_kept(tmp_path: Path, words: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "videos").mkdir()
    for name, letters in (("train", "abc"), ("val_1", "de")):
        document = {
            f"v_{letter}": {"duration": 9.0, "timestamps": [[0, 9]], "sentences": ["a man"]}
            for letter in letters
        }
        (tmp_path / "notes" / f"{name}.json").write_text(json.dumps(document))
    state = published("meanP")
    notes = ("--clip", words, "--dataset", "activitynet", "--annotations", tmp_path / "notes")
    facts = imported(tmp_path, state, *notes, "--train-split", "train")
    run = load_run(facts["run"])
    assert len(run.train_ids) == 3
    assert "is unknown" not in facts["stderr"]
    with pytest.raises(ConfigError, match="no split of dataset 'activitynet' named 'trian'"):
        imported(tmp_path, state, *notes, "--out", tmp_path / "b", "--train-split", "trian")


def test_annotations_alone_say_what_a_checkpoint_was_trained_on(here: Path, words: Path) -> None:
    """Outside of any workspace, with no folder of videos anywhere."""
    rows = ["video,caption,split", "a.mp4,a man,train", "b/c.mp4,a dog,train", "d.mp4,a cat,test"]
    (here / "captions.csv").write_text("\n".join(rows) + "\n")
    torch.save(published("meanP"), here / "m.bin")
    arguments: list[str | Path] = ["clip4clip", "m.bin", "--head", "meanP", "--clip", words]
    split = ("--train-split", "train")
    facts = vtr(*arguments, "--out", "out", *split, "--annotations", "captions.csv")
    assert load_run(facts["run"]).train_ids == {"a.mp4", "b/c.mp4"}
    assert "no folder of videos is known here" in facts["stderr"]
    with pytest.raises(ConfigError, match=r"--train-split is 'train', but no annotations say"):
        vtr(*arguments, "--out", "other", *split)
    assert {path.name for path in here.iterdir()} == {"captions.csv", "m.bin", "out"}


def test_what_can_be_refused_is_refused_before_anything_is_sought_on_the_hub(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "m.bin").touch()
    monkeypatch.setattr("vtr.clip.folder.find_tokeniser", lambda _: pytest.fail("sought first"))
    with pytest.raises(ConfigError, match="no head named 'nope'"):
        vtr("clip4clip", "m.bin", "--head", "nope", "--out", "o")
    with pytest.raises(ConfigError, match="clip2video has no head 'meanP'; its heads are"):
        vtr("clip2video", "m.bin", "--head", "meanP", "--out", "o")
    for system in (("clip4clip", "--head", "meanP"), ("clip2video",), ("openai",)):
        with pytest.raises(CheckpointError, match=r"no checkpoint file n\.bin"):
            vtr(system[0], "n.bin", *system[1:], "--out", "o")
    with pytest.raises(ConfigError, match="say nothing without --train-split"):
        vtr("clip4clip", "m.bin", "--head", "meanP", "--out", "o", "--dataset", "msvd")
    Path("n.bin").write_bytes(b"<!doctype html>")
    for system in (("clip4clip", "--head", "meanP"), ("clip2video",), ("openai",)):
        with pytest.raises(CheckpointError, match=r"it is no checkpoint \(it begins with b'<!doc"):
            vtr(system[0], "n.bin", *system[1:], "--out", "o")
    torch.save(published("seqTransf"), "m.bin")
    with pytest.raises(
        CheckpointError, match=r"those of seqTransf:layers=2\. Write vtr import clip4"
    ):
        vtr("clip2video", "m.bin", "--out", "o")
    with pytest.raises(CheckpointError, match=r"more than a CLIP: .* `vtr import clip4clip`"):
        vtr("openai", "m.bin", "--out", "o")
    torch.save({"vision_model.x": torch.zeros(1)}, "m.bin")
    with pytest.raises(CheckpointError, match="has the names of transformers and needs no import"):
        vtr("openai", "m.bin", "--out", "o")


@pytest.mark.parametrize(
    "keys", [["state_dict"], ["model_state_dict"], ["net"], ["model", "module"]]
)
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.module.", "module._orig_mod.", "model.", "model.module."]
)
def test_what_training_loops_put_around_the_weights_goes(
    tmp_path: Path, prefix: str, keys: list[str]
) -> None:
    state = published("seqTransf")
    saved: Any = {prefix + name: tensor for name, tensor in state.items()}
    for key in keys:
        saved = {"epoch": 3, key: saved, "optimizer": {"state": {}}, "loss": torch.zeros(())}
    torch.save(saved, tmp_path / "m.bin")
    read = read_tensors(tmp_path / "m.bin")
    clip, head, notes = split_state(read, what="file")
    assert {f"clip.{name}" for name in clip} | set(head) == set(state)
    assert (notes == ()) == (prefix == "")
    openai = {prefix + name: tensor for name, tensor in clip.items()}
    assert bare_names(openai, "visual.", what="file")[0].keys() == clip.keys()


def test_a_wrapped_checkpoint_is_imported_like_the_plain_one(tmp_path: Path, words: Path) -> None:
    state = published("seqTransf")
    inner = {  # torch.compile around the CLIP alone, DataParallel around all
        "module." + name.replace("clip.", "clip._orig_mod.", 1): t for name, t in state.items()
    }
    torch.save({"state_dict": inner}, tmp_path / "wrapped.bin")
    torch.save(state, tmp_path / "plain.bin")
    made = [
        vtr("clip4clip", tmp_path / f"{name}.bin", "--head", "seqTransf", "--clip", words, "--out",
            tmp_path / name)
        for name in ("wrapped", "plain")
    ]  # fmt: skip
    digests = {Path(facts["clip"], "model.safetensors").read_bytes() for facts in made}
    assert len(digests) == 1
    assert made[0]["notes"] == ["read without module. and _orig_mod. in the names"]
    with pytest.raises(CheckpointError, match="the same names but for what wraps them"):
        split_state(inner | state, what="file")


def test_the_closing_lines_name_a_store_of_their_own(tmp_path: Path, words: Path) -> None:
    torch.save(published("meanP"), tmp_path / "m.bin")
    torch.save(tensors(golden("clip_tiny"), "clip/"), tmp_path / "o.bin")
    out, clip = tmp_path / "made here", tmp_path / "clip"
    flags = ("--clip", str(words), "--out")
    result = run_app("import", "clip4clip", tmp_path / "m.bin", "--head", "meanP", *flags, out)
    extract, evaluate = result.stdout.splitlines()[-2:]
    assert extract == f"use them: vtr extract --model '{out}/clip' --features '{out}/features'"
    assert evaluate.strip() == f"vtr eval --run '{out}/run' --features '{out}/features'"
    result = run_app("import", "openai", tmp_path / "o.bin", *flags, clip)
    assert f"vtr extract --model {clip} --features {clip}-features" in result.stdout


def test_old_names_become_new_ones() -> None:
    state = {
        "clip.logit_scale": torch.zeros(()),
        "ln.gamma": torch.ones(1),
        "ln.beta": torch.ones(1),
    }
    _, head, notes = split_state(state, what="file")
    assert sorted(head) == ["ln.bias", "ln.weight"]
    assert notes == ("renamed ln.gamma to ln.weight", "renamed ln.beta to ln.bias")
    with pytest.raises(CheckpointError, match=r"two parameters would be called ln\.weight"):
        split_state(state | {"ln.weight": torch.ones(1)}, what="file")


def test_what_the_user_says_of_a_head_stays() -> None:
    state = {
        "weight_center": torch.zeros(7, 8),
        "type_position_embeddings.weight": torch.ones(2, 8),
    }
    assert complete_head("clip2video:sim=meanP", state).label == (
        "clip2video:alignment=plain:centres=7:projection=none:sim=meanP:temporal=off"
    )
    label = complete_head("clip2video:preset=vatex:alignment=tab", state).label
    assert "pad_to=12" in label
    assert "alignment=tab:" in label


@pytest.mark.parametrize("name", ["clip.visual.proj", "frame_position_embeddings.weight"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights * torch.nan, "NaN or infinite: "),
        (lambda weights: weights.to(torch.int64), r"no floating-point numbers: .*torch.int64"),
    ],
)
def test_unsound_weights_are_not_imported(
    tmp_path: Path, words: Path, name: str, change: Callable[[Tensor], Tensor], message: str
) -> None:
    state = published("seqTransf")
    state[name] = change(state[name])
    with pytest.raises(CheckpointError, match=message):
        imported(tmp_path, state, "--clip", words, head="seqTransf")
    assert [path.name for path in tmp_path.iterdir()] == ["m.bin"]
