"""afa against its formula in float64 loops, and against meanP before training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vtr.clip.towers import Block
from vtr.errors import ConfigError
from vtr.train.clip_text import ClipText
from vtr.train.headlist import build_head, parse_head
from vtr.train.heads import meanP, seqTransf
from vtr.train.heads.afa import AttentiveAggregation, Options, build
from vtr.train.heads.base import Head, TextBatch, VideoBatch

DIM = 16
LENGTHS = (5, 1, 3, 4)


def batches() -> tuple[TextBatch, VideoBatch]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(4, 5, DIM, generator=generator)
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    texts = TextBatch(torch.randn(3, DIM, generator=generator))
    return texts, VideoBatch(frames.masked_fill(~mask[..., None], torch.nan), mask)


def trained(text: str) -> AttentiveAggregation:
    head = build_head(parse_head(text), dim=DIM, clip=None, seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    assert isinstance(head, AttentiveAggregation)
    return head


def close(got: Tensor, expected: Any, *, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_scores_equal_plain_loops(temperature: float) -> None:
    head, (texts, videos) = trained(f"afa:temperature={temperature}"), batches()
    p = {name: value.double().numpy() for name, value in head.state_dict().items()}
    expected = np.zeros((3, 4))
    for v, count in enumerate(LENGTHS):
        frames = videos.frames[v, :count].double().numpy()
        logits = []
        for x in frames:
            hidden = p["frame_weight_fc.0.weight"] @ x + p["frame_weight_fc.0.bias"]
            logit = p["frame_weight_fc.2.weight"] @ np.maximum(hidden, 0)
            logits.append((logit + p["frame_weight_fc.2.bias"])[0] / temperature)
        shares = np.exp(np.array(logits) - max(logits))
        shares /= shares.sum()
        pooled = sum(b * x / np.linalg.norm(x) for b, x in zip(shares, frames, strict=True))
        for n, text in enumerate(texts.pooled.double().numpy()):
            expected[n, v] = text @ pooled / np.linalg.norm(text) / np.linalg.norm(pooled)
    close(head.similarity(texts, videos), expected)
    assert float(np.abs(expected - meanP_scores()).max()) > 1e-3


def meanP_scores() -> Any:
    texts, videos = batches()
    return meanP.build(DIM, meanP.Options()).similarity(texts, videos).numpy()


def test_untrained_is_the_mean() -> None:
    texts, videos = batches()
    close(build(DIM, Options()).similarity(texts, videos), meanP_scores(), atol=1e-6)


def random_clip() -> ClipText:
    generator = torch.Generator().manual_seed(8)

    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    names = Block(DIM, 2, 4 * DIM).state_dict().items()
    blocks = [{name: draw(*value.shape) for name, value in names} for _ in range(2)]
    return ClipText(draw(77, DIM), blocks, draw(DIM, DIM), 4.6)


def test_untrained_with_layers_is_seqtransf() -> None:
    texts, videos = batches()
    clip = random_clip()
    heads: list[Head] = [
        build_head(parse_head(f"{name}:layers=2:heads=2"), dim=DIM, clip=clip, seed=seed)
        for seed, name in enumerate(("afa", "seqTransf"))
    ]
    assert isinstance(heads[1], seqTransf.TransformerPooling)
    close(heads[0].similarity(texts, videos), heads[1].similarity(texts, videos).detach())
    assert heads[0].origin.endswith("uniform weights")
    assert heads[0].info.needs_order


def test_weights_for_distillation_are_those_of_the_code() -> None:
    head, (_, videos) = trained("afa"), batches()
    code, logits = head.encode_with_weights(videos)
    assert torch.equal(code[0], head.encode_videos(videos)[0])
    assert torch.equal(logits.isneginf(), ~videos.mask)
    shares = (logits / 0.1).softmax(1)
    frames = torch.where(videos.mask[..., None], videos.frames, 0.0)
    units = torch.nn.functional.normalize(frames, dim=-1)
    pooled = torch.nn.functional.normalize((shares[..., None] * units).sum(1), dim=-1)
    close(code[0], pooled.detach())


def test_parameter_counts() -> None:
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in build(512, parse_head(text).resolve()).parameters())
            for text in ("afa", "afa:preset=teachclip")
        ]
    assert counts == [263_169, 263_169 + 12_648_960]


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("layers=-1", r"0 \(none\) to 48"),
        ("heads=-1", "a divisor of D"),
        ("positions=0", "1 to 4096"),
        ("temperature=0.0", "above 0"),
    ],
)
def test_options_out_of_range(option: str, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"{option} is out of range; allowed: {allowed}"):
        parse_head(f"afa:{option}")
