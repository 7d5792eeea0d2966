"""afa against its formula in float64 loops, and against meanP before training."""

from typing import Any

import numpy as np
import pytest
import torch
from builders import close, doubles, head_batches, make_head, perturbed, random_clip, rows_of, unit
from scipy.special import softmax

from vtr.train.heads import meanP
from vtr.train.heads.afa import AttentiveAggregation
from vtr.train.heads.base import Head, TextBatch, VideoBatch

DIM = 16


def batches() -> tuple[TextBatch, VideoBatch]:
    return head_batches(DIM, words=(2, 3, 4))


def trained(text: str) -> AttentiveAggregation:
    return perturbed(make_head(text, dim=DIM))


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_scores_equal_plain_loops(temperature: float) -> None:
    head, (texts, videos) = trained(f"afa:temperature={temperature}"), batches()
    p = doubles(head)
    expected = np.zeros((3, 4))
    for v, frames in enumerate(rows_of(videos)):
        logits = []
        for x in frames:
            hidden = p["frame_weight_fc.0.weight"] @ x + p["frame_weight_fc.0.bias"]
            logit = p["frame_weight_fc.2.weight"] @ np.maximum(hidden, 0)
            logits.append((logit + p["frame_weight_fc.2.bias"])[0] / temperature)
        pooled = softmax(logits) @ unit(frames)
        for n, text in enumerate(texts.pooled.double().numpy()):
            expected[n, v] = text @ pooled / np.linalg.norm(text) / np.linalg.norm(pooled)
    close(head.similarity(texts, videos), expected)
    assert float(np.abs(expected - meanP_scores()).max()) > 1e-3


def meanP_scores() -> Any:
    texts, videos = batches()
    return meanP.MeanPooling().similarity(texts, videos).numpy()


def test_untrained_is_the_mean() -> None:
    texts, videos = batches()
    close(make_head("afa", dim=DIM).similarity(texts, videos), meanP_scores(), atol=1e-6)


def test_untrained_with_layers_is_seqtransf() -> None:
    texts, videos = batches()
    clip = random_clip(DIM)
    heads: list[Head] = [
        make_head(f"{name}:layers=2:heads=2", dim=DIM, clip=clip, seed=seed)
        for seed, name in enumerate(("afa", "seqTransf"))
    ]
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
