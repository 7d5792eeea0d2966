"""Whether an answer is better than what unrelated sentences get in the same folder.

Raw cosines mean nothing across queries. Two statistics tell a true sentence from nonsense, and an
answer stands out as far as the greater of them says:

- range: the best frame's score above the lowest twentieth of the folder. Nonsense moves all frames
  alike, a true sentence lifts some and not others.
- outlier: the best score after standardising each frame's scores over the bank of unrelated
  sentences, for frames that score high whatever is asked.

Each is measured in the bank's own spread around its median. Which of them, and the level, was
chosen on the demo world among twenty; docs/search.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_USUAL_PERCENT = 5
_BLOCK_ROWS = 1 << 13


@dataclass(frozen=True)
class Calibration:
    """What unrelated sentences get in a folder."""

    centre: Floats  # (2,) median of either statistic over the bank
    spread: Floats  # (2,) its median distance from there, as a standard deviation
    levels: Floats  # (B,) ascending: how far each sentence of the bank stands out

    @classmethod
    def of(cls, above: Floats, outlier: Floats) -> Calibration:
        """Measures B sentences: best score of each above the `usual`, best standardised score."""
        both = np.stack([above, outlier])
        centre = np.median(both, axis=1)
        spread = 1.4826 * np.median(np.abs(both - centre[:, None]), axis=1)
        made = cls(centre, np.maximum(spread, 1e-6), np.zeros(0))
        far = [made.distance(float(a), float(b)) for a, b in both.T]
        return cls(made.centre, made.spread, np.sort(np.array(far)))

    def distance(self, above: float, outlier: float) -> float:
        """Returns how far an answer stands out."""
        return float(((np.array([above, outlier]) - self.centre) / self.spread).max())

    def level(self, above: float, outlier: float) -> float:
        """Returns the share of the bank that stands out less, 0 to 1."""
        far = self.distance(above, outlier)
        return float(np.searchsorted(self.levels, far)) / max(len(self.levels), 1)


def usual(sampled: Floats) -> Floats:
    """Returns (...,) what a frame scores at least, but for a twentieth, from (R, ...) scores."""
    low: Floats = np.percentile(sampled, _USUAL_PERCENT, axis=0)
    return low


def bank_scores(frames: Floats, bank: Floats) -> tuple[Floats, Floats]:
    """Returns (R, 2) mean and deviation of each row over the bank, and (2, B) best per sentence.

    Frames (R, D) and bank (B, D) are unit vectors.
    """
    moments = np.zeros((len(frames), 2), np.float32)
    best = np.full((2, len(bank)), -np.inf, np.float32)
    for start in range(0, len(frames), _BLOCK_ROWS):
        scores = frames[start : start + _BLOCK_ROWS] @ bank.T
        mean = scores.mean(axis=1, keepdims=True)
        deviation = np.maximum(scores.std(axis=1, keepdims=True), 1e-6)
        moments[start : start + len(scores)] = np.hstack([mean, deviation])
        standard = (scores - mean) / deviation
        np.maximum(best, [scores.max(axis=0), standard.max(axis=0)], out=best)
    return moments, best
