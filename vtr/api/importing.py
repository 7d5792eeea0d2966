"""`vtr import`: checkpoints of others become a CLIP folder and a run folder."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vtr.api.stores import read_dataset
from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.checkpoint_files import read_tensors, require_file
from vtr.clip.configuration import read_config
from vtr.clip.folder import write_clip_folder
from vtr.clip.hub import find_tokeniser
from vtr.clip.openai_names import read_shape
from vtr.clip.towers import Architecture
from vtr.counts import counted
from vtr.datasets.base import Dataset
from vtr.errors import (
    CheckpointError,
    ConfigError,
    HubOfflineError,
    ModelNotFoundError,
    UnknownNameError,
)
from vtr.files import file_sha256, publish, replacing, require_empty
from vtr.progress import note
from vtr.settings import resolved
from vtr.train.importing import (
    CLIP_PREFIX,
    System,
    bare_names,
    check_head,
    complete_head,
    load_fitting_head,
    split_state,
)
from vtr.train.model import ModelSpec, RetrievalModel
from vtr.train.run import write_run
from vtr.train.text_tower import FrozenText, TextSpec
from vtr.verbs.import_ import Options
from vtr.workspace import Workspace, workspace_here

CONFIG_FILE = "import.json"
"""In what is made: the options that it was made with."""


@dataclass(frozen=True)
class Imported:
    """What an import made."""

    clip_folder: Path  # for `vtr extract --model`
    shape: Architecture
    temporal: bool  # whether its patches run over time (linear_patch 3d)
    store_folder: Path  # where its features may go
    run_folder: Path | None = None  # for `vtr eval --run`; None for a CLIP alone
    head: str = ""  # label of the head with all options that the shapes say
    notes: tuple[str, ...] = ()  # what was dropped or renamed on the way


def import_checkpoint(
    file: Path, out: Path, system: System, head: str, options: Options
) -> Imported:
    """Writes `out/clip` and `out/run` from a checkpoint of CLIP4Clip or CLIP2Video.

    `head` is what `--head` takes; options that it does not give are read from the shapes.
    """
    check_head(system, head)
    require_file(file)
    require_empty(out)
    train_ids = _train_ids(options)
    clip_state, head_state, renamed = split_state(read_tensors(file), what=file)
    dim = read_shape(clip_state).dim
    choice = complete_head(head, head_state)
    loaded, dropped = load_fitting_head(system, choice, dim, head_state, what=file)
    notes = (*renamed, *dropped)
    with replacing(out, option="--out") as made:
        shape, backbone = _write_clip(made / "clip", clip_state, options)
        model = RetrievalModel(FrozenText(), loaded, float(clip_state["logit_scale"])).eval()
        imported = {"system": system, "file": file.name, "sha256": file_sha256(file)}
        config = {
            "imported": {**imported, "notes": list(notes)},
            **_config(out / "clip", backbone),
            "data": {"train_split": options.train_split or "unknown"},
        }
        spec = ModelSpec(choice.label, dim, TextSpec("frozen", dim, dim))
        write_run(made / "run", model, spec, config=config, train_ids=train_ids)
        publish(made / CONFIG_FILE, resolved(options, system=system, file=file.name))
    for line in notes:
        note(line)
    if train_ids is None:
        note(
            "which videos it was trained on is unknown; results will say so (--train-split names "
            "them)"
        )
    return Imported(
        out / "clip", shape, backbone.temporal, out / "features", out / "run", choice.label, notes
    )


def import_openai(file: Path, out: Path, options: Options) -> Imported:
    """Writes a CLIP folder from OpenAI's own file (TorchScript archive or state dict)."""
    require_file(file)
    require_empty(out)
    state, _ = bare_names(read_tensors(file), "visual.", what=file)
    if any(name.startswith(CLIP_PREFIX) for name in state):
        raise CheckpointError(
            f"{file} holds more than a CLIP: the parameters of clip.* and of a head. Read it with "
            "`vtr import clip4clip` or `vtr import clip2video`"
        )
    if any(name.startswith("vision_model.") for name in state):
        raise CheckpointError(
            f"{file} has the names of transformers and needs no import: give the folder that holds "
            "it and its config.json to --model"
        )
    with replacing(out, option="--out") as made:
        shape, backbone = _write_clip(made, state, options)
        publish(made / CONFIG_FILE, resolved(options, file=file.name))
    return Imported(out, shape, backbone.temporal, out.with_name(f"{out.name}-features"))


def _write_clip(
    folder: Path, state: dict[str, Tensor], options: Options
) -> tuple[Architecture, Backbone]:
    """Writes a CLIP and reads it back: what cannot be used should fail here, not in a week."""
    try:
        find_tokeniser(options.clip)
    except (HubOfflineError, ModelNotFoundError) as error:
        advice = "Its vocabulary alone is needed: --clip DIR names a folder that has it"
        raise type(error)(f"{error}. {advice}") from None
    shape = write_clip_folder(
        folder,
        state,
        tokeniser=options.clip,
        vision_heads=options.vision_heads,
        text_heads=options.text_heads,
    )
    backbone = load_backbone(str(folder), device="cpu")
    _tell_of_heads(backbone.architecture, options)
    return shape, backbone


def _tell_of_heads(made: Architecture, options: Options) -> None:
    """Warns where the CLIP that was named has other attention heads: no shape shows them."""
    folder = find_tokeniser(options.clip)
    record = read_config(folder) if (folder / "config.json").is_file() else {}
    for name, given in (("vision", options.vision_heads), ("text", options.text_heads)):
        section = record.get(f"{name}_config")
        theirs = section.get("num_attention_heads") if isinstance(section, dict) else None
        ours = getattr(made, name).heads
        if given is None and theirs not in (None, ours):
            note(
                f"warning: the {name} tower gets {counted(ours, 'attention head')}, width / 64, as "
                f"the published code has it; {options.clip} has {theirs}. If the file came from "
                f"such a model: --{name}-heads {theirs}"
            )


def _config(clip_folder: Path, backbone: Backbone) -> dict[str, Any]:
    """What is known of such a run; the checkpoint does not say how its epoch was chosen."""
    digest = {"weights_sha256": backbone.weights_sha256}
    patches = {"linear_patch": "3d"} if backbone.temporal else {}
    return {
        "text_model": {"id": str(clip_folder.resolve()), **digest},
        "features": {"backbone": backbone.model_id, **digest, **patches},
        "settings": {},
        "selection": "unknown (imported)",
    }


def _train_ids(options: Options) -> tuple[str, ...] | None:
    """Returns the ids of a split of the dataset named by the options or by the workspace."""
    split, dataset, annotations = options.train_split, options.dataset, options.annotations
    if split is None:
        if dataset is not None or annotations is not None:
            raise ConfigError("--dataset and --annotations say nothing without --train-split NAME")
        return None
    workspace = workspace_here(dataset=dataset, annotations=annotations)
    if workspace.annotations is None and workspace.dataset == "folder":
        raise ConfigError(
            f"--train-split is {split!r}, but no annotations say which videos that is: name them "
            "with --dataset NAME --annotations DIR, or run this in the dataset's workspace"
        )
    loaded = _dataset(workspace)
    if split not in loaded.splits:
        raise UnknownNameError(f"split of dataset {loaded.name!r}", split, loaded.splits)
    return loaded.splits[split]


def _dataset(workspace: Workspace) -> Dataset:
    """Returns the dataset, from its annotations alone where its videos are elsewhere."""
    videos = workspace.videos or workspace.root / "videos"
    if videos.is_dir() or workspace.dataset != "folder":
        return read_dataset(workspace, videos)
    note(
        f"no folder of videos is known here: they are called as {workspace.annotations} calls "
        "them. To compare with `vtr eval`, these must be paths with extensions, such as a/b.mp4"
    )
    with tempfile.TemporaryDirectory() as empty:
        return read_dataset(workspace, Path(empty))
