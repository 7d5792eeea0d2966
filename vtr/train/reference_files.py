"""A training in CLIP4Clip's own files: weights that its code loads, and the optimiser's state.

The inverse of `vtr.train.importing`. The weights of a checkpoint are one state dict, CLIP's under
`clip.` and in the types that `convert_weights` gives them, the head's beside them. The optimiser's
state is torch's own document over the parameters in the order of the reference's model, four groups
of them. Sources: CLIP4Clip@508ffa3 (main_task_retrieval.py, prep_optimizer; modules/modeling.py;
modules/optimization.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtr.clip.backbone import Backbone
from vtr.clip.openai_names import to_openai
from vtr.clip.towers import Architecture
from vtr.errors import ConfigError
from vtr.json_files import as_fields
from vtr.train.importing import CLIP_PREFIX, SYSTEM_HEADS
from vtr.train.loop import read_metrics
from vtr.train.model import ModelSpec, RetrievalModel, build_model
from vtr.train.optim import REFERENCE_UNDECAYED, parameter_groups
from vtr.train.presets import TrainSettings
from vtr.train.run import CONFIG, LAST, load_weights, read_config, read_tensors
from vtr.train.towers import merged, trained_state

MODEL_FILE = "pytorch_model.bin"
OPTIMISER_FILE = "pytorch_opt.bin"
_HEAD_WIDTH = 64
_POSITIONS = {
    "seqLSTM": "frame_position_embeddings.weight",
    "seqTransf": "frame_position_embeddings.weight",
    "tightTransf": "cross.embeddings.position_embeddings.weight",
}


def check_exportable(spec: ModelSpec) -> None:
    """Refuses what CLIP4Clip has no place for: another head, or a projection of texts."""
    name, allowed = spec.choice.name, SYSTEM_HEADS["clip4clip"]
    if name not in allowed:
        raise ConfigError(
            f"--reference writes a checkpoint of CLIP4Clip, which has no head {name!r}; its heads "
            f"are {', '.join(allowed)}"
        )
    if spec.text.mode == "projection":
        raise ConfigError(
            "--reference writes a checkpoint of CLIP4Clip, which has no projection of texts; train "
            "with --text frozen or --text tune"
        )


def differences(backbone: Backbone) -> list[str]:
    """Returns what CLIP4Clip's code would compute in another way than this tower does."""
    found = []
    for name in ("vision", "text"):
        sizes = getattr(backbone.architecture, name)
        if sizes.activation != "quick_gelu":
            found.append(f"{name}: {sizes.activation}, there quick_gelu")
        if sizes.heads * _HEAD_WIDTH != sizes.width:
            found.append(f"{name}: {sizes.heads} attention heads, there width / {_HEAD_WIDTH}")
    return found


def reference_state(
    model: RetrievalModel, spec: ModelSpec, backbone: Backbone
) -> dict[str, Tensor]:
    """Returns the weights of a run as the reference saves them, in its order."""
    if backbone.family != "clip":
        raise ConfigError(
            f"--reference writes a checkpoint of CLIP4Clip; {backbone.model_id} is a "
            f"{backbone.family} model, which its code cannot load"
        )
    clip = to_openai(merged(model, backbone).model.state_dict(), halved=True)
    state = {f"{CLIP_PREFIX}{name}": value for name, value in clip.items()}
    state |= _head_state(model, spec, clip["positional_embedding"])
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def _head_state(model: RetrievalModel, spec: ModelSpec, positions: Tensor) -> dict[str, Tensor]:
    """Returns the head's weights; places that it lacks are those that the reference begins with."""
    state = {name: value.float() for name, value in model.head.state_dict().items()}
    table = _POSITIONS.get(spec.choice.name)
    if table is None:
        return state
    own = state.get(table, positions[:0].float())
    if len(own) > len(positions):
        raise ConfigError(
            f"--reference: the head has {len(own)} places for frames, CLIP4Clip as many as CLIP "
            f"has for words: train with --head {spec.choice.name}:positions={len(positions)}"
        )
    if len(own) < len(positions):
        own = torch.cat([own, positions[len(own) :].to(own)])
    # First, as in the reference's model: the LSTM's is never read.
    return {table: own, **{name: value for name, value in state.items() if name != table}}


@dataclass(frozen=True)
class LastEpoch:
    """What a training goes on from: weights and optimiser after the last whole epoch."""

    number: int  # Counted from 0, as the reference does
    weights: dict[str, Tensor]  # `pytorch_model.bin`
    optimiser: dict[str, Any]  # `pytorch_opt.bin`


def last_epoch(folder: Path, backbone: Backbone) -> LastEpoch | None:
    """Returns the last epoch of a run; None where it keeps no state of BertAdam's.

    What was trained of the backbone's towers is read from the epoch.
    """
    config, source = read_config(folder), f"{folder / CONFIG}"
    spec = as_fields(ModelSpec, config.get("model"), source=f"{source}: model")
    kept = (config.get("settings") or {}).get("optimiser") == "bertadam"
    if not kept or spec.lora or not (folder / LAST).is_file():
        return None
    settings = as_fields(TrainSettings, config["settings"], source=f"{source}: settings")
    tensors, metadata = read_tensors(folder / LAST)
    model = build_model(spec)
    load_weights(model, tensors, what=str(folder))
    weights = reference_state(model, spec, backbone)
    rows = [row for row in read_metrics(folder) if "steps" in row]
    steps = sum(row["steps"] for row in rows)
    groups = _groups(weights, settings, total=steps / max(len(rows), 1) * settings.epochs)
    numbers = {name: n for n, name in enumerate(n for group in groups for n in group["params"])}
    moments = _moments(model, spec, tensors, settings, backbone.architecture)
    state = {
        numbers[name]: {"step": steps, "next_m": first, "next_v": second}
        for name, (first, second) in moments.items()
    }
    for group in groups:
        group["params"] = [numbers[name] for name in group["params"]]
    number = int(metadata.get("epoch", "1")) - 1
    document = {
        "epoch": number,
        "optimizer_state_dict": {"state": state, "param_groups": groups},
        "loss": rows[-1]["loss"] if rows else float("nan"),
    }
    return LastEpoch(number, weights, document)


def _groups(names: Iterable[str], settings: TrainSettings, *, total: float) -> list[dict[str, Any]]:
    """Returns the reference's four groups of names, frozen parameters in them too."""
    shared = {
        "schedule": "warmup_cosine", "warmup": settings.warmup, "t_total": total,
        "b1": 0.9, "b2": 0.98, "e": 1e-6, "max_grad_norm": 1.0,
    }  # fmt: skip
    groups: dict[tuple[bool, bool], list[str]] = {
        (escapes, head): [] for escapes in (False, True) for head in (False, True)
    }
    for name in names:
        escapes = any(part in name for part in REFERENCE_UNDECAYED)
        groups[escapes, not name.startswith(CLIP_PREFIX)].append(name)
    return [
        {
            "params": params,
            "lr": settings.lr * (1.0 if head else settings.coef_lr),
            "weight_decay": 0.0 if escapes else settings.weight_decay,
            **shared,
        }
        for (escapes, head), params in groups.items()
    ]


@torch.no_grad()
def _moments(
    model: RetrievalModel,
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    settings: TrainSettings,
    architecture: Architecture,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns BertAdam's two moments by the reference's names, of what was ever updated.

    They take the places of the weights in `model`, so that what renames, turns and joins weights
    does so with them.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, settings, reference=True)
    order = [names[id(parameter)] for group in groups for parameter in group["params"]]
    found: list[dict[str, Tensor]] = []
    for key in ("next_m", "next_v"):
        values = {name: tensors.get(f"optimiser.{n}.{key}") for n, name in enumerate(order)}
        for name, parameter in model.named_parameters():
            value = values.get(name)
            parameter.copy_(torch.full_like(parameter, torch.nan) if value is None else value)
        clip = to_openai(trained_state(model, architecture))
        state = {f"{CLIP_PREFIX}{name}": value for name, value in clip.items()}
        places = torch.zeros(architecture.context, spec.dim)
        state |= _head_state(model, spec, places) if model.head.state_dict() else {}
        found.append({n: v.clone() for n, v in state.items() if not v.isnan().any() and v.numel()})
    unused = set(_POSITIONS.values()) - set(model.head.state_dict())
    return {name: (found[0][name], found[1][name]) for name in found[0].keys() - unused}
