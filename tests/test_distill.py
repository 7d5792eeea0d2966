"""Distillation terms against numpy, at their extremes, and as something that can be learned."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vtr.errors import ConfigError
from vtr.train.teacher import (
    DistillWeights,
    distillation_loss,
    frame_term,
    relation_term,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(row: Any) -> Any:
    row = np.exp(row - row.max())
    return row / row.sum()


def test_relation_equals_numpy() -> None:
    student, teacher = 3 * draw(5, 7), 3 * draw(5, 7, seed=1)
    s, t = student.double().numpy(), teacher.double().numpy()
    rows = [np.corrcoef(softmax(s[i]), softmax(t[i]))[0, 1] for i in range(5)]
    columns = [np.corrcoef(softmax(s[:, j]), softmax(t[:, j]))[0, 1] for j in range(7)]
    expected = 1 - (np.mean(rows) + np.mean(columns)) / 2
    assert relation_term(student, teacher).item() == pytest.approx(expected, abs=1e-5)


def test_relation_is_zero_for_the_same_ranking_whatever_the_offset() -> None:
    scores = 3 * draw(5, 5)
    assert relation_term(scores, scores).item() == pytest.approx(0, abs=1e-6)
    assert relation_term(scores, scores + 4).item() == pytest.approx(0, abs=1e-5)
    opposite = relation_term(torch.tensor([[1.0, -1], [-1, 1]]), torch.tensor([[-1.0, 1], [1, -1]]))
    assert opposite.item() == pytest.approx(2, abs=1e-5)


def test_relation_of_constant_scores_is_finite() -> None:
    student = torch.zeros(4, 4, requires_grad=True)
    loss = relation_term(student, draw(4, 4))
    assert loss.item() == pytest.approx(1)
    loss.backward()
    assert bool(student.grad.isfinite().all())


def test_frames_equal_numpy_and_padding_never_counts() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    student, teacher = draw(3, 3), draw(3, 3, seed=1)
    expected = 0.0
    for row, count in enumerate((3, 1, 2)):
        given = softmax(student[row, :count].double().numpy())
        wanted = softmax(teacher[row, :count].double().numpy())
        expected -= (wanted * np.log(given)).sum() / 3
    for fill in (0.0, 50.0, -torch.inf):
        leaf = student.masked_fill(~mask, fill).requires_grad_()
        loss = frame_term(leaf, teacher.masked_fill(~mask, fill), mask)
        assert loss.item() == pytest.approx(expected, abs=1e-5)
        loss.backward()
        assert float(leaf.grad[~mask].abs().max()) == 0
        assert bool(leaf.grad.isfinite().all())


def test_frames_are_best_where_both_agree() -> None:
    mask, teacher = torch.ones(2, 4, dtype=torch.bool), draw(2, 4)
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    assert frame_term(teacher, teacher, mask).item() == pytest.approx(entropy.item(), abs=1e-6)
    assert frame_term(draw(2, 4, seed=1), teacher, mask).item() > entropy.item() + 0.01


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = draw(3, 3).requires_grad_(), draw(3, 3, seed=1).requires_grad_()
    mask = torch.ones(3, 3, dtype=torch.bool)
    (relation_term(student, teacher) + frame_term(student, teacher, mask)).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_terms_are_weighted() -> None:
    terms = [torch.tensor(x) for x in (1.0, 10.0, 100.0)]
    assert distillation_loss(*terms, DistillWeights()).item() == pytest.approx(210.2)
    assert distillation_loss(*terms[:2], None, DistillWeights()).item() == pytest.approx(10.2)
    other = DistillWeights(contrastive=1, relation=0, frames=0.5)
    assert distillation_loss(*terms, other).item() == pytest.approx(51)
    with pytest.raises(ConfigError, match="distill relation=-1 is out of range"):
        DistillWeights(relation=-1)
