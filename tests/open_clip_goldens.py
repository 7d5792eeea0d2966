"""Models that open_clip itself has run, as the folders it writes, and what came out of them."""

import atexit
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import write_words
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from vtr.clip.encoders import DualEncoder
from vtr.clip.hub import find_model
from vtr.clip.loading import load_model

HELD = ("pe_core_b", "eva02_b", "eva02_e", "siglip", "clipa", "coca")
"""Of which the outputs and weights lie in tests/golden; the others are beside the real data."""
OTHERS = ("pe_core_g", "clip_gelu", "clip_quickgelu", "siglip2_gopt")
FEATURES = 5e-6


def either(*names: str) -> list[Any]:
    return [n if n in HELD else pytest.param(n, marks=pytest.mark.real) for n in names]


@functools.cache
def golden(name: str) -> dict[str, NDArray[Any]]:
    if name in HELD:
        path = Path(__file__).parent / "golden" / f"open_clip_{name}.npz"
    else:
        path = Path(os.environ["VTR_REAL_DATA"]) / "golden" / f"open_clip_{name}_tiny.npz"
    with np.load(path) as arrays:
        return dict(arrays)


def weights(name: str) -> dict[str, Tensor]:
    return {
        key.removeprefix("param/"): torch.from_numpy(value.astype(np.float32))
        for key, value in golden(name).items()
        if key.startswith("param/")
    }


def config(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(str(golden(name)["config"]))
    overrides = json.loads(str(golden(name)["timm_overrides"]))
    if overrides:
        record["model_cfg"]["vision_cfg"]["timm_overrides"] = overrides
    return record


def write_folder(
    folder: Path,
    name: str,
    *,
    record: dict[str, Any] | None = None,
    state: dict[str, Tensor] | None = None,
) -> Path:
    """A golden's model as a folder, with a vocabulary of its kind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(record or config(name)))
    save_file(state or weights(name), folder / "open_clip_model.safetensors")
    return write_vocabulary(folder, name)


def write_vocabulary(folder: Path, name: str) -> Path:
    """Words of the kind of a golden's tokeniser: its ids for begin, end and padding."""
    words = [f"w{n}" for n in range(300)]
    words[2] = "<unk>"
    words[5:11] = ["a", "red", "thing", "man", "moves", "on"]
    settings: dict[str, Any] = {}
    if name.startswith("siglip"):
        words[:2] = ["<pad>", "</s>" if name == "siglip" else "<eos>"]
        settings = {"kind": "T5Tokenizer" if name == "siglip" else "GemmaTokenizer"}
        settings |= {"eos_token": words[1], "pad_token": words[name == "siglip"]}
    elif name == "clipa":
        words[0], words[3], words[4] = "[PAD]", "[CLS]", "[SEP]"
    else:
        words[298:] = ["<|startoftext|>", "<|endoftext|>"]
    return write_words(folder, words, **settings)


def write_resized(folder: Path, name: str) -> Path:
    """A golden's model, asked for pictures of another size."""
    record = config(name)
    side = golden(name)["resized/image_u8"].shape[1]
    record["model_cfg"]["vision_cfg"]["image_size"] = record["preprocess_cfg"]["size"] = side
    return write_folder(folder, name, record=record)


def load(folder: Path) -> DualEncoder:
    return load_model(find_model(str(folder)))[0]


def pixels(name: str) -> Tensor:
    values = torch.from_numpy(golden(name)["image_u8"]).permute(0, 3, 1, 2).float() / 255
    given = config(name)["preprocess_cfg"]
    mean, std = (torch.tensor(given[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (values - mean) / std


def ids(name: str) -> Tensor:
    return torch.from_numpy(golden(name)["ids"])


@functools.cache
def golden_folder(name: str) -> Path:
    """A golden's folder, written once; tests do not change it."""
    folder = Path(tempfile.mkdtemp(prefix="vtr-open-clip-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_folder(folder, name)
