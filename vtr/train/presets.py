"""The settings of a training, and the named sets of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from vtr.errors import ConfigError, UnknownNameError
from vtr.train.options import BatchOptions, LossOptions, TextMode

Optimiser = Literal["adamw", "bertadam"]
Mining = Literal["batch", "global"]
DEFAULT_PRESET = "vtr"


@dataclass(frozen=True)
class TrainSettings:
    """How to train, whatever the model and the data."""

    optimiser: Optimiser = "adamw"  # "adamw" with a cosine schedule, or the reference's "bertadam"
    lr: float = 1e-4  # Rate of the head and of new layers
    coef_lr: float = 0.1  # Factor on it for weights that come from the backbone
    weight_decay: float = 0.01  # Of matrices
    warmup: float = 0.1  # Share of the training in which the rate rises
    clip_norm: float = 1.0  # Largest norm of all gradients together; 0 clips nothing
    epochs: int = 20  # How many at most
    patience: int = 5  # Stop after so many epochs without a better validation; 0 never stops early
    batch: BatchOptions = field(default_factory=BatchOptions)  # How an epoch is cut
    loss: LossOptions = field(default_factory=LossOptions)  # How pairs are weighed
    # Where hard negatives come from: the "batch", or "global": the nearest wrong videos of the
    # whole training set are put into one batch, found anew each epoch.
    mine: Mining = "batch"
    # Texts and videos encoded at once; larger batches are encoded in parts, with gradients equal to
    # the whole's. 0 encodes each batch whole.
    chunk: int = 0
    seed: int = 0  # Of weights, shuffling and dropout

    def __post_init__(self) -> None:
        for name, valid, allowed in (
            ("optimiser", self.optimiser in ("adamw", "bertadam"), "adamw, bertadam"),
            ("lr", _above_zero(self.lr), "above 0"),
            ("coef-lr", math.isfinite(self.coef_lr) and self.coef_lr >= 0, "0 or more"),
            ("weight-decay", 0 <= self.weight_decay <= 1, "0 to 1"),
            ("warmup", 0 <= self.warmup < 1, "0 to below 1, a share of the training"),
            ("clip-norm", math.isfinite(self.clip_norm) and self.clip_norm >= 0, "0 or more"),
            ("epochs", self.epochs >= 0, "0 or more"),
            ("patience", self.patience >= 0, "0 (never stop early) or more"),
            ("mine", self.mine in ("batch", "global"), "batch, global"),
            ("chunk", self.chunk >= 0, "0 (whole batches) or more"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not valid:
                value = getattr(self, name.replace("-", "_"))
                raise ConfigError(f"--{name} is {value!r}; allowed: {allowed}")
        self._check_together()

    def _check_together(self) -> None:
        if self.loss.reference and self.batch.mode != "pairs":
            raise ConfigError(
                "the reference's loss, where only the diagonal is right, needs --batches pairs: "
                "in video-major batches a video meets several of its captions"
            )
        if self.mine == "global" and self.batch.mode != "videos":
            raise ConfigError(
                "--mine global puts videos that look alike into one batch: use --batches videos"
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields in JSON types."""
        return asdict(self)


def _above_zero(value: float) -> bool:
    return math.isfinite(value) and value > 0


@dataclass(frozen=True)
class Preset:
    """A named recipe."""

    summary: str  # One line: whose recipe this is and what of it cached features cannot follow
    settings: TrainSettings  # How to train
    text: TextMode = "frozen"  # What of the text side is trained
    tune_layers: int = 0  # Last text layers for `tune`; 0 is all
    temperature: float | None = None  # Fixed temperature; None learns the scale
    head: str = "seqTransf"  # Label of the head where the user names none
    adapts: bool = False  # Whether rate and batch follow the data at hand (`fitted`)
    source: str = ""  # Where the values come from

    def fitted(self, *, dim: int, num_videos: int) -> TrainSettings:
        """Returns the settings for features of size `dim` and so many training videos.

        Only vtr's own preset adapts. Rate: 1e-4 at 512 dimensions, as CLIP4Clip has it, and 3e-3
        at 96, the best of 1e-4 to 6e-3 on the demo world; between them a power of the width.
        Batch: 128 videos, or a tenth of them where these are few, so that an epoch has some steps.
        """
        if not self.adapts:
            return self.settings
        rate = min(3e-3, 1e-4 * (512 / dim) ** 2)
        size = min(self.settings.batch.size, max(16, num_videos // 10))
        return replace(self.settings, lr=rate, batch=replace(self.settings.batch, size=size))


PRESETS: Mapping[str, Preset] = {
    DEFAULT_PRESET: Preset(
        "vtr's own: AdamW, video-major batches, all captions of a video are right answers.",
        TrainSettings(),
        adapts=True,
        source="CLIP4Clip's rate at 512 dimensions; other widths measured on the demo world",
    ),
    "clip4clip": Preset(
        "CLIP4Clip's MSR-VTT script; the vision tower stays frozen here and the text tower is "
        "float32.",
        TrainSettings(
            optimiser="bertadam",
            lr=1e-4,
            coef_lr=1e-3,
            weight_decay=0.2,
            warmup=0.1,
            epochs=5,
            patience=0,
            batch=BatchOptions("pairs", 128, drop_last=True),
            loss=LossOptions(reference=True),
        ),
        text="tune",
        head="meanP",
        source="ArrowLuo/CLIP4Clip@508ffa3, MSR-VTT script of its README",
    ),
    "clip-video": Preset(
        "The CLIP_video fork's notebooks: CLIP4Clip with batches of 64 and the first 6 text layers "
        "frozen.",
        TrainSettings(
            optimiser="bertadam",
            lr=1e-4,
            coef_lr=1e-3,
            weight_decay=0.2,
            warmup=0.1,
            epochs=5,
            patience=0,
            batch=BatchOptions("pairs", 64, drop_last=True),
            loss=LossOptions(reference=True),
        ),
        text="tune",
        tune_layers=6,
        head="meanP",
        source="sijiasiga/CLIP_video@91bcaf6, notebooks",
    ),
    "two-tower": Preset(
        "Two-tower retrieval on ViT-H-14 features: a projection behind frozen text, temperature "
        "0.07, 8 hard negatives.",
        TrainSettings(
            lr=1e-4,
            weight_decay=0.01,
            warmup=0.0,
            epochs=10,
            patience=0,
            batch=BatchOptions("pairs", 256),
            loss=LossOptions(hard_negatives=8),
        ),
        text="projection",
        temperature=0.07,
        head="meanP",
        source="itsAsmaa/Text-to-Video-Retrieval-using-Deep-Learning@9ae0c7a, README and report",
    ),
}


def find_preset(name: str) -> Preset:
    """Returns a preset.

    Raises:
        UnknownNameError: No such preset; the nearest is suggested.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]
