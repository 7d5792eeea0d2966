"""Heads, one file each: how a text and the frames of a video become one score.

A head is a module in this folder whose file name is the option name (`seqTransf`), with

- a docstring whose first line `vtr heads` shows; formula, source, parameter count below it;
- optionally `Options`: a frozen dataclass of what users may set (`--head seqTransf:layers=2`),
  checked in its `__post_init__` (ConfigError);
- one class derived from `Head`, made of (dim, options): parameters under the reference's names,
  every random draw from torch's global generator; its `info` says what it needs and offers
  (`info_with`, where options change that), its `draw_weights` and `start_from` make the weights
  that training begins with;
- optionally `PRESETS: Mapping[str, Options]`.
"""

HELPERS = ("base", "blocks")
