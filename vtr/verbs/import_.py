"""The options of `vtr import`, for all three systems."""

from __future__ import annotations

from pathlib import Path

from vtr.settings import Settings, option


class Options(Settings):
    """What a checkpoint does not say of itself."""

    clip: str = option(
        "openai/clip-vit-base-patch32",
        "Hub id or folder of the CLIP it came from, for the vocabulary alone: checkpoints hold "
        "none.",
        group="Model", metavar="ID|DIR",
    )  # fmt: skip
    vision_heads: int | None = option(
        None,
        "Attention heads of the vision tower.",
        group="Model", unset="width / 64", bounds={"ge": 1},
    )  # fmt: skip
    text_heads: int | None = option(
        None,
        "Attention heads of the text tower.",
        group="Model", unset="width / 64", bounds={"ge": 1},
    )  # fmt: skip
    train_split: str | None = option(
        None,
        "Split of the dataset that it was trained on, so that `vtr eval` can refuse to test on "
        "it. Without it the run says that this is unknown.",
        group="Training videos", metavar="SPLIT",
    )  # fmt: skip
    dataset: str | None = option(
        None,
        "Dataset of --train-split.",
        group="Training videos", metavar="DATASET",
    )  # fmt: skip
    annotations: Path | None = option(
        None,
        "Its annotation files; the videos need not be here.",
        group="Training videos", metavar="DIR",
    )  # fmt: skip
