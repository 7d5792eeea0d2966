"""What may be set of a training; without torch, for help, presets and the completion of names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vtr.errors import ConfigError

TextMode = Literal["frozen", "projection", "tune"]
TEXT_MODES: tuple[str, ...] = get_args(TextMode)

BatchMode = Literal["videos", "pairs"]
BATCH_MODES: tuple[str, ...] = get_args(BatchMode)

ALL_CAPTIONS = 0


@dataclass(frozen=True)
class BatchOptions:
    """How an epoch is cut into steps."""

    mode: BatchMode = "videos"  # "videos" or "pairs"
    size: int = 128  # B, videos or pairs per step, at least 2
    captions: int = ALL_CAPTIONS  # Captions drawn of each video and epoch; 0 is all of them
    # Leave out the incomplete last step, as the reference does; else all steps are made as equal in
    # size as can be.
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.mode not in BATCH_MODES:
            raise ConfigError(f"--batches is {self.mode!r}; allowed: {', '.join(BATCH_MODES)}")
        if self.size < 2:
            raise ConfigError(f"--batch-size is {self.size}; a contrast needs at least 2 per batch")
        if self.captions < 0:
            raise ConfigError(f"--captions is {self.captions}; allowed: all, one, or 1 and more")


@dataclass(frozen=True)
class LossOptions:
    """How pairs are weighed against each other."""

    # Only the so many most confusing wrong answers of each row count; 0: all.
    hard_negatives: int = 0
    # Right is only the diagonal, as in the reference: a caption of the same video elsewhere in the
    # batch counts as wrong. Needs batches of pairs.
    reference: bool = False

    def __post_init__(self) -> None:
        if self.hard_negatives < 0:
            raise ConfigError(
                f"--hard-negatives is {self.hard_negatives}; allowed: 0 (all negatives) or more"
            )
