"""Choosing the best epoch: on validation data, by one number out of its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.features.store import PackedFrames
from vtr.train.data import PictureRows
from vtr.train.model import RetrievalModel
from vtr.train.scoring import Scorer
from vtr.train.texts import TextFeatures

Measure = Callable[[Scorer], Mapping[str, float]]

SELECTION = "mean of R@1, R@5 and R@10 in both directions"
_RECALLS = tuple(f"{way}/R@{k}" for way in ("t2v", "v2t") for k in (1, 5, 10))


@dataclass(frozen=True)
class Validation:
    """What an epoch is judged on."""

    texts: TextFeatures  # As the model reads them
    videos: PackedFrames | PictureRows  # The gallery
    measure: Measure  # Returns metrics under the keys of `evaluate` ("t2v/R@1", ...), in percent
    pad: NDArray[np.float32] | None = None  # (D,) what the vision tower makes of padding

    def __call__(self, model: RetrievalModel) -> dict[str, float]:
        """Returns the metrics of a model, which stays in the mode it was in."""
        scorer = Scorer(model, self.texts, self.videos, pad=self.pad)
        return {name: float(value) for name, value in self.measure(scorer).items()}


def selection_value(metrics: Mapping[str, float]) -> float:
    """Returns what the best epoch has most of: the mean of all recalls (`SELECTION`).

    R@1 alone moves in steps of one query, which on a small validation set is mostly chance.

    >>> round(selection_value({"t2v/R@1": 40.0, "t2v/R@5": 60.0}), 1)
    50.0
    """
    found = [metrics[name] for name in _RECALLS if name in metrics]
    if not found:
        raise ConfigError(
            f"validation gave none of {', '.join(_RECALLS)}; got {', '.join(metrics) or 'nothing'}"
        )
    return float(np.mean(found))
