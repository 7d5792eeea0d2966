"""The loss against a loop that spells out its formula, and against the reference's numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr.train.losses import contrastive_loss, right_pairs, weighted_loss
from vtr.train.presets import LossOptions

GOLDEN = Path(__file__).parent / "golden"


def softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def slow_one_way(scores: np.ndarray, right: np.ndarray, hard: int, *, sigmoid: bool) -> float:
    rows = []
    for own, marks in zip(scores, right, strict=True):
        wrong = np.sort(own[~marks])[::-1][: hard or None]
        if sigmoid:
            pulled = np.mean([softplus(-s) for s in own[marks]])
            rows.append(pulled + sum(map(softplus, wrong)))
        else:
            rows.append(np.mean([math.log1p(np.exp(wrong - s).sum()) for s in own[marks]]))
    return float(np.mean(rows))


@pytest.mark.parametrize("head", ["meanP", "maxP", "seqLSTM", "seqTransf", "tightTransf"])
def test_the_loss_equals_the_references_on_its_own_matrices(head: str) -> None:
    path = GOLDEN / f"clip4clip_{head}.npz"
    golden = np.load(path)
    logits = torch.from_numpy(golden["sim_train"])
    owner = torch.arange(len(logits))
    loss = contrastive_loss(logits, right_pairs(owner, owner, reference=True))
    for ours, name in ((loss.total, "loss"), (loss.t2v, "loss_t2v"), (loss.v2t, "loss_v2t")):
        assert float(ours) == pytest.approx(float(golden[name]), abs=1e-5), name


@pytest.mark.parametrize("sigmoid", [False, True])
@settings(max_examples=40)
@given(
    extra=st.integers(0, 7), num_videos=st.integers(2, 6), hard=st.integers(0, 4),
    seed=st.integers(0, 10_000),
)  # fmt: skip
def test_the_loss_equals_a_loop(
    sigmoid: bool, extra: int, num_videos: int, hard: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(num_videos), rng.integers(0, num_videos, extra)])
    scores = rng.normal(size=(len(owner), num_videos)) * 6
    right = owner[:, None] == np.arange(num_videos)
    given = torch.from_numpy(scores), torch.from_numpy(right)
    loss = contrastive_loss(*given, hard_negatives=hard, sigmoid=sigmoid)
    for found, args in ((loss.t2v, (scores, right)), (loss.v2t, (scores.T, right.T))):
        expected = slow_one_way(*args, hard, sigmoid=sigmoid)
        assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert float(loss.total) == pytest.approx(float(loss.t2v + loss.v2t) / 2, rel=1e-6)


def test_with_one_right_answer_each_the_sigmoid_loss_is_siglips() -> None:
    scores = 6 * torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    expected = -torch.nn.functional.logsigmoid((2 * torch.eye(6) - 1) * scores).sum() / 6
    loss = contrastive_loss(scores, torch.eye(6, dtype=torch.bool), sigmoid=True)
    for part in (loss.t2v, loss.v2t, loss.total):
        assert float(part) == pytest.approx(float(expected), rel=1e-5)


def test_right_answers_of_one_video_never_count_as_wrong() -> None:
    logits, owner = torch.zeros(3, 2, requires_grad=True), torch.tensor([7, 7, 9])
    right = right_pairs(owner, torch.tensor([7, 9]))
    contrastive_loss(logits, right, sigmoid=True).total.backward()  # type: ignore[no-untyped-call]
    assert (logits.grad < 0).tolist() == [[True, False], [True, False], [False, True]]


@given(num_texts=st.integers(1, 40), num_videos=st.integers(2, 40), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_gradients_are_those_of_plain_torch_to_the_bit(
    num_texts: int, num_videos: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 9 * torch.randn(num_texts, num_videos, generator=generator)
    owner = torch.randint(num_videos, (num_texts,), generator=generator)
    used, owner = owner.unique(return_inverse=True)
    logits, right = logits[:, used].clone(), right_pairs(owner, torch.arange(len(used)))
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = contrastive_loss(ours, right)
    loss.total.backward()
    rows, columns = right.nonzero(as_tuple=True)
    own, wrong, halves = plain[rows, columns], plain.masked_fill(right, -1e9), []
    for index, scores in ((rows, wrong), (columns, wrong.T)):
        each = torch.nn.functional.softplus(scores.logsumexp(1)[index] - own)
        halves.append((each / torch.bincount(index)[index].float()).sum() / len(scores))
    total = (halves[0] + halves[1]) / 2
    total.backward()
    assert torch.equal(loss.total, total)
    assert torch.equal(ours.grad, plain.grad)


def test_with_one_right_answer_it_is_the_cross_entropy_of_the_diagonal() -> None:
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) * 10
    owner = torch.arange(6)
    loss = contrastive_loss(logits, right_pairs(owner, owner))
    expected = torch.nn.functional.cross_entropy(logits, owner)
    assert float(loss.t2v) == pytest.approx(float(expected), rel=1e-5)


def test_the_reference_counts_a_second_caption_of_a_video_as_wrong() -> None:
    logits = torch.zeros(2, 2)
    owner = torch.tensor([3, 3])
    kind = contrastive_loss(logits, right_pairs(owner, owner))
    strict = contrastive_loss(logits, right_pairs(owner, owner, reference=True))
    assert float(kind.total) == pytest.approx(0.0, abs=1e-6)
    assert float(strict.total) == pytest.approx(math.log(2), rel=1e-5)


def test_a_batch_without_wrong_answers_has_a_gradient_of_zero_and_no_nan() -> None:
    logits = torch.randn(4, 1, requires_grad=True)
    loss = contrastive_loss(logits, torch.ones(4, 1, dtype=torch.bool))
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert loss.total.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(4, 1))


def test_hard_negatives_leave_the_easy_ones_without_gradient() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, -1.0]], requires_grad=True)
    right = torch.tensor([[True, False, False, False]])
    contrastive_loss(logits, right, hard_negatives=1).t2v.backward()  # type: ignore[no-untyped-call]
    assert (logits.grad[0, [2, 3]] == 0).all()
    assert float(logits.grad[0, 1]) > 0


def test_half_precision_scores_are_weighed_in_float32() -> None:
    logits = torch.full((2, 2), 90.0, dtype=torch.bfloat16)
    loss = contrastive_loss(logits, torch.eye(2, dtype=torch.bool))
    assert loss.total.dtype == torch.float32
    assert float(loss.total) == pytest.approx(math.log(2), rel=1e-5)


def test_several_terms_are_added_with_their_weights() -> None:
    first, second = torch.randn(3, 3), torch.randn(3, 3)
    right = torch.eye(3, dtype=torch.bool)
    both = weighted_loss([(0.5, first), (2.0, second)], right, LossOptions())
    expected = (
        0.5 * contrastive_loss(first, right).total + 2 * contrastive_loss(second, right).total
    )
    assert float(both.total) == pytest.approx(float(expected), rel=1e-5)
