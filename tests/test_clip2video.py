"""clip2video against the reference's own numbers, and against plain loops where it has none."""

import functools
import json
from typing import Any

import numpy as np
import pytest
import torch
from builders import close as near
from builders import (
    doubles,
    golden,
    head_batches,
    make_head,
    perturbed,
    random_clip,
    rows_of,
    tensors,
    unit,
)
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from vtr.errors import ConfigError
from vtr.train.headlist import parse_head
from vtr.train.heads.base import TextBatch, VideoBatch
from vtr.train.heads.clip2video import PRESETS, Clip2Video, Options

CONFIGS = ("meanP", "seqTransf", "tdb_sub", "tdb_mlp", "tdb_selfA", "tab_plain", "tab_action")
CASES = ("full", "ragged", "odd")
TOLERANCE = 2e-5
close = functools.partial(near, atol=TOLERANCE)
PROJECTIONS = {"": "none", "sigmoid_mlp": "mlp", "sigmoid_selfA": "attention"}

Arrays = dict[str, NDArray[Any]]


def golden_head(arrays: Arrays, *, pad_to: int) -> Clip2Video:
    """The head of a golden file with the reference's weights, all keys accounted for."""
    flags = json.loads(str(arrays["config_json"]))
    alignment = {"": "plain", "TAB": "tab", "TAB_TDB": "tab-tdb"}[flags.get("center_proj", "")]
    options = Options(
        sim=flags["sim_type"],
        temporal="tdb" if flags.get("temporal_type") == "TDB" else "off",
        projection=PROJECTIONS[flags.get("temporal_proj", "")],
        alignment=alignment if flags.get("center_type") == "TAB" else "off",
        centres=flags["centerK"],
        weight=flags["center_weight"],
        layers=flags["cross_num_hidden_layers"],
        heads=flags["heads"],
        pad_to=pad_to,
    )
    head = Clip2Video(flags["width"], options).eval()
    state = tensors(arrays)
    del state["clip.logit_scale"]
    head.load_state_dict(state, strict=True)
    return head


def golden_batches(arrays: Arrays, case: str) -> tuple[TextBatch, VideoBatch]:
    """The inputs; padded frames are wiped, their common value goes to `pad`."""
    own = {k.removeprefix(f"{case}/in/"): torch.tensor(v) for k, v in arrays.items() if case in k}
    mask = own["video_mask"].bool()
    pad = own["frames"][~mask][0] if (~mask).any() else torch.full((64,), torch.nan)
    texts = TextBatch(own["text"])
    if "text_tokens" in own:
        texts = TextBatch(own["text"], own["text_tokens"], own["attention_mask"].bool())
    return texts, VideoBatch(own["frames"].masked_fill(~mask[..., None], torch.nan), mask, pad)


def info_nce(scores: Tensor) -> Tensor:
    own = torch.arange(len(scores))
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("config", CONFIGS)
def test_golden_scores_and_losses(config: str, case: str) -> None:
    arrays = golden(f"clip2video_{config}")
    texts, videos = golden_batches(arrays, case)
    head = golden_head(arrays, pad_to=videos.mask.shape[1])
    scale = float(arrays["logit_scale_exp"])
    with torch.no_grad():
        codes = head.encode_texts(texts), head.encode_videos(videos)
        close(scale * head.score(*codes), arrays[f"{case}/fixed/sim"])
        close(scale * head.score(*codes), arrays[f"{case}/single/sim"])
        terms = head.training_terms(*codes)
    names = ("global", "tab")[: len(terms)]
    assert len(terms) == 1 + head.options.aligned
    for (_, scores), name in zip(terms, names, strict=True):
        close(scale * scores, arrays[f"{case}/fixed/sim_{name}"])
    if f"{case}/fixed/loss" not in arrays:
        assert len(texts) != len(videos)
        return
    losses = [info_nce(scale * scores) for _, scores in terms]
    for loss, name in zip(losses, names, strict=True):
        close(loss, arrays[f"{case}/fixed/loss_{name}"])
    total = sum(weight * loss for (weight, _), loss in zip(terms, losses, strict=True))
    close(total, arrays[f"{case}/fixed/loss"])


@pytest.mark.parametrize("config", CONFIGS)
def test_golden_gradients(config: str) -> None:
    arrays = golden(f"clip2video_{config}")
    texts, videos = golden_batches(arrays, "full")
    head = golden_head(arrays, pad_to=12)
    for leaf in (texts.pooled, texts.tokens, videos.frames):
        if leaf is not None:
            leaf.requires_grad_()
    codes = head.encode_texts(texts), head.encode_videos(videos)
    scale = float(arrays["logit_scale_exp"])
    terms = [weight * info_nce(scale * scores) for weight, scores in head.training_terms(*codes)]
    torch.stack(terms).sum().backward()
    found = {"frames": videos.frames, "text": texts.pooled, "text_tokens": texts.tokens}
    found |= {f"param/{name}": value for name, value in head.named_parameters()}
    names = [k.removeprefix("full/ref/grad/") for k in arrays if k.startswith("full/ref/grad/")]
    names.remove("param/clip.logit_scale")
    assert {"frames", "text"} <= set(names)
    for name in names:
        leaf = found[name]
        close(leaf.grad, arrays[f"full/ref/grad/{name}"])


@pytest.mark.parametrize("case", CASES)
def test_golden_alignment_of_words(case: str) -> None:
    arrays = golden("clip2video_tab_action")
    texts, videos = golden_batches(arrays, case)
    head = golden_head(arrays, pad_to=0)
    with torch.no_grad():
        of_text = head.encode_texts(texts)[0][:, 64:] / 0.7**0.5
        of_video = head.encode_videos(videos)[0][:, 64:] / 0.7**0.5
    close(of_text, arrays[f"{case}/ref/tab_text"])
    close(of_video, arrays[f"{case}/fixed/tab_video"])


# --- the released configuration, which no golden file has whole ---


def plain_score(head: Clip2Video, texts: TextBatch, videos: VideoBatch, budget: int) -> Any:
    """The released model in float64 loops, one text and one video at a time.

    `budget` as pad_to; 0 for differences between real frames alone.
    """
    p = doubles(head)
    weight = head.options.weight
    rows = np.zeros((len(texts), len(videos)))
    for n, tokens in enumerate(rows_of(texts)):
        own = unit(texts.pooled[n].double().numpy())
        aligned = plain_centres(p, [*tokens[1:]])
        for v, shown in enumerate(rows_of(videos)):
            frames, count = [*shown], len(shown)
            if budget:
                frames += [videos.pad.double().numpy()] * (budget - count)
            layers = [f"transformerClip.resblocks.{i}." for i in range(head.options.layers)]
            told = plain_temporal(p, frames, count, layers)
            pooled = unit(np.mean([unit(y) for y in told[:count]], axis=0))
            half = plain_temporal(p, frames[::2], (count + 1) // 2, ["actionClip.resblocks.0."])
            gathered = frames[:count] + half[: (count + 1) // 2]
            rows[n, v] = weight * own @ pooled + (1 - weight) * aligned @ plain_centres(p, gathered)
    return rows


def plain_temporal(p: Arrays, frames: list[Any], valid: int, layers: list[str]) -> list[Any]:
    """Frames interleaved with their differences, through layers, plus the frames."""
    position = p["frame_position_embeddings.weight"]
    kinds = p["type_position_embeddings.weight"]
    moves = [frames[i + 1] - frames[i] + position[i + 1] for i in range(len(frames) - 1)]
    moves = plain_block(
        p, "frame2t_attention.resblocks.0.", moves, [i + 1 < valid for i in range(len(moves))]
    )
    tokens, counts = [], []
    for i, frame in enumerate(frames):
        tokens.append(frame + position[i] + kinds[1])
        counts.append(i < valid)
        if i < len(moves):
            z = plain_norm(moves[i], p["trans_layernorm.weight"], p["trans_layernorm.bias"], 1e-5)
            tokens.append(2 / (1 + np.exp(-z)) - 1 + position[i] + kinds[0])
            counts.append(i < valid)
    for prefix in layers:
        tokens = plain_block(p, prefix, tokens, counts)
    return [told + frame for told, frame in zip(tokens[::2], frames, strict=True)]


def plain_norm(x: Any, weight: Any, bias: Any, epsilon: float) -> Any:
    return (x - x.mean()) / np.sqrt(x.var() + epsilon) * weight + bias


def plain_block(p: Arrays, prefix: str, tokens: list[Any], valid: list[bool]) -> list[Any]:
    """One pre-norm block of four attention heads; tokens that are not valid are no keys."""
    q = {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}
    if not any(valid):
        return tokens  # what comes out then is masked later, or not compared
    x = [plain_norm(token, q["ln_1.weight"], q["ln_1.bias"], 1e-12) for token in tokens]
    mixed = np.stack([q["attn.in_proj_weight"] @ y + q["attn.in_proj_bias"] for y in x])
    width = mixed.shape[1] // 3
    outputs = []
    for i, token in enumerate(tokens):
        gathered = []
        for part in np.split(np.arange(width), 4):
            scores = [
                mixed[i, part] @ mixed[j, width + part] / np.sqrt(len(part)) if ok else -np.inf
                for j, ok in enumerate(valid)
            ]
            gathered.append(softmax(scores) @ mixed[:, 2 * width + part])
        y = token + q["attn.out_proj.weight"] @ np.concatenate(gathered) + q["attn.out_proj.bias"]
        z = plain_norm(y, q["ln_2.weight"], q["ln_2.bias"], 1e-12)
        z = q["mlp.c_fc.weight"] @ z + q["mlp.c_fc.bias"]
        z = z / (1 + np.exp(-1.702 * z))
        outputs.append(y + q["mlp.c_proj.weight"] @ z + q["mlp.c_proj.bias"])
    return outputs


def plain_centres(p: Arrays, tokens: list[Any]) -> Any:
    centres, offsets = p["weight_center"], p["emb_center"]
    gathered = np.zeros_like(centres)
    for token in tokens:
        for k, share in enumerate(softmax(centres @ token)):
            gathered[k] += share * (token - offsets[k])
    return unit(np.mean([unit(row) for row in gathered], axis=0))


def released(*, pad_to: int) -> Clip2Video:
    text = f"clip2video:preset=vatex:pad_to={pad_to}:heads=4:layers=2:weight=0.3"
    return perturbed(make_head(text, dim=16, seed=3))


def ragged(lengths: tuple[int, ...], *, num_slots: int) -> VideoBatch:
    return head_batches(16, lengths=lengths, extra=num_slots - max(lengths))[1]


def worded() -> TextBatch:
    return head_batches(16, words=(3, 7, 2))[0]


def similarity(head: Clip2Video, texts: TextBatch, videos: VideoBatch) -> Tensor:
    with torch.no_grad():
        return head.similarity(texts, videos)


def test_the_released_model_equals_plain_loops() -> None:
    # Three frames at least: of fewer, every difference of the alignment's half is masked, and the
    # reference's softmax over masked scores is a rounding effect that float64 does not have.
    head, texts = released(pad_to=7), worded()
    videos = ragged((7, 3, 6, 4, 5), num_slots=7)
    close(similarity(head, texts, videos), plain_score(head, texts, videos, 7))


def test_without_pad_only_differences_between_frames_count() -> None:
    head, texts = released(pad_to=0), worded()
    videos = ragged((7, 1, 2, 3, 6, 4), num_slots=9)
    close(similarity(head, texts, videos), plain_score(head, texts, videos, 0))


def test_the_last_token_hangs_on_the_budget_and_never_on_the_batch() -> None:
    head, bare, texts = released(pad_to=6), released(pad_to=0), worded()
    lengths = (6, 5, 1, 4, 2)
    expected = similarity(head, texts, ragged(lengths, num_slots=6))
    for num_slots in (7, 11):
        close(similarity(head, texts, ragged(lengths, num_slots=num_slots)), expected.numpy())
    videos = ragged(lengths, num_slots=6)
    for row, length in enumerate(lengths):
        alone = VideoBatch(videos.frames[[row], :length], videos.mask[[row], :length], videos.pad)
        close(similarity(head, texts, alone), expected[:, [row]].numpy())
    change = (similarity(bare, texts, videos) - expected).abs().amax(0)
    assert float(change[0]) < TOLERANCE, "a full video has no such token"
    assert float(change[1:].min()) > 1e-3, "a shorter one has"


def test_pad_counts_for_short_videos_alone_and_only_where_asked() -> None:
    texts, videos = worded(), ragged((6, 3), num_slots=6)
    other = VideoBatch(videos.frames, videos.mask, videos.pad.flip(0))
    change = similarity(released(pad_to=6), texts, videos) - similarity(
        released(pad_to=6), texts, other
    )
    assert float(change[:, 0].abs().max()) < TOLERANCE
    assert float(change[:, 1].abs().max()) > 1e-3
    bare = released(pad_to=0)
    assert torch.equal(similarity(bare, texts, videos), similarity(bare, texts, other))
    assert not bare.info.needs_pad
    assert released(pad_to=6).info.needs_pad


def test_pad_and_budget_are_checked() -> None:
    head, videos = released(pad_to=6), ragged((7, 3), num_slots=7)
    with pytest.raises(ConfigError, match="has 7 frames, but this head pads to pad_to=6"):
        similarity(head, worded(), videos)
    with pytest.raises(ConfigError, match="come without it"):
        similarity(head, worded(), VideoBatch(videos.frames, videos.mask))


def test_the_code_is_one_unit_vector() -> None:
    head = released(pad_to=0)
    with torch.no_grad():
        (text,), (video,) = (
            head.encode_texts(worded()),
            head.encode_videos(ragged((5, 1), num_slots=5)),
        )
    assert text.shape == (3, 32)
    assert video.shape == (2, 32)
    for code in (text, video):
        torch.testing.assert_close(code.norm(dim=1), torch.ones(len(code)))


@pytest.mark.parametrize(("weight", "name"), [(0.0, "tab"), (1.0, "global")])
def test_a_branch_of_no_weight_is_not_trained(weight: float, name: str) -> None:
    arrays = golden("clip2video_tab_action")
    texts, videos = golden_batches(arrays, "full")
    head = golden_head(arrays, pad_to=0)
    mixed = Clip2Video(64, Options(**{**vars(head.options), "weight": weight}))
    mixed.load_state_dict(head.state_dict())
    with torch.no_grad():
        ((part, scores),) = mixed.training_terms(
            mixed.encode_texts(texts), mixed.encode_videos(videos)
        )
    assert part == 1
    scale = float(arrays["logit_scale_exp"])
    close(scale * scores, arrays[f"full/fixed/sim_{name}"])


# --- parameters and options ---


def test_presets_are_the_released_scripts() -> None:
    assert sorted(PRESETS) == ["msrvtt-9k", "msrvtt-full", "msvd", "vatex"]
    assert [PRESETS[name].centres for name in sorted(PRESETS)] == [5, 5, 5, 7]
    for options in PRESETS.values():
        assert (options.sim, options.temporal) == ("seqTransf", "tdb")
        assert (options.projection, options.alignment) == ("attention", "tab-tdb")
        assert (options.weight, options.layers, options.pad_to) == (0.5, 4, 12)
    assert parse_head("clip2video:preset=vatex").label == "clip2video:centres=7:pad_to=12"


def test_more_frames_than_positions_are_refused() -> None:
    head = make_head("clip2video:positions=4:heads=2:alignment=off", dim=16)
    with pytest.raises(ConfigError, match="5 frames per video, but this head has positions for 4"):
        head.encode_videos(ragged((5, 2), num_slots=5))
    free = make_head("clip2video:sim=meanP:alignment=plain:positions=4:heads=2", dim=16)
    (code,) = free.encode_videos(ragged((5, 2), num_slots=5))
    assert code.shape == (2, 32)


@pytest.mark.parametrize("config", CONFIGS)
def test_golden_scores_with_zeros_for_padding(config: str) -> None:
    arrays = golden(f"clip2video_{config}")
    texts, videos = golden_batches(arrays, "ragged")
    head = golden_head(arrays, pad_to=12)
    zeros = VideoBatch(videos.frames, videos.mask, torch.zeros(64))
    got = float(arrays["logit_scale_exp"]) * similarity(head, texts, zeros)
    expected = arrays["ragged/fixed/sim_zero_pad"]
    # The reference divides padding by its norm before it masks it: 0 / 0 without layers.
    broken = np.isnan(expected)
    assert broken.any() == (head.options.sim == "meanP")
    close(got, np.where(broken, arrays["ragged/fixed/sim"], expected))


# --- weights from CLIP ---


def test_weights_start_as_the_references() -> None:
    clip = random_clip(16)
    label = "clip2video:layers=2:heads=4"
    state = make_head(f"{label}:projection=mlp", dim=16, clip=clip).state_dict()
    assert torch.equal(state["frame_position_embeddings.weight"], clip.text.positions)
    assert torch.equal(state["type_position_embeddings.weight"], clip.text.positions[:2])
    assert torch.equal(state["frame2t_projection"], clip.visual.projection.weight.T[:16])
    for name, value in clip.text.blocks[1].state_dict().items():
        assert torch.equal(state[f"transformerClip.resblocks.1.{name}"], value)
    state = make_head(label, dim=16, clip=clip).state_dict()
    for name, value in clip.text.blocks[0].state_dict().items():
        assert torch.equal(state[f"actionClip.resblocks.0.{name}"], value)
        assert torch.equal(state[f"frame2t_attention.resblocks.0.{name}"], value)


def test_origin_tells_what_was_copied() -> None:
    clip = random_clip(16)

    def origin(text: str) -> str:
        return make_head(text, dim=16, clip=clip).origin

    assert origin("clip2video:layers=2") == "CLIP's text positions and first 2 text layers"
    assert "first 3 text layers" in origin("clip2video")
    assert "random" in origin("clip2video")
    assert origin("clip2video:sim=meanP").startswith("random weights: the reference takes CLIP's")


def test_centres_are_drawn_as_in_the_reference() -> None:
    head = make_head("clip2video:centres=50")
    for name in ("weight_center", "emb_center"):
        assert float(head.state_dict()[name].std()) == pytest.approx(0.125, rel=0.05)
