"""Checkpoints of the reference systems: which parameters are CLIP's, and which of what head.

CLIP4Clip and CLIP2Video save one plain state dict: `clip.*` under OpenAI's names (most of it
float16) and the head's parameters beside it, under the names that the heads here keep. Nothing
else is stored, so that the head must be named again; sizes are read from the shapes. What training
loops, DataParallel and torch.compile put around the names is taken off. Sources:
CLIP4Clip@508ffa3 (main_task_retrieval.py, save_model), CLIP2Video@e941318 (modules/modeling.py).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vtr.clip.openai_names import require_keys
from vtr.errors import CheckpointError, ConfigError, VtrError
from vtr.train.headlist import HeadChoice, build_head, head_presets, parse_head
from vtr.train.heads.base import Head

System = Literal["clip4clip", "clip2video"]
Shapes = Mapping[str, tuple[int, ...]]

SYSTEM_HEADS: Mapping[System, tuple[str, ...]] = {
    "clip4clip": ("meanP", "maxP", "seqLSTM", "seqTransf", "tightTransf"),
    "clip2video": ("clip2video",),
}
CLIP_PREFIX = "clip."
_WRAPPED = re.compile(r"(?:^|(?<=\.))(?:(?:module|_orig_mod)\.)+")

# Saved, but read by nothing in the reference (clip4clip.md: created for every sequential head).
_UNUSED: Mapping[str, frozenset[str]] = {"seqLSTM": frozenset({"frame_position_embeddings.weight"})}


def split_state(
    state: Mapping[str, Tensor], *, what: Path | str
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """Returns CLIP's parameters (OpenAI's names, no prefix), the head's, and notes.

    Old names ending in gamma and beta become weight and bias, as in the reference, and what
    wraps the names goes, see `bare_names`.
    """
    bare, notes = bare_names(state, f"{CLIP_PREFIX}visual.", what=what)
    renamed: dict[str, Tensor] = {}
    for name, tensor in bare.items():
        modern = re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", name))
        if modern in renamed:
            raise CheckpointError(f"{what}: two parameters would be called {modern}")
        if modern != name:
            notes.append(f"renamed {name} to {modern}")
        renamed[modern] = tensor
    clip = {
        name.removeprefix(CLIP_PREFIX): tensor
        for name, tensor in renamed.items()
        if name.startswith(CLIP_PREFIX)
    }
    if not clip:
        raise CheckpointError(
            f"{what} has no parameters named clip.*, only {', '.join(list(state)[:3]) or 'none'}: "
            "it is not a checkpoint of CLIP4Clip or CLIP2Video. OpenAI's own file is read by "
            "`vtr import openai`"
        )
    head = {name: t for name, t in renamed.items() if not name.startswith(CLIP_PREFIX)}
    return clip, head, tuple(notes)


def bare_names(
    state: Mapping[str, Tensor], anchor: str, *, what: Path | str
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns parameters under the names that their own code gave them, and notes.

    DataParallel adds `module.`, torch.compile `_orig_mod.`, before any part of a name and in any
    order; classes of others hold the model under a name of their own (`model.`), which must then
    begin every name.
    """
    names = {name: _WRAPPED.sub("", name) for name in state}
    notes = (
        ["read without module. and _orig_mod. in the names"]
        if set(names) - set(names.values())
        else []
    )
    found = next((name for name in names.values() if f".{anchor}" in f".{name}"), anchor)
    owner = found[: f".{found}".index(f".{anchor}")]
    if owner and all(name.startswith(owner) for name in names.values()):
        names = {name: bare.removeprefix(owner) for name, bare in names.items()}
        notes.append(f"read without {owner} before the names")
    if len(set(names.values())) < len(names):
        raise CheckpointError(f"{what}: parameters have the same names but for what wraps them")
    return {bare: state[name] for name, bare in names.items()}, notes


def complete_head(text: str, head_state: Mapping[str, Tensor]) -> HeadChoice:
    """Returns a head with the options that the shapes of its parameters tell."""
    name, *pairs = text.strip().split(":")
    given = {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}
    if "preset" in given:
        given |= dict.fromkeys(head_presets(name).get(given["preset"], {}), "")
    shapes = {key: tuple(tensor.shape) for key, tensor in head_state.items()}
    told = _OPTIONS[name](shapes) if name in _OPTIONS else {}
    more = [f"{key}={value}" for key, value in told.items() if value and key not in given]
    return parse_head(":".join([text.strip(), *more]))


def load_head(
    choice: HeadChoice, dim: int, head_state: Mapping[str, Tensor]
) -> tuple[Head, tuple[str, ...]]:
    """Returns a head with the weights of a checkpoint (float32), and notes on what was dropped."""
    head = build_head(choice, dim=dim)
    wanted = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    unused = _UNUSED.get(choice.name, frozenset()) - set(wanted)
    require_keys(head_state, wanted, what=f"head {choice.label!r} at D = {dim}", benign=unused)
    head.load_state_dict({name: head_state[name].to(torch.float32) for name in wanted})
    head.origin = "imported"
    dropped = sorted(unused & set(head_state))
    return head, tuple(f"dropped {name}, which the reference never reads" for name in dropped)


def load_fitting_head(
    system: System, choice: HeadChoice, dim: int, head_state: Mapping[str, Tensor], *, what: Path
) -> tuple[Head, tuple[str, ...]]:
    """Returns what `load_head` does; parameters of another head are said to be those."""
    try:
        return load_head(choice, dim, head_state)
    except CheckpointError:
        fitting = fitting_heads(dim, head_state)
        if not fitting:
            raise
    ways = [
        f"--head {label.partition(':')[0]}" if theirs == system else f"vtr import {theirs}"
        for label, theirs in fitting.items()
    ]
    raise CheckpointError(
        f"{what} does not hold the parameters of {choice.label}; they are those of "
        f"{' or '.join(fitting)}. Write {' or '.join(ways)}"
    )


def fitting_heads(dim: int, head_state: Mapping[str, Tensor]) -> dict[str, System]:
    """Returns the labels of all heads whose parameters these are, with their systems."""
    found: dict[str, System] = {}
    for system, names in SYSTEM_HEADS.items():
        for name in names:
            with contextlib.suppress(VtrError):
                choice = complete_head(name, head_state)
                load_head(choice, dim, head_state)
                found[choice.label] = system
    return found


def check_head(system: System, head: str) -> None:
    """Refuses a head that a system does not have."""
    name, allowed = parse_head(head).name, SYSTEM_HEADS[system]
    if name not in allowed:
        raise ConfigError(f"{system} has no head {name!r}; its heads are {', '.join(allowed)}")


def _count(shapes: Shapes, pattern: str) -> int:
    return len({m[1] for name in shapes if (m := re.match(pattern, name))})


def _rows(shapes: Shapes, name: str) -> int:
    return next(iter(shapes.get(name, ())), 0)


def _sequence_options(shapes: Shapes) -> dict[str, int | str]:
    return {
        "layers": _count(shapes, r"transformerClip\.resblocks\.(\d+)\."),
        "positions": _rows(shapes, "frame_position_embeddings.weight"),
    }


def _clip2video_options(shapes: Shapes) -> dict[str, int | str]:
    differs = "type_position_embeddings.weight" in shapes
    sequenced = bool(_count(shapes, r"transformerClip\.resblocks\.(\d+)\."))
    projected = "mlp" if "frame2t_projection" in shapes else "none"
    if _count(shapes, r"frame2t_attention\.resblocks\.(\d+)\."):
        projected = "attention"
    alignment = "plain" if "weight_center" in shapes else "off"
    if _count(shapes, r"actionClip\.resblocks\.(\d+)\."):
        # With differences about, `tab` and `tab-tdb` have the same parameters: the released one.
        alignment = "tab-tdb" if differs else "tab"
    return {
        **_sequence_options(shapes),
        "sim": "seqTransf" if sequenced else "meanP",
        "temporal": "tdb" if differs and sequenced else "off",
        "projection": projected if differs else "",
        "alignment": alignment,
        "centres": _rows(shapes, "weight_center"),
    }


_OPTIONS: Mapping[str, Callable[[Shapes], dict[str, int | str]]] = {
    "seqLSTM": lambda shapes: {"layers": _count(shapes, r"lstm_visual\.weight_ih_l(\d+)$")},
    "seqTransf": _sequence_options,
    "tightTransf": lambda shapes: {
        "layers": _count(shapes, r"cross\.transformer\.resblocks\.(\d+)\."),
        "positions": _rows(shapes, "cross.embeddings.position_embeddings.weight"),
    },
    "clip2video": _clip2video_options,
}
