"""open_clip's folders: open_clip_config.json and open_clip_model.safetensors, without open_clip."""

from __future__ import annotations

from torch import Tensor

from vtr.clip.encoders import Contents
from vtr.clip.hub import ModelFolder
from vtr.errors import ModelError


def read_open_clip(folder: ModelFolder, weights: dict[str, Tensor]) -> Contents:
    """Returns what a folder of open_clip's holds."""
    raise ModelError(
        f"{folder.model_id}: of open_clip's format no family is read yet ({len(weights)} weights)"
    )
