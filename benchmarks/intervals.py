"""How often a 95 % interval of R@1 holds the truth, by number of videos: `docs/metrics.md`.

Videos differ: the captions of one are found with a chance drawn from a beta distribution of the
given mean and concentration (1: mostly all or none). A video has 1 to 40 captions.
"""

from __future__ import annotations

import numpy as np

from vtr.evaluate.intervals import bootstrap
from vtr.evaluate.ranks import Ranks

GALLERY = 100


def coverage(
    num_videos: int, share: float, *, concentration: float = 1.0, trials: int, resamples: int
) -> float:
    """Returns the share of trials whose interval holds the true R@1."""
    rng = np.random.default_rng(num_videos)
    inside = 0
    for trial in range(trials):
        captions = rng.integers(1, 41, num_videos)
        chance = rng.beta(share * concentration, (1 - share) * concentration, num_videos)
        clusters = np.repeat(np.arange(num_videos), captions)
        better = np.where(rng.random(len(clusters)) < chance[clusters], 0, GALLERY // 2)
        ranks = Ranks(better, np.ones(len(better), int), GALLERY)
        low, high = bootstrap(ranks, (1,), seed=trial, clusters=clusters, num_resamples=resamples)[
            "R@1"
        ]
        inside += low <= 100 * share <= high
    return inside / trials


def main() -> None:
    """Prints one line per number of videos: the coverage at R@1 of 10, 30 and 50 %."""
    for num_videos in (20, 50, 200):
        found = [
            coverage(num_videos, share, trials=600, resamples=500) for share in (0.1, 0.3, 0.5)
        ]
        print(num_videos, *[f"{value:.3f}" for value in found])


if __name__ == "__main__":
    main()
