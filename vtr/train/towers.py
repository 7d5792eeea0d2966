"""The towers of a training as a model of its own: a Hugging Face folder within the run.

It holds both towers whole, trained or not, so that nothing else is needed to embed with them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from vtr.clip.backbone import Backbone
from vtr.clip.configuration import read_config
from vtr.clip.encoders import blank_encoder, huggingface_state
from vtr.clip.hub import (
    OPEN_CLIP_CONFIG,
    PROCESSOR_FILES,
    TOKENISER_FILES,
    find_model,
    is_open_clip,
)
from vtr.clip.loading import weights_digest
from vtr.clip.open_clip_names import open_clip_state
from vtr.clip.towers import Architecture
from vtr.files import make_folder, publish
from vtr.train.model import RetrievalModel
from vtr.train.text_tower import TunedText


def trained_state(model: RetrievalModel, architecture: Architecture) -> dict[str, Tensor]:
    """Returns the weights of both towers that a model has of its own, by their names in them."""
    state: dict[str, Tensor] = {}
    if model.vision is not None:
        state |= {f"visual.{name}": value for name, value in model.vision.whole_state().items()}
    if isinstance(model.text_tower, TunedText):
        total = architecture.text.layers
        state |= {f"text.{n}": v for n, v in model.text_tower.whole_state(total).items()}
    if model.scaled:
        state["logit_scale"] = model.logit_scale.detach().reshape(())
    return state


def merged(model: RetrievalModel, backbone: Backbone) -> Backbone:
    """Returns the backbone with the weights that training changed, its digest theirs."""
    temporal = backbone.temporal if model.vision is None else model.vision.spec.temporal
    state = {**backbone.model.state_dict(), **trained_state(model, backbone.architecture)}
    state["logit_scale"] = state["logit_scale"].view_as(backbone.model.logit_scale)
    network = blank_encoder(backbone.architecture, temporal=temporal)
    copies = {name: value.detach().to(backbone.device, copy=True) for name, value in state.items()}
    network.load_state_dict(copies, assign=True)
    network.eval().requires_grad_(False)
    return replace(
        backbone,
        model=network,
        weights_sha256=weights_digest(network.named_weights()),
        logit_scale=float(network.logit_scale),
    )


def write_towers(folder: Path, backbone: Backbone, *, like: str) -> None:
    """Writes a backbone as a folder of the kind it came from, which `load_backbone` reads.

    Tokeniser, settings of pictures and configuration are those of the model that training started
    from, whose hub id or folder `like` is; the weights are float32.
    """
    source = find_model(like).path
    make_folder(folder, option="--runs")
    for name in (*TOKENISER_FILES, *PROCESSOR_FILES):
        if (source / name).is_file():
            publish(folder / name, (source / name).read_bytes())
    foreign = is_open_clip(source)
    state = open_clip_state(backbone.model) if foreign else huggingface_state(backbone.model)
    weights = {
        name: value.to("cpu", torch.float32, copy=True).contiguous()
        for name, value in state.items()
    }
    file = "open_clip_model.safetensors" if foreign else "model.safetensors"
    publish(folder / file, save(weights, metadata={"format": "pt"}))
    if foreign:
        publish(folder / OPEN_CLIP_CONFIG, (source / OPEN_CLIP_CONFIG).read_bytes())
        return
    config = {key: value for key, value in read_config(source).items() if key != "torch_dtype"}
    config["dtype"] = "float32"
    # Told elsewhere too, such as by the name on the hub, which this folder has not.
    for name in ("vision", "text"):
        sizes = getattr(backbone.architecture, name)
        section = config.get(f"{name}_config") or {}
        config[f"{name}_config"] = {**section, "hidden_act": sizes.activation}
    # Last: without it the folder is no model.
    publish(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
