"""tokenbinder against its formula in float64 loops, and what seeing candidates together means."""

from typing import Any

import numpy as np
import pytest
import torch
from builders import WORDS, close, doubles, head_batches, make_head, perturbed, rows_of, unit
from numpy.typing import NDArray
from scipy.special import ndtr, softmax
from torch import Tensor

from vtr.train.heads.base import Code, TextBatch, VideoBatch
from vtr.train.heads.tokenbinder import TokenBinder

DIM = 16
LENGTHS = (5, 1, 3, 4, 2)
SEEN = torch.tensor([[0, 3, 1], [4, 2, 0], [1, 2, 3], [2, 2, 4]])

Floats = NDArray[np.float64]


def batches(**changes: Any) -> tuple[TextBatch, VideoBatch]:
    return head_batches(DIM, lengths=LENGTHS, **changes)


def head(options: str = "", amount: float = 0.3) -> TokenBinder:
    return perturbed(make_head(f"tokenbinder{options}", dim=DIM), amount)


def codes(made: TokenBinder, **changes: Any) -> tuple[Code, Code]:
    texts, videos = batches(**changes)
    with torch.no_grad():
        return made.encode_texts(texts), made.encode_videos(videos)


def bound(made: TokenBinder, seen: Tensor = SEEN, **changes: Any) -> Tensor:
    texts, videos = codes(made, **changes)
    with torch.no_grad():
        return made.score(made.bind(texts, videos, seen), videos)


class Plain:
    """The formula, one text at a time, in float64."""

    def __init__(self, made: TokenBinder) -> None:
        self.p = doubles(made)
        self.tau = made.options.tau
        texts, videos = batches()
        self.words = rows_of(texts)
        self.texts = texts.pooled.double().numpy()
        with torch.no_grad():
            context = made.contextual_frames(videos)
        self.frames = [context[v, :k].double().numpy() for v, k in enumerate(LENGTHS)]

    def norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return scaled * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def linear(self, x: Floats, name: str) -> Floats:
        return x @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def gather(self, query: Floats, keys: Floats, values: Floats, scale: float) -> Floats:
        return np.asarray(softmax(keys @ query / scale) @ values)

    def indicators(self, n: int) -> list[Floats]:
        words = self.norm(self.words[n], "word_norm")
        root = np.sqrt(DIM)
        seen = [self.gather(e, words, words, root) for e in self.p["indicators"]]
        return [self.texts[n] + self.linear(s, "word_out") for s in seen]

    def query(self, i: Floats, candidates: list[int]) -> Floats:
        if candidates:
            frames = self.norm(np.concatenate([self.frames[c] for c in candidates]), "frame_norm")
            asked = self.linear(self.norm(i, "query_norm"), "q_proj")
            keys, values = (self.linear(frames, name) for name in ("k_proj", "v_proj"))
            i = i + self.linear(self.gather(asked, keys, values, np.sqrt(DIM)), "out_proj")
            inner = self.linear(self.norm(i, "mlp.0"), "mlp.1")
            inner = inner * ndtr(inner)
            i = i + self.linear(inner, "mlp.3")
        return i

    def scores(self, seen: list[list[int]]) -> Floats:
        rows = np.zeros((len(WORDS), len(LENGTHS)))
        for n in range(len(WORDS)):
            for i in self.indicators(n)[1:]:
                q = unit(self.query(i, seen[n]))
                for v, frames in enumerate(self.frames):
                    x = unit(frames)
                    rows[n, v] += q @ unit(self.gather(q, x, x, self.tau))
        return rows / (len(self.p["indicators"]) - 1)

    def recall(self) -> Floats:
        means = [unit(unit(frames).mean(axis=0)) for frames in self.frames]
        return (
            np.array([unit(self.indicators(n)[0]) for n in range(len(WORDS))]) @ np.array(means).T
        )


@pytest.mark.parametrize("options", ["", ":indicators=1:tau=0.4", ":layers=1:heads=2"])
def test_recall_and_scores_equal_plain_loops(options: str) -> None:
    made = head(options)
    plain = Plain(made)
    texts, videos = codes(made)
    close(texts[0] @ videos[0].T, plain.recall())
    with torch.no_grad():
        close(made.score(texts, videos), plain.scores([[]] * len(WORDS)))
    close(bound(made), plain.scores(SEEN.tolist()))
    best = np.argsort(-plain.recall(), axis=1)[:, :2].tolist()
    with torch.no_grad():
        found = made.score(made.bind_best(texts, videos, 2), videos)
    close(found, plain.scores(best))


def test_training_pulls_on_recall_and_on_what_the_best_of_the_batch_make_of_it() -> None:
    made = head(":candidates=2")
    plain = Plain(made)
    with torch.no_grad():
        terms = made.training_terms(*codes(made))
    assert [weight for weight, _ in terms] == [0.5, 0.5]
    close(terms[0][1], plain.recall())
    best = np.argsort(-plain.recall(), axis=1)[:, :2].tolist()
    close(terms[1][1], plain.scores(best))


def test_candidates_are_seen_together_and_in_no_order() -> None:
    made = head()
    expected = bound(made)
    close(bound(made, SEEN.flip(1)), expected)
    other = SEEN.clone()
    other[0, 2] = 2  # one other candidate of the first text
    change = (bound(made, other) - expected).abs()
    assert float(change[0].min()) > 1e-5, "the scores of all its candidates change"
    assert float(change[1:].max()) < 1e-6, "other texts' do not"


def test_padding_has_no_say_in_what_is_bound() -> None:
    made = head()
    close(bound(made, extra=3), bound(made))


def test_untrained_it_is_the_mean_that_finds_and_the_gated_sum_that_decides() -> None:
    made = head(amount=0.0)
    gated = make_head("eercf:layers=0", dim=DIM)
    texts, videos = batches()
    with torch.no_grad():
        mean, plain = gated.training_terms(gated.encode_texts(texts), gated.encode_videos(videos))
        recall, score = made.training_terms(*codes(made))
    close(recall[1], mean[1])
    close(score[1], plain[1])
