"""open_clip's folders against outputs of open_clip itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import close
from open_clip_goldens import (
    FEATURES,
    HELD,
    OTHERS,
    config,
    either,
    golden,
    golden_folder,
    ids,
    load,
    pixels,
    write_folder,
    write_resized,
    write_vocabulary,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn import functional

from vtr.clip.backbone import load_backbone
from vtr.clip.encoders import blank_encoder
from vtr.clip.hub import TOKENISER_FILES, ModelFolder, find_model
from vtr.clip.loading import load_text_tower
from vtr.clip.open_clip import read_open_clip
from vtr.clip.open_clip_names import open_clip_state
from vtr.clip.open_clip_text import open_clip_tokeniser
from vtr.clip.preprocess import normalise, preprocessing_from_config, resize_crop
from vtr.demo import demo_model_folder
from vtr.errors import CheckpointError


@pytest.mark.parametrize("name", either(*HELD, *OTHERS))
def test_equals_open_clip(name: str) -> None:
    backbone, expected = load_backbone(str(golden_folder(name)), device="cpu"), golden(name)
    images = backbone.encode_frames(expected["image_u8"])
    close(torch.from_numpy(images), expected["image_features"], atol=FEATURES)
    with torch.inference_mode():
        texts = backbone.model.text(ids(name))
    close(texts, expected["text_features"], atol=FEATURES)
    units = [functional.normalize(x, dim=-1) for x in (torch.from_numpy(images), texts)]
    logits = backbone.model.logit_scale.exp() * units[0] @ units[1].T
    if "logit_bias" in expected:
        logits = logits + backbone.model.logit_bias
    if "image_logits" in expected:
        close(logits, expected["image_logits"], atol=FEATURES)
    alone = load_text_tower(find_model(str(golden_folder(name))))[0]
    torch.testing.assert_close(alone(ids(name)), texts, rtol=0, atol=0)


ACTIVATIONS = {
    "act/image/embedded": lambda m, x: m.visual.embed(x),
    "act/image/block0": lambda m, x: m.visual.run(m.visual.embed(x), stop=1),
    "act/image/block1": lambda m, x: m.visual.run(m.visual.embed(x)),
    "act/text/embedded": lambda m, x: m.text.embed(x),
    "act/text/block0": lambda m, x: m.text.run(m.text.embed(x), stop=1),
    "act/text/block1": lambda m, x: m.text.run(m.text.embed(x)),
    "act/text/norm": lambda m, x: m.text.ln_final(m.text.run(m.text.embed(x))),
}


@pytest.mark.parametrize("name", [*either("pe_core_b", "pe_core_g", "clip_gelu", "siglip2_gopt")])
def test_what_passes_between_the_blocks_equals_open_clip(name: str) -> None:
    model, expected = load(golden_folder(name)), golden(name)
    for key, step in ACTIVATIONS.items():
        given = pixels(name) if "image" in key else ids(name)
        with torch.inference_mode():
            close(step(model, given[:1])[0], expected[key])
    if "pe_core" in name:
        with torch.inference_mode():
            visual: Any = model.visual
            tokens = visual.ln_post(visual.run(visual.embed(pixels(name)[:1])))
            close(tokens[0], expected["act/image/attn_pool_in"])
            close(visual.attention_pool(tokens)[0], expected["act/image/pooled"])


@pytest.mark.parametrize("name", either("pe_core_b", "eva02_b", "pe_core_g"))
def test_angles_equal_timms(name: str) -> None:
    visual: Any = load(golden_folder(name)).visual
    table = visual.block_options(torch.zeros(()))["rope"]
    close(table, golden(name)["rope_sin_cos"], atol=1e-7)


@pytest.mark.parametrize("name", either("pe_core_b", "pe_core_g"))
def test_pictures_of_another_size_by_resized_positions(name: str, tmp_path: Path) -> None:
    expected = golden(name)
    side = expected["resized/image_u8"].shape[1]
    backbone = load_backbone(str(write_resized(tmp_path, name)), device="cpu")
    visual: Any = backbone.model.visual
    assert backbone.preprocessing.size == (side, side)
    close(visual.positions, expected["resized/pos_embed"][0], atol=1e-7)
    close(
        visual.block_options(torch.zeros(()))["rope"], expected["resized/rope_sin_cos"], atol=1e-7
    )
    images = backbone.encode_frames(expected["resized/image_u8"])
    close(torch.from_numpy(images), expected["resized/image_features"], atol=FEATURES)


@pytest.mark.parametrize("name", ["pe_core_b", *either("siglip2_gopt")])
def test_pictures_are_squashed_by_the_filter_of_the_folder(name: str) -> None:
    preprocessing = preprocessing_from_config(golden_folder(name), route="exact")
    assert preprocessing.resize == "squash"
    assert preprocessing.resample == config(name)["preprocess_cfg"]["interpolation"]
    for shape in ("90x67", "23x31"):
        picture = golden(name).get(f"squash/{shape}/rgb")
        if picture is None:
            continue
        crop = resize_crop(picture, preprocessing)
        np.testing.assert_array_equal(crop, golden(name)[f"squash/{shape}/resized_u8"])
        made = normalise(torch.from_numpy(crop[None]), preprocessing, dtype=torch.float32)
        close(made[0], golden(name)[f"squash/{shape}/pixel_values"], atol=0)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_clip_is_the_same_model_in_either_format(activation: str, tmp_path: Path) -> None:
    theirs = load_backbone(str(demo_model_folder()), device="cpu")
    sizes = theirs.architecture
    record = {
        "model_cfg": {
            "embed_dim": sizes.dim,
            "quick_gelu": activation == "quick_gelu",
            "vision_cfg": {
                "image_size": sizes.image_size,
                "patch_size": sizes.patch,
                "width": sizes.vision.width,
                "layers": sizes.vision.layers,
                "head_width": sizes.vision.width // sizes.vision.heads,
                "mlp_ratio": sizes.vision.mlp_width / sizes.vision.width,
            },
            "text_cfg": {
                "context_length": sizes.context,
                "vocab_size": sizes.vocabulary,
                "width": sizes.text.width,
                "layers": sizes.text.layers,
                "heads": sizes.text.heads,
                "mlp_ratio": sizes.text.mlp_width / sizes.text.width,
            },
        }
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(record))
    state = {n: v.clone().contiguous() for n, v in open_clip_state(theirs.model).items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    for name in TOKENISER_FILES:
        if (demo_model_folder() / name).is_file():
            shutil.copy(demo_model_folder() / name, tmp_path)
    ours = load_backbone(str(tmp_path), device="cpu")
    assert ours.weights_sha256 == theirs.weights_sha256
    assert ours.family == "clip"
    texts = ["A red &amp; green Square", "", "w " * 100]
    same = np.array_equal(
        ours.encode_texts(texts).embeddings, theirs.encode_texts(texts).embeddings
    )
    assert same == (activation == theirs.architecture.text.activation)
    assert ours.preprocessing.resize == "shortest-edge"


@pytest.mark.parametrize(
    ("name", "text", "expected", "padding"),
    [
        ("pe_core_b", "A RED  thing&amp;on", [298, 5, 6, 2, 299], None),
        ("coca", "A red", [298, 5, 6, 299], 0),
        ("siglip", "A red_thing, man!", [5, 6, 7, 8, 1], 1),
        ("siglip2", "A red_thing, man!", [5, 6, 7, 8, 1], 0),
        ("clipa", "a red", [3, 5, 6, 0], 0),
    ],
)
def test_texts_are_cleaned_ended_and_padded_by_the_folders_rules(
    name: str, text: str, expected: list[int], padding: int | None, tmp_path: Path
) -> None:
    record = config(name if name in HELD else "siglip")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(record))
    folder = ModelFolder("x", write_vocabulary(tmp_path, name), "local")
    tokeniser = open_clip_tokeniser(folder)
    ids = tokeniser.encode([text, "red " * 100]).ids
    assert ids[0] == expected
    context = record["model_cfg"]["text_cfg"]["context_length"]
    assert len(ids[1]) == context
    assert ids[1][-1] == expected[-1]
    row = tokeniser.pad(ids[:1])[0]
    assert len(row) == (len(expected) if padding is None else context)
    assert set(row[len(expected) :]) == (set() if padding is None else {padding})


def test_tokens_that_no_text_can_hold_need_no_row(tmp_path: Path) -> None:
    folder = ModelFolder("x", write_folder(tmp_path, "siglip"), "local")
    path = tmp_path / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    backend.add_special_tokens(["<extra_id_0>", "<extra_id_1>"])
    backend.save(str(path))
    ids = open_clip_tokeniser(folder).encode(["a <extra_id_0> man"]).ids[0]
    assert max(ids) < 300
    backend.add_tokens(["more"])
    backend.save(str(path))
    with pytest.raises(CheckpointError, match=r"ids up to 302, .* 300 rows"):
        open_clip_tokeniser(folder)


@pytest.mark.parametrize(
    ("name", "extra"), [*[(n, 1) for n in ("eva02_b", "clipa")], ("siglip", 0)]
)
def test_positions_are_resized_per_channel_but_that_of_the_class_token(
    name: str, extra: int, tmp_path: Path
) -> None:
    record = config(name)
    record["model_cfg"]["vision_cfg"]["image_size"] = record["preprocess_cfg"]["size"] = 57
    before, after = load(golden_folder(name)), load(write_folder(tmp_path, name, record=record))
    old, new = before.visual.positions, after.visual.positions
    assert torch.equal(old[:extra], new[:extra])
    grid = round((len(old) - extra) ** 0.5)
    for channel in (0, 17):
        plane = old[extra:, channel].view(1, 1, grid, grid)
        wanted = functional.interpolate(plane, size=(7, 7), mode="bicubic", antialias=True)
        torch.testing.assert_close(new[extra:, channel], wanted.flatten())
    assert torch.isfinite(after.visual(torch.zeros(1, 3, 57, 57))).all()


PUBLISHED = {
    "vit_pe_core_tiny_patch16_384": (192, 16, 384, 768, (512, 12, 8), 32, 512, 6.1, 63.4),
    "vit_pe_core_small_patch16_384": (384, 16, 384, 1536, (512, 12, 8), 32, 512, 23.8, 63.4),
    "vit_pe_core_base_patch16_224": (768, 16, 224, 3072, (1024, 24, 16), 32, 1024, 93.7, 354.0),
    "vit_pe_core_large_patch14_336": (1024, 14, 336, 4096, (1024, 24, 16), 32, 1024, 317.2, 354.0),
    "vit_pe_core_gigantic_patch14_448": (
        1536, 14, 448, 8960, (1280, 24, 20), 72, 1280, 1882.0, 537.2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_perception_encoders_have_so_many_parameters(name: str, tmp_path: Path) -> None:
    width, patch, side, mlp, text, context, dim, *millions = PUBLISHED[name]
    record = config("pe_core_b")
    record["model_cfg"] |= {
        "embed_dim": dim,
        "vision_cfg": {
            "image_size": side,
            "timm_model_name": name,
            "timm_pool": "map",
            "timm_proj": None,
        },
        "text_cfg": {
            "context_length": context,
            **dict(zip(("width", "layers", "heads"), text, strict=True)),
        },
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(record))
    has_class_token = not name.startswith("vit_pe_core_g")
    shapes = {
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "blocks.0.mlp.fc1.weight": (mlp, width),
        "pos_embed": (1, (side // patch) ** 2 + has_class_token, width),
        **({"cls_token": (1, 1, width)} if has_class_token else {}),
    }
    weights = {f"visual.trunk.{n}": torch.empty(s, device="meta") for n, s in shapes.items()}
    contents = read_open_clip(ModelFolder("x", tmp_path, "local"), weights)
    assert contents.architecture.rope.reference == side // patch
    network = blank_encoder(contents.architecture, temporal=False)
    for tower, expected in zip((network.visual, network.text), millions, strict=True):
        count = sum(value.numel() for value in tower.parameters())
        assert round(count / 1e6, 1) == expected
