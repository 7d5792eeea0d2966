"""The options of `vtr import`, for all three systems."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """What a checkpoint does not say of itself."""

    clip: str = option("openai/clip-vit-base-patch32", group="Model", metavar="ID|DIR")
    """Hub id or folder of the CLIP it came from, for the vocabulary alone: checkpoints hold
    none."""
    vision_heads: int | None = option(None, group="Model", unset="width / 64", ge=1)
    """Attention heads of the vision tower."""
    text_heads: int | None = option(None, group="Model", unset="width / 64", ge=1)
    """Attention heads of the text tower."""
    train_split: str | None = option(None, group="Training videos", metavar="SPLIT")
    """Split of the dataset that it was trained on, so that `vtr eval` can refuse to test on it.
    Without it the run says that this is unknown."""
    dataset: str | None = option(None, group="Training videos", metavar="DATASET")
    """Dataset of --train-split."""
    annotations: Path | None = option(None, group="Training videos", metavar="DIR")
    """Its annotation files; the videos need not be here."""
