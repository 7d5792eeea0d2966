"""Heads, one file each: how a text and the frames of a video become one score.

A head is a module in this folder whose file name is the option name (`seqTransf`), with

- a docstring whose first line `vtr heads` shows; formula, source, parameter count below it;
- `INFO: HeadInfo`: what it needs and what it offers;
- `Options`: a frozen dataclass of what users may set (`--head seqTransf:layers=2`), checked in its
  `__post_init__` (ConfigError);
- `build(dim, options) -> Head`: the untrained module, parameters under the reference's names,
  every random draw from torch's global generator;
- optionally `initialise(head, clip) -> str`: copies what the reference copies from CLIP's text
  layers and says in a phrase what was copied (`Head.origin`);
- where options change what a head needs, a property `info: HeadInfo` of `Options`, which the head
  takes over;
- optionally `PRESETS: Mapping[str, Options]`.
"""

HELPERS = ("base", "blocks")
