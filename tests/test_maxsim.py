"""maxsim and multivector against their formulas in float64 loops."""

import numpy as np
import pytest
import torch
from builders import LENGTHS, WORDS, head_batches, make_head, perturbed, unit
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.searching.scan import Scanner
from vtr.train.heads.base import Head, normalise
from vtr.train.heads.multivector import clusters

DIM = 16
Floats = NDArray[np.float64]


def head(text: str) -> Head:
    return perturbed(make_head(text, dim=DIM), 0.5)


def mean_max(words: Floats, frames: Floats) -> float:
    return float(np.mean([max(float(w @ f) for f in unit(frames)) for w in unit(words)]))


@pytest.mark.parametrize("layers", [0, 2])
def test_maxsim_is_its_formula(layers: int) -> None:
    made = head(f"maxsim:layers={layers}:heads=2")
    texts, videos = head_batches(DIM)
    context = videos.frames
    if layers:
        with torch.no_grad():
            context = made.contextual_frames(videos)  # type: ignore[operator]
    expected = np.zeros((len(WORDS), len(LENGTHS)))
    for n, count in enumerate(WORDS):
        words = texts.tokens[n, :count].double().numpy()
        for v, length in enumerate(LENGTHS):
            parts = (videos.frames[v, :length], context[v, :length])
            sums = [mean_max(words, part.double().numpy()) for part in parts]
            expected[n, v] = sum(sums) / 2
    with torch.no_grad():
        got = made.similarity(texts, videos)
        terms = made.training_terms(made.encode_texts(texts), made.encode_videos(videos))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    summed = sum(weight * scores for weight, scores in terms)
    torch.testing.assert_close(summed, got)
    assert [weight for weight, _ in terms] == ([0.5, 0.5] if layers else [1.0])


def test_the_context_of_maxsim_is_seqtransfs() -> None:
    plain = make_head("seqTransf:layers=2:heads=2", dim=DIM)
    made = make_head("maxsim:layers=2:heads=2", dim=DIM)
    assert made.state_dict().keys() == plain.state_dict().keys()


def plain_clusters(frames: Floats, most: int) -> list[list[int]]:
    """Two for one, by means found anew each time."""
    groups = [[k] for k in range(len(frames))]
    while len(groups) > most:
        means = unit(np.stack([unit(frames)[group].sum(axis=0) for group in groups]))
        pairs = [(i, j) for i in range(len(groups)) for j in range(i + 1, len(groups))]
        i, j = max(pairs, key=lambda p: float(means[p[0]] @ means[p[1]]))
        groups[i] += groups.pop(j)
    return [sorted(group) for group in groups]


@given(st.integers(1, 7), st.integers(1, 6), st.integers(0, 1 << 20))
def test_clusters_are_those_of_a_plain_count(num_frames: int, most: int, seed: int) -> None:
    frames = np.random.default_rng(seed).normal(size=(num_frames, 6))
    padded = torch.zeros(2, num_frames + 2, 6)
    padded[0, :num_frames] = torch.from_numpy(unit(frames))
    padded[1, :1] = torch.from_numpy(unit(frames[:1]))
    mask = torch.zeros(2, num_frames + 2, dtype=torch.bool)
    mask[0, :num_frames], mask[1, 0] = True, True
    member = clusters(padded, mask, most)
    found = [row.nonzero()[:, 0].tolist() for row in member[0] if row.any()]
    assert sorted(found) == sorted(plain_clusters(frames, most))
    assert [row.nonzero()[:, 0].tolist() for row in member[1] if row.any()] == [[0]]


def test_rows_of_multivector_are_what_the_index_of_search_scores() -> None:
    made, (texts, videos) = head("multivector:vectors=3"), head_batches(DIM)
    with torch.no_grad():
        codes = made.encode_texts(texts), made.encode_videos(videos)
        scores = made.score(*codes).numpy()
    rows, mask = (part.numpy() for part in codes[1])
    stops = mask.sum(axis=1).cumsum()
    scanner = Scanner(rows[mask].astype(np.float16), stops - mask.sum(axis=1), stops)
    for text, expected in zip(codes[0][0].numpy(), scores, strict=True):
        found = scanner.best(scanner.scores(text))
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_one_vector_is_the_mean_and_all_are_the_maximum() -> None:
    texts, videos = head_batches(DIM)
    with torch.no_grad():
        one = head("multivector:vectors=1").similarity(texts, videos)
        every = head("multivector:vectors=9").similarity(texts, videos)
        mean = make_head("meanP", dim=DIM)
    torch.testing.assert_close(one, mean.similarity(texts, videos))
    cosines = [
        normalise(texts.pooled) @ normalise(videos.frames[v, :length]).T
        for v, length in enumerate(LENGTHS)
    ]
    torch.testing.assert_close(every, torch.stack([c.amax(dim=1) for c in cosines], dim=1))
