"""Checkpoints of the reference systems, split into a CLIP folder and a run folder.

CLIP4Clip and CLIP2Video save one plain state dict: `clip.*` under OpenAI's names (most of it
float16) and the head's parameters beside it, under the names that the heads here keep. Nothing
else is stored, so that the head must be named again; sizes are read from the shapes. Sources:
CLIP4Clip@508ffa3 (main_task_retrieval.py, save_model), CLIP2Video@e941318 (modules/modeling.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.checkpoint_files import read_tensors
from vtr.clip.folder import write_clip_folder
from vtr.clip.openai_names import ClipShape, read_shape, require_keys
from vtr.errors import CheckpointError, ConfigError
from vtr.train.headlist import HeadChoice, build_head, head_presets, parse_head
from vtr.train.heads.base import Head
from vtr.train.model import ModelSpec, RetrievalModel
from vtr.train.run import write_run
from vtr.train.text_tower import FrozenText, TextSpec

System = Literal["clip4clip", "clip2video"]
Shapes = Mapping[str, tuple[int, ...]]

SYSTEM_HEADS: Mapping[System, tuple[str, ...]] = {
    "clip4clip": ("meanP", "maxP", "seqLSTM", "seqTransf", "tightTransf"),
    "clip2video": ("clip2video",),
}
CLIP_PREFIX = "clip."

# Saved, but read by nothing in the reference (clip4clip.md: created for every sequential head).
_UNUSED: Mapping[str, frozenset[str]] = {
    "seqLSTM": frozenset({"frame_position_embeddings.weight"}),
}


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Args:
        clip_folder: For `vtr extract --model`.
        run_folder: For `vtr eval --run`.
        head: Label of the head with all options that the shapes told.
        shape: The CLIP's sizes.
        notes: What was dropped or renamed on the way.
    """

    clip_folder: Path
    run_folder: Path
    head: str
    shape: ClipShape
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Args:
        file: The checkpoint.
        system: Whose layout it has.
        head: The head as `--head` takes it; options that are not given are read from the shapes.
        tokeniser: Folder with the vocabulary of the CLIP that the checkpoint came from.
        vision_heads: Attention heads of the vision tower; None is its width // 64.
        text_heads: The same for the text tower.
    """

    file: Path
    system: System
    head: str
    tokeniser: Path
    vision_heads: int | None = None
    text_heads: int | None = None


def import_checkpoint(
    request: ImportRequest,
    out: Path,
    *,
    train_ids: Iterable[str] | None = None,
    train_split: str = "unknown",
) -> Imported:
    """Writes `out/clip` and `out/run` from a checkpoint of CLIP4Clip or CLIP2Video.

    Args:
        request: What to import.
        out: Folder to make, or an empty one.
        train_ids: Videos that it was trained on; None where nobody knows, which `vtr eval` then
            says of its numbers.
        train_split: What to call them.

    Raises:
        CheckpointError: The file is damaged or holds other things than tensors; parameters are
            missing, unexpected or misshapen (all are listed); another vocabulary.
        ConfigError: A head that this system does not have, or `out` is in use.
        StoreWriteError: The disk refused.
    """
    require_empty(out)
    check_head(request.system, request.head)
    clip_state, head_state, notes = split_state(read_tensors(request.file), what=request.file)
    shape = read_shape(clip_state)
    choice = complete_head(request.head, head_state)
    head, dropped = load_head(choice, shape.embed_dim, head_state)
    write_clip_folder(
        out / "clip",
        clip_state,
        tokeniser=request.tokeniser,
        vision_heads=request.vision_heads,
        text_heads=request.text_heads,
    )
    # Read back by the ordinary road: what cannot be used should fail here and not in a week.
    backbone = load_backbone(str(out / "clip"), device="cpu")
    model = RetrievalModel(FrozenText(), head, float(clip_state["logit_scale"])).eval()
    spec = ModelSpec(choice.label, shape.embed_dim, _frozen(shape.embed_dim))
    told = (*notes, *dropped)
    config = _config(request, out / "clip", backbone, train_split=train_split, notes=told)
    write_run(out / "run", model, spec, config=config, train_ids=train_ids)
    return Imported(out / "clip", out / "run", choice.label, shape, told)


def import_openai(
    file: Path,
    out: Path,
    *,
    tokeniser: Path,
    vision_heads: int | None = None,
    text_heads: int | None = None,
) -> ClipShape:
    """Writes a CLIP folder from OpenAI's own file (TorchScript archive or state dict).

    Args:
        file: Such as ViT-B-32.pt.
        out: Folder to make, or an empty one.
        tokeniser: Folder with CLIP's vocabulary.
        vision_heads: Attention heads of the vision tower; None is its width // 64.
        text_heads: The same for the text tower.

    Raises:
        CheckpointError, ConfigError, StoreWriteError: As in `import_checkpoint`.
    """
    require_empty(out)
    shape = write_clip_folder(
        out,
        read_tensors(file),
        tokeniser=tokeniser,
        vision_heads=vision_heads,
        text_heads=text_heads,
    )
    load_backbone(str(out), device="cpu")
    return shape


def require_empty(folder: Path) -> None:
    """Refuses a folder in which something lies.

    Raises:
        ConfigError: A file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out {folder} is in use; name a folder that does not exist yet")


def split_state(
    state: Mapping[str, Tensor], *, what: Path | str
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """Returns CLIP's parameters (OpenAI's names, no prefix), the head's, and notes.

    Old names ending in gamma and beta become weight and bias, as in the reference.

    Raises:
        CheckpointError: Nothing in it belongs to CLIP, or two old names become one.
    """
    renamed: dict[str, Tensor] = {}
    notes = []
    for name, tensor in state.items():
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


def complete_head(text: str, head_state: Mapping[str, Tensor]) -> HeadChoice:
    """Returns a head with the options that the shapes of its parameters tell.

    Args:
        text: As `--head` takes it; what it says explicitly stays.
        head_state: The head's parameters.
    """
    name, *pairs = text.strip().split(":")
    given = {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}
    if "preset" in given:
        given |= dict.fromkeys(head_presets(name).get(given["preset"], {}), "")
    shapes = {key: tuple(tensor.shape) for key, tensor in head_state.items()}
    told = _TELLERS[name](shapes) if name in _TELLERS else {}
    more = [f"{key}={value}" for key, value in told.items() if value and key not in given]
    return parse_head(":".join([text.strip(), *more]))


def load_head(
    choice: HeadChoice, dim: int, head_state: Mapping[str, Tensor]
) -> tuple[Head, tuple[str, ...]]:
    """Returns a head with the weights of a checkpoint (float32), and notes on what was dropped.

    Args:
        choice: Head and options.
        dim: D of the CLIP beside it.
        head_state: Its parameters under the reference's names, all of them and no others.

    Raises:
        CheckpointError: Lists every key that is missing, unexpected or of another shape.
    """
    head = build_head(choice, dim=dim, clip=None, seed=0)
    wanted = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    unused = _UNUSED.get(choice.name, frozenset()) - set(wanted)
    require_keys(head_state, wanted, what=f"head {choice.label!r} at D = {dim}", benign=unused)
    head.load_state_dict({name: head_state[name].to(torch.float32) for name in wanted})
    head.origin = "imported"
    dropped = sorted(unused & set(head_state))
    return head, tuple(f"dropped {name}, which the reference never reads" for name in dropped)


def check_head(system: System, head: str) -> None:
    """Refuses a head that a system does not have.

    Raises:
        ConfigError: No such head, or one of another system.
    """
    name, allowed = parse_head(head).name, SYSTEM_HEADS[system]
    if name not in allowed:
        raise ConfigError(f"{system} has no head {name!r}; its heads are {', '.join(allowed)}")


def _frozen(dim: int) -> TextSpec:
    return TextSpec("frozen", dim, dim)


def _config(
    request: ImportRequest,
    clip_folder: Path,
    backbone: Backbone,
    *,
    train_split: str,
    notes: Iterable[str],
) -> dict[str, Any]:
    """What is known of such a run; the checkpoint does not tell how its epoch was chosen."""
    return {
        "imported": {
            "system": request.system,
            "file": request.file.name,
            "sha256": _sha256(request.file),
            "notes": list(notes),
        },
        "text_model": {"id": str(clip_folder.resolve()), "weights_sha256": backbone.weights_sha256},
        "features": {
            "backbone": backbone.model_id,
            "weights_sha256": backbone.weights_sha256,
            **({"linear_patch": "3d"} if backbone.temporal else {}),
        },
        "data": {"train_split": train_split},
        "settings": {},
        "selection": "unknown (imported)",
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _count(shapes: Shapes, pattern: str) -> int:
    return len({m[1] for name in shapes if (m := re.match(pattern, name))})


def _rows(shapes: Shapes, name: str) -> int:
    return next(iter(shapes.get(name, ())), 0)


def _tell_lstm(shapes: Shapes) -> dict[str, int | str]:
    return {"layers": _count(shapes, r"lstm_visual\.weight_ih_l(\d+)$")}


def _tell_sequence(shapes: Shapes) -> dict[str, int | str]:
    return {
        "layers": _count(shapes, r"transformerClip\.resblocks\.(\d+)\."),
        "positions": _rows(shapes, "frame_position_embeddings.weight"),
    }


def _tell_tight(shapes: Shapes) -> dict[str, int | str]:
    return {
        "layers": _count(shapes, r"cross\.transformer\.resblocks\.(\d+)\."),
        "positions": _rows(shapes, "cross.embeddings.position_embeddings.weight"),
    }


def _tell_clip2video(shapes: Shapes) -> dict[str, int | str]:
    differs = "type_position_embeddings.weight" in shapes
    sequenced = bool(_count(shapes, r"transformerClip\.resblocks\.(\d+)\."))
    attends = bool(_count(shapes, r"actionClip\.resblocks\.(\d+)\."))
    aligned = "weight_center" in shapes
    projected = "mlp" if "frame2t_projection" in shapes else "none"
    if _count(shapes, r"frame2t_attention\.resblocks\.(\d+)\."):
        projected = "attention"
    alignment = "plain" if aligned else "off"
    if attends:
        # With differences about, `tab` and `tab-tdb` have the same parameters: the released one.
        alignment = "tab-tdb" if differs else "tab"
    return {
        **_tell_sequence(shapes),
        "sim": "seqTransf" if sequenced else "meanP",
        "temporal": "tdb" if differs and sequenced else "off",
        "projection": projected if differs else "",
        "alignment": alignment,
        "centres": _rows(shapes, "weight_center"),
    }


_TELLERS = {
    "seqLSTM": _tell_lstm,
    "seqTransf": _tell_sequence,
    "tightTransf": _tell_tight,
    "clip2video": _tell_clip2video,
}
