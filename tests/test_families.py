"""Families that transformers computes, against transformers' own outputs on tiny random models."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from builders import (
    edit_json,
    edit_weights,
    patchwork,
    perturbed,
    run_app,
    run_json,
    save_quietly,
    write_captions,
    write_clip,
    write_words,
)
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers.models.siglip2 import image_processing_pil_siglip2 as pil_siglip2

import vtr
from vtr.clip.backbone import Backbone, load_backbone, load_text_encoder
from vtr.clip.hub import find_model
from vtr.clip.preprocess import _grid, normalise, preprocessing_from_config, resize_crop
from vtr.errors import CheckpointError, ConfigError, ModelError
from vtr.train.headlist import has_clip_layers
from vtr.train.texts import embed_tokens

TOWER = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2
}  # fmt: skip
PIXELS = TOWER | {"image_size": 24, "patch_size": 8}
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "##d", "star", "一", "颗", "星"]
ROBERTA_WORDS = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "▁red", "▁star", "s", "▁", "星"]
END = "<|endoftext|>"
CLIP_WORDS = ["a", "red", "star", "<|startoftext|>", END]
GEMMA_WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "a", "red", "star"]
PRISM_WORDS = [*GEMMA_WORDS, "star.", "a.", "."]
TEXTS = ["a red star", "a", "", "red star a red star a red star a red star"]

CLIP_PICTURES = {
    "size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "resample": 3,
    "do_center_crop": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25],
}  # fmt: skip
ALIGN_PICTURES = {
    "size": {"height": 30, "width": 30}, "crop_size": {"height": 25, "width": 25}, "resample": 2,
    "do_center_crop": True, "rescale_factor": 1 / 127.5, "rescale_offset": True,
    "do_normalize": False, "include_top": False,
}  # fmt: skip
PRISM_PICTURES = {
    "size": {"height": 24, "width": 24}, "resample": 3, "do_normalize": False,
    "do_center_crop": False,
}  # fmt: skip
PATCHES = {
    "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 8,
    "max_num_patches": 12,
}  # fmt: skip


def bert_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")


def roberta_vocabulary(folder: Path) -> None:
    backend = Tokenizer(models.Unigram([(w, -1.0 - n / 9) for n, w in enumerate(ROBERTA_WORDS)], 3))
    backend.add_special_tokens(ROBERTA_WORDS[:4])
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.save(str(folder / "tokenizer.json"))


KINDS: dict[str, dict[str, Any]] = {
    "metaclip_2": {
        "config": "MetaClip2Config", "model": "MetaClip2Model",
        "text": TOWER | {
            "vocab_size": 10, "max_position_embeddings": 9, "eos_token_id": 2, "bos_token_id": 0,
            "pad_token_id": 1,
        },
        "vision": PIXELS, "more": {"projection_dim": 20}, "pictures": CLIP_PICTURES,
        "words": roberta_vocabulary, "context": 9,
    },
    "chinese_clip": {
        "config": "ChineseCLIPConfig", "model": "ChineseCLIPModel",
        "text": TOWER | {"vocab_size": 11, "max_position_embeddings": 60},
        "vision": PIXELS, "more": {"projection_dim": 20}, "pictures": CLIP_PICTURES,
        "words": bert_vocabulary, "context": 52,
    },
    "altclip": {
        "config": "AltCLIPConfig", "model": "AltCLIPModel",
        "text": TOWER | {"vocab_size": 10, "max_position_embeddings": 11, "project_dim": 24},
        "vision": PIXELS, "more": {"projection_dim": 20}, "pictures": CLIP_PICTURES,
        "words": roberta_vocabulary, "context": 9,
    },
    "align": {
        "config": "AlignConfig", "model": "AlignModel",
        "text": TOWER | {"vocab_size": 11, "max_position_embeddings": 70},
        "vision": {
            "kernel_sizes": [3, 3], "in_channels": [32, 16], "out_channels": [16, 20],
            "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 2],
            "depthwise_padding": [], "hidden_dim": 20, "width_coefficient": 1.0,
            "depth_coefficient": 1.0, "image_size": 25,
        },
        "more": {"projection_dim": 24, "temperature_init_value": 0.5},
        "pictures": ALIGN_PICTURES, "words": bert_vocabulary, "context": 64,
    },
    "aimv2": {
        "config": "Aimv2Config", "model": "Aimv2Model",
        "text": TOWER | {"vocab_size": 5, "max_position_embeddings": 9, "eos_token_id": 4},
        "vision": PIXELS, "more": {"projection_dim": 20}, "pictures": CLIP_PICTURES,
        "words": lambda folder: write_words(folder, CLIP_WORDS, unknown=END), "context": 9,
    },
    "siglip2": {
        "config": "Siglip2Config", "model": "Siglip2Model",
        "text": TOWER | {"vocab_size": 7, "max_position_embeddings": 9, "projection_size": 32},
        "vision": TOWER | {"patch_size": 8, "num_patches": 16}, "more": {}, "pictures": PATCHES,
        "words": lambda folder: write_words(folder, GEMMA_WORDS), "context": 9,
    },
    "xclip": {
        "config": "XCLIPConfig", "model": "XCLIPModel",
        "text": TOWER | {"vocab_size": 5, "max_position_embeddings": 9},
        "vision": PIXELS | {
            "num_frames": 3, "mit_hidden_size": 20, "mit_intermediate_size": 24,
            "mit_num_attention_heads": 2,
        },
        "more": {"projection_dim": 20, "prompt_num_attention_heads": 2}, "pictures": CLIP_PICTURES,
        "words": lambda folder: write_words(folder, CLIP_WORDS, unknown=END), "context": 9,
    },
    "videoprism": {
        "config": "VideoPrismConfig", "model": "VideoPrismClipModel",
        "text": TOWER | {"vocab_size": 10, "max_position_embeddings": 9},
        "vision": {
            "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "image_size": 24,
            "tubelet_size": [1, 8, 8], "num_frames": 3, "num_spatial_layers": 1,
            "num_temporal_layers": 1, "num_auxiliary_layers": 1,
        },
        "more": {}, "pictures": PRISM_PICTURES,
        "words": lambda folder: write_words(folder, PRISM_WORDS), "context": 9,
    },
}  # fmt: skip
WINDOWS = ("xclip", "videoprism")


def make(name: str) -> Any:
    """A model of transformers' own in which nothing is at its initial value."""
    kind = KINDS[name]
    config = getattr(transformers, kind["config"])(
        text_config=kind["text"], vision_config=kind["vision"], **kind["more"]
    )
    model = getattr(transformers, kind["model"])(config).eval()
    perturbed(model, 0.15)
    for key, value in model.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            value += torch.rand(value.shape, generator=torch.Generator().manual_seed(5))
    return model


def write(name: str, folder: Path) -> Any:
    """Writes the model of a kind as a folder; returns transformers' own."""
    model = make(name)
    save_quietly(model, folder)
    record = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        **KINDS[name]["pictures"],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    KINDS[name]["words"](folder)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    made = {}
    for name in KINDS:
        folder = tmp_path_factory.mktemp(name) / f"tiny {name}"
        made[name] = (folder, write(name, folder))
    return made


def load(folder: Path) -> Backbone:
    return load_backbone(str(folder), device="cpu", route="exact")


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    # Pillow 13 turns the passes round for some tall pictures: a grey level, see `preprocess`.
    shapes = [(40, 60), (33, 61), (24, 24), (200, 8)]
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def agree(found: np.ndarray, expected: Tensor, bound: float = 2e-5) -> None:
    """Relative to their size."""
    np.testing.assert_allclose(
        found, expected.numpy(), rtol=0, atol=bound * float(expected.abs().max())
    )


PROCESSORS = {"align": "EfficientNetImageProcessorPil", "siglip2": "Siglip2ImageProcessorPil"}


@pytest.mark.parametrize("name", [name for name in KINDS if name not in WINDOWS])
def test_pictures_equal_transformers(folders: Any, name: str) -> None:
    folder, theirs = folders[name]
    backbone = load(folder)
    processor = getattr(transformers, PROCESSORS.get(name, "CLIPImageProcessorPil"))
    made = processor.from_pretrained(folder)(images=pictures(), return_tensors="pt")
    with torch.inference_mode():
        expected = theirs.get_image_features(**made).pooler_output
    crops = np.stack([resize_crop(p, backbone.preprocessing) for p in pictures()])
    assert backbone.embedding_dim == expected.shape[1]
    agree(backbone.encode_frames(crops), expected)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_equal_transformers(folders: Any, name: str) -> None:
    folder, theirs = folders[name]
    backbone = load(folder)
    assert (backbone.window, backbone.describe()["preprocessing"]["frames"]) == (3, 3)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    seen = pictures()[:3]
    made = [processor(images=[p] * 3, return_tensors="pt")["pixel_values"] for p in seen]
    made[0][1] = made[1][0]
    name = "pixel_values" if name == "xclip" else "pixel_values_videos"
    with torch.inference_mode():
        expected = theirs.get_video_features(**{name: torch.stack(made)}).pooler_output
    crops = np.stack([[resize_crop(p, backbone.preprocessing)] * 3 for p in seen])
    crops[0, 1] = crops[1, 0]
    found = backbone.encode_frames(crops)
    agree(found, expected.flatten(1))
    turned = backbone.encode_frames(crops[:1, [1, 0, 2]])
    assert np.abs(turned - found[:1]).max() > 1e-4, "the order of a window's frames counts"
    assert np.isfinite(backbone.pad_embedding()).all()
    clip = backbone.encode_clip(np.concatenate([crops[0], crops[1, :1]]))
    assert clip.shape == (2, backbone.embedding_dim)
    np.testing.assert_allclose(clip[0], found[0], atol=1e-6)
    with pytest.raises(ValueError, match="need uint8 crops"):
        backbone.encode_frames(crops[:, :2])


@pytest.mark.parametrize("name", KINDS)
def test_texts_equal_transformers(folders: Any, name: str) -> None:
    folder, theirs = folders[name]
    backbone = load(folder)
    ids = backbone.tokeniser.encode(TEXTS).ids
    if name == "aimv2":  # see `vtr.clip.families`
        theirs.set_attn_implementation("eager")
    assert backbone.tokeniser.max_length == KINDS[name]["context"]
    with torch.inference_mode():
        rows = []
        for row in ids:  # one by one: whatever stands beside a text must not matter
            full = torch.from_numpy(backbone.tokeniser.pad([row]))
            mask = {} if name == "siglip2" else {"attention_mask": torch.ones_like(full)}
            if name == "videoprism":
                mask = {"attention_mask": (full != 0).long()}
            rows.append(theirs.get_text_features(input_ids=full, **mask).pooler_output)
    agree(backbone.encode_texts(TEXTS).embeddings, torch.cat(rows))
    alone = load_text_encoder(find_model(str(folder)), device="cpu")
    agree(alone.encode(TEXTS).embeddings, torch.cat(rows))
    assert len({vector.tobytes() for vector in backbone.encode_texts(TEXTS).embeddings}) == 4


def test_bert_splits_as_transformers_does(folders: Any) -> None:
    folder, _ = folders["chinese_clip"]
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    for text in ["A RED star", "一颗星 redd", "Réd  \t star\n[SEP] x", ""]:
        assert load(folder).tokeniser.encode([text]).ids[0] == theirs(text)["input_ids"]


def test_videoprism_reads_what_its_authors_give_it(folders: Any) -> None:
    """google-deepmind/videoprism: lower case, no punctuation within, a period at the end."""
    tokeniser = load(folders["videoprism"][0]).tokeniser
    said = [PRISM_WORDS.index(word) for word in ("a", "red", "star.")]
    assert tokeniser.encode(["A red, STAR!", "a red star", "."]).ids == [said, said, [9]]


# --- what is refused, by name


CONFIG = "config.json"
PICTURES = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("altclip", {"text_config__num_attention_heads": -1}, "does not divide hidden_size 32"),
        ("videoprism", {"vision_config__num_frames": "x"}, "'num_frames' expected int"),
        ("xclip", {"vision_config__num_frames": 4}, "another shape: mit.position_embedding"),
        ("metaclip_2", {"text_config__hidden_act": "gelu"}, "'gelu' for text and 'quick"),
        ("chinese_clip", {"text_config__hidden_act": "quick_gelu"}, "'gelu'; with the wrong one"),
        ("altclip", {"vision_config__hidden_act": "gelu"}, "hidden_act 'gelu', but altclip was"),
        ("align", {"vision_config__hidden_act": "relu"}, "trained with 'swish'"),
        ("aimv2", {"text_config__hidden_act": "gelu"}, "trained with 'silu'"),
        ("siglip2", {"vision_config__hidden_act": "gelu"}, "trained with 'gelu_pytorch_tanh'"),
        ("chinese_clip", {"text_config__hidden_size": "wide"}, "makes no ChineseCLIPModel of"),
        ("chinese_clip", {"text_config__hidden_size": 1 << 16}, "fit.*of another shape: text"),
        ("chinese_clip", {"text_config__num_hidden_layers": 3}, "missing: text_model.encoder.la"),
        ("chinese_clip", {"text_config__vocab_size": 10}, "another shape: text_model.embe"),
        ("aimv2", {"vision_config__image_size": 32}, "of another shape: vision_model.embeddings"),
        ("altclip", {"text_config__pad_token_id": 3}, "pads with id 1, the text tower passes"),
        ("metaclip_2", {"text_config__eos_token_id": 3}, "ends texts with id 2, the text"),
        ("aimv2", {"text_config__eos_token_id": 3}, "ends texts with id 4, the text"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    folders: Any, tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    copy = shutil.copytree(folders[name][0], tmp_path / "copy")
    edit_json(copy / CONFIG, **change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_weights_and_pictures_of_another_model_are_refused(
    folders: Any, tmp_path: Path, name: str
) -> None:
    folder, theirs = folders[name]
    copy = shutil.copytree(folder, tmp_path / "copy")
    key = next(k for k in theirs.state_dict() if k.endswith("weight"))
    for change, message in (
        (lambda w: w.pop(key), f"missing: {key}"),
        (lambda w: w.update({"extra.weight": torch.ones(2)}), "unexpected: extra.weight"),
        (lambda w: w[key].reshape(-1)[0].fill_(float("nan")), f"NaN or infinite: {key}"),
    ):
        edit_weights(copy, change)
        with pytest.raises(CheckpointError, match=message):
            load(copy)
        shutil.copy(folder / "model.safetensors", copy)
    (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="cannot load"):
        load(copy)
    shutil.copy(folder / "model.safetensors", copy)
    if name == "siglip2":
        edit_json(copy / PICTURES, patch_size=16)
    elif name == "align":
        (copy / PICTURES).write_text(json.dumps(PATCHES))
    else:
        edit_json(copy / PICTURES, size={"height": 16, "width": 16}, do_center_crop=False)
    with pytest.raises(CheckpointError, match="they do not belong together"):
        load(copy)


def test_a_vocabulary_of_another_model_is_refused(folders: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(folders["chinese_clip"][0], tmp_path / "copy")
    (copy / "vocab.txt").write_text("\n".join([*BERT_WORDS, "more"]))
    with pytest.raises(CheckpointError, match="ids up to 11, the model's embedding table only 11"):
        load(copy)
    (copy / "vocab.txt").write_text("a\nb\n[UNK]")
    with pytest.raises(CheckpointError, match=r"bos_token '\[CLS\]' is not in the vocabulary"):
        load(copy)
    (copy / "vocab.txt").unlink()
    (copy / "spiece.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no tokenizer.json but spiece.model, which n"):
        load(copy)


def test_a_temperature_that_is_none_is_refused(folders: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(folders["align"][0], tmp_path / "copy")
    edit_weights(copy, lambda weights: weights["temperature"].fill_(-1.0))
    with pytest.raises(CheckpointError, match="the temperature is not above 0"):
        load(copy)


def test_files_of_before_are_read(folders: Any, tmp_path: Path) -> None:
    """Half precision, .bin, and either name of its layers."""
    folder, _ = folders["altclip"]
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    old = {name.replace(".layers.", ".layer."): value for name, value in weights.items()}
    new = {name.replace(".layer.", ".layers."): value for name, value in weights.items()}
    assert old.keys() != new.keys()
    save_file(new, copy / "model.safetensors", metadata={"format": "pt"})
    assert load(copy).weights_sha256 == load(folder).weights_sha256
    old["text_model.roberta.embeddings.position_ids"] = torch.arange(9)[None]
    torch.save(old, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    edit_json(copy / CONFIG, dtype="float16", text_config__dtype="float16")
    before, after = load(folder), load(copy)
    assert after.weights_sha256 == before.weights_sha256
    assert after.describe() | {"backbone": ""} == before.describe() | {"backbone": ""}
    assert next(after.model.parameters()).dtype == torch.float32


# --- the fingerprint, and what is not trained


def test_aimv2_under_the_names_of_its_makers(folders: Any, tmp_path: Path) -> None:
    folder, copy = folders["aimv2"][0], tmp_path / "copy"
    shutil.copytree(folder, copy)
    apple = {
        "vision_model.": "image_encoder.", "text_model.": "text_encoder.",
        "visual_projection": "image_projector", "text_projection": "text_projector",
        "image_encoder.embeddings.position_embedding.weight":
            "image_encoder.preprocessor.pos_embed",
        "text_encoder.embeddings.position_embedding.weight":
            "text_encoder.preprocessor.positional_embedding",
        "embeddings.patch_embed": "preprocessor.patchifier.proj",
        "embeddings.rms_norm": "preprocessor.patchifier.norm",
        "embeddings.token_embedding": "preprocessor.text_embedding",
        "coder.rms_norm": "coder.trunk.post_trunk_norm", "encoder.layers": "trunk.blocks",
        "rms_norm1": "norm_1", "rms_norm2": "norm_2", "attention.out_proj": "attn.proj",
        "ffn.gate_proj": "mlp.fc1", "ffn.down_proj": "mlp.fc2", "ffn.up_proj": "mlp.fc3",
        "head.k_proj": "head.k", "head.v_proj": "head.v", "head.output_proj": "head.linear",
        "logit_scale": "log_logit_scale",
    }  # fmt: skip

    def change(weights: dict[str, Tensor]) -> None:
        for name in [n for n in weights if n.endswith("attention.q_proj.weight")]:
            names = [name.replace("q_proj", f"{one}_proj") for one in "qkv"]
            joined = torch.cat([weights.pop(one) for one in names])
            weights[name.replace("attention.q_proj", "attn.qkv")] = joined
        for name in [*weights]:
            value, theirs = weights.pop(name), name
            for ours, other in apple.items():
                theirs = theirs.replace(ours, other)
            weights[theirs] = value[None] if "preprocessor.pos" in theirs else value

    edit_weights(copy, change)
    assert (
        not load_file(copy / "model.safetensors").keys()
        & load_file(folder / "model.safetensors").keys()
    )
    ours, theirs = load(copy), load(folder)
    assert ours.weights_sha256 == theirs.weights_sha256
    assert (ours.encode_texts(TEXTS).embeddings == theirs.encode_texts(TEXTS).embeddings).all()


def test_what_decides_numbers_is_in_the_fingerprint(folders: Any, tmp_path: Path) -> None:
    described = load(folders["align"][0]).describe()
    assert described["preprocessing"] | {"route": ""} == {
        "route": "", "size": [25, 25], "resize": "squash", "resize_to": [30, 30],
        "resample": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3,
    }  # fmt: skip
    assert described["vision"]["strides"] == [1, 2]
    described = load(folders["siglip2"][0]).describe()
    assert described["preprocessing"]["resize_to"] == [12, 8]
    copy = shutil.copytree(folders["siglip2"][0], tmp_path / "copy")
    edit_json(copy / CONFIG, vision_config__num_attention_heads=2)
    other = load(copy)
    assert other.weights_sha256 == described["weights_sha256"]
    assert other.describe()["vision"] != described["vision"]


def test_pictures_at_their_own_shape_do_not_depend_on_their_neighbours(folders: Any) -> None:
    backbone = load(folders["siglip2"][0])
    crops = np.stack([resize_crop(p, backbone.preprocessing) for p in pictures()])
    together = backbone.encode_frames(crops)
    alone = np.concatenate([backbone.encode_frames(crop[None]) for crop in crops])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.isfinite(backbone.pad_embedding()).all()


def test_towers_of_transformers_are_not_taken_apart(folders: Any) -> None:
    backbone = load(folders["aimv2"][0])
    with pytest.raises(ModelError, match="computes the towers of the family aimv2; --vis"):
        backbone.require_towers("--vision tune")
    with pytest.raises(ModelError, match="is a aimv2 model: its tokens are not projected"):
        embed_tokens(backbone, ["a"])
    assert not has_clip_layers(backbone.model)


def test_code_of_a_repository_is_never_run(folders: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(folders["aimv2"][0], tmp_path / "copy")
    names = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    edit_json(copy / CONFIG, auto_map=names)
    (copy / "own.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    load(copy)
    assert not (tmp_path / "canary").exists()


@given(height=some.integers(1, 3000), width=some.integers(1, 3000), most=some.integers(1, 300))
def test_the_grid_of_patches_is_transformers(height: int, width: int, most: int) -> None:
    theirs = pil_siglip2.get_image_size_for_max_num_patches(height, width, 16, most)
    assert [16 * n for n in _grid(height, width, most=most, side=16)] == list(theirs)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"include_top": True, "image_std": [0.5, 0.4, 0.3]},
        {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.3]},
        {"rescale_factor": 1 / 255, "rescale_offset": False, "do_center_crop": False},
    ],
)
def test_every_scaling_of_efficientnet_is_transformers(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    (tmp_path / PICTURES).write_text(json.dumps(ALIGN_PICTURES | changes))
    ours = preprocessing_from_config(tmp_path, route="exact")
    theirs = transformers.EfficientNetImageProcessorPil.from_pretrained(tmp_path)
    for picture in pictures()[:3]:
        crop = torch.from_numpy(resize_crop(picture, ours)[None])
        found = normalise(crop, ours, dtype=torch.float32)
        expected = theirs(images=[picture], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-5)


# --- from videos to hits


@pytest.mark.parametrize("name", ["metaclip_2", "chinese_clip", "siglip2"])
def test_videos_are_extracted_evaluated_and_searched(
    folders: Any, name: str, tmp_path: Path
) -> None:
    rows = []
    for n, text in enumerate(("a red star", "a star", "red", "a")):
        write_clip(tmp_path / "films" / f"{n}.mp4", patchwork(1, seed=n) * 8, codec="mpeg4")
        rows.append((f"{n}.mp4", text, "test"))
    write_captions(tmp_path / "captions.json", rows)
    model = folders[name][0]
    words = ("init", "folder", "--videos", "films", "--annotations", "captions.json")
    run_app(*words, "--model", model, cwd=tmp_path)
    run_app("extract", "--workers", "1", "--device", "cpu", "--fps", "4", cwd=tmp_path)
    store = vtr.FeatureStore(tmp_path / "features")
    assert store.spec.backbone == model.name
    assert len(store.packed().frames) == 32
    assert run_json("eval", "--zero-shot", cwd=tmp_path)["setup"]["backbone"] == model.name
    assert run_json("search", "--like", "1.mp4@1", cwd=tmp_path)["hits"][0]["video_id"] == "1.mp4"


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_of_a_video_have_start_and_end(folders: Any, name: str, tmp_path: Path) -> None:
    """At 4 candidates a second windows of 3; films of 2 s, of 3 s, and of one frame."""
    rows = []
    for n, (text, count) in enumerate((("a red star", 8), ("a star", 12), ("red", 1))):
        scenes = [p for s in (2 * n, 2 * n + 1) for p in patchwork(1, seed=s) * ((count + 1) // 2)]
        write_clip(tmp_path / "films" / f"{n}.mp4", scenes[:count], codec="mpeg4")
        rows.append((f"{n}.mp4", text, "test"))
    write_captions(tmp_path / "captions.json", rows)
    model = folders[name][0]
    words = ("init", "folder", "--videos", "films", "--annotations", "captions.json")
    run_app(*words, "--model", model, cwd=tmp_path)
    plain = ("extract", "--workers", "1", "--device", "cpu", "--fps", "4")
    with pytest.raises(ConfigError, match="sees windows of 3: leave out --crops"):
        run_app(*plain, "--crops", "raw", cwd=tmp_path)
    run_app(*plain, "--sampler", "uniform,motion", cwd=tmp_path)
    store = vtr.FeatureStore(tmp_path / "features", sampler="uniform")
    assert store.spec.window_frames == 3
    spans = {i: store[i].spans for i in store}
    np.testing.assert_allclose(spans["0.mp4"], [[0, 0.75], [0.75, 1.5], [1.25, 2]])
    np.testing.assert_allclose(spans["1.mp4"], [[0, 0.75], [0.75, 1.5], [1.5, 2.25], [2.25, 3]])
    np.testing.assert_allclose(spans["2.mp4"], [[0, 0.25]])
    for video_id, span in spans.items():
        assert (span[:, 0] < span[:, 1]).all()
        np.testing.assert_allclose(store[video_id].pts_seconds, span.mean(axis=1))
    run_app("eval", "--zero-shot", "--sampler", "uniform", "--json", cwd=tmp_path)
    hit = run_json("search", "--like", "1.mp4@0.2", cwd=tmp_path)["hits"][0]
    assert (hit["video_id"], hit["start_seconds"]) == ("1.mp4", 0)
    assert hit["end_seconds"] in (0.75, 1.5)
    Image.fromarray(patchwork(1, seed=3)[0]).save(tmp_path / "p.png")  # the second scene of 1.mp4
    hit = run_json("search", "--image", "p.png", cwd=tmp_path)["hits"][0]
    assert (hit["video_id"], hit["end_seconds"]) == ("1.mp4", 3)
