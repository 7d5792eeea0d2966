"""What may be set of a training, and the named sets of it; without torch, for help and names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vtr.errors import ConfigError, UnknownNameError

TextMode = Literal["frozen", "projection", "tune"]
TEXT_MODES: tuple[str, ...] = get_args(TextMode)
BatchMode = Literal["videos", "pairs"]
Optimiser = Literal["adamw", "bertadam"]
Mining = Literal["batch", "global"]
ALL_CAPTIONS = 0
EVERYTHING = -1  # of --freeze-layers: nothing stays as it is


@dataclass(frozen=True)
class BatchOptions:
    """How an epoch is cut into steps."""

    mode: BatchMode = "videos"  # "videos" or "pairs"
    size: int = 128  # B, videos or pairs per step, at least 2
    captions: int = ALL_CAPTIONS  # Captions drawn of each video and epoch; 0 is all of them
    # Leave out the incomplete last step, as the reference does; else all steps are made as equal in
    # size as can be.
    drop_last: bool = False


@dataclass(frozen=True)
class LossOptions:
    """How pairs are weighed against each other."""

    # Only the so many most confusing wrong answers of each row count; 0: all.
    hard_negatives: int = 0
    # Right is only the diagonal, as in the reference: a caption of the same video elsewhere in the
    # batch counts as wrong. Needs batches of pairs.
    reference: bool = False
    # Each pair is a question of its own; the model's logits then have a learned bias.
    sigmoid: bool = False


DEFAULT_PRESET = "vtr"
AUTO_CHUNK = 256
"""Captions encoded at once where the text tower trains: 256 x 32 tokens of ViT-B/32's 12 layers
keep about 3 GB for the backward pass."""


_OF_SAME_NAME = (
    *("optimiser", "lr", "coef_lr", "coef_lr_vision", "weight_decay", "warmup", "clip_norm"),
    *("epochs", "patience", "mine", "chunk"),
)
"""Settings that are called what their options are."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train, whatever the model and the data; `vtr.verbs.train` says what is allowed."""

    optimiser: Optimiser = "adamw"  # "adamw" with a cosine schedule, or the reference's "bertadam"
    lr: float = 1e-4  # Rate of the head and of new layers
    coef_lr: float = 0.1  # Factor on it for weights that come from the backbone
    coef_lr_vision: float | None = None  # The same for the vision tower; None: as `coef_lr`
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
    # Videos that a trained vision tower encodes at once; 0 encodes each batch whole, None chooses
    # by the memory that is free.
    vision_chunk: int | None = None
    short: bool = False  # Whether trained towers compute in bfloat16; their weights stay float32
    checkpointing: bool = False  # Whether they keep blocks' inputs only, and compute them twice
    seed: int = 0  # Of weights, shuffling and dropout

    def __post_init__(self) -> None:
        if self.loss.reference and self.batch.mode != "pairs":
            raise ConfigError(
                "the reference's loss, where only the diagonal is right, needs --batches pairs: "
                "in video-major batches a video meets several of its captions"
            )
        if self.mine == "global" and self.batch.mode != "videos":
            raise ConfigError(
                "--mine global puts videos that look alike into one batch: use --batches videos"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any], *, seed: int = 0) -> TrainSettings:
        """Returns the settings from values as presets have them."""
        captions = {"all": ALL_CAPTIONS, "one": 1}.get(values["captions"])
        return cls(
            **{name: values[name] for name in _OF_SAME_NAME},
            vision_chunk=None if values["vision_chunk"] == "auto" else int(values["vision_chunk"]),
            short=values["precision"] == "bfloat16",
            checkpointing=values.get("checkpointing", False),
            batch=BatchOptions(
                values["batches"],
                values["batch_size"],
                int(values["captions"]) if captions is None else captions,
                values["drop_last"],
            ),
            loss=LossOptions(
                values["hard_negatives"], values["loss"] == "reference", values["loss"] == "sigmoid"
            ),
            seed=seed,
        )

    def as_values(self) -> dict[str, Any]:
        """Returns what `of` was given, but for the precision, which follows the device."""
        captions = {ALL_CAPTIONS: "all", 1: "one"}.get(self.batch.captions, self.batch.captions)
        kinds = {"reference": self.loss.reference, "sigmoid": self.loss.sigmoid, "all": True}
        loss = next(kind for kind, is_it in kinds.items() if is_it)
        return {
            **{name: getattr(self, name) for name in _OF_SAME_NAME},
            "vision_chunk": "auto" if self.vision_chunk is None else self.vision_chunk,
            "checkpointing": self.checkpointing,
            "batches": self.batch.mode,
            "batch_size": self.batch.size,
            "captions": captions,
            "drop_last": self.batch.drop_last,
            "hard_negatives": self.loss.hard_negatives,
            "loss": loss,
        }


@dataclass(frozen=True)
class Preset:
    """A named recipe."""

    summary: str  # One line: whose recipe this is and what of it cached features cannot follow
    source: str  # Where the values come from
    # Option of `vtr train` to value, for every option that presets set; and `drop_last`, which no
    # option sets: whether the incomplete last batch of an epoch is left out.
    values: Mapping[str, Any]
    adapts: bool = False  # Whether rate and batch follow the data at hand (`fitted`)
    # What is otherwise where the vision tower is trained.
    tuned: Mapping[str, Any] = field(default_factory=lambda: {"text": "tune"})
    # Whether patches over three frames undo all freezing, as in CLIP4Clip, where the truth of what
    # str.find returns decides (main_task_retrieval.py, --linear_patch 3d).
    unfreezes: bool = False

    def fitted(self, *, dim: int, num_videos: int) -> dict[str, Any]:
        """Returns the values for features of size `dim` and so many training videos.

        Only vtr's own preset adapts. Rate: 1e-4 at 512 dimensions, as CLIP4Clip has it, and 3e-3
        at 96, the best of 1e-4 to 6e-3 on the demo world; between them a power of the width.
        Batch: 128 videos, or a tenth of them where these are few, so that an epoch has some steps.
        """
        values = dict(self.values)
        if self.adapts:
            values["lr"] = min(3e-3, 1e-4 * (512 / dim) ** 2)
            values["batch_size"] = min(values["batch_size"], max(16, num_videos // 10))
        return values


_OWN: Mapping[str, Any] = {
    "head": "seqTransf",
    "text": "frozen",
    "tune_layers": 0,
    "batches": "videos",
    "batch_size": 128,
    "captions": "all",
    "optimiser": "adamw",
    "lr": 1e-4,
    "coef_lr": 0.1,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    "epochs": 20,
    "patience": 5,
    "loss": "all",
    "temperature": None,  # learned
    "hard_negatives": 0,
    "mine": "batch",
    "chunk": 0,
    "vision": "frozen",
    "freeze_layers": 0,
    "linear_patch": "2d",
    "coef_lr_vision": None,  # as coef_lr
    "precision": "auto",
    "vision_chunk": "auto",
    "head_epochs": 20,
    "lora": 0,
    "drop_last": False,
}
_CLIP4CLIP: Mapping[str, Any] = {
    **_OWN,
    "head": "meanP",
    "text": "tune",
    "batches": "pairs",
    "optimiser": "bertadam",
    "coef_lr": 1e-3,
    "weight_decay": 0.2,
    "epochs": 5,
    "patience": 0,
    "loss": "reference",
    "precision": "float32",
    "head_epochs": 0,
    "drop_last": True,
}

PRESETS: Mapping[str, Preset] = {
    DEFAULT_PRESET: Preset(
        "vtr's own: AdamW, video-major batches, all captions of a video are right answers.",
        "CLIP4Clip's rate at 512 dimensions; other widths measured on the demo world",
        _OWN,
        adapts=True,
        # A rate of 1e-6 for both towers at 512 dimensions, as X-Pool has it for CLIP.
        tuned={"text": "tune", "epochs": 5, "coef_lr": 0.01},
    ),
    "clip4clip": Preset(
        "CLIP4Clip's MSR-VTT script in float32; with --vision tune both towers train, as there.",
        "ArrowLuo/CLIP4Clip@508ffa3, MSR-VTT script of its README",
        _CLIP4CLIP,
        unfreezes=True,
    ),
    "clip-video": Preset(
        "The CLIP_video fork's notebooks: CLIP4Clip with batches of 64 and the first 6 text layers "
        "frozen.",
        "sijiasiga/CLIP_video@91bcaf6, notebooks",
        {**_CLIP4CLIP, "batch_size": 64, "tune_layers": 6, "freeze_layers": 6},
        unfreezes=True,
    ),
    "two-tower": Preset(
        "Two-tower retrieval on ViT-H-14 features: a projection behind frozen text, temperature "
        "0.07, 8 hard negatives.",
        "itsAsmaa/Text-to-Video-Retrieval-using-Deep-Learning@9ae0c7a, README and report",
        {
            **_OWN,
            "head": "meanP",
            "text": "projection",
            "batches": "pairs",
            "batch_size": 256,
            "warmup": 0.0,
            "epochs": 10,
            "patience": 0,
            "temperature": 0.07,
            "hard_negatives": 8,
            "head_epochs": 0,
        },
        tuned={},
    ),
}


def find_preset(name: str) -> Preset:
    """Returns a preset."""
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]


ADAPTED = ("lr", "batch_size")
LAST_BATCH = "incomplete batch"


def with_chunk(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with a bound on what a trained text tower keeps in memory."""
    default = AUTO_CHUNK if values["text"] == "tune" else 0
    return {**values, "chunk": values["chunk"] or default}


def listed_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values as lists show them."""
    same_rate = values["coef_lr_vision"] is None
    return {
        **{name: value for name, value in values.items() if name != "drop_last"},
        "temperature": values["temperature"] or "learned",
        "coef_lr_vision": "as --coef-lr" if same_rate else values["coef_lr_vision"],
        LAST_BATCH: "left out" if values["drop_last"] else "kept",
    }


def shown_values(preset: Preset) -> dict[str, str]:
    """Returns every value of a preset as text; a star where the data at hand change it."""
    values = listed_values(with_chunk(preset.values))
    shown = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in values.items()}
    adapted = ADAPTED if preset.adapts else ()
    return {name: f"{text} *" if name in adapted else text for name, text in shown.items()}


def default_text(option: str) -> str:
    """Returns the default of an option that presets set, and what other presets make of it.

    >>> default_text("epochs")
    '20; clip4clip, clip-video: 5; two-tower: 10'
    """
    values = {name: shown_values(preset)[option] for name, preset in PRESETS.items()}
    own = values.pop(DEFAULT_PRESET)
    parts = [own.replace(" *", ", adapted to the data")]
    for value in dict.fromkeys(values.values()):
        if value != own:
            parts.append(f"{', '.join(n for n, v in values.items() if v == value)}: {value}")
    return "; ".join(parts)
