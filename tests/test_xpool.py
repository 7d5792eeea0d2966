"""xpool against its formula in float64 loops; what the untrained head is; chunks change nothing."""

from typing import Any

import numpy as np
import torch
from builders import close, doubles, head_batches, make_head, perturbed, rows_of
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from vtr.train.heads import meanP
from vtr.train.heads.base import TextBatch, VideoBatch
from vtr.train.heads.xpool import XPool

DIM = 24


def batches(num_texts: int = 3) -> tuple[TextBatch, VideoBatch]:
    return head_batches(DIM, words=[2] * num_texts)


def trained(*, dropout: float = 0.0) -> XPool:
    return perturbed(make_head(f"xpool:dropout={dropout}", dim=DIM), 0.3)


def plain_scores(head: XPool, texts: TextBatch, videos: VideoBatch) -> NDArray[Any]:
    """The formula, one pair at a time, in float64."""
    p = doubles(head)

    def norm(x: Any, name: str) -> Any:
        scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x: Any, name: str) -> Any:
        return p[f"{name}.weight"] @ x + p[f"{name}.bias"]

    rows, shown = np.zeros((len(texts), len(videos))), rows_of(videos)
    for n, text in enumerate(texts.pooled.double().numpy()):
        query = linear(norm(text, "layer_norm1"), "cross_attn.q_proj")
        for v in range(len(videos)):
            frames = [norm(x, "layer_norm1") for x in shown[v]]
            logits = [query @ linear(x, "cross_attn.k_proj") / np.sqrt(len(query)) for x in frames]
            gathered = softmax(logits) @ [linear(x, "cross_attn.v_proj") for x in frames]
            o = norm(linear(gathered, "cross_attn.out_proj"), "layer_norm2")
            o = norm(o + linear(o, "linear_proj"), "layer_norm3")
            rows[n, v] = text @ o / np.linalg.norm(text) / np.linalg.norm(o)
    return rows


def test_scores_equal_plain_loops() -> None:
    head, (texts, videos) = trained(), batches()
    with torch.no_grad():
        close(head.similarity(texts, videos), plain_scores(head, texts, videos))


def test_the_vectors_of_training_give_the_same() -> None:
    head, (texts, videos) = trained(), batches()
    codes = head.encode_texts(texts), head.encode_videos(videos)
    close(head.score_by_vectors(*codes), head.score(*codes).detach())


def test_both_forms_have_the_same_gradients() -> None:
    head, (texts, videos) = trained(), batches()
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    found = []
    for form in (head.score, head.score_by_vectors):
        head.zero_grad()
        codes = head.encode_texts(texts), head.encode_videos(videos)
        (weights * form(*codes)).sum().backward()
        found.append({name: p.grad for name, p in head.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-3, atol=1e-4)
    assert any(float(gradient.abs().max()) > 0.1 for gradient in found[0].values())


def test_dropout_acts_in_training_alone() -> None:
    head, (texts, videos) = trained(dropout=0.5), batches()
    plain = plain_scores(head, texts, videos)
    with torch.no_grad():
        close(head.similarity(texts, videos), plain)
        head.train()
        torch.manual_seed(0)
        assert float((head.similarity(texts, videos) - torch.tensor(plain)).abs().max()) > 1e-3


def test_untrained_weighs_frames_by_their_likeness_to_the_text() -> None:
    """Identity matrices leave a text-weighted mean of standardised frames."""
    texts, videos = batches()
    frames = torch.where(videos.mask[..., None], videos.frames, 0.0)

    def standardised(x: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(x, (DIM,))

    logits = torch.einsum("nd,vkd->nvk", standardised(texts.pooled), standardised(frames))
    shares = (logits / DIM**0.5).masked_fill(~videos.mask, -torch.inf).softmax(-1)
    pooled = torch.einsum("nvk,vkd->nvd", shares, standardised(frames))
    expected = torch.cosine_similarity(texts.pooled[:, None], pooled, dim=-1)
    head = make_head("xpool", dim=DIM)
    with torch.no_grad():
        close(head.similarity(texts, videos), expected, atol=1e-4)


def test_untrained_finds_at_least_as_many_as_the_mean() -> None:
    """Half of each video's frames show its caption, half something else."""
    generator = torch.Generator().manual_seed(4)
    texts = torch.randn(200, 64, generator=generator)
    own = texts[:, None] + 3 * torch.randn(200, 3, 64, generator=generator)
    frames = torch.cat([own, 6 * torch.randn(200, 3, 64, generator=generator)], dim=1)
    videos = VideoBatch(frames, torch.ones(200, 6, dtype=torch.bool))

    def recall(head: Any) -> float:
        with torch.no_grad():
            best = head.eval().similarity(TextBatch(texts), videos).argmax(dim=1)
        return float((best == torch.arange(200)).float().mean())

    of_mean = recall(meanP.MeanPooling())
    assert 0.3 < of_mean < 0.95
    assert recall(make_head("xpool")) >= of_mean


def test_parameters_are_those_of_the_reference() -> None:
    with torch.device("meta"):
        head = make_head("xpool", dim=512)
    assert {name.partition(".")[0] for name in head.state_dict()} == {
        "cross_attn",
        "layer_norm1",
        "layer_norm2",
        "layer_norm3",
        "linear_proj",
    }
