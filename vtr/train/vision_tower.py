"""What training may change of the vision side: nothing, or the tower from some block on.

The tower reads pictures, normalised in float32 as extraction does. Where its lower blocks are
frozen it reads what they made of the pictures instead, which never changes and is computed once
(`picture_activations`). What stays frozen follows CLIP4Clip (main_task_retrieval.py,
--freeze_layer_num): blocks below K, and with them all that comes before block 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtr.clip.backbone import Backbone
from vtr.clip.encoders import KINDS
from vtr.clip.preprocess import Preprocessing, normalise
from vtr.clip.towers import Architecture, Block
from vtr.errors import ConfigError
from vtr.train.heads.base import VideoBatch
from vtr.train.lora import merged_state, renumbered
from vtr.train.presets import EVERYTHING

EMBEDDING = ("patches", "positions", "class_embedding", "ln_pre")
"""What of a tower comes before block 0."""
_TEMPORAL = "patches.temporal_weight"


@dataclass(frozen=True)
class VisionSpec:
    """Everything needed to build a trained vision tower again without its backbone."""

    architecture: Architecture  # Of both towers
    preprocessing: Preprocessing  # Whose pictures it reads
    # K: blocks below it never change, nor does what comes before block 0; -1 trains everything.
    frozen: int = 0
    temporal: bool = False  # Patches over three neighbouring frames (linear_patch 3d)

    @property
    def first(self) -> int:
        """The block that it begins with; 0 where it reads pictures."""
        return max(self.frozen, 0)


@dataclass(frozen=True)
class PictureBatch:
    """The frames of V videos before the vision tower; a video that repeats is there once."""

    # (R, H, W, 3) uint8 pictures, or (R, K, width) what the frozen blocks made of them: the frames
    # of U distinct videos, video after video.
    rows: Tensor
    mask: Tensor  # (U, T) bool, left aligned: which places of the videos have a frame
    place: Tensor | None = None  # (V,) int64: which of the U each video is; None: V = U, in order
    follows: Tensor | None = None  # (R,) bool, as in `TemporalPatches`
    # Where the head reads what the tower makes of padding: True, or with activations (K, width)
    # what the frozen blocks make of it.
    pad: Tensor | bool = False

    def __len__(self) -> int:
        return len(self.mask if self.place is None else self.place)


class TunedVision(nn.Module):
    """The trained part of a vision tower.

    Attributes:
        short: Whether training computes in bfloat16; weights and results keep their own type.
    """

    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.short = False
        vision = KINDS[spec.architecture.family].vision
        self.tower = vision(spec.architecture, temporal=spec.temporal)
        tower, kept = self.tower, set()
        if spec.first:
            tower.blocks = tower.blocks[spec.first :]
        for name, _ in [*tower.named_children(), *tower.named_parameters(recurse=False)]:
            if name in EMBEDDING and spec.first:
                delattr(tower, name)
            elif name in EMBEDDING and spec.frozen != EVERYTHING:
                kept.add(name)
        for name, parameter in tower.named_parameters():
            frozen = name.partition(".")[0] in kept and name != _TEMPORAL
            # The 2d patches lie idle in a temporal tower.
            parameter.requires_grad_(
                not frozen and not (spec.temporal and name == "patches.weight")
            )

    def whole_state(self) -> dict[str, Tensor]:
        """Returns the weights by their names in the whole tower."""
        return renumbered(merged_state(self.tower.state_dict()), self.spec.first)

    def forward(self, batch: PictureBatch) -> VideoBatch:
        """Returns the videos' embeddings, (V, T, D) in the type of the weights."""
        device = batch.rows.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.short and self.training):
            rows = self._encode(batch).to(self.tower.ln_post.weight.dtype)
        pad = None
        if batch.pad is not False:
            rows, pad = rows[:-1], rows[-1]
        frames = rows.new_zeros(*batch.mask.shape, rows.shape[1])
        frames[batch.mask] = rows
        if batch.place is None:
            return VideoBatch(frames, batch.mask, pad)
        return VideoBatch(frames[batch.place], batch.mask[batch.place], pad)

    def _encode(self, batch: PictureBatch) -> Tensor:
        """Returns (R, D), or (R + 1, D) with that of padding at the end."""
        tower, own = self.tower, self.tower.ln_post.weight.dtype
        if self.spec.first:
            tokens = batch.rows.to(own)
            if isinstance(batch.pad, Tensor):
                tokens = torch.cat([tokens, batch.pad.to(own)[None]])
        else:
            pixels = normalise(batch.rows, self.spec.preprocessing, dtype=torch.float32)
            follows = batch.follows
            if batch.pad is not False:  # zeros after normalising, as the references feed
                pixels = torch.cat([pixels, torch.zeros_like(pixels[:1])])
                follows = None if follows is None else torch.cat([follows, follows.new_zeros(1)])
            tokens = tower.embed(pixels.to(own), follows)
        return tower.pool(tower.run(tokens, num_outputs=tower.num_outputs))


def vision_spec(backbone: Backbone, *, frozen: int = 0, temporal: bool = False) -> VisionSpec:
    """Returns the spec of a backbone's tower for training; a temporal one stays so."""
    total = backbone.architecture.vision.layers
    if not EVERYTHING <= frozen <= total:
        raise ConfigError(
            f"--freeze-layers is {frozen}; the vision tower of {backbone.model_id} has {total} "
            f"layers: allowed are 0 to {total}, or -1, which trains the embeddings too"
        )
    if not all(isinstance(block, Block) for block in backbone.model.visual.blocks):
        raise ConfigError(
            f"--vision tune trains towers of CLIP's blocks; {backbone.model_id} is of the "
            f"family {backbone.family}, whose blocks are others. Use --vision frozen"
        )
    if temporal and backbone.family != "clip":
        raise ConfigError(
            f"--linear-patch 3d is CLIP4Clip's and made for CLIP; {backbone.model_id} is a "
            f"{backbone.family} model. Use --linear-patch 2d"
        )
    if temporal and not backbone.temporal and frozen > 0:
        raise ConfigError(
            f"--linear-patch 3d has new weights to train below the blocks that --freeze-layers "
            f"{frozen} freezes: use --freeze-layers 0 or -1, or --linear-patch 2d"
        )
    return VisionSpec(
        backbone.architecture, backbone.preprocessing, frozen, temporal or backbone.temporal
    )


def load_vision_layers(vision: TunedVision, backbone: Backbone) -> None:
    """Copies the backbone's weights into the tower; temporal patches start as 2d ones."""
    state, first = dict(backbone.model.visual.state_dict()), vision.spec.first
    if vision.spec.temporal and _TEMPORAL not in state:
        weight = state["patches.weight"]
        beside = torch.zeros_like(weight)
        state[_TEMPORAL] = torch.stack([beside, weight, beside], dim=2)
    moved = renumbered(state, -first)
    wanted = vision.tower.state_dict().keys()
    vision.tower.load_state_dict({name: moved[name] for name in wanted})
