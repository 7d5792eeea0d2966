"""eercf against its formula in float64 loops, and what finds what it looks at."""

from typing import Any

import numpy as np
import pytest
import torch
from builders import LENGTHS, close, head_batches, make_head, perturbed, unit
from numpy.typing import NDArray
from scipy.special import softmax

from vtr.train.heads.base import Code, Head, select_code

DIM = 16

Floats = NDArray[np.float64]


def head(text: str, **how: Any) -> Head:
    return perturbed(make_head(text, dim=DIM), 0.5, **how)


def plain(made: Head) -> tuple[Floats, Floats, list[list[Floats]]]:
    """Scores, recall, and the vector of each text and video, one pair at a time."""
    texts, videos = head_batches(DIM)
    with torch.no_grad():
        context = made.contextual_frames(videos)
    scores, recall = np.zeros((2, len(texts), len(LENGTHS)))
    vectors: list[list[Floats]] = [[] for _ in range(len(texts))]
    for n, text in enumerate(unit(texts.pooled.double().numpy())):
        for v, length in enumerate(LENGTHS):
            x = unit(videos.frames[v, :length].double().numpy())
            y = unit(context[v, :length].double().numpy())
            vectors[n].append(unit(softmax(x @ text / made.options.tau) @ y))
            scores[n, v] = text @ vectors[n][v]
            recall[n, v] = text @ unit(y.mean(axis=0))
    return scores, recall, vectors


def codes(made: Head) -> tuple[Code, Code]:
    texts, videos = head_batches(DIM)
    return made.encode_texts(texts), made.encode_videos(videos)


@pytest.mark.parametrize("label", ["eercf:layers=0", "eercf:layers=2:heads=2:tau=0.3"])
def test_scores_and_recall_equal_plain_loops(label: str) -> None:
    made = head(label)
    scores, recall, _ = plain(made)
    with torch.no_grad():
        texts, videos = codes(made)
        close(made.score(texts, videos), scores)
        terms = made.training_terms(texts, videos)
    close(texts[0] @ videos[0].T, recall)
    assert [weight for weight, _ in terms] == [0.5, 0.5]
    close(terms[0][1], recall)
    close(terms[1][1], scores)


def test_the_pearson_term_equals_plain_loops() -> None:
    made = head("eercf:layers=1:pearson=0.5")
    _, _, vectors = plain(made)
    rows = torch.tensor([0, 2, 3, 3])
    with torch.no_grad():
        texts, videos = codes(made)
        found = made.regulariser(texts, select_code(videos, rows))
        text, mean = texts[0].double().numpy(), videos[0][rows].double().numpy()
    gated = np.stack([vectors[n][int(v)] for n, v in enumerate(rows)])
    expected = 0.0
    for other in (mean, gated):
        for d in range(DIM):
            expected += float((np.corrcoef(text[:, d], other[:, d])[0, 1] - 1) ** 2)
    assert float(found) == pytest.approx(0.5 * expected, rel=1e-4)
    off = head("eercf:pearson=0")
    assert off.regulariser(*codes(off)) is None


def test_no_gradient_flows_through_the_gate_as_in_the_authors_code() -> None:
    """Of `sum of w y`, w is a number: the text's gradient is that of <t^, v^> with v held."""
    made = head("eercf:layers=0")
    texts, videos = head_batches(DIM)
    text = torch.nn.functional.normalize(texts.pooled, dim=-1).requires_grad_()
    codes_of_videos = made.encode_videos(videos)
    made.score((text,), codes_of_videos).sum().backward()
    _, _, vectors = plain(made)
    expected = np.stack([np.sum(row, axis=0) for row in vectors])
    close(text.grad, expected)  # type: ignore[arg-type]


def test_untrained_it_is_query_scoring_of_unit_frames() -> None:
    """A hot gate is the mean, a cold one the best frame."""
    made = head("eercf:layers=0")
    texts, videos = codes(made)
    hot, cold = head("eercf:layers=0:tau=1000"), head("eercf:layers=0:tau=0.0005")
    torch.testing.assert_close(hot.score(texts, videos), texts[0] @ videos[0].T, atol=1e-3, rtol=0)
    best = torch.einsum("nd,vkd->nvk", texts[0], videos[1])
    best = best.masked_fill(~videos[4], -torch.inf).amax(dim=2)
    torch.testing.assert_close(cold.score(texts, videos), best, atol=1e-3, rtol=0)
