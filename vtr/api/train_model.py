"""What `vtr train` trains: the parts of the model, and the weights that they start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtr.api.stores import check_same_model, text_backbone
from vtr.clip.backbone import Backbone, load_backbone
from vtr.errors import ConfigError, ModelError
from vtr.features import FeatureStore
from vtr.features.pictures import require_same_making
from vtr.progress import note
from vtr.train.headlist import build_head, parse_head
from vtr.train.loop import NOTHING_TO_TRAIN
from vtr.train.lora import require_peft
from vtr.train.model import ModelSpec, RetrievalModel
from vtr.train.run import Run, load_run
from vtr.train.run_folders import find_run
from vtr.train.text_tower import TextSpec, text_spec
from vtr.train.towers import merged
from vtr.train.vision_tower import VisionSpec, vision_spec
from vtr.verbs.train import Options
from vtr.workspace import Workspace


@dataclass(frozen=True)
class Base:
    """What a training begins with."""

    backbone: Backbone  # Both towers
    model: str  # Hub id or folder that they come from, but for what a run changed of them
    start: Run | None = None  # Whose head is taken as well

    def kept(self, options: Options) -> dict[str, Any]:
        """Returns what of a run that is started from stays, unless something else is asked for."""
        if self.start is None:
            return {}
        kept = {} if options.head is not None else {"head": self.start.spec.head}
        if options.text is None and self.start.spec.text.mode == "projection":
            kept["text"] = "projection"
        return kept


def load_base(workspace: Workspace, options: Options, device: str) -> Base:
    """Loads the towers: those of the workspace's model, or those of the run to start from."""
    if options.start is None:
        return Base(load_backbone(workspace.model, device=device), workspace.model)
    start = load_run(find_run(workspace.runs, options.start))
    if not start.lacks_text_model and "model" in workspace.typed:
        note(f"--model {workspace.model} is not read: the towers are those of {start.folder}")
    backbone = text_backbone(start, instead=workspace.model, device=device)
    if start.towers is None:
        backbone = merged(start.model, backbone)
    named = workspace.model if start.lacks_text_model else start.text_model
    return Base(backbone, named, start)


def model_spec(
    options: Options, values: Mapping[str, Any], backbone: Backbone, store: FeatureStore
) -> ModelSpec:
    """Returns what will be trained.

    A head without parameters leaves nothing to train beside frozen towers: unless the user asked
    for just that, it gets a projection of the texts.
    """
    choice = parse_head(values["head"])
    dim, mode = store.spec.embedding_dim, values["text"]
    vision = _vision(options, values, backbone, store)
    if mode == "frozen" and vision is None:
        head = build_head(choice, dim=dim, clip=None, seed=0)
        bare = not any(True for _ in head.parameters())
        if bare and options.text is None:
            note(f"{choice.name} has no parameters: training a text projection (--text projection)")
            mode = "projection"
        elif bare and values["temperature"] is not None:
            raise ConfigError(NOTHING_TO_TRAIN)
    options.check_text(mode)
    layers, frozen = values["tune_layers"], None
    if options.tune_layers is None and mode == "tune":
        layers = min(layers, backbone.architecture.text.layers)
        if vision is not None:
            layers, frozen = 0, vision.frozen
    text = text_spec(
        backbone,
        mode,
        video_dim=dim,
        layers=layers,
        frozen=frozen,
        dropout=options.dropout or 0.0,
    )
    if mode != "projection" and vision is None:
        check_same_model(backbone, store)
    if options.temperature is not None and not choice.info.scaled:
        raise ConfigError(
            f"--temperature divides scores that are cosines; those of {choice.name} are logits "
            "already, and it would not heed it. Leave it out"
        )
    if vision is not None:
        _check_layers(options, values, vision, text, backbone)
    if values["lora"]:
        require_peft()
    return ModelSpec(
        choice.label,
        dim,
        text,
        values["temperature"],
        vision,
        values["lora"],
        values["loss"] == "sigmoid",
    )


def _check_layers(
    options: Options,
    values: Mapping[str, Any],
    vision: VisionSpec,
    text: TextSpec,
    backbone: Backbone,
) -> None:
    """Refuses options about layers where there are none to heed them."""
    sizes, rank = backbone.architecture, values["lora"]
    none_seen = vision.frozen >= sizes.vision.layers
    if rank and none_seen:
        raise ConfigError(
            f"--lora {rank} updates layers that are trained, and --freeze-layers {vision.frozen} "
            f"leaves none: allowed with --lora are 0 to {vision.frozen - 1}"
        )
    if rank and vision.temporal and not backbone.temporal:
        raise ConfigError(
            f"--linear-patch 3d begins with new weights, and --lora {rank} trains no patches: they "
            "would stay as they begin, which is 2d. Leave one of them out"
        )
    if options.checkpointing and none_seen and (text.mode != "tune" or not text.layers):
        raise ConfigError(
            f"--checkpointing spares what trained layers keep, and --freeze-layers {vision.frozen} "
            "leaves none. Leave it out"
        )


def _vision(
    options: Options, values: Mapping[str, Any], backbone: Backbone, store: FeatureStore
) -> VisionSpec | None:
    """Returns the trained vision tower; refuses pictures that are not as it sees them."""
    if values["vision"] == "frozen":
        return None
    backbone.require_towers(f"--vision {values['vision']}", but=("eva",))
    store.require_pictures()
    require_same_making(
        store.spec.preprocessing,
        backbone.preprocessing.as_dict(),
        what=f"the pictures in {store.folder} were made for {store.spec.backbone!r}",
        by=backbone.model_id,
    )
    if store.spec.embedding_dim != backbone.embedding_dim:
        raise ModelError(
            f"{store.folder} holds features of {store.spec.embedding_dim} dimensions, "
            f"{backbone.model_id} makes {backbone.embedding_dim}: make them anew with vtr extract "
            f"--from-crops --model {backbone.model_id}"
        )
    temporal = values["linear_patch"] == "3d"
    if values["linear_patch"] == "2d" and backbone.temporal and "linear_patch" in options.given:
        raise ConfigError(
            f"--linear-patch 2d: the patches of {backbone.model_id} look at three frames, and stay "
            "so. Leave it out"
        )
    try:
        return vision_spec(backbone, frozen=values["freeze_layers"], temporal=temporal)
    except ConfigError as error:
        if values["freeze_layers"] and options.freeze_layers is None:
            raise ConfigError(f"of --preset {options.preset}: {error}") from None
        raise


def check_start(spec: ModelSpec, run: Run) -> None:
    """Refuses to start from a run of another head, or with a projection on one side only."""
    pairs = [("head", spec.head, run.spec.head)]
    if "projection" in (spec.text.mode, run.spec.text.mode):
        theirs = "projection" if run.spec.text.mode == "projection" else "tune"
        pairs.append(("text", spec.text.mode, theirs))
    if unlike := [pair for pair in pairs if pair[1] != pair[2]]:
        held = " and ".join(f"{name} {theirs}" for name, _, theirs in unlike)
        asked = " and ".join(ours for _, ours, _ in unlike)
        way = " ".join(f"--{name} {theirs}" for name, _, theirs in unlike)
        raise ConfigError(f"{run.folder} has {held}, this training {asked}: start with {way}")


def begin_from(model: RetrievalModel, spec: ModelSpec, run: Run) -> None:
    """Takes head, scale and projection of a run; its towers are the backbone's already."""
    model.head.load_state_dict(run.model.head.state_dict())
    model.head.origin = f"the run {run.folder}"
    if spec.text.mode == "projection":
        model.text_tower.load_state_dict(run.model.text_tower.state_dict())
    if spec.temperature is None:
        model.logit_scale.data.copy_(run.model.logit_scale)
