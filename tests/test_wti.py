"""wti against its formula in float64 loops: scores, both maskings, the decorrelation term."""

import numpy as np
import pytest
import torch
from builders import (
    LENGTHS,
    WORDS,
    close,
    doubles,
    head_batches,
    make_head,
    perturbed,
    rows_of,
    unit,
)
from numpy.typing import NDArray
from scipy.special import softmax

from vtr.train.heads.base import Head, TextBatch, VideoBatch, select_code

DIM = 16
Floats = NDArray[np.float64]


def trained(text: str = "wti") -> Head:
    return perturbed(make_head(text, dim=DIM), 0.5)


def plain_shares(head: Head | None, name: str, rows: Floats) -> Floats:
    if head is None:
        return np.full(len(rows), 1 / len(rows))
    p = doubles(head)
    logits = []
    for row in rows:
        hidden = np.maximum(p[f"{name}.0.weight"] @ row + p[f"{name}.0.bias"], 0)
        logits.append((p[f"{name}.2.weight"] @ hidden + p[f"{name}.2.bias"])[0])
    return np.asarray(softmax(logits))


def plain_scores(head: Head | None, texts: TextBatch, videos: VideoBatch) -> Floats:
    """The formula, one pair at a time; uniform shares where `head` is None."""
    words, frames = rows_of(texts), rows_of(videos)
    scores = np.zeros((len(words), len(frames)))
    for n, h in enumerate(words):
        p = plain_shares(head, "text_weight_fc", h)
        for v, x in enumerate(frames):
            q = plain_shares(head, "video_weight_fc", x)
            cosines = unit(h) @ unit(x).T
            of_words = sum(p[w] * max(cosines[w]) for w in range(len(h)))
            of_frames = sum(q[f] * max(cosines[:, f]) for f in range(len(x)))
            scores[n, v] = (of_words + of_frames) / 2
    return scores


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_scores_equal_plain_loops(shift: float) -> None:
    head, (texts, videos) = trained(), head_batches(DIM, shift=shift)
    expected = plain_scores(head, texts, videos)
    close(head.similarity(texts, videos), expected)
    with torch.no_grad():
        close(head.similarity(texts, videos), expected)
    assert (expected < 0).all() == (shift > 0)


def test_untrained_weighs_all_tokens_alike() -> None:
    head, (texts, videos) = make_head("wti", dim=DIM), head_batches(DIM)
    close(head.similarity(texts, videos), plain_scores(None, texts, videos))


def test_zero_masking_lets_padding_win_as_in_the_reference() -> None:
    head, (texts, videos) = trained("wti:masking=zero"), head_batches(DIM, shift=3.0)
    words, frames = rows_of(texts), rows_of(videos)
    expected = np.zeros((4, 4))
    for n, h in enumerate(words):
        p = plain_shares(head, "text_weight_fc", h)
        for v, x in enumerate(frames):
            q = plain_shares(head, "video_weight_fc", x)
            cosines = np.zeros((max(WORDS), max(LENGTHS)))
            cosines[: len(h), : len(x)] = unit(h) @ unit(x).T
            expected[n, v] = (
                p @ cosines[: len(h)].max(axis=1) + q @ cosines[:, : len(x)].max(axis=0)
            ) / 2
    with torch.no_grad():
        close(head.similarity(texts, videos), expected)
        change = (
            head.similarity(texts, head_batches(DIM, shift=3.0, extra=1)[1])[:, 0].numpy()
            - expected[:, 0]
        )
    assert np.abs(change).max() > 0.1, "the longest video now has padding, too"


def test_layers_in_front_are_those_of_seqtransf() -> None:
    head = trained("wti:layers=2:heads=2")
    other = make_head("seqTransf:layers=2:heads=2", dim=DIM)
    state = head.state_dict()
    other.load_state_dict({name: state[name] for name in other.state_dict()})
    _, videos = head_batches(DIM)
    frames = torch.where(videos.mask[..., None], videos.frames, 0.0)
    table = other.frame_position_embeddings.weight[: frames.shape[1]]
    told = frames + other.transformerClip(frames + table, videos.mask)
    got = head.encode_videos(videos)[0]
    expected = torch.nn.functional.normalize(told, dim=-1) * videos.mask[..., None]
    close(got, expected.detach())
    assert head.info.needs_order


def plain_decorrelation(tokens: list[Floats], matched: list[Floats], shares: list[Floats]) -> float:
    """Sum over channels of (weighted correlation - 1)^2, with loops."""
    one, two = np.concatenate(tokens), np.concatenate(matched)
    weights = np.concatenate(shares) / len(shares)
    total = 0.0
    for a, b in zip(one.T, two.T, strict=True):
        a, b = a - weights @ a, b - weights @ b
        correlation = weights @ (a * b) / np.sqrt((weights @ a**2) * (weights @ b**2))
        total += (correlation - 1) ** 2
    return total


def test_the_decorrelation_term_equals_plain_loops() -> None:
    head, (texts, videos) = trained("wti:cdcr=0.5:cdcr_alpha=0.2"), head_batches(DIM)
    words, frames = rows_of(texts), rows_of(videos)
    p = [plain_shares(head, "text_weight_fc", h) for h in words]
    q = [plain_shares(head, "video_weight_fc", x) for x in frames]
    words, frames = [unit(h) for h in words], [unit(x) for x in frames]
    best_frames = [x[(h @ x.T).argmax(axis=1)] for h, x in zip(words, frames, strict=True)]
    best_words = [h[(h @ x.T).argmax(axis=0)] for h, x in zip(words, frames, strict=True)]
    expected = plain_decorrelation(words, best_frames, p) + plain_decorrelation(
        frames, best_words, q
    )
    got = head.regulariser(head.encode_texts(texts), head.encode_videos(videos))
    assert got.item() == pytest.approx(0.5 * 0.2 * expected / 2, rel=1e-4)
    got.backward()
    gradients = [p.grad for p in head.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


def test_matching_tokens_that_agree_have_no_decorrelation_term() -> None:
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randn(4, 3, DIM, generator=generator)
    mask = torch.ones(4, 3, dtype=torch.bool)
    head = make_head("wti", dim=DIM)
    codes = (
        head.encode_texts(TextBatch(tokens[:, 0], tokens, mask)),
        head.encode_videos(VideoBatch(tokens, mask)),
    )
    agreed = head.regulariser(*codes)
    other = head.regulariser(codes[0], select_code(codes[1], torch.tensor([1, 2, 3, 0])))
    assert agreed.item() == pytest.approx(0, abs=1e-9)
    assert other.item() > 1e-4


@pytest.mark.parametrize("option", ["cdcr=0", "cdcr_alpha=0"])
def test_the_decorrelation_term_can_be_left_out(option: str) -> None:
    head, (texts, videos) = trained(f"wti:{option}"), head_batches(DIM)
    assert head.regulariser(head.encode_texts(texts), head.encode_videos(videos)) is None
