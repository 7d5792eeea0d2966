"""The options of `vtr eval`."""

from __future__ import annotations

from typing import Annotated, Any, Self

import pydantic

from vtr.errors import ConfigError
from vtr.settings import flag_of, option
from vtr.verbs._device import DeviceName
from vtr.verbs.simulate import Asked

_MOST_DIGITS = 9  # more items than any gallery has


def _depths(value: Any) -> Any:
    """Reads recall depths: "1,5,10", one number, or several."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isdecimal() and len(part) <= _MOST_DIGITS for part in parts):
            raise ValueError("no depths")
        value = tuple(int(part) for part in parts)
    elif isinstance(value, int) and not isinstance(value, bool):
        value = (value,)
    if not (isinstance(value, tuple) and value):
        raise ValueError("no depths")
    if not all(type(k) is int and 0 < k < 10**_MOST_DIGITS for k in value):
        raise ValueError("no depths")
    return tuple(sorted(set(value)))


class Options(Asked):
    """What is evaluated, by which protocol, and how."""

    zero_shot: bool = option(False, group="Model", file_key="-")
    """No training: CLIP's text, mean of the frames."""
    run: str | None = option(None, group="Model", metavar="DIR", unset="the latest")
    """Folder or name of a run."""
    seeds: bool = option(False, group="Model", file_key="-")
    """Every seed of --run NAME, with mean and spread."""
    k: Annotated[tuple[int, ...], pydantic.BeforeValidator(_depths)] = option(
        (1, 5, 10), group="Scoring", metavar="K,...", short="-k",
        allowed=f"whole numbers from 1 to {10**_MOST_DIGITS - 1}, such as 1,5,10",
    )  # fmt: skip
    """Recall depths, separated by commas."""
    dual_softmax: bool = option(False, group="Scoring")
    """Also with dual softmax: sees all queries at once."""
    qb_norm: bool = option(False, group="Scoring")
    """Also with QB-Norm; bank: training captions."""
    rerank: int | None = option(
        None, group="Scoring", metavar="N", unset="the head scores every pair", ge=1
    )
    """Score by mean pooling or as the head recalls; it re-ranks the first N both ways."""
    moments: bool = option(False, group="Scoring", file_key="-")
    """Where in its video a sentence is: R1@IoU, mIoU, mAP; no training, frame by frame."""
    save_similarity: bool = option(False, group="Output")
    """Also write similarity.npz."""
    mteb: bool = option(False, group="Output")
    """Also write mteb.json: text to video in the schema of mteb."""
    force: bool = option(False, group="Model", file_key="-")
    """Evaluate a run that was trained on test videos."""
    device: DeviceName = option("auto", group="Model", metavar="DEVICE")
    """Where the model runs: auto, cpu, cuda, cuda:1."""

    @pydantic.model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.zero_shot and self.run is not None:
            raise ConfigError("--zero-shot and --run exclude each other: choose one")
        if self.zero_shot and self.rerank is not None:
            raise ConfigError(
                "--rerank lets the head of a run reorder what mean pooling found; --zero-shot is "
                "mean pooling itself. Leave out one of them"
            )
        for name in ("dual_softmax", "qb_norm") if self.rerank is not None else ():
            if getattr(self, name):
                raise ConfigError(
                    f"{flag_of(name, type(self).model_fields[name])} weighs scores of one list by "
                    "those of others, and --rerank gives each list an order of its own, without "
                    "scores that others could be held against. Leave out one of them"
                )
        if self.moments:
            self._check_moments()
        if self.seeds and self.run is None:
            raise ConfigError(
                "--seeds needs --run NAME, the name that vtr train --seeds N --name had"
            )
        if self.seeds and self.out is not None:
            raise ConfigError(
                "--out is one folder, and --seeds writes a result for each seed: leave it out; "
                "they go below the runs"
            )
        return self

    def _check_moments(self) -> None:
        """Refuses what has no meaning for moments."""
        scored = ("run", "seeds", "k", "dual_softmax", "qb_norm", "rerank")
        whole = (*scored, "save_similarity", "mteb")
        for name in whole:
            field = type(self).model_fields[name]
            if getattr(self, name) != field.default:
                raise ConfigError(
                    f"--moments asks each sentence of the frames of its own video; "
                    f"{flag_of(name, field)} is about whole videos. Leave out one of them"
                )
