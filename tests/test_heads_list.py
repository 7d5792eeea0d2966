"""Naming, building and starting heads; the shared block; `vtr heads`; the tight head's memory."""

import numpy as np
import pytest
import torch
from builders import make_head, run_app, run_json
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vtr.clip.backbone import load_backbone
from vtr.clip.encoders import DualEncoder, huggingface_state
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, UnknownNameError
from vtr.train.headlist import (
    HeadChoice,
    build_head,
    head_names,
    head_options,
    head_presets,
    parse_head,
)
from vtr.train.heads import tightTransf
from vtr.train.heads.base import (
    TextBatch,
    VideoBatch,
    normalise,
    pad_codes,
)
from vtr.train.heads.blocks import Transformer, choose_num_heads, key_bias

# --- names and options ---


@pytest.mark.parametrize("name", head_names())
def test_labels_read_back_to_the_same_choice(name: str) -> None:
    plain = parse_head(name)
    assert plain == HeadChoice(name)
    for key, value in head_options(name).items():
        assert parse_head(f"{name}:{key}={value}") == plain, "a default is not an option set"
    for preset in head_presets(name):
        choice = parse_head(f"{name}:preset={preset}")
        assert parse_head(choice.label) == choice


@pytest.mark.parametrize("name", head_names())
def test_a_choice_knows_what_the_built_head_will_need(name: str) -> None:
    labels = [name, *(f"{name}:preset={preset}" for preset in head_presets(name))]
    if "layers" in head_options(name):
        labels.append(f"{name}:layers=1")
    for choice in map(parse_head, labels):
        assert build_head(choice, dim=64).info == choice.info


def test_options_are_typed_and_sorted() -> None:
    choice = parse_head(" seqTransf:layers=2:dropout=0.1 ")
    assert choice.options == {"layers": 2, "dropout": 0.1}
    assert choice.label == "seqTransf:dropout=0.1:layers=2"
    assert choice.resolve().heads == 0
    assert choice.info.needs_order


def test_options_override_a_preset() -> None:
    named = [name for name in head_names() if head_presets(name)]
    for name in named:
        preset, changed = next(iter(head_presets(name).items()))
        defaults = head_options(name)
        back = ":".join(f"{key}={defaults[key]}" for key in changed)
        for label in (f"{name}:preset={preset}:{back}", f"{name}:{back}:preset={preset}"):
            assert parse_head(label.replace("::", ":").rstrip(":")) == HeadChoice(name)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ConfigError, "--head is empty. Known: .*meanP"),
        ("seqTransfo", UnknownNameError, "no head named 'seqTransfo'. Did you mean 'seqTransf'"),
        (
            "seqTransf:layer=2",
            UnknownNameError,
            "no option of head 'seqTransf' named 'layer'. Did you mean 'layers'",
        ),
        ("seqTransf:layers", ConfigError, "'layers' has no value; write layers=VALUE"),
        ("seqTransf:layers=two", ConfigError, "layers='two' is not of type int"),
        ("seqTransf:layers=0", ConfigError, "head 'seqTransf': layers=0 is out of range"),
        ("tightTransf:pairs=0", ConfigError, "head 'tightTransf': pairs=0 is out of range"),
        ("seqLSTM:dropout=nan", ConfigError, "dropout=nan is out of range; allowed: 0 to below 1"),
        ("attentionP:tau=0", ConfigError, "head 'attentionP': tau=0.0 is out of range"),
        ("meanP:preset=big", UnknownNameError, "no option of head 'meanP' named 'preset'"),
        ("meanP:tau=1", UnknownNameError, "no option of head 'meanP' named 'tau'.* Known: none"),
        ("clip2video:centers=5", UnknownNameError, "Did you mean 'centres'"),
        ("clip2video:preset=msrvtt9k", UnknownNameError, "Did you mean 'msrvtt-9k'"),
    ],
)
def test_mistakes_are_explained(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_head(text)


@pytest.mark.parametrize(
    ("head", "option", "allowed"),
    [
        ("clip2video", "sim=maxP", "meanP, seqTransf"),
        ("clip2video", "temporal=yes", "off, tdb"),
        ("clip2video", "projection=selfA", "none, mlp, attention"),
        ("clip2video", "alignment=TAB", "off, plain, tab, tab-tdb"),
        ("clip2video", "centres=0", "1 or more"),
        ("clip2video", "weight=1.5", "0 to 1"),
        ("clip2video", "layers=0", "1 to 48"),
        ("clip2video", "pad_to=78", "0 to 77"),
        *((head, "heads=-1", "a divisor of D") for head in ("clip2video", "wti", "afa")),
        *((head, "positions=0", "1 to 4096") for head in ("clip2video", "wti", "afa")),
        *((head, "layers=-1", r"0 \(none\) to 48") for head in ("wti", "afa", "eercf")),
        ("wti", "masking=none", "inf, zero"),
        ("wti", "cdcr=-1.0", r"0 \(off\) or more"),
        ("wti", "cdcr_alpha=-1.0", r"0 \(off\) or more"),
        ("afa", "temperature=0.0", "above 0"),
        ("eercf", "tau=0.0", "0.0001 to 10000"),
        ("eercf", "tau=nan", "0.0001 to 10000"),
        ("eercf", "pearson=-1.0", r"0 \(off\) or more"),
        ("eercf", "pearson=inf", r"0 \(off\) or more"),
        ("tokenbinder", "indicators=0", "1 to 64"),
        ("tokenbinder", "candidates=1", "2 to 4096"),
        ("tokenbinder", "tau=0.0", "0.0001 to 10000"),
        ("xpool", "dropout=1.0", "0 to below 1"),
        ("xpool", "dropout=-0.1", "0 to below 1"),
    ],
)
def test_options_out_of_range(head: str, option: str, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"{option} is out of range; allowed: {allowed}"):
        parse_head(f"{head}:{option}")


def test_options_that_do_not_fit_the_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="'seqTransf': heads=7 does not divide the dimension 64"):
        make_head("seqTransf:heads=7")


@pytest.mark.parametrize(
    ("dim", "num_heads"), [(512, 8), (768, 12), (1024, 16), (64, 1), (8, 1), (200, 2)]
)
def test_one_attention_head_per_64_dimensions(dim: int, num_heads: int) -> None:
    assert choose_num_heads(dim, 0) == num_heads


LAYERS = 12_648_960
"""Parameters of four layers and their table of positions."""


@pytest.mark.parametrize(
    ("label", "count"),
    [
        *((name, 0) for name in ("meanP", "maxP", "attentionP")),
        ("seqLSTM", 8 * 512**2 + 8 * 512),
        ("seqTransf", LAYERS),
        ("tightTransf", LAYERS + 2 * 512 + 512**2 + 512 + 512 + 1),
        ("wti", 526_338),
        ("wti:preset=drl", 526_338 + LAYERS),
        ("afa", 263_169),
        ("afa:preset=teachclip", 263_169 + LAYERS),
        ("xpool", 1_316_352),
        ("clip2video", 18_960_896),
        ("clip2video:preset=vatex", 18_960_896 + 2 * 2 * 512),
        ("clip2video:alignment=off", LAYERS + 3_154_432),
        ("clip2video:alignment=off:temporal=off", LAYERS + 1024),
        ("clip2video:sim=meanP:alignment=off", 1024),
    ],
)
def test_parameters_at_512_as_published(label: str, count: int) -> None:
    with torch.device("meta"):
        head = make_head(label, dim=512)
    assert sum(parameter.numel() for parameter in head.parameters()) == count


@pytest.mark.parametrize(
    ("label", "size"),
    [
        ("seqTransf:layers=1:mlp_ratio=2", 8 * 64**2 + 11 * 64 + 77 * 64),
        ("seqTransf:layers=3:positions=5", 3 * (12 * 64**2 + 13 * 64) + 5 * 64),
        ("seqLSTM:layers=2", 2 * (8 * 64**2 + 8 * 64)),
        ("seqLSTM:width=32", 4 * 32 * (64 + 32) + 8 * 32 + 32 * 64),
    ],
)
def test_depth_and_width_are_options(label: str, size: int) -> None:
    head = make_head(label)
    assert sum(parameter.numel() for parameter in head.parameters()) == size
    videos = VideoBatch(torch.randn(3, 4, 64), torch.ones(3, 4, dtype=torch.bool))
    assert bool(head.similarity(TextBatch(torch.randn(2, 64)), videos).isfinite().all())


@pytest.mark.parametrize("name", ["seqLSTM", "seqTransf", "tightTransf"])
def test_dropout_works_in_training_only(name: str) -> None:
    head = make_head(f"{name}:dropout=0.5")
    videos = VideoBatch(torch.randn(3, 4, 64), torch.ones(3, 4, dtype=torch.bool))
    texts = TextBatch(torch.randn(2, 64))
    one, two = (head.similarity(texts, videos) for _ in range(2))
    assert torch.equal(one, two)
    head.train()
    one, two = (head.similarity(texts, videos) for _ in range(2))
    assert not torch.equal(one, two)


def test_too_many_frames_for_the_positions() -> None:
    head = make_head("seqTransf:positions=5")
    videos = VideoBatch(torch.randn(2, 6, 64), torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(
        ConfigError, match=r"6 frames per video, but .* positions for 5.*positions=N"
    ):
        head.encode_videos(videos)
    tight = make_head("tightTransf:positions=6")
    with pytest.raises(ConfigError, match="6 frames per video, but this head has positions for 5"):
        tight.encode_videos(videos)


# --- CLIP's text layers ---


@pytest.fixture(scope="module")
def clip() -> DualEncoder:
    return load_backbone(str(demo_model_folder()), device="cpu").model


@pytest.mark.parametrize("name", ["seqTransf", "tightTransf"])
def test_heads_start_from_clips_first_layers(name: str, clip: DualEncoder) -> None:
    layers, (length, width) = len(clip.text.blocks), clip.text.positions.shape
    head = make_head(f"{name}:layers={layers + 1}", dim=width, clip=clip)
    state, own = head.state_dict(), huggingface_state(clip)
    stack = "transformerClip" if name == "seqTransf" else "cross.transformer"
    for index, block in enumerate(clip.text.blocks):
        for key, value in block.state_dict().items():
            assert torch.equal(state[f"{stack}.resblocks.{index}.{key}"], value)
        attention = f"text_model.encoder.layers.{index}.self_attn"
        parts = torch.cat([own[f"{attention}.{part}_proj.weight"] for part in "qkv"])
        assert torch.equal(state[f"{stack}.resblocks.{index}.attn.in_proj_weight"], parts)
    table = "" if name == "seqTransf" else "cross.embeddings."
    last = {"": "frame_position_embeddings.weight"}.get(table, f"{table}position_embeddings.weight")
    rows = min(77, length)
    assert torch.equal(state[last][:rows], clip.text.positions[:rows])
    assert head.origin == f"CLIP's text positions and first {layers} text layers, 1 more random"


def test_what_does_not_fit_clip_is_drawn_and_said(clip: DualEncoder) -> None:
    width = clip.text.positions.shape[1]
    other = make_head("seqTransf", dim=2 * width, clip=clip)
    wanted = f"random weights: CLIP's text layers are {width} wide, the frames' features"
    assert other.origin == f"{wanted} {2 * width}"
    matrix = other.get_parameter("transformerClip.resblocks.0.mlp.c_fc.weight")
    assert float(matrix.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not bool(other.get_parameter("transformerClip.resblocks.0.mlp.c_fc.bias").any())
    narrow = make_head("seqTransf:mlp_ratio=2", dim=width, clip=clip)
    assert narrow.origin.startswith("CLIP's text positions, random layers")
    assert "no CLIP text layers" in make_head("seqTransf").origin
    assert make_head("seqLSTM", clip=clip).origin == "random weights, as in the reference"
    assert make_head("meanP", clip=clip).origin == "no parameters"


def test_heads_are_float32_and_their_own_whatever_the_backbone_computes_in(
    clip: DualEncoder,
) -> None:
    """The model that ships holds halves, so that nothing is lost in them."""
    half, width = load_backbone(str(demo_model_folder()), device="cpu", dtype="float16").model, 96
    head, other = (make_head("seqTransf", dim=width, clip=model) for model in (half, clip))
    for name, value in head.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, other.state_dict()[name])
    before = half.text.positions.clone()
    for parameter in head.parameters():
        parameter.data.zero_()
    assert torch.equal(half.text.positions, before)
    assert bool(half.text.blocks[0].ln_1.weight.any())


# --- the block and the small functions ---


def test_masked_keys_have_no_weight_and_all_masked_rows_stay_finite() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False]])
    bias = key_bias(mask)
    assert bias.shape == (2, 1, 1, 3)
    assert bias[0].flatten().tolist() == [0, 0, -np.inf]
    assert bias[1].flatten().tolist() == [-1e6, -1e6, -1e6]
    stack = Transformer(8, num_layers=2, num_heads=2)
    tokens = torch.randn(2, 3, 8, requires_grad=True)
    stack(tokens, mask).sum().backward()
    assert bool(tokens.grad.isfinite().all())


def test_the_last_layer_may_skip_tokens() -> None:
    stack = Transformer(8, num_layers=2, num_heads=2)
    tokens, mask = torch.randn(3, 5, 8), torch.rand(3, 5) < 0.5
    mask[:, 0] = True
    torch.testing.assert_close(stack(tokens, mask, num_outputs=2), stack(tokens, mask)[:, :2])


def test_normalise_keeps_zeros_and_does_not_hide_nan() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [torch.nan, 1.0]], requires_grad=True)
    unit = normalise(vectors)
    assert unit[:2].tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    assert bool(unit[2].isnan().all())
    unit[:2].sum().backward()
    assert bool(vectors.grad[:2].isfinite().all())


def test_pad_codes_fills_with_zeros_and_false() -> None:
    long = (torch.ones(1, 3, 2), torch.ones(1, 3, dtype=torch.bool), torch.ones(1))
    short = (torch.ones(2, 1, 2), torch.ones(2, 1, dtype=torch.bool), torch.ones(2))
    frames, mask, plain = pad_codes([long, short])
    assert frames[:, :, 0].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [True, False, False]]
    assert len(plain) == 3


def test_empty_rows_are_counted() -> None:
    mask = torch.tensor([[True, False], [False, False], [True, True], [False, False]])
    with pytest.raises(ConfigError, match=r"row 1 of the batch has no frames \(2 of 4 rows are"):
        VideoBatch(torch.zeros(4, 2, 8), mask)
    with pytest.raises(ConfigError, match="text in row 1 of the batch has no tokens; even an empt"):
        TextBatch(torch.zeros(4, 8), torch.zeros(4, 2, 8), mask)


# --- the tight head ---


def tight_batch() -> tuple[TextBatch, VideoBatch]:
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(4) < torch.tensor([4, 2, 1, 3, 4])[:, None]
    frames = torch.randn(5, 4, 64, generator=generator)
    return TextBatch(torch.randn(7, 64, generator=generator)), VideoBatch(frames, mask)


@pytest.mark.parametrize("pairs", [1, 3, 34, 35, 1000])
def test_chunks_never_change_a_tight_score(pairs: int) -> None:
    texts, videos = tight_batch()
    whole = make_head("tightTransf:pairs=100000")
    parts = make_head(f"tightTransf:pairs={pairs}")
    torch.testing.assert_close(
        parts.similarity(texts, videos), whole.similarity(texts, videos), rtol=0, atol=1e-6
    )


def test_chunks_never_change_a_tight_gradient() -> None:
    texts, videos = tight_batch()
    gradients = []
    for pairs in (4, 1000):
        head = make_head(f"tightTransf:dropout=0:pairs={pairs}").train()
        head.similarity(texts, videos).logsumexp(dim=1).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in head.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest result of any operation."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, Tensor):
                self.largest = max(self.largest, item.numel())
        return result


def test_the_tight_head_never_holds_more_than_its_pairs() -> None:
    texts, videos = tight_batch()
    videos = VideoBatch(videos.frames.repeat(5, 1, 1), videos.mask.repeat(5, 1))
    head = make_head("tightTransf:pairs=20")
    with torch.no_grad(), LargestTensor() as seen:
        head.similarity(texts, videos)
    assert 0 < seen.largest <= 20 * 5 * 4 * 64, "pairs x tokens x MLP width, of 175 pairs"


def saved_for_the_way_back(label: str, copies: int) -> int:
    """How many numbers autograd keeps between the forward pass and the backward pass."""
    texts, videos = tight_batch()
    frames, mask = videos.frames.repeat(copies, 1, 1), videos.mask.repeat(copies, 1)
    head = make_head(label).train()
    saved = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = head.similarity(texts, VideoBatch(frames, mask))
    assert scores.requires_grad
    return saved


def test_training_the_tight_head_keeps_no_activations_of_its_chunks() -> None:
    piled = saved_for_the_way_back("tightTransf:dropout=0:pairs=1000", 3)
    bounded = saved_for_the_way_back("tightTransf:dropout=0:pairs=5", 3)
    assert piled > 105 * 5 * 64, "every pair's tokens, many times"
    assert bounded < piled / 1000


def test_a_pair_costs_the_tight_head_what_it_says() -> None:
    head = make_head("tightTransf", dim=512)
    videos = VideoBatch(torch.randn(2, 12, 512), torch.ones(2, 12, dtype=torch.bool))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head.similarity(TextBatch(torch.randn(1, 512)), videos)
    assert counter.get_total_flops() / 2 == pytest.approx(0.27e9, rel=0.02)
    assert "about 0.27 GFLOP per pair with 12 frames" in (tightTransf.__doc__ or "")


# --- the command ---


def test_the_command_lists_every_head() -> None:
    result = run_app("heads")
    for name in head_names():
        assert f"\n{name} " in f"\n{result.output}"
    assert "12,648,960 parameters at D = 512" in result.output
    assert "options: layers=4 heads=0 mlp_ratio=4 positions=77 dropout=0.1 pairs=512" in " ".join(
        result.output.split()
    )
    assert max(map(len, result.output.splitlines())) <= 80


def test_the_command_prints_json() -> None:
    facts = {fact["name"]: fact for fact in run_json("heads")}
    assert set(facts) == set(head_names())
    assert facts["seqTransf"]["needs"] == ["order"]
    assert facts["seqTransf"]["indexable"] is True
    assert facts["tightTransf"]["scaled"] is False
    counts = [facts[name]["num_parameters"] for name in ("meanP", "seqTransf", "xpool")]
    assert counts == [0, LAYERS, 1_316_352]
    assert facts["attentionP"]["options"] == {"tau": 0.1}
    assert all(fact["summary"].endswith(".") and fact["source"] for fact in facts.values())
