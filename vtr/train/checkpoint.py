"""`last.safetensors`: everything needed to go on after the last whole epoch.

No random state is stored: each epoch starts its generators from (seed, epoch), so that an
epoch run again draws what it drew before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from vtr.clip.openai_names import not_finite
from vtr.errors import CheckpointError
from vtr.files import publish
from vtr.json_files import as_fields, parse_json
from vtr.train.model import RetrievalModel
from vtr.train.run import load_weights, model_tensors, read_tensors

_OPTIMISER = "optimiser."
_STATE = "state"


@dataclass
class Progress:
    """How far a training is."""

    epoch: int = 0  # Whole epochs done
    best_epoch: int = 0  # Epoch of the best validation; 0 is before any training
    best_value: float | None = None  # What it scored; None without validation
    stale: int = 0  # Epochs since
    # Videos or pairs per step, where memory ran out and it was halved; 0: as set.
    batch_size: int = 0
    vision_chunk: int | None = None  # Videos that the vision tower encodes at once, once chosen
    seconds: float = 0.0  # Spent in training and validation so far


def save_checkpoint(
    path: Path, model: RetrievalModel, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    """Publishes weights, optimiser and progress in one file: they never disagree."""
    tensors = model_tensors(model)
    for number, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            name = f"{_OPTIMISER}{number}.{key}"
            tensors[name] = torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
    metadata = {_STATE: json.dumps(asdict(progress)), "epoch": str(progress.epoch)}
    publish(path, save_tensors(tensors, metadata=metadata))


def load_checkpoint(
    path: Path, model: RetrievalModel, optimiser: torch.optim.Optimizer
) -> Progress:
    """Puts a checkpoint into a model and its optimiser; returns the progress."""
    tensors, metadata = read_tensors(path)
    load_weights(model, tensors, what=str(path))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(_OPTIMISER):
            number, _, key = name.removeprefix(_OPTIMISER).partition(".")
            state.setdefault(int(number) if number.isdecimal() else -1, {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    known = {number for group in groups for number in group["params"]}
    if not set(state) <= known:
        raise CheckpointError(f"{path} holds the optimiser of another model; start a new run")
    _check_state(path, state, optimiser)
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return _progress(path, metadata)


def _check_state(
    path: Path, state: Mapping[int, Mapping[str, Tensor]], optimiser: torch.optim.Optimizer
) -> None:
    """Refuses moments of other shapes than their weights, or that are NaN or infinite."""
    parameters = [weight for group in optimiser.param_groups for weight in group["params"]]
    for number, values in state.items():
        for key, value in values.items():
            if value.ndim and value.shape != parameters[number].shape:
                raise CheckpointError(
                    f"{path}: {_OPTIMISER}{number}.{key} has shape {tuple(value.shape)}, its "
                    f"weight {tuple(parameters[number].shape)}; start a new run"
                )
            if not_finite(value):
                raise CheckpointError(
                    f"{path}: {_OPTIMISER}{number}.{key} is NaN or infinite; start a new run"
                )


def _progress(path: Path, metadata: Mapping[str, str]) -> Progress:
    what = f"the progress in {path}"
    values = parse_json(
        metadata.get(_STATE, "null"), source=what, needed="its state", error=CheckpointError
    )
    return as_fields(Progress, values, source=what, error=CheckpointError)
