"""Writes a CLIP as the folder that transformers, and so `vtr extract --model DIR`, reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from vtr.clip.hub import TOKENISER_FILES, find_tokeniser
from vtr.clip.openai_names import huggingface_config, read_shape, to_huggingface
from vtr.clip.preprocess import CLIP_MEAN, CLIP_STD
from vtr.clip.text import load_tokeniser
from vtr.clip.towers import Architecture
from vtr.errors import CheckpointError
from vtr.files import publish


def write_clip_folder(
    folder: Path,
    openai_state: Mapping[str, Tensor],
    *,
    tokeniser: Path | str,
    vision_heads: int | None = None,
    text_heads: int | None = None,
) -> Architecture:
    """Writes config.json, model.safetensors, preprocessor_config.json and the tokeniser's files.

    Parameters come under OpenAI's names and keep their dtypes: CLIP4Clip's and OpenAI's are float16
    for the most part. The vocabulary, which no checkpoint holds, is sought last. A tower has one
    attention head per 64 dimensions by default.

    Raises:
        CheckpointError: Parameters are missing, unexpected or misshapen, or the vocabulary is not
            this CLIP's.
        ModelError: No vocabulary to be had.
    """
    shape = read_shape(openai_state)
    weights = to_huggingface(openai_state)
    config = huggingface_config(shape, vision_heads=vision_heads, text_heads=text_heads)
    tokeniser = find_tokeniser(str(tokeniser))
    check_vocabulary(tokeniser, shape)
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENISER_FILES:
        if (tokeniser / name).is_file():
            publish(folder / name, (tokeniser / name).read_bytes())
    _write_json(folder / "preprocessor_config.json", _processor(shape.image_size))
    publish(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))
    # Last: without it the folder is no model.
    _write_json(folder / "config.json", config)
    return shape


def check_vocabulary(tokeniser: Path, shape: Architecture) -> None:
    """Refuses a vocabulary that is not the one a CLIP was trained with."""
    found = load_tokeniser(
        tokeniser, family="clip", max_length=shape.context, vocab_size=shape.vocabulary
    )
    if found.largest_id != shape.vocabulary - 1 or found.eos_id != shape.vocabulary - 1:
        raise CheckpointError(
            f"{tokeniser} has ids up to {found.largest_id} and ends texts with {found.eos_id}; the "
            f"checkpoint's table has {shape.vocabulary} rows, the last one for the end: another "
            "vocabulary. Give the CLIP the checkpoint was trained from with --clip"
        )


def _processor(image_size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "do_convert_rgb": True,
    }


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    publish(path, (json.dumps(record, indent=2) + "\n").encode())
