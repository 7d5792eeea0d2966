"""The backbone on tiny models with random weights: numbers, and every way a folder can be wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import (
    edit_json,
    edit_weights,
    save_quietly,
    with_zeros,
    without,
    write_processor,
    write_words,
)
from safetensors.torch import load_file, save
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel
from transformers.utils import logging as transformers_logging

from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.batches import run_in_batches
from vtr.clip.known_digest import KnownDigest
from vtr.clip.preprocess import normalise, preprocessing_from_config
from vtr.errors import (
    CheckpointError,
    ConfigError,
    ModelError,
    ModelNotFoundError,
    UnknownNameError,
)

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TEXTS = ["a man", "", "a man runs", "a man runs and a man runs and a man runs", "a"]
Edit = Callable[[Path], None]


def make_clip(folder: Path, **text: Any) -> CLIPModel:
    letters = [chr(code) for code in range(97, 123)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "an</w>", "man</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: k for k, token in enumerate(tokens)}
    config = CLIPConfig(
        text_config=SMALL
        | {
            "vocab_size": len(tokens),
            "max_position_embeddings": 12,
            "bos_token_id": len(tokens) - 2,
            "eos_token_id": len(tokens) - 1,
            "pad_token_id": len(tokens) - 1,
        }
        | text,
        vision_config=SMALL | {"image_size": 24, "patch_size": 8},
        projection_dim=20,
    )
    torch.manual_seed(3)
    model = CLIPModel(config).eval()
    save_quietly(model, folder)
    merges = [("a", "n</w>"), ("m", "an</w>")]
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    write_processor(folder, 24, do_center_crop=True, crop_size=24)
    return model


def make_siglip(folder: Path, tokeniser_class: str) -> SiglipModel:
    gemma = "Gemma" in tokeniser_class
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] if gemma else ["<unk>", "</s>"]
    words = [*special, "a", "man", "runs", "and"]
    config = SiglipConfig(
        text_config=SMALL | {"vocab_size": len(words), "max_position_embeddings": 9},
        vision_config=SMALL | {"image_size": 16, "patch_size": 8},
    )
    torch.manual_seed(4)
    model = SiglipModel(config).eval()
    save_quietly(model, folder)
    write_words(folder, words, kind=tokeniser_class)
    write_processor(folder, {"height": 16, "width": 16}, resample=2)
    return model


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    make_clip(folder)
    return folder


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> Backbone:
    return load_backbone(str(clip_folder), device="cpu")


@pytest.fixture
def copy(clip_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(clip_folder, folder)
    return folder


def crops_for(backbone: Backbone, count: int, seed: int = 0) -> np.ndarray:
    shape = (count, *backbone.preprocessing.size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- numbers


def test_frames_equal_the_plain_model(clip: Backbone, clip_folder: Path) -> None:
    crops = crops_for(clip, 5)
    pixels = normalise(torch.from_numpy(crops), clip.preprocessing, dtype=torch.float32)
    with torch.no_grad():
        model = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
        hidden = model.vision_model(pixel_values=pixels).pooler_output
        expected = model.visual_projection(hidden).numpy()
    actual = clip.encode_frames(crops)
    assert actual.dtype == np.float32
    assert actual.shape == (5, clip.embedding_dim) == (5, 20)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert np.linalg.norm(actual, axis=1).std() > 1e-3  # not normalised


@pytest.mark.parametrize("split", [1, 7, 16, 33])
def test_the_split_into_calls_does_not_matter(clip: Backbone, split: int) -> None:
    crops = crops_for(clip, 40)
    parts = [clip.encode_frames(crops[k : k + split]) for k in range(0, 40, split)]
    np.testing.assert_allclose(np.concatenate(parts), clip.encode_frames(crops), atol=2e-6)


def test_no_frames_and_no_texts_give_empty_arrays(clip: Backbone) -> None:
    assert clip.encode_frames(crops_for(clip, 0)).shape == (0, 20)
    texts = clip.encode_texts([])
    assert texts.embeddings.shape == (0, 20)
    assert texts.num_tokens.shape == (0,)


def test_read_only_frames_are_taken(clip: Backbone) -> None:
    crops = crops_for(clip, 2)
    expected = clip.encode_frames(crops)
    crops.flags.writeable = False
    np.testing.assert_array_equal(clip.encode_frames(crops), expected)


def test_wrong_frames_are_refused(clip: Backbone) -> None:
    for crops in (np.zeros((1, 24, 24, 3)), np.zeros((1, 24, 25, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"need uint8 crops \(B, \(24, 24, 3\)\)"):
            clip.encode_frames(crops)


def test_pad_embedding_is_a_normalised_zero(clip: Backbone, clip_folder: Path) -> None:
    model = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
    with torch.no_grad():
        output = model.get_image_features(pixel_values=torch.zeros(1, 3, 24, 24))
    np.testing.assert_allclose(clip.pad_embedding(), output.pooler_output[0].numpy(), atol=1e-6)
    black = clip.encode_frames(np.zeros((1, 24, 24, 3), np.uint8))[0]
    assert np.abs(black - clip.pad_embedding()).max() > 0.1  # a black picture is not padding


def test_texts_equal_one_at_a_time_with_the_model_s_own_padding(
    clip: Backbone, clip_folder: Path
) -> None:
    model = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
    together = clip.encode_texts(TEXTS)
    assert together.num_tokens.tolist() == [4, 2, 8, 12, 3]
    assert together.num_truncated == 1
    eos = clip.tokeniser.eos_id
    for row, ids in enumerate(clip.tokeniser.encode(TEXTS).ids):
        padded = torch.tensor([ids + [eos] * (12 - len(ids))])
        with torch.no_grad():
            expected = model.get_text_features(input_ids=padded).pooler_output[0]
        np.testing.assert_allclose(together.embeddings[row], expected.numpy(), atol=1e-5)
    for batch_size in (1, 2):
        again = clip.encode_texts(TEXTS, batch_size=batch_size)
        np.testing.assert_allclose(again.embeddings, together.embeddings, atol=1e-5)


def test_the_end_token_is_what_is_read(clip: Backbone) -> None:
    """Texts that differ only behind the truncation are equal, before it they are not."""
    tail, other = "a " * 10 + "man", "a " * 10 + "b"
    first = clip.encode_texts([tail, other, "b " * 20])
    np.testing.assert_allclose(first.embeddings[0], first.embeddings[1], atol=1e-6)
    assert np.abs(first.embeddings[0] - first.embeddings[2]).max() > 1e-2
    assert first.num_truncated == 3


def test_legacy_end_token_setting_reads_the_same_place(clip: Backbone, copy: Path) -> None:
    edit_json(copy / "config.json", text_config__eos_token_id=2)
    old = load_backbone(str(copy), device="cpu").encode_texts(TEXTS)
    np.testing.assert_allclose(old.embeddings, clip.encode_texts(TEXTS).embeddings, atol=1e-6)


@pytest.mark.parametrize(
    ("tokeniser_class", "family", "filler"),
    [("SiglipTokenizer", "siglip", 1), ("GemmaTokenizer", "siglip2", 0)],
)
def test_siglip_sees_the_full_length(
    tmp_path: Path, tokeniser_class: str, family: str, filler: int
) -> None:
    model = make_siglip(tmp_path / "siglip", tokeniser_class)
    backbone = load_backbone(str(tmp_path / "siglip"), device="cpu")
    assert backbone.family == family
    assert backbone.embedding_dim == 32
    assert backbone.preprocessing.resize == "squash"
    ids = backbone.tokeniser.encode(["A man runs"]).ids[0]
    padded = torch.tensor([ids + [filler] * (9 - len(ids))])
    with torch.no_grad():
        expected = model.get_text_features(input_ids=padded).pooler_output.numpy()
    actual = backbone.encode_texts(["A man runs", "a"])
    np.testing.assert_allclose(actual.embeddings[:1], expected, atol=1e-5)
    assert backbone.encode_frames(crops_for(backbone, 3)).shape == (3, 32)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close_and_comes_back_as_float32(
    clip: Backbone, clip_folder: Path, dtype: Any
) -> None:
    half = load_backbone(str(clip_folder), device="cpu", dtype=dtype)
    assert half.describe()["compute_dtype"] == dtype
    assert half.weights_sha256 == clip.weights_sha256
    crops = crops_for(clip, 3)
    actual, expected = half.encode_frames(crops), clip.encode_frames(crops)
    assert actual.dtype == np.float32
    assert 0 < np.abs(actual - expected).max() < 0.05


def test_what_it_says_about_itself(clip: Backbone, clip_folder: Path) -> None:
    record = clip.describe()
    assert json.loads(json.dumps(record)) == record
    assert sorted(record) == [
        "backbone",
        "compute_dtype",
        "embedding_dim",
        "preprocessing",
        "revision",
        "vision",
        "weights_sha256",
    ]
    assert record["backbone"] == "tiny-clip"  # the folder's name: no path of this machine
    assert record["revision"] == "local"
    assert record["preprocessing"]["route"] == "fast"
    assert clip.logit_scale == pytest.approx(2.6592)
    assert not clip.model.training
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())
    exact = load_backbone(str(clip_folder), device="cpu", route="exact")
    assert exact.describe()["preprocessing"]["route"] == "exact"


def test_the_same_weights_run_otherwise_are_told_apart(clip: Backbone, copy: Path) -> None:
    edit_json(copy / "config.json", vision_config__num_attention_heads=1)
    other = load_backbone(str(copy), device="cpu")
    assert other.weights_sha256 == clip.weights_sha256
    crops = crops_for(clip, 3)
    assert np.abs(other.encode_frames(crops) - clip.encode_frames(crops)).max() > 1e-4
    assert other.describe()["vision"] != clip.describe()["vision"]


def test_loading_is_quiet_and_leaves_settings_alone(
    clip_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load_backbone(str(clip_folder), device="cpu")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    after = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    assert after == before


# --- the digest of the weights


def test_bin_and_safetensors_have_one_digest(clip: Backbone, copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(12)[None]  # older files have it
    torch.save(dict(reversed(weights.items())), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    from_bin = load_backbone(str(copy), device="cpu")
    assert from_bin.weights_sha256 == clip.weights_sha256
    crops = crops_for(clip, 2)
    np.testing.assert_array_equal(from_bin.encode_frames(crops), clip.encode_frames(crops))


def test_the_digest_is_remembered_while_the_files_are_the_same(
    clip: Backbone, copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = load_file(copy / "model.safetensors").keys()

    def known() -> str | None:
        return KnownDigest(copy).get(names)

    assert load_backbone(str(copy), device="cpu").weights_sha256 == clip.weights_sha256
    assert known() is None  # so new that the file may change unseen
    monkeypatch.setattr("vtr.marks._SETTLED_NS", 0)
    for _ in range(2):
        assert load_backbone(str(copy), device="cpu").weights_sha256 == clip.weights_sha256
        assert known() == clip.weights_sha256
    assert KnownDigest(copy).get([*names, "another"]) is None
    weights = load_file(copy / "model.safetensors")
    nudge(weights)
    changed, asked = save(weights, {"format": "pt"}), KnownDigest(copy)
    assert len(changed) == (copy / "model.safetensors").stat().st_size
    with (copy / "model.safetensors").open("r+b") as file:  # in its place
        file.write(changed)
    assert asked.get(names) is None  # it changed while it was read
    assert known() is None
    assert load_backbone(str(copy), device="cpu").weights_sha256 != clip.weights_sha256
    (next((tmp_path / "cache" / "vtr" / "weights").iterdir())).write_bytes(b"\xff\x00 rubbish")
    assert known() is None


def nudge(weights: dict[str, torch.Tensor]) -> None:
    weights["logit_scale"] = weights["logit_scale"] + 1e-6


def swap(weights: dict[str, torch.Tensor]) -> None:
    query, key = (f"text_model.encoder.layers.0.self_attn.{n}_proj.weight" for n in "qk")
    weights[query], weights[key] = weights[key], weights[query]


@pytest.mark.parametrize("change", [nudge, swap])
def test_changed_or_swapped_weights_change_the_digest(
    clip: Backbone, copy: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    edit_weights(copy, change)
    assert load_backbone(str(copy), device="cpu").weights_sha256 != clip.weights_sha256


# --- checkpoints that must not be used


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    return lambda folder: edit_weights(folder, change)


def config(**values: Any) -> Edit:
    return lambda folder: edit_json(folder / "config.json", **values)


def set_activation(name: str) -> Edit:
    return config(text_config__hidden_act=name, vision_config__hidden_act=name)


remove_key = weights(without("visual_projection.weight"))
add_key = weights(with_zeros("extra", 2))


def open_clip_without_quick_gelu(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 20}}))


def both(*edits: Edit) -> Edit:
    def edit_all(folder: Path) -> None:
        for edit in edits:
            edit(folder)

    return edit_all


def delete(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return edit


OPENAI, LAION = "openai/clip-vit-base-patch32", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (remove_key, r"missing: visual_projection\.weight"),
        (add_key, r"unexpected: extra\. Fetch"),
        (both(remove_key, add_key), "missing: visual.*; unexpected: extra"),
        (
            weights(with_zeros("text_projection.weight", 7, 32)),
            r"of another shape: text_projection\.weight \(file \(7, 32\), needed \(20, 32\)\)",
        ),
        (config(text_config__hidden_act="gelu"), "'gelu' for text and 'quick_gelu' for vision"),
        (
            both(config(_name_or_path=OPENAI), set_activation("gelu")),
            f"'gelu', but {OPENAI} was trained with 'quick_gelu'",
        ),
        (config(_name_or_path=LAION), f"'quick_gelu', but {LAION} was trained with 'gelu'"),
        (
            open_clip_without_quick_gelu,
            r"the model of open_clip_config\.json was trained with 'gelu'",
        ),
        (config(text_config__eos_token_id=7), r"ends texts with id 55, .* looks for 7"),
        (
            lambda folder: write_processor(folder, 32, do_center_crop=True, crop_size=32),
            r"makes pictures of \(32, 32\), the model sees \(24, 24\)",
        ),
        (delete("config.json"), r"has no config\.json\. A model"),
        (delete("model.safetensors"), r"has no model\.safetensors \(or pytorch"),
        (delete("tokenizer.json"), r"has no tokenizer\.json"),
        (write("config.json", b"{"), "is not whole JSON"),
        (write("config.json", b"[]"), "holds a list"),
        (
            write("model.safetensors", b"\0" * 64),
            "cannot load .*copy/model.safetensors: it is damaged or cut off .*header",
        ),
        (
            both(delete("model.safetensors"), write("pytorch_model.bin", b"not a pickle")),
            "cannot load .*copy",
        ),
        (write("open_clip_config.json", b"[]"), "an open_clip conf"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(copy: Path, edit: Edit, message: str) -> None:
    edit(copy)
    with pytest.raises(CheckpointError, match=message):
        load_backbone(str(copy), device="cpu")


def test_the_right_activation_is_accepted(copy: Path) -> None:
    set_activation("gelu")(copy)
    open_clip_without_quick_gelu(copy)
    config(_name_or_path="laion/CLIP-ViT-B-32-laion2B-s34B-b79K")(copy)
    assert load_backbone(str(copy), device="cpu").family == "clip"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_activation("gelu"), "SigLIP was trained with 'gelu_pytorch_tanh'"),
        (  # so google/siglip-so400m-patch14-224 was uploaded
            both(write("spiece.model", b""), delete("tokenizer.json")),
            r"no tokenizer.json but spiece.model, which needs",
        ),
    ],
)
def test_a_siglip_that_does_not_fit_is_refused(tmp_path: Path, edit: Edit, message: str) -> None:
    make_siglip(tmp_path / "siglip", "SiglipTokenizer")
    edit(tmp_path / "siglip")
    with pytest.raises(CheckpointError, match=message):
        load_backbone(str(tmp_path / "siglip"), device="cpu")


def test_no_pickle_is_run(copy: Path) -> None:
    """A `.bin` that would create a file on loading is refused, and the file is not there."""
    canary = copy / "canary"

    class Payload:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (canary,)

    (copy / "model.safetensors").unlink()
    torch.save({"logit_scale": Payload()}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot load"):
        load_backbone(str(copy), device="cpu")
    assert not canary.exists()


def test_other_families_are_refused(copy: Path) -> None:
    edit_json(copy / "config.json", model_type="blip")
    with pytest.raises(ModelError, match="'blip' is not supported"):
        load_backbone(str(copy), device="cpu")
    (copy / "preprocessor_config.json").unlink()  # copying it would help nobody
    with pytest.raises(ModelError, match="'blip' is not supported; vtr knows clip, siglip"):
        preprocessing_from_config(copy)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "./none", "a/b/c", "", "~/none-such"):
        with pytest.raises(ModelNotFoundError, match="no such folder"):
            load_backbone(name)
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        load_backbone(str(file))


def test_devices_and_dtypes_are_checked_before_loading() -> None:
    for name in ("gpu", "meta", "cuda:x", "cuda:"):
        with pytest.raises(UnknownNameError, match=f"{name!r}.*auto, cpu, cuda"):
            load_backbone("unused", device=name)
    with pytest.raises(ConfigError, match=r"device 'mps' is not supported: .*Use cpu"):
        load_backbone("unused", device="mps")
    with pytest.raises(ConfigError, match=r"'cuda:99' asked for, but this machine has \d+ GPUs"):
        load_backbone("unused", device="cuda:99")
    with pytest.raises(ConfigError, match="no dtype 'auto'; allowed: float32, float16, bfloat16"):
        load_backbone("unused", dtype="auto")  # type: ignore[arg-type]


# --- memory


def test_batches_are_halved_when_memory_runs_out() -> None:
    tried = []

    def run(start: int, stop: int) -> list[int]:
        tried.append(stop - start)
        if stop - start > 3:
            raise torch.OutOfMemoryError
        return list(range(start, stop))

    results, batch_size = run_in_batches(run, 8, 16)
    assert [item for batch in results for item in batch] == list(range(8))
    assert batch_size == 2
    assert tried == [8, 4, 2, 2, 2, 2]
    assert run_in_batches(run, 0, 16) == ([], 16)


def test_one_item_that_does_not_fit_is_an_error_and_other_errors_pass() -> None:
    def fail(error: type[Exception]) -> None:
        raise error

    with pytest.raises(ModelError, match="does not hold a single item"):
        run_in_batches(lambda start, stop: fail(torch.OutOfMemoryError), 3, 2)
    with pytest.raises(MemoryError):
        run_in_batches(lambda start, stop: fail(MemoryError), 3, 2)


@pytest.mark.gpu
def test_gpu_equals_cpu(clip: Backbone, clip_folder: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu = load_backbone(str(clip_folder), device="cuda")
    crops = crops_for(clip, 300)
    np.testing.assert_allclose(gpu.encode_frames(crops), clip.encode_frames(crops), atol=1e-3)
    ours, theirs = gpu.encode_texts(TEXTS), clip.encode_texts(TEXTS)
    np.testing.assert_allclose(ours.embeddings, theirs.embeddings, atol=1e-3)
    np.testing.assert_allclose(gpu.pad_embedding(), clip.pad_embedding(), atol=1e-3)
