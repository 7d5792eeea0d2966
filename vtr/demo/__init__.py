"""The synthetic world and the tiny CLIP that ships with the package.

Nothing here imports torch or a decoder at the top, so that the workers that render clips start
quickly.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

DEMO_FRAMES = 8
"""Frame budget of the demo: what `vtr demo` passes as `--frames`."""

DEMO_FPS = "native"
"""Candidate rate of the demo: every frame of the clips (they run at 10 frames per second)."""

DEMO_SAMPLER = "dense"
"""What the demo's store holds: every frame, so that any sampler can be applied without the clips.

It is 37,000 embeddings instead of the 25,000 that the union of all other samplers chooses, but
`embedding-diversity`, another budget and other options need no second decode.
"""


def demo_model_folder() -> Path:
    """Returns the Hugging Face folder of the tiny CLIP that ships with the package."""
    return Path(str(files("vtr.demo"))) / "model"
