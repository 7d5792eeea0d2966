"""Encoders for the benchmarks: one that costs nothing, and a ViT-B/32 of random weights."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.clip.preprocess import Preprocessing, Route

BATCH = 32  # pictures per call: what the pipeline uses on a CPU
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_preprocessing(route: Route = "fast") -> Preprocessing:
    """Returns what CLIP ViT-B/32 does to a picture."""
    return Preprocessing(route, (224, 224), "shortest-edge", 224, "bicubic", _MEAN, _STD)


class NullEncoder:
    """Answers at once, or after a pause: what remains is the work of feeding it.

    Args:
        seconds_per_frame: How long it sleeps for every frame.
    """

    device = "cpu"

    def __init__(self, *, seconds_per_frame: float = 0.0) -> None:
        self._pause = seconds_per_frame

    def describe(self) -> dict[str, Any]:
        """Returns the backbone's part of a store's spec."""
        return {
            "backbone": "null",
            "revision": "local",
            "weights_sha256": "0" * 64,
            "embedding_dim": 512,
            "compute_dtype": "float32",
            "preprocessing": clip_preprocessing().as_dict(),
        }

    def encode_frames(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns (B, 512) ones."""
        if self._pause:
            time.sleep(self._pause * len(crops))
        return np.ones((len(crops), 512), np.float32)

    def pad_embedding(self) -> NDArray[np.float32]:
        """Returns (512,) ones."""
        return np.ones(512, np.float32)


def random_clip(folder: Path) -> Path:
    """Returns a Hugging Face folder with CLIP's default vision tower (ViT-B/32), made once.

    The text tower, which nothing here runs, is one layer with a handful of words.
    """
    target = folder / "clip-vit-b32-random.v1"
    if target.exists():
        return target
    import torch
    from tokenizers import Tokenizer, models
    from transformers import CLIPConfig, CLIPModel

    unfinished = folder / "clip-vit-b32-random.part"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    words = ["[UNK]", "a", "video", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    text = {"num_hidden_layers": 1, "vocab_size": 5, "bos_token_id": 3, "eos_token_id": 4}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text)).save_pretrained(unfinished)
    Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")).save(
        str(unfinished / "tokenizer.json")
    )
    processor = {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": _MEAN,
        "image_std": _STD,
    }
    (unfinished / "preprocessor_config.json").write_text(json.dumps(processor))
    os.rename(unfinished, target)  # noqa: PTH104
    return target


def random_crops(count: int) -> NDArray[np.uint8]:
    """Returns (count, 224, 224, 3) noise."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def encode_alone(backbone: Any, frames: int, batch: int) -> None:
    """Encodes as many pictures as a run does, in batches of its size, from one array."""
    crops = random_crops(batch)
    for start in range(0, frames, batch):
        backbone.encode_frames(crops[: min(batch, frames - start)])
