"""The options of `vtr train`; those without a default take it from the preset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic

from vtr.errors import ConfigError
from vtr.settings import Settings, fact, flag_of, option
from vtr.train.presets import (
    DEFAULT_PRESET,
    EVERYTHING,
    BatchMode,
    Mining,
    Optimiser,
    TextMode,
    TrainSettings,
    default_text,
    find_preset,
    with_chunk,
)
from vtr.verbs._device import DeviceName

_LONGEST_NAME = 200  # bytes
_OF_TEXT = {"dropout": "projection", "tune_layers": "tune", "coef_lr": "tune"}
"""Options that only one kind of text side follows; only a tuned one has pretrained layers."""
_OFF_AT_ZERO = ("checkpointing", "head_epochs", "lora")
"""Options of a trained vision tower whose 0 asks for nothing."""


def _count_or(*words: str, least: int) -> pydantic.BeforeValidator:
    """Takes words, and a number for its text: `captions = 2` in a file, `captions=2` in Python."""

    def check(value: object) -> object:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        number = isinstance(text, str) and text.isdecimal() and int(text) >= least
        if isinstance(text, str) and text not in words and not number:
            raise ValueError("no count")
        return text

    return pydantic.BeforeValidator(check)


def _name(value: str) -> str:
    if value in (".", "..") or set(value) & set("/\\\0") or len(os.fsencode(value)) > _LONGEST_NAME:
        raise ValueError("no folder name")
    return value


def _of_preset(name: str, *, group: str, **facts: Any) -> Any:
    """Declares an option whose default is the preset's."""
    return option(None, group=group, unset=default_text(name), **facts)


class Recipe(Settings):
    """What is trained and how; what of it was given stands in `config.json` under "request"."""

    head: str | None = _of_preset("head", group="Model", metavar="HEAD")
    """Head with options, such as seqTransf:layers=2."""
    sampler: str | None = option(None, group="Data", metavar="SAMPLER", unset="the store's own")
    """Whose frames; on a dense store any sampler."""
    text: TextMode | None = _of_preset("text", group="Model", metavar="MODE")
    """Text side: frozen, projection, or tune."""
    tune_layers: int | None = _of_preset("tune_layers", group="Model", ge=0)
    """With tune: the last N text layers; 0 is all. Of texts it decides, and not --freeze-layers."""
    dropout: float | None = option(None, group="Model", unset="0", ge=0, lt=1)
    """With projection: dropout in it."""
    preset: str | None = option(None, group="Optimisation", metavar="PRESET", unset=DEFAULT_PRESET)
    """Named settings: vtr, clip4clip, clip-video, two-tower."""
    protocol: str | None = option(
        None, group="Data", metavar="PROTOCOL", unset="the dataset's most used"
    )
    """Whose training split."""
    epochs: int | None = _of_preset("epochs", group="Optimisation", ge=0)
    """At most so many."""
    patience: int | None = _of_preset("patience", group="Optimisation", ge=0)
    """Stop after so many epochs without a better one; 0: never."""
    batch_size: int | None = _of_preset("batch_size", group="Optimisation", ge=2)
    """Videos or pairs per step; a contrast needs at least 2."""
    batches: BatchMode | None = _of_preset("batches", group="Data", metavar="videos|pairs")
    """videos: each encoded once a step, with --loss all unless given; pairs: the reference's."""
    captions: Annotated[str, _count_or("all", "one", least=1)] | None = _of_preset(
        "captions", group="Data", metavar="all|one|N", allowed="all, one, or a number from 1"
    )
    """Captions of each video and epoch: all, one, or a number."""
    optimiser: Optimiser | None = _of_preset("optimiser", group="Optimisation", metavar="NAME")
    """adamw or bertadam."""
    lr: float | None = _of_preset("lr", group="Optimisation", gt=0)
    """Rate of the head and of new layers."""
    coef_lr: float | None = _of_preset("coef_lr", group="Optimisation", ge=0)
    """Factor on it for pretrained layers of the towers."""
    warmup: float | None = _of_preset("warmup", group="Optimisation", ge=0, lt=1)
    """Share of the training, 0 to 1."""
    weight_decay: float | None = _of_preset("weight_decay", group="Optimisation", ge=0, le=1)
    """Of matrices."""
    clip_norm: float | None = _of_preset("clip_norm", group="Optimisation", ge=0)
    """Largest norm of all gradients; 0: no limit."""
    loss: Literal["all", "reference", "sigmoid"] | None = _of_preset(
        "loss", group="Optimisation", metavar="all|reference|sigmoid"
    )
    """all: each caption of a video is right; reference: the diagonal only; sigmoid: as all,
    each pair alone."""
    temperature: float | None = _of_preset("temperature", group="Optimisation", ge=1e-4, le=100)
    """Fixed temperature, such as 0.07."""
    hard_negatives: int | None = _of_preset("hard_negatives", group="Optimisation", ge=0)
    """Only the k most confusing negatives count; 0: all."""
    mine: Mining | None = _of_preset("mine", group="Optimisation", metavar="batch|global")
    """batch, or global: confusable videos of the whole set share a batch."""
    chunk: int | None = _of_preset("chunk", group="Optimisation", ge=0)
    """Encode large batches in parts of so many (with --vision tune: of captions); 0: whole.
    With --text tune: 256 unless given."""
    vision: Literal["frozen", "tune"] | None = _of_preset(
        "vision", group="Vision tower", metavar="frozen|tune"
    )
    """Vision tower: frozen, or tune, from pictures that extract --crops keeps."""
    freeze_layers: int | None = _of_preset("freeze_layers", group="Vision tower", ge=-1)
    """First layers of both towers that stay as they are; -1: not even the embeddings do."""
    linear_patch: Literal["2d", "3d"] | None = _of_preset(
        "linear_patch", group="Vision tower", metavar="2d|3d"
    )
    """2d, or 3d: patches look at the frames before and after too."""
    coef_lr_vision: float | None = _of_preset("coef_lr_vision", group="Vision tower", ge=0)
    """Factor on the rate for the vision tower."""
    precision: Literal["auto", "float32", "bfloat16"] | None = _of_preset(
        "precision", group="Vision tower", metavar="TYPE"
    )
    """What trained towers compute in; auto: bfloat16 on a GPU."""
    checkpointing: bool = option(False, group="Vision tower")
    """Keep a fifteenth of the activations; a third more time."""
    vision_chunk: Annotated[str, _count_or("auto", least=0)] | None = _of_preset(
        "vision_chunk", group="Vision tower", metavar="auto|N", allowed="auto, or a number from 0"
    )
    """Videos that the tower encodes at once: auto by free memory; 0: all."""
    activations: Literal["float16", "float32"] | None = option(
        None, group="Vision tower", metavar="TYPE", unset="float16"
    )
    """With --freeze-layers from 1: how what frozen layers make is kept."""
    head_epochs: int | None = _of_preset("head_epochs", group="Vision tower", ge=0)
    """Epochs that train the head alone first; 0: none."""
    lora: int | None = _of_preset("lora", group="Vision tower", ge=0, le=1024)
    """Train updates of this rank of query and value instead of the towers; 0: not."""
    start: Path | None = option(
        None, group="Vision tower", metavar="DIR", unset="those of the model"
    )
    """Folder of a run whose weights to start from."""
    teacher: Path | None = option(None, group="Model", metavar="DIR")
    """Folder of a run whose ranking is learned too, such as one of xpool."""
    hold_out: float | None = option(None, group="Data", unset="0.05", gt=0, lt=1)
    """Share of training videos to validate on where there is no such split."""
    seed: int | None = option(None, group="Optimisation", unset="the workspace's, or 0", ge=0)
    """Of weights, shuffling, dropout."""

    @pydantic.model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuses what no training can have, before torch is loaded and data are read."""
        values = self.resolve()
        TrainSettings.of(values)
        if self._goes_on():
            return self  # what is given here is compared with what the run was started with
        self._check_vision(values)
        if self.text is not None:
            self.check_text(self.text)
        return self

    def _goes_on(self) -> bool:
        return False

    def _check_vision(self, values: Mapping[str, Any]) -> None:
        """Refuses what a trained vision tower cannot have, and what only such a one follows."""
        if values["vision"] == "tune":
            if self.teacher is not None:
                raise ConfigError(
                    "--teacher reads stored features, and --vision tune makes others: train the "
                    "student with one of them"
                )
            self._check_tuned(values)
            return
        self._refuse(
            OF_VISION, "needs --vision tune; the vision tower is frozen here and would not heed it"
        )

    def _check_tuned(self, values: Mapping[str, Any]) -> None:
        """Refuses what a trained vision tower would not heed beside the other options."""
        if self.start is not None:
            self._refuse(
                ("head_epochs",), "trains a new head first, and --start takes that of a run"
            )
        if values["freeze_layers"] < 1:
            self._refuse(
                ("activations",),
                "is about what frozen layers make: it needs --freeze-layers from 1",
            )
        if not values["lora"]:
            return
        rates = ("coef_lr_vision", *(("coef_lr",) * (values["optimiser"] != "bertadam")))
        self._refuse(
            rates, "is a factor for weights of the towers; with --lora they stay, and the updates "
            "learn at --lr",
        )  # fmt: skip
        if self.freeze_layers == EVERYTHING:
            raise ConfigError(
                "--freeze-layers -1 trains the embeddings too, and --lora updates layers only: "
                "leave one of them out"
            )

    def _refuse(self, names: Sequence[str], why: str) -> None:
        """Refuses options that were given: ignored, they would pass for followed."""
        for name in names:
            value = getattr(self, name)
            if value not in (None, False) or (value == 0 and name not in _OFF_AT_ZERO):
                raise ConfigError(f"{flag_of(name, type(self).model_fields[name])} {why}")

    def check_text(self, mode: str) -> None:
        """Refuses an option of another kind of text side: ignored, it would pass for followed."""
        for name, only in _OF_TEXT.items():
            value = getattr(self, name)
            values = self.resolve()
            # Of the towers, and with the reference's optimiser of the scale.
            heeded = values["coef_lr_vision"] is None or values["optimiser"] == "bertadam"
            followed = name == "coef_lr" and values["vision"] == "tune" and heeded
            if value is not None and mode != only and not followed:
                raise ConfigError(
                    f"{flag_of(name, type(self).model_fields[name])} {value} needs --text {only}; "
                    f"the text side is {mode} here and would not heed it"
                )

    def resolve(self, *, dim: int = 512, num_videos: int = 1000) -> dict[str, Any]:
        """Returns the preset's values, with what was given on top.

        Some presets adapt to the size of the features and the number of training videos.
        """
        preset = find_preset(self.preset or DEFAULT_PRESET)
        values = preset.fitted(dim=dim, num_videos=num_videos)
        given = {name: value for name, value in self.given.items() if name in values}
        if given.get("batches") == "videos":
            values["loss"] = "all"  # the reference's needs pairs
        if given.get("vision", values["vision"]) == "tune":
            values |= preset.tuned
        values |= given
        if preset.unfreezes and values["linear_patch"] == "3d":
            values["freeze_layers"] = -1
        values = values if "chunk" in given else with_chunk(values)
        return {**values, "checkpointing": self.checkpointing}

    def recipe(self) -> dict[str, Any]:
        """Returns what was given of what is trained and how, for JSON."""
        given = self.model_fields_set & Recipe.model_fields.keys()
        return {name: value for name, value in self.as_dict().items() if name in given}


OF_VISION = tuple(
    name
    for name, field in Recipe.model_fields.items()
    if fact(field, "group") == "Vision tower" and name != "vision"
)
"""Options that only a trained vision tower follows."""


class Options(Recipe):
    """All options of `vtr train`."""

    seeds: int = option(1, group="Optimisation", ge=1, le=1000)
    """Train so many times; reports mean and spread."""
    name: Annotated[str, pydantic.AfterValidator(_name)] | None = option(
        None, group="Output and run", metavar="NAME", unset="made of head and text",
        allowed=f"one folder name of at most {_LONGEST_NAME} bytes, without slashes; --runs says "
        "where the folder goes",
    )  # fmt: skip
    """Folder of the run within runs/."""
    resume: bool = option(False, group="Output and run", file_key="-")
    """Go on with --name, or with the latest unfinished run."""
    overwrite: bool = option(False, group="Output and run", file_key="-")
    """Replace the run --name."""
    device: DeviceName = option("auto", group="Output and run", metavar="DEVICE")
    """auto, cpu, cuda, cuda:1."""
    tensorboard: bool = option(False, group="Output and run")
    """Also write TensorBoard events into the run."""
    dry_run: bool = option(False, group="Output and run", file_key="-")
    """Say parameters, memory, steps and time; train not."""

    def _goes_on(self) -> bool:
        return self.resume and self.seeds == 1

    @pydantic.model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.resume and self.overwrite:
            raise ConfigError("--resume and --overwrite exclude each other: choose one")
        return self
