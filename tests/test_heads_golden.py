"""Heads against CLIP4Clip's and CLIP_video's numbers, and against slow float64 oracles.

golden/clip4clip_*.npz: small made-up weights and inputs, run through ArrowLuo/CLIP4Clip@508ffa3
(maxP: sijiasiga/CLIP_video@91bcaf6). D = 128, 2 attention heads, 2 layers, K = 6, 5 videos of 6, 3,
1, 5, 2 frames, 7 texts.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from builders import golden, make_head, tensors

from vtr.train.heads.base import Head, TextBatch, VideoBatch

LABELS = {
    "meanP": "meanP",
    "maxP": "maxP",
    "seqLSTM": "seqLSTM",
    "seqTransf": "seqTransf:layers=2",
    "tightTransf": "tightTransf:layers=2:dropout=0:pairs=16",
}
TOLERANCE = 1e-5

Arrays = Mapping[str, Any]


def reference_state(arrays: Arrays) -> dict[str, torch.Tensor]:
    state = tensors(arrays)
    if "lstm_visual.weight_ih_l0" in state:
        # The reference carries this table without ever reading it.
        del state["frame_position_embeddings.weight"]
    return state


def golden_head(name: str, arrays: Arrays) -> Head:
    head = make_head(LABELS[name], dim=128)
    head.load_state_dict(reference_state(arrays), strict=True)
    return head


def scale(head: Head, arrays: Arrays) -> float:
    return float(np.exp(arrays["logit_scale"])) if head.info.scaled else 1.0


def videos(arrays: Arrays, mask: str = "video_mask", *, pad: str = "random") -> VideoBatch:
    frames = torch.from_numpy(arrays["video"]).clone()
    valid = torch.from_numpy(arrays[mask]).bool()
    if pad != "random":
        frames[~valid] = {"zeros": 0.0, "nan": torch.nan}[pad]
    return VideoBatch(frames, valid)


def similarity(head: Head, arrays: Arrays, batch: VideoBatch) -> Any:
    texts = TextBatch(torch.from_numpy(arrays["text"]))
    with torch.inference_mode():
        return (head.similarity(texts, batch) * scale(head, arrays)).numpy()


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize(
    ("expected", "mask", "pad"),
    [
        ("sim_eval", "video_mask", "random"),
        ("sim_eval", "video_mask", "zeros"),
        ("sim_eval", "video_mask", "nan"),
        ("sim_eval_short", "video_mask_short", "random"),
    ],
)
def test_similarity_matches_the_reference(name: str, expected: str, mask: str, pad: str) -> None:
    arrays = golden(f"clip4clip_{name}")
    head = golden_head(name, arrays)
    got = similarity(head, arrays, videos(arrays, mask, pad=pad))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, arrays[expected], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", LABELS)
def test_losses_and_gradients_match_the_reference(name: str) -> None:
    arrays = golden(f"clip4clip_{name}")
    head = golden_head(name, arrays).train()
    text = torch.from_numpy(arrays["text"][:5]).requires_grad_()
    frames = torch.from_numpy(arrays["video"]).requires_grad_()
    log_scale = torch.tensor(float(arrays["logit_scale"]), requires_grad=True)
    batch = VideoBatch(frames, torch.from_numpy(arrays["video_mask"]).bool())
    scores = head.similarity(TextBatch(text), batch)
    scores = scores * log_scale.exp() if head.info.scaled else scores
    np.testing.assert_allclose(scores.detach(), arrays["sim_train"], rtol=0, atol=TOLERANCE)

    own = torch.arange(5)
    t2v = torch.nn.functional.cross_entropy(scores, own)
    v2t = torch.nn.functional.cross_entropy(scores.T, own)
    loss = (t2v + v2t) / 2
    loss.backward()
    for key, value in (("loss_t2v", t2v), ("loss_v2t", v2t), ("loss", loss)):
        assert value.item() == pytest.approx(float(arrays[key]), abs=TOLERANCE)
    same_direction_and_norm(text.grad, arrays["grad_text"])
    same_direction_and_norm(frames.grad, arrays["grad_video"])
    if head.info.scaled:
        assert log_scale.grad.item() == pytest.approx(float(arrays["grad_logit_scale"]), rel=1e-4)
    expected = dict(zip(arrays["param_grad_names"], arrays["param_grad_norms"], strict=True))
    for parameter, tensor in head.named_parameters():
        assert tensor.grad.norm().item() == pytest.approx(
            expected.pop(parameter), rel=1e-3, abs=1e-6
        )
    assert set(expected) <= {"frame_position_embeddings.weight"}, "of seqLSTM, without a gradient"


def same_direction_and_norm(got: torch.Tensor | None, expected: Any) -> None:
    mine, theirs = got.numpy().ravel().astype(np.float64), expected.ravel().astype(np.float64)
    cosine = mine @ theirs / (np.linalg.norm(mine) * np.linalg.norm(theirs))
    assert cosine > 1 - 1e-6
    assert np.linalg.norm(mine) == pytest.approx(np.linalg.norm(theirs), rel=1e-4)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max() + 1e-7)


# --- oracles: float64, one video, one text, one frame at a time ---

Vector = Any
Oracle = Callable[[Arrays, Vector, list[Vector]], float]


def unit(vector: Vector) -> Vector:
    length = np.sqrt((vector**2).sum())
    return vector / length if length else vector


def mean_score(text: Vector, frames: list[Vector]) -> float:
    return float(unit(text) @ unit(sum(unit(frame) for frame in frames) / len(frames)))


def oracle_mean(_: Arrays, text: Vector, frames: list[Vector]) -> float:
    return mean_score(text, frames)


def oracle_max(_: Arrays, text: Vector, frames: list[Vector]) -> float:
    units = [unit(frame) for frame in frames]
    largest = np.array([max(u[d] for u in units) for d in range(len(text))])
    return float(unit(text) @ unit(largest))


def sigmoid(x: Vector) -> Vector:
    return 1 / (1 + np.exp(-x))


def oracle_lstm(p: Arrays, text: Vector, frames: list[Vector]) -> float:
    hidden = cell = np.zeros(len(text))
    told = []
    for frame in frames:
        gates = p["lstm_visual.weight_ih_l0"] @ frame + p["lstm_visual.bias_ih_l0"]
        gates = gates + p["lstm_visual.weight_hh_l0"] @ hidden + p["lstm_visual.bias_hh_l0"]
        enter, forget, new, out = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(out) * np.tanh(cell)
        told.append(frame + hidden)
    return mean_score(text, told)


def layer_norm(p: Arrays, name: str, x: Vector) -> Vector:
    centred = x - x.mean()
    scaled = centred / np.sqrt((centred**2).mean() + 1e-12)
    return p[f"{name}.weight"] * scaled + p[f"{name}.bias"]


def gelu(x: Vector) -> Vector:
    return x * sigmoid(1.702 * x)


def run_block(p: Arrays, name: str, tokens: list[Vector], num_heads: int) -> list[Vector]:
    packed = [
        p[f"{name}.attn.in_proj_weight"] @ layer_norm(p, f"{name}.ln_1", x)
        + p[f"{name}.attn.in_proj_bias"]
        for x in tokens
    ]
    outputs = []
    for position, token in enumerate(tokens):
        mixed = []
        for head in range(num_heads):
            query, *_ = parts(packed[position], head, num_heads)
            keys = [parts(other, head, num_heads)[1] for other in packed]
            values = [parts(other, head, num_heads)[2] for other in packed]
            logits = np.array([query @ key / np.sqrt(len(query)) for key in keys])
            weights = np.exp(logits - logits.max())
            weights = weights / weights.sum()
            mixed.append(sum(w * value for w, value in zip(weights, values, strict=True)))
        projected = p[f"{name}.attn.out_proj.weight"] @ np.concatenate(mixed)
        token = token + projected + p[f"{name}.attn.out_proj.bias"]
        inner = p[f"{name}.mlp.c_fc.weight"] @ layer_norm(p, f"{name}.ln_2", token)
        inner = gelu(inner + p[f"{name}.mlp.c_fc.bias"])
        outer = p[f"{name}.mlp.c_proj.weight"] @ inner + p[f"{name}.mlp.c_proj.bias"]
        outputs.append(token + outer)
    return outputs


def parts(packed: Vector, head: int, num_heads: int) -> list[Vector]:
    return [np.split(part, num_heads)[head] for part in np.split(packed, 3)]


def run_blocks(p: Arrays, prefix: str, tokens: list[Vector], num_heads: int) -> list[Vector]:
    layer = 0
    while f"{prefix}.resblocks.{layer}.ln_1.weight" in p:
        tokens = run_block(p, f"{prefix}.resblocks.{layer}", tokens, num_heads)
        layer += 1
    assert layer
    return tokens


def oracle_transformer(p: Arrays, text: Vector, frames: list[Vector]) -> float:
    table = p["frame_position_embeddings.weight"]
    placed = [frame + table[position] for position, frame in enumerate(frames)]
    outputs = run_blocks(p, "transformerClip", placed, len(text) // 64)
    return mean_score(text, [f + out for f, out in zip(frames, outputs, strict=True)])


def oracle_tight(p: Arrays, text: Vector, frames: list[Vector]) -> float:
    table = p["cross.embeddings.position_embeddings.weight"]
    placed = [token + table[position] for position, token in enumerate([text, *frames])]
    first = run_blocks(p, "cross.transformer", placed, len(text) // 64)[0]
    dense = p["cross.pooler.dense.weight"] @ layer_norm(p, "cross.pooler.ln_pool", first)
    pooled = gelu(dense + p["cross.pooler.dense.bias"])
    return float(p["similarity_dense.weight"][0] @ pooled + p["similarity_dense.bias"][0])


def oracle_attention(tau: float) -> Oracle:
    def score(_: Arrays, text: Vector, frames: list[Vector]) -> float:
        logits = np.array([unit(text) @ unit(frame) / tau for frame in frames])
        weights = np.exp(logits - logits.max())
        weights = weights / weights.sum()
        return float(unit(text) @ unit(sum(w * f for w, f in zip(weights, frames, strict=True))))

    return score


ORACLES: dict[str, Oracle] = {
    "meanP": oracle_mean,
    "maxP": oracle_max,
    "seqLSTM": oracle_lstm,
    "seqTransf": oracle_transformer,
    "tightTransf": oracle_tight,
}


def by_hand(oracle: Oracle, state: Arrays, arrays: Arrays) -> Any:
    frames = arrays["video"].astype(np.float64)
    mask = arrays["video_mask"].astype(bool)
    parameters = {name: np.asarray(value, np.float64) for name, value in state.items()}
    return np.array(
        [
            [oracle(parameters, text, list(frames[v][mask[v]])) for v in range(len(frames))]
            for text in arrays["text"].astype(np.float64)
        ]
    )


@pytest.mark.parametrize("name", ORACLES)
def test_similarity_matches_the_oracle(name: str) -> None:
    arrays = golden(f"clip4clip_{name}")
    head = golden_head(name, arrays)
    expected = by_hand(ORACLES[name], head.state_dict(), arrays) * scale(head, arrays)
    got = similarity(head, arrays, videos(arrays, pad="nan"))
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(arrays["sim_eval"], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("tau", [0.01, 0.1, 5.0])
def test_attention_matches_the_oracle(tau: float) -> None:
    arrays = golden("clip4clip_meanP")
    head = make_head(f"attentionP:tau={tau}", dim=128)
    expected = by_hand(oracle_attention(tau), {}, arrays)
    texts = TextBatch(torch.from_numpy(arrays["text"]))
    got = head.similarity(texts, videos(arrays, pad="nan")).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_attention_tends_to_the_best_frame_and_to_the_raw_mean() -> None:
    arrays = golden("clip4clip_meanP")
    batch = videos(arrays, pad="nan")
    texts = TextBatch(torch.from_numpy(arrays["text"]))
    best = make_head("attentionP:tau=0.0001", dim=128)
    flat = make_head("attentionP:tau=10000", dim=128)
    frames = [arrays["video"][v][batch.mask[v].numpy()].astype(np.float64) for v in range(5)]
    text = [unit(t) for t in arrays["text"].astype(np.float64)]
    largest = [[max(t @ unit(f) for f in video) for video in frames] for t in text]
    mean = [[t @ unit(video.mean(axis=0)) for video in frames] for t in text]
    np.testing.assert_allclose(best.similarity(texts, batch), largest, rtol=0, atol=2e-3)
    np.testing.assert_allclose(flat.similarity(texts, batch), mean, rtol=0, atol=1e-4)
