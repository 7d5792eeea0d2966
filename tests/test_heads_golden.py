"""Heads against CLIP4Clip's and CLIP_video's numbers.

golden/clip4clip_*.npz: small made-up weights and inputs, run through ArrowLuo/CLIP4Clip@508ffa3
(maxP: sijiasiga/CLIP_video@91bcaf6). D = 128, 2 attention heads, 2 layers, K = 6, 5 videos of 6, 3,
1, 5, 2 frames, 7 texts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from builders import close, golden, make_head, tensors, unit

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
    assert got is not None
    mine, theirs = got.numpy().ravel().astype(np.float64), expected.ravel().astype(np.float64)
    cosine = mine @ theirs / (np.linalg.norm(mine) * np.linalg.norm(theirs))
    assert cosine > 1 - 1e-6
    assert np.linalg.norm(mine) == pytest.approx(np.linalg.norm(theirs), rel=1e-4)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max() + 1e-7)


# --- attentionP, of which the reference has no numbers ---


@pytest.mark.parametrize("tau", [0.0001, 0.01, 0.1, 5.0, 10000.0])
def test_attention_matches_its_formula(tau: float) -> None:
    """In float64; of a cold softmax the best frame is left, of a hot one the raw mean."""
    arrays = golden("clip4clip_meanP")
    text, frames = unit(arrays["text"].astype(np.float64)), arrays["video"].astype(np.float64)
    logits = np.einsum("nd,vkd->nvk", text, unit(frames)) / tau
    logits = np.where(arrays["video_mask"].astype(bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    expected = np.einsum("nd,nvd->nv", text, unit(np.einsum("nvk,vkd->nvd", weights, frames)))
    head = make_head(f"attentionP:tau={tau}", dim=128)
    texts = TextBatch(torch.from_numpy(arrays["text"]))
    close(head.similarity(texts, videos(arrays, pad="nan")), expected, atol=1e-6)
