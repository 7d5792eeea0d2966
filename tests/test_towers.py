"""Our towers against transformers' on tiny models with random weights, and folders as they come."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    close,
    edit_json,
    edit_weights,
    grey,
    perturbed,
    run_python,
    save_quietly,
    write_captions,
    write_clip,
    write_processor,
    write_words,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel

from vtr.clip.backbone import load_backbone
from vtr.clip.configuration import read_architecture, read_config
from vtr.clip.encoders import DualEncoder, huggingface_state
from vtr.clip.hub import find_model
from vtr.clip.loading import load_model, weights_digest
from vtr.clip.text import load_tokeniser
from vtr.clip.towers import ACTIVATIONS, Architecture, Block, Sizes
from vtr.demo import demo_model_folder
from vtr.errors import CheckpointError

WIDE = {"hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 3}
NARROW = {"hidden_size": 32, "intermediate_size": 72, "num_attention_heads": 4}
VOCABULARY, CONTEXT, END = 60, 11, 59


def tiny(family: str, **changes: Any) -> CLIPModel | SiglipModel:
    """A model in which nothing is at its initial value: norms, biases, scale and positions too."""
    text: dict[str, Any] = NARROW | {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "eos_token_id": changes.pop("end", END),
    }
    vision: dict[str, Any] = WIDE | {
        "image_size": changes.pop("image_size", 24),
        "patch_size": changes.pop("patch", 8),
    }
    both = {"num_hidden_layers": 2} | changes
    torch.manual_seed(5)  # of transformers' own draws
    if family == "clip":
        config = CLIPConfig(text_config=text | both, vision_config=vision | both, projection_dim=20)
        model: Any = CLIPModel(config)
    else:
        text |= {"projection_size": WIDE["hidden_size"]}
        model = SiglipModel(SiglipConfig(text_config=text | both, vision_config=vision | both))
    return perturbed(model.eval(), 0.2)


def save(model: Any, folder: Path, **options: Any) -> Path:
    save_quietly(model, folder, **options)
    if model.config.model_type == "siglip":
        settings = {"tokenizer_class": "SiglipTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "tokenizer.json").write_text("{}")  # asked for before weights are read
    return folder


def load(folder: Path) -> DualEncoder:
    return load_model(find_model(str(folder)))[0]


def agree(found: Tensor, expected: Tensor, bound: float = 1e-6) -> None:
    """Both as they are, relative to their size, and as directions."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=bound * scale)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(found), unit(expected), rtol=0, atol=bound)


def pictures(size: int, count: int = 5) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def texts(count: int = 6) -> Tensor:
    """Ids that end at different places, one at the last, one with a second end token behind."""
    ids = torch.randint(3, END, (count, CONTEXT), generator=torch.Generator().manual_seed(2))
    for row, end in enumerate((1, 4, CONTEXT - 1, 5, 7, 2)[:count]):
        ids[row, end], ids[row, end + 1 :] = END, 0
    ids[3, 8] = END
    return ids


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "CLIP": ("clip", {}),
    "LAION": ("clip", {"hidden_act": "gelu"}),
    "SigLIP": ("siglip", {}),
    "CLIP of one layer": ("clip", {"num_hidden_layers": 1}),
    "SigLIP of one layer": ("siglip", {"num_hidden_layers": 1}),
    "another epsilon": ("clip", {"layer_norm_eps": 1e-3}),
    "a rest beside the patches": ("clip", {"image_size": 27, "patch": 8}),
    "SigLIP with a rest": ("siglip", {"image_size": 31, "patch": 7}),
    "one patch": ("clip", {"image_size": 8, "patch": 8}),
    "the end as it was before": ("clip", {"end": 2}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_and_gradients_equal_transformers(name: str, tmp_path: Path) -> None:
    family, changes = FAMILIES[name]
    theirs = tiny(family, **changes)
    ours = load(save(theirs, tmp_path)).requires_grad_(True)
    size = theirs.config.vision_config.image_size
    for pair in (
        (ours.visual(pictures(size)), theirs.get_image_features(pixel_values=pictures(size))),
        (ours.text(texts()), theirs.get_text_features(input_ids=texts())),
    ):
        found, expected = pair[0], pair[1].pooler_output
        agree(found.detach(), expected.detach())
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
        for features in (found, expected):
            (features * weights).sum().backward()
    expected_gradients = {
        name: value.grad for name, value in theirs.named_parameters() if value.grad is not None
    }
    gradients = copy.deepcopy(ours)
    for copied, value in zip(gradients.parameters(), ours.parameters(), strict=True):
        copied.data = torch.zeros_like(value) if value.grad is None else value.grad
    found_gradients = huggingface_state(gradients)
    largest = max(float(value.abs().max()) for value in expected_gradients.values())
    for name, expected in expected_gradients.items():
        # Of the key's bias it is zero but for rounding: the softmax does not see a constant.
        bound = 2e-5 * max(float(expected.abs().max()), largest / 100)
        torch.testing.assert_close(found_gradients[name], expected, rtol=0, atol=bound, msg=name)
    assert found_gradients.keys() - expected_gradients.keys() <= {"logit_scale", "logit_bias"}


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_names_bytes_and_digest_are_those_of_the_folder(family: str, tmp_path: Path) -> None:
    theirs = tiny(family)
    state = huggingface_state(load(save(theirs, tmp_path)))
    expected = theirs.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    assert weights_digest(state) == weights_digest(expected)


@pytest.mark.parametrize("kind", ["float32", "float16", "one of float16"])
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_digest_is_of_what_was_loaded(family: str, kind: str, tmp_path: Path) -> None:
    """Taken of the files where they say the same bytes, else of the weights in float32."""
    theirs = tiny(family)
    if kind == "float16":
        theirs = theirs.half()
    elif kind == "one of float16":
        theirs.logit_scale.data = theirs.logit_scale.data.half()
    loaded = load_model(find_model(str(save(theirs, tmp_path))))
    assert loaded.digest == weights_digest(loaded.model.named_weights())
    assert loaded.digest == weights_digest(theirs.float().state_dict())


def test_what_stores_and_runs_recorded_before_is_still_so() -> None:
    """The fingerprint of a store made with transformers' towers, on the model that we ship."""
    backbone = load_backbone(str(demo_model_folder()), device="cpu")
    shapeless = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-05, "num_attention_heads": 3}
    assert json.loads(json.dumps(backbone.describe())) == {
        "backbone": "model",
        "revision": "local",
        "weights_sha256": "418419fe148569bf9af83750e89a94ee3ba4a632d485961258124bd7327f6567",
        "embedding_dim": 96,
        "compute_dtype": "float32",
        "preprocessing": {
            "route": "fast",
            "size": [48, 48],
            "resize": "shortest-edge",
            "resize_to": 48,
            "resample": "bicubic",
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
        "vision": shapeless,
    }
    assert json.dumps(backbone.describe()["vision"]) == json.dumps(shapeless)
    assert backbone.text_settings == shapeless
    assert backbone.logit_scale == 3.455078125


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_tower_can_be_left_and_entered_at_every_block(family: str, tmp_path: Path) -> None:
    ours = load(save(tiny(family, num_hidden_layers=3), tmp_path))
    visual, text, pixels, ids = ours.visual, ours.text, pictures(24), texts()
    for block in range(4):
        below = visual.run(visual.embed(pixels), stop=block)
        above = visual.run(below, start=block, num_outputs=visual.num_outputs)
        if block < 3:
            assert torch.equal(visual.pool(above), visual(pixels))
        else:  # all tokens are there, of which the pooling reads its own
            agree(visual.pool(below), visual(pixels))
        tokens = text.run(text.run(text.embed(ids), stop=block), start=block)
        projected = text.project(tokens)
        end = 1 if family == "clip" else -1
        agree(projected[:1, end], text(ids)[:1])


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_query_key_and_value_can_be_modules_of_their_own(family: str, tmp_path: Path) -> None:
    """As LoRA wants them; names in a folder, digest and embeddings stay."""
    packed = load(save(tiny(family), tmp_path))
    apart = copy.deepcopy(packed)
    for tower in (apart.visual, apart.text):
        for block in tower.blocks:
            block.attn.unpack()
    assert isinstance(apart.text.blocks[0].attn.q_proj, torch.nn.Linear)
    assert not any(parameter.requires_grad for parameter in apart.parameters())
    assert weights_digest(huggingface_state(apart)) == weights_digest(huggingface_state(packed))
    agree(apart.visual(pictures(24)), packed.visual(pictures(24)))
    agree(apart.text(texts()), packed.text(texts()))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_scaling_and_adding_in_the_product_changes_nothing(activation: str) -> None:
    """What no gradient flows through is computed by fewer passes over memory, to rounding."""
    torch.manual_seed(0)
    block, tokens = Block(64, 2, 256, activation=activation), torch.randn(3, 5, 64)
    before = tokens.clone()
    for wanted in (None, 1):
        plain = block(tokens, num_outputs=wanted)
        assert plain.requires_grad
        with torch.no_grad():
            close(block(tokens, num_outputs=wanted), plain.detach(), atol=2e-6)
            with torch.autocast("cpu", torch.bfloat16):
                close(block(tokens, num_outputs=wanted), plain.detach(), atol=2e-2)
        assert block(tokens[:0]).shape == (0, 5, 64)
        half = copy.deepcopy(block).bfloat16()
        made = half(tokens.bfloat16())
    assert torch.equal(made, half(tokens.bfloat16())), "nothing more is rounded"
    assert torch.equal(tokens, before)


@pytest.mark.parametrize("place", ["attn.out_proj", "mlp.c_fc", "mlp.c_proj"])
def test_a_module_in_the_place_of_a_layer_is_called(place: str) -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, values: Tensor) -> Tensor:
            return 2 * super().forward(values)

    torch.manual_seed(0)
    block, tokens = Block(64, 2, 256), torch.randn(3, 5, 64)
    layer, (owner, _, name) = block.get_submodule(place), place.rpartition(".")
    doubled = Doubled(*reversed(layer.get_parameter("weight").shape))
    doubled.load_state_dict(layer.state_dict())
    before = block(tokens).detach()
    setattr(block.get_submodule(owner), name, doubled)
    plain = block(tokens)
    assert (plain - before).abs().max() > 1e-2
    with torch.no_grad():
        close(block(tokens), plain.detach(), atol=2e-6)


def test_pictures_and_texts_of_other_sizes_are_refused(tmp_path: Path) -> None:
    """Nothing is interpolated, as in transformers unless one asks for it."""
    ours = load(save(tiny("clip"), tmp_path))
    for height, width in ((32, 32), (24, 25), (25, 24)):
        with pytest.raises(ValueError, match=rf"pictures of \({height}, {width}\), need 24"):
            ours.visual(torch.zeros(1, 3, height, width))
    with pytest.raises(ValueError, match="texts of 12 tokens, need at most 11"):
        ours.text(torch.zeros(1, 12, dtype=torch.int64))


# --- folders


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read_as_their_index_says(kind: str, tmp_path: Path) -> None:
    theirs = tiny("clip")
    folder = save(theirs, tmp_path / "m", max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    if kind == "bin":
        for shard in shards:
            torch.save(load_file(shard), folder / f"pytorch_{shard.stem}.bin")
            shard.unlink()
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        names = {n: f"pytorch_{Path(f).stem}.bin" for n, f in index["weight_map"].items()}
        (folder / "model.safetensors.index.json").unlink()
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    else:  # of an earlier download, in no index
        save_file({"extra": torch.zeros(1)}, folder / "model-00009-of-00009.safetensors")
    assert weights_digest(huggingface_state(load(folder))) == weights_digest(theirs.state_dict())
    next(folder.glob("*-00002-of-*")).unlink()
    with pytest.raises(CheckpointError, match=r"index\.json names \S+-00002-of-\S+, which is not"):
        load(folder)


def test_an_index_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = save(tiny("clip"), tmp_path / "m", max_shard_size="40KB")
    for content in ("{}", '{"weight_map": {"a": "../secret.safetensors"}}', '{"weight_map": 3}'):
        (folder / "model.safetensors.index.json").write_text(content)
        with pytest.raises(CheckpointError, match="has no weight_map of names to files"):
            load(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    half = copy.deepcopy(tiny("clip")).to(dtype)
    state = huggingface_state(load(save(half, tmp_path)))
    assert all(value.dtype == torch.float32 for value in state.values())
    assert weights_digest(state) == weights_digest(half.float().state_dict())


def architecture(folder: Path) -> Architecture:
    return read_architecture(find_model(str(folder)), read_config(folder))


@pytest.mark.parametrize(("family", "kind"), [("clip", CLIPConfig), ("siglip", SiglipConfig)])
def test_what_config_json_leaves_out_is_transformers_default(
    family: str, kind: Any, tmp_path: Path
) -> None:
    folder = save(tiny(family), tmp_path)
    record: dict[str, Any] = {"model_type": family}
    for sections in ({}, {"text_config": {"vocab_size": 99}, "vision_config": {"image_size": 64}}):
        (folder / "config.json").write_text(json.dumps(record | sections))
        theirs, ours = kind(**sections), architecture(folder)
        for config, sizes in ((theirs.text_config, ours.text), (theirs.vision_config, ours.vision)):
            assert sizes == Sizes(
                width=config.hidden_size,
                layers=config.num_hidden_layers,
                heads=config.num_attention_heads,
                mlp_width=config.intermediate_size,
                activation=config.hidden_act,
                epsilon=config.layer_norm_eps,
            )
        dim = theirs.projection_dim if family == "clip" else theirs.text_config.projection_size
        text, vision = theirs.text_config, theirs.vision_config
        assert (ours.dim, ours.image_size, ours.patch) == (
            dim,
            vision.image_size,
            vision.patch_size,
        )
        assert (ours.vocabulary, ours.context) == (text.vocab_size, text.max_position_embeddings)
        assert ours.end_id == text.eos_token_id


def test_sizes_that_early_folders_hold_twice(tmp_path: Path) -> None:
    """As in openai/clip-vit-large-patch14: what the second lacks is the default, as there."""
    folder = save(tiny("clip"), tmp_path)
    second = {"hidden_size": 64, "num_attention_heads": 4}
    edit_json(folder / "config.json", text_config_dict=second, vision_config_dict=None)
    expected = CLIPConfig(**json.loads((folder / "config.json").read_text())).text_config
    found = architecture(folder)
    assert found.text.width == expected.hidden_size == 64
    assert found.text.layers == expected.num_hidden_layers == 12
    assert found.vocabulary == expected.vocab_size == 49408
    assert found.vision.width == WIDE["hidden_size"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": "48"}, r"vision_config\.hidden_size '48'; needed: a whole number from 1"),
        ({"hidden_size": True}, r"hidden_size True; needed"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0; needed: a whole number from 1 to 1000"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000; needed"),
        ({"num_attention_heads": 5}, "num_attention_heads 5, which does not divide hidden_size 48"),
        ({"layer_norm_eps": None}, "layer_norm_eps None; needed: a number from 0"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'; vtr knows quick_gelu, gelu, gelu_pytorch"),
        ({"hidden_act": ["gelu"]}, r"hidden_act \['gelu'\]; vtr knows"),
        ({"patch_size": 25}, "patches of 25 pixels in pictures of 24"),
        ({"image_size": [24, 24]}, r"image_size \[24, 24\]; needed: a whole number"),
        (
            {"hidden_size": 1 << 30},
            "hidden_size 1073741824; needed: a whole number from 1 to 1048576",
        ),
        (
            {"hidden_size": 1 << 20, "image_size": 1 << 14, "num_attention_heads": 1},
            "of another shape: .*1048576",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_memory_is_taken(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = save(tiny("clip"), tmp_path)
    edit_json(folder / "config.json", lambda record: record["vision_config"].update(values))
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_sections_that_are_no_objects_and_towers_without_a_pooling(tmp_path: Path) -> None:
    folder = save(tiny("siglip"), tmp_path)
    edit_json(folder / "config.json", vision_config__vision_use_head=False)
    with pytest.raises(CheckpointError, match="vision_use_head false"):
        load(folder)
    edit_json(folder / "config.json", vision_config=3)
    with pytest.raises(CheckpointError, match="vision_config 3; needed: an object"):
        load(folder)


def test_whole_numbers_for_weights_are_refused(tmp_path: Path) -> None:
    folder = save(tiny("clip"), tmp_path)
    name = "visual_projection.weight"
    edit_weights(folder, lambda weights: weights.update({name: weights[name].to(torch.int8)}))
    with pytest.raises(CheckpointError, match=r"no floating.*: visual_proj\S+ \(torch\.int8\)"):
        load(folder)


# --- vocab.json and merges.txt without transformers


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CLIPTokenizer]:
    """The demo model's vocabulary as the older pair of files, and transformers' reading of it."""
    folder = tmp_path_factory.mktemp("pair")
    record = json.loads((demo_model_folder() / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(record["vocab"]))
    lines = [" ".join(merge) if isinstance(merge, list) else merge for merge in record["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    merges = [tuple(line.split(" ")) for line in lines]
    return folder, CLIPTokenizer(vocab=record["vocab"], merges=merges)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(
                ["a red circle", "<|endoftext|>", "<|startoftext|>x", "it's", "İ ﬁ  4 5"]
            ),
        ),
        max_size=6,
    ).map(" ".join)
)
def test_the_older_pair_splits_as_transformers_does(
    pair: tuple[Path, CLIPTokenizer], text: str
) -> None:
    folder, theirs = pair
    ours = load_tokeniser(folder, family="clip", max_length=77, vocab_size=861).backend
    expected = theirs.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, add_special_tokens=False).ids == expected


# --- processes


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save(tiny("siglip"), tmp_path_factory.mktemp("models") / "siglip")
    write_words(folder, ["<unk>", "</s>", "a", "clip", "of", "one"])
    write_processor(folder, {"height": 24, "width": 24}, resample=2)
    return folder


_RUN_ALL = """
import os
from vtr.cli import app
for model in ("clip", "siglip"):
    os.makedirs(model)
    os.chdir(model)
    for words in (
        f"init folder --videos ../videos --annotations ../captions.json --model ../models/{model}",
        "extract --workers 1",
        "eval --zero-shot",
        "train --epochs 1",
    ):
        app(words.split(), standalone_mode=False)
    os.chdir("..")
"""


def test_no_command_loads_the_models_of_transformers(siglip_folder: Path, tmp_path: Path) -> None:
    """A real process and its workers: every module that is imported is listed."""
    splits = ("train", "train", "train", "val", "test", "test")
    for n in range(len(splits)):
        pictures = [grey(40 * n + level, (32, 32)) for level in range(4)]
        write_clip(tmp_path / "videos" / f"v{n}.mp4", pictures, codec="mpeg4")
    rows = [(f"v{n}.mp4", f"a clip of {n}", split) for n, split in enumerate(splits)]
    write_captions(tmp_path / "captions.json", rows)
    shutil.copytree(demo_model_folder(), tmp_path / "models" / "clip")
    shutil.copytree(siglip_folder, tmp_path / "models" / "siglip")
    done = run_python("-c", _RUN_ALL, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 0, done.stdout + "\n".join(told)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"torch", "vtr.clip.towers", "vtr.train.loop"} <= modules
    assert not [name for name in modules if name.split(".")[0] == "transformers"]
