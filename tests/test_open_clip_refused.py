"""Folders of open_clip's that are not what they say: one line each, by name."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import write_words
from open_clip_goldens import config, golden_folder, load, weights, write_folder
from safetensors.torch import load_file
from torch import Tensor

from vtr.clip.backbone import load_backbone
from vtr.clip.hub import ModelFolder, find_model, is_open_clip
from vtr.clip.loading import weights_digest
from vtr.clip.open_clip import check_activation, read_sections
from vtr.errors import CheckpointError, ModelError

Edit = Callable[[dict[str, Any], dict[str, Tensor]], object]


def vision(**changes: Any) -> Edit:
    return lambda record, _: record["model_cfg"]["vision_cfg"].update(changes)


def text(**changes: Any) -> Edit:
    return lambda record, _: record["model_cfg"]["text_cfg"].update(changes)


def model(**changes: Any) -> Edit:
    return lambda record, _: record["model_cfg"].update(changes)


def pictures(**changes: Any) -> Edit:
    return lambda record, _: record["preprocess_cfg"].update(changes)


def weight(name: str, change: Callable[[Tensor], Tensor | None]) -> Edit:
    def edit(_: dict[str, Any], state: dict[str, Tensor]) -> None:
        value = change(state.pop(name, torch.zeros(2)))
        if value is not None:
            state[name] = value

    return edit


def without_block(record: dict[str, Any], state: dict[str, Tensor]) -> None:
    for name in [name for name in state if ".blocks.1." in name]:
        del state[name]


def sized(**overrides: Any) -> Edit:
    return vision(timm_overrides=overrides)


def many_rows(table: Tensor) -> Tensor:
    return torch.zeros(256_000, table.shape[1])


TOKENS = "text.token_embedding.weight"
HEAD = "visual.trunk.head.weight"
REFUSED: dict[str, list[tuple[Edit, str]]] = {
    "pe_core_b": [
        (model(quick_gelu=True), r"quick_gelu True; needed: false"),
        (text(act_kwargs={"approximate": "fast"}), r"act_kwargs .*'none' or 'tanh'"),
        (vision(timm_model_name="convnext_base"), r"timm's 'convnext_base'.* PE-Core"),
        (vision(timm_model_name="fastvit_mci2"), r"timm's 'fastvit_mci2'"),
        (vision(timm_model_name="vitamin_large_224"), r"timm's 'vitamin_large"),
        (vision(swish=2), "unknown settings swish in vision_cfg"),
        (model(towers=3), "unknown settings towers in model_cfg"),
        (vision(timm_pool="avg"), "timm_pool 'avg'; needed: 'map'"),
        (text(no_causal_mask=True), "no_causal_mask True; needed: False"),
        (vision(image_size=48), r'image_size 48, .* image_size 40\. .*"size": 48'),
        (pictures(size=48), "size 48 and vision_cfg.image_size 40"),
        (vision(image_size=4), "at least a patch, 8 pixels"),
        (vision(image_size="forty"), "image_size 'forty'; needed: a whole"),
        (vision(image_size=True), "image_size True; needed: a whole"),
        (model(embed_dim=50), r"head.weight \(file \(48, 64\), needed \(50"),
        (model(embed_dim=None), "embed_dim None; needed: a whole number"),
        (text(vocab_size=49408), r"token_embedding.weight \(file \(300,"),
        (text(context_length=77), r"positional_embedding \(file \(32,"),
        (vision(timm_overrides=None), r'64, .* "timm_overrides": \{"num'),
        (sized(num_heads=5), "num_heads 5, .* embed_dim 64"),
        (text(heads=7), "text_cfg.heads 7, which does not divide width 64"),
        (sized(heads=4), "timm_overrides .*needed: an ob"),
        (sized(embed_dim=32, num_heads=4), "embed_dim 32; needed: 64"),
        (sized(num_heads=4, ref_feat_shape=[5, 6]), "two equal whole numbers"),
        (sized(num_heads=4, ref_feat_shape=[]), "two equal whole numbers"),
        (sized(num_heads=32), "num_heads 32; needed: 4 or more channels"),
        (pictures(interpolation=[]), r"interpolation is \[\]"),
        (sized(num_heads=4, depth=3), "missing: visual.trunk.blocks.2"),
        (without_block, r"missing: visual.trunk.blocks.1.attn.*norm1.weight and 7 more"),
        (lambda r, _: r["model_cfg"].pop("text_cfg"), "text_cfg None; needed"),
        (lambda r, _: r.pop("model_cfg"), "model_cfg None; needed: an object"),
        (weight(HEAD, lambda _: None), f"missing: {HEAD}"),
        (weight("visual.trunk.patch_embed.proj.weight", lambda _: None), "proj.weight is missing"),
        (weight("visual.trunk.extra", lambda x: x), "unexpected: visual.trunk.extra"),
        (weight(HEAD, lambda x: x[:, :32].clone()), r"file \(48, 32\), needed"),
        (weight("visual.trunk.patch_embed.proj.weight", lambda x: x[0]), "needs 4 axes"),
        (weight(HEAD, lambda x: x / 0), f"NaN or infinite: {HEAD}"),
        (weight(HEAD, lambda x: x.long()), "no floating-point numbers"),
        (weight("text_decoder.x", lambda x: x), "unexpected: text_dec"),
        (pictures(interpolation="lanczos"), "interpolation is 'lanczos'"),
        (pictures(resize_mode="longest"), "resize_mode is 'longest'"),
        (pictures(mean=[0.5, 0.5]), r"mean is \[0.5, 0.5\]; .*of three numbers"),
        (pictures(std=[0.5, 0, 0.5]), "must be above 0"),
        (pictures(blur=1), "preprocess_cfg.blur"),
    ],
    "clipa": [
        (model(quick_gelu="yes"), r"quick_gelu 'yes'; needed: true or false"),
        (vision(layers=[3, 4, 6, 3]), r"a ResNet of \[3, 4, 6, 3\]"),
        (text(hf_model_name="xlm-roberta-base"), r"'xlm-roberta-base'"),
        (vision(ls_init_value=1e-4), "ls_init_value 0.0001; needed: None"),
        (vision(head_width=48), "head_width 48; needed: a divisor of width 64"),
        (text(mlp_ratio="4"), "mlp_ratio '4'; needed: a number above 0"),
        (text(norm_kwargs={"bias": 0}), "norm_kwargs .*needed: an eps alone"),
        (text(norm_kwargs={"eps": -1}), "eps -1; needed: a number from 0"),
    ],
    "eva02_b": [
        (vision(timm_model_name="eva_giant_patch14_clip_224"), "timm's 'eva_giant"),
    ],
    "coca": [
        (text(correct_cls_mask=True), "correct_cls_mask True; needed: False"),
        (vision(attn_pooler_heads=7), "heads 7; needed: a divisor of embed_dim 48"),
    ],
    "siglip": [
        (text(norm_kwargs=None), "norm_kwargs None; needed: an eps of"),
        (
            lambda r, s: [text(vocab_size=256_000)(r, s), weight(TOKENS, many_rows)(r, s)],
            r"act_kwargs None; needed: {'approximate': 'tanh'}, as every SigLIP of this vocabulary",
        ),
        (text(tokenizer_kwargs={"clean": []}), "a clean of lower, canonic"),
        (text(tokenizer_kwargs={"clean": "soap"}), "a clean of lower, canonic"),
        (text(tokenizer_kwargs={"mask": 1}), "clean and strip_sep_token alone"),
    ],
}


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        pytest.param(name, edit, message, id=f"{name}: {message}")
        for name, cases in REFUSED.items()
        for edit, message in cases
    ],
)
def test_refused_by_name(name: str, edit: Edit, message: str, tmp_path: Path) -> None:
    record, state = copy.deepcopy(config(name)), weights(name)
    edit(record, state)
    folder = write_folder(tmp_path, name, record=record, state=state)
    with pytest.raises(ModelError, match=message) as caught:
        load_backbone(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 7, 100, 100_000])
def test_a_file_cut_off_is_refused(size: int, tmp_path: Path) -> None:
    path = write_folder(tmp_path, "clipa") / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    said = "cannot load .*/open_clip_model.safetensors: it is damaged or cut off"
    with pytest.raises(CheckpointError, match=said) as caught:
        load_backbone(str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "whose"),
    [("pe_core_b", "openai/clip-vit-base-patch32"), ("siglip", r"\S+"), ("clipa", r"\S+")],
)
def test_what_is_missing_is_named_first(name: str, whose: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, name)
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=f"has no vocabulary .*copy the files from {whose}$"):
        load_backbone(str(folder), device="cpu")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no open_clip_config\.json\. .*holds open_clip_m"):
        load_backbone(str(folder), device="cpu")


def test_a_training_s_names_of_a_decoder_are_left_out_too(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in weights("coca").items()}
    assert any(".text_decoder." in name for name in state)
    load_backbone(str(write_folder(tmp_path, "coca", state=state)), device="cpu")


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("pe_core_b", {298: "<|endoftext|>", 299: "<|startoftext|>"}, "id for begin is 299"),
        ("pe_core_b", {20: "<|endoftext|>", 299: "more"}, "id for end is 20, .* trained with 299"),
        ("pe_core_b", {299: "more"}, r"eos_token '<\|endoftext\|>' is not in the vocabulary"),
        ("pe_core_b", {300: "more"}, "ids up to 300, .* 300 rows"),
        ("siglip", {1: "x", 7: "</s>"}, "id for end is 7, the weights were trained with 1"),
        ("clipa", {0: "x", 7: "[PAD]"}, "id for end is 7, the weights were trained with 0"),
    ],
)
def test_another_vocabulary_is_refused(
    name: str, words: dict[int, str], message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path, name)
    held = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    listed = [*held, *[""] * (max(words) + 1 - len(held))]
    for number, word in words.items():
        listed[number] = word
    write_words(folder, listed, unknown=listed[2])
    with pytest.raises(CheckpointError, match=message):
        load_backbone(str(folder), device="cpu")


def test_a_repository_says_which_activation_it_was_trained_with() -> None:
    folder = golden_folder("clipa")
    for name, quick in (
        ("timm/vit_base_patch32_clip_224.openai", True),
        ("laion/CLIP-ViT-B-32-laion2B", False),
    ):
        hub = ModelFolder(name, folder, "0" * 40)
        check_activation(hub, quick)
        with pytest.raises(CheckpointError, match=f"quick_gelu {not quick}, but {name} says"):
            check_activation(hub, not quick)
    assert read_sections(ModelFolder("here", folder, "local")).family == "clipa"


def test_pickled_weights_are_the_same_model(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "clipa")
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    path.unlink()
    with pytest.raises(
        CheckpointError, match=r"open_clip_model.safetensors \(or open_clip_pytorch"
    ):
        find_model(str(folder))
    wrapped = {f"module.{name}": value for name, value in state.items()}
    stray = {"attn_mask": torch.zeros(3, 3), "context_length": torch.tensor(77)}
    torch.save({"state_dict": wrapped | stray}, folder / "open_clip_pytorch_model.bin")
    same = load(golden_folder("clipa")).named_weights()
    assert weights_digest(load(folder).named_weights()) == weights_digest(same)


def test_of_two_copies_that_of_transformers_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "clipa")
    assert is_open_clip(folder)
    (folder / "config.json").write_text(json.dumps({"architecture": "vit"}))  # timm's
    (folder / "model.safetensors").touch()
    assert is_open_clip(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert not is_open_clip(folder)
