"""Scores changed after the fact: dual softmax and QB-Norm. Only on request, never the headline.

Both work on the whole matrix, so no batch size has a say. Both serve text-to-video; for the other
direction hand over the transposed matrix (and for QB-Norm a bank of training videos).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.counting import Scores

Values = NDArray[np.float64]

TEMPERATURE, BETA = 0.01, 20.0  # these suit cosines
CELLS = 1 << 22  # of a temporary array


def dual_softmax(scores: Scores) -> Values:
    """Weighs every score by how much its video prefers this text to the other test texts.

    S' = S * softmax over the texts of S / `TEMPERATURE` (CAMoE, arXiv 2109.04290). It sees all test
    queries at once: transductive, and not comparable with numbers that do not. The formula means
    positive scores; of two negative ones the preferred is pushed down. Scores are (Q, V); -inf is
    a recorded miss and stays.
    """
    result = np.empty(scores.shape)
    step = max(1, CELLS // len(scores))
    for first in range(0, scores.shape[1], step):
        part = scores[:, first : first + step].astype(np.float64)
        missed = np.isneginf(part)
        part[missed] = 0
        logits = np.where(missed, -np.inf, part / TEMPERATURE)
        totals = _log_sum_exp(logits)
        share = np.exp(logits - np.where(np.isneginf(totals), 0, totals))
        result[:, first : first + step] = np.where(missed, -np.inf, part * share)
    return result


def querybank_norm(scores: Scores, bank_scores: Scores) -> Values:
    """Takes from each video's score what it gets from queries that do not mean it (QB-Norm).

    The dynamic inverted softmax (Bogolin et al., CVPR 2022): with Z_v the sum over the bank of
    exp(`BETA` * score), a test query whose best video is also the best of some bank query scores
    exp(beta * S_v) / Z_v, any other query keeps S. Returned is S_v - log(Z_v) / beta, which ranks
    the videos of a query alike and cannot overflow. Each query is treated by itself, so with
    training captions as the bank this is no peeking at the test set. Scores are (Q, V), those of
    the bank (B, V); -inf is a recorded miss and stays. Rank within rows only. 20 suits cosines.
    """
    if bank_scores.ndim != 2 or not len(bank_scores) or bank_scores.shape[1] != scores.shape[1]:
        raise ConfigError(
            f"a bank of {bank_scores.shape} does not fit scores of {scores.shape}: it needs at "
            "least one training caption, scored with the same videos"
        )
    log_sums = _bank_log_sums(bank_scores)
    hubs = tops(bank_scores).any(axis=0)
    result = scores.astype(np.float64)
    step = max(1, CELLS // scores.shape[1])
    for first in range(0, len(scores), step):
        part = result[first : first + step]
        drawn = (tops(scores[first : first + step]) & hubs).any(axis=1)
        reachable = np.isfinite(log_sums)
        part[np.ix_(drawn, reachable)] -= log_sums[reachable] / BETA
    return result


def tops(scores: Scores) -> NDArray[np.bool_]:
    """(Q, V) which videos share each row's best score; none where all are missed."""
    best = scores.max(axis=1, keepdims=True)
    return np.asarray((scores == best) & ~np.isneginf(scores))


def _bank_log_sums(bank_scores: Scores) -> Values:
    """(V,) log of the sum over the bank of exp(beta * score), in parts of bounded size."""
    sums = np.full(bank_scores.shape[1], -np.inf)
    step = max(1, CELLS // bank_scores.shape[1])
    for first in range(0, len(bank_scores), step):
        part = BETA * bank_scores[first : first + step].astype(np.float64)
        sums = np.logaddexp(sums, _log_sum_exp(part))
    return sums


def _log_sum_exp(logits: Values) -> Values:
    """(C,) of each column."""
    top = logits.max(axis=0)
    top = np.where(np.isneginf(top), 0.0, top)
    total = np.exp(logits - top).sum(axis=0)
    logs = np.full(total.shape, -np.inf)
    np.log(total, out=logs, where=total > 0)
    return np.asarray(top + logs)
