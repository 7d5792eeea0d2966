"""CLIP's parameter names both ways: exact round trips, and every fault of a state dict told."""

from collections.abc import Callable

import pytest
import torch
from builders import same, with_zeros, without
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from vtr.clip.openai_names import (
    TEMPORAL_WEIGHT,
    huggingface_config,
    read_shape,
    require_keys,
    to_huggingface,
)
from vtr.clip.towers import Architecture, Sizes
from vtr.errors import CheckpointError

State = dict[str, Tensor]
PLAIN = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.temporal_weight": "conv2.weight",
    "embeddings.patch_embedding": "conv1",
    "embeddings.token_embedding": "token_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "vision_model.": "visual.",
    "text_model.": "",
}
SHAPE = Architecture(
    family="clip",
    vision=Sizes(64, 2, 1, 96, "quick_gelu", 1e-5),
    text=Sizes(128, 3, 2, 256, "quick_gelu", 1e-5),
    dim=20,
    image_size=24,
    patch=8,
    vocabulary=50,
    context=12,
    end_id=49,
)


def model(*, seed: int = 0) -> CLIPModel:
    torch.manual_seed(seed)
    return CLIPModel(CLIPConfig(**huggingface_config(SHAPE))).eval()


@pytest.fixture(scope="module")
def huggingface_state() -> State:
    return model().state_dict()


@pytest.fixture
def openai_state(huggingface_state: State) -> State:
    return to_openai(huggingface_state)


def to_openai(state: State) -> State:
    """The other way, written down anew: what OpenAI's files hold of a transformers model."""
    openai: State = {}
    # Query, key, value: transformers has them in another order.
    for name in sorted(state, key=lambda name: name.replace(".q_proj", ".j_proj")):
        tensor = state[name]
        if name in ("visual_projection.weight", "text_projection.weight"):
            openai["visual.proj" if name[0] == "v" else "text_projection"] = tensor.T.contiguous()
            continue
        for theirs, ours in PLAIN.items():
            name = name.replace(theirs, ours)
        if "_proj." in name and "attn.out" not in name and "c_proj" not in name:
            before, _, kind = name.rpartition(".")
            name = f"{before.rpartition('.')[0].replace('self_attn', 'attn')}.in_proj_{kind}"
            openai[name] = torch.cat([openai.get(name, tensor[:0]), tensor])
        else:
            openai[name] = tensor
    return openai


def test_round_trips_are_exact_for_any_dtype(huggingface_state: State) -> None:
    halves = {
        name: tensor.half() if "proj" in name else tensor
        for name, tensor in huggingface_state.items()
    }
    openai = to_openai(halves)
    same(to_huggingface(openai), halves)
    assert {tensor.dtype for tensor in openai.values()} == {torch.float16, torch.float32}


def test_every_tensor_has_memory_of_its_own(openai_state: State) -> None:
    converted = to_huggingface(openai_state)
    pointers = {tensor.untyped_storage().data_ptr() for tensor in converted.values()}
    assert len(pointers) == len(converted)
    assert all(tensor.is_contiguous() for tensor in converted.values())


def test_shape_and_configuration_come_back(openai_state: State) -> None:
    assert read_shape(openai_state) == SHAPE
    config = CLIPConfig(**huggingface_config(SHAPE))
    assert config.vision_config.num_attention_heads == 1
    assert config.text_config.num_attention_heads == 2
    assert config.vision_config.image_size == 24
    assert config.text_config.eos_token_id == 49
    assert config.text_config.hidden_act == config.vision_config.hidden_act == "quick_gelu"
    fresh = model(seed=1)
    fresh.load_state_dict(to_huggingface(openai_state))  # strict: names and shapes are all right
    given = huggingface_config(SHAPE, text_heads=8)
    assert given["text_config"]["num_attention_heads"] == 8
    with pytest.raises(CheckpointError, match="text tower is 128 wide, which 3 attention heads"):
        huggingface_config(SHAPE, text_heads=3)


def test_a_temporal_convolution_keeps_its_axes(openai_state: State) -> None:
    openai_state["visual.conv2.weight"] = torch.rand(64, 3, 3, 8, 8)
    assert read_shape(openai_state) == SHAPE
    converted = to_huggingface(openai_state)
    assert torch.equal(converted[TEMPORAL_WEIGHT], openai_state["visual.conv2.weight"])
    same(to_openai(converted), openai_state)


def test_attributes_of_archives_are_dropped(openai_state: State) -> None:
    plain = to_huggingface(openai_state)
    same(to_huggingface(openai_state | {"context_length": torch.tensor(12)}), plain)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("ln_final.bias"), r"missing: ln_final\.bias$"),
        (
            without("transformer.resblocks.1.attn.in_proj_bias"),
            r"missing: transformer\.resblocks\.1\.attn\.in_proj_bias$",
        ),
        (with_zeros("head.weight", 3), r"unexpected: head\.weight$"),
        (
            with_zeros("visual.proj", 63, 20),
            r"shape: visual\.proj \(file \(63, 20\), needed \(64, 20\)\)",
        ),
        (with_zeros("visual.positional_embedding", 11, 64), r"file \(11, 64\), needed \(10, 64\)"),
        (
            with_zeros("transformer.resblocks.7.ln_1.weight", 128),
            r"missing: transformer\.resblocks\.3",
        ),
        (
            with_zeros("transformer.resblocks.999999999.x", 1),
            r"unexpected: .*resblocks\.999999999\.x$",
        ),
        (
            with_zeros("transformer.resblocks.0.mlp.c_fc.weight", 9, 9),
            r"c_fc\.weight \(file \(9, 9\)",
        ),
        (without("visual.conv1.weight"), r"with a ViT: visual\.conv1\.weight \(missing\)"),
        (with_zeros("text_projection", 5), r"text_projection \(shape \(5,\), needs 2 axes\)"),
        (with_zeros("visual.layer1.0.conv1.weight", 1), r"vision tower is a ResNet"),
        (dict.clear, r"conv1\.weight \(missing\), .*positional_embedding \(missing\)"),
    ],
)
def test_faults_of_openai_states(
    openai_state: State, edit: Callable[[State], None], message: str
) -> None:
    edit(openai_state)
    with pytest.raises(CheckpointError, match=message):
        to_huggingface(openai_state)


def test_all_faults_are_listed_at_once() -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(1), "c": torch.zeros(1), "ok": torch.zeros(())}
    with pytest.raises(CheckpointError) as caught:
        require_keys(state, {"a": (3,), "d": (1,), "e": (1,), "ok": ()}, what="it", benign=["c"])
    assert str(caught.value) == (
        "the parameters do not fit it. missing: d, e; unexpected: b; "
        "of another shape: a (file (2,), needed (3,))"
    )
