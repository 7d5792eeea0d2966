"""Frame samplers, one file each: which of a video's candidate frames to keep.

A sampler is a module in this folder with

- a docstring whose first line `vtr samplers` shows; formula, source and repairs below it;
- `select(signals, num_frames, rng, *, option=default, ...) -> np.ndarray`: pure; returns exactly
  `num_frames` indices, int64, unique, sorted, in range. It is asked only where there are more
  candidates than that; else all are kept. Its keyword-only arguments are the options users may set
  (`--sampler NAME:option=value`); it raises ConfigError for a value that cannot be used, whatever
  the video;
- `NEEDS: frozenset[str]`: which signals it reads beside the time stamps: "luma", "embeddings"
  (exist only after extraction, in a dense store), or none;
- `COST: str`: its cost class in a few words.

Only `dense` may ignore `num_frames`. Random samplers draw from `rng` alone.
"""

HELPERS = ("base", "common")
