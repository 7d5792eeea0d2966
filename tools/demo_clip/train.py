"""Trains the tiny CLIP: `python -m tools.demo_clip.train FOLDER`.

Symmetric InfoNCE between single frames and their captions. A caption that is true of several frames
of a batch counts all of them as positives, each with the same share, and so the other way round.
Everything is drawn from one seed; with the same number of threads, library versions and kind of
processor the weights come out the same bit for bit.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from tools.demo_clip.frames import (
    FrameScene,
    caption_frames,
    describe_frames,
    draw_scenes,
    frame_scenes,
    truths_of,
)
from tools.demo_clip.parts import build_config, build_tokenizer, write_preprocessor
from vtr.clip.loading import weights_digest
from vtr.clip.preprocess import Preprocessing, normalise, preprocessing_from_config
from vtr.demo.scenes import stream
from vtr.demo.words import Part

_log = logging.getLogger(__name__)
_MAX_LOGIT_SCALE = math.log(100.0)
_SCENES_PER_FILE = 256


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    text_steps: int = 400  # Optimiser steps of the text tower alone
    steps: int = 1400  # Optimiser steps on frames and captions
    locked_share: float = 0.7  # Of these, during which the text tower stays as it is
    batch_size: int = 128  # Frames, and as many captions, per step
    group_size: int = 32  # Frames of a batch that share a background or a colour
    # Different frames to train on; each is captioned anew whenever it is drawn.
    num_frames: int = 16384
    learning_rate: float = 1.5e-3  # At its peak, after the warm-up; falls to 0 along a cosine
    warmup_steps: int = 80  # Of the learning rate, linear
    weight_decay: float = 0.1  # Of matrices; embeddings, biases and norms have none
    seed: int = 7  # Of everything random. No split of the demo world uses these numbers.
    threads: int = 1  # Of torch; another number may round differently


@dataclass(frozen=True)
class Outcome:
    """What training came to."""

    loss: float  # Mean over the last 50 steps
    # Share of 512 captions of frames of val triples whose most similar frame of the 512 they are
    # true of.
    caption_accuracy: float
    frame_accuracy: float  # The same from frame to caption
    seconds: float  # Wall-clock time of everything


@dataclass(frozen=True)
class FramePool:
    """Scenes and what the model sees of them, (N, h, w, 3) uint8."""

    scenes: Sequence[FrameScene]
    pixels: NDArray[np.uint8]


def train(folder: Path, recipe: Recipe) -> Outcome:
    """Trains the tiny CLIP and writes it to `folder` as a Hugging Face model, in float16."""
    start = time.perf_counter()
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_preprocessor(folder)
    preprocessing = preprocessing_from_config(folder, route="exact")
    tokenizer = build_tokenizer()
    model = CLIPModel(build_config(tokenizer))
    pool = draw_pool(recipe.num_frames, "train", recipe.seed, preprocessing)
    _log.info("%d frames drawn after %.0f s", len(pool.scenes), time.perf_counter() - start)
    _logged(warm_up_text(model, tokenizer, pool.scenes, recipe), "text", recipe.text_steps)
    stage = train_both(model, tokenizer, pool, recipe, preprocessing)
    losses = _logged(stage, "both", recipe.steps)
    model.half()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    held_out = draw_pool(512, "val", recipe.seed, preprocessing)
    accuracies = validate(model.float(), tokenizer, held_out, preprocessing, seed=recipe.seed)
    return Outcome(float(np.mean(losses[-50:])), *accuracies, time.perf_counter() - start)


def _logged(losses: Iterator[float], stage: str, steps: int) -> list[float]:
    """Runs a stage of training, says how it goes, and returns the loss of every step."""
    done: list[float] = []
    for loss in losses:
        done.append(loss)
        if len(done) % 100 == 0:
            _log.info("%s: step %d of %d: loss %.3f", stage, len(done), steps, np.mean(done[-100:]))
    return done


def draw_pool(count: int, part: Part, seed: int, preprocessing: Preprocessing) -> FramePool:
    """Draws `count` random frames of the triples of `part`."""
    scenes: list[FrameScene] = []
    pixels = []
    for number, first in enumerate(range(0, count, _SCENES_PER_FILE)):
        name = f"{part}-{number}"
        some = frame_scenes(min(_SCENES_PER_FILE, count - first), seed=seed, name=name, part=part)
        pixels.append(draw_scenes(some, seed=seed, name=name, preprocessing=preprocessing))
        scenes += some
    return FramePool(scenes, np.concatenate(pixels))


def warm_up_text(
    model: CLIPModel, tokenizer: CLIPTokenizer, scenes: Sequence[FrameScene], recipe: Recipe
) -> Iterator[float]:
    """Trains the text tower alone; yields the loss of every step.

    A caption that leaves nothing out stands in for its frame. Without this the text tower first
    unlearns the words whose pictures are hard to tell apart (shapes), and the vision tower then
    has no reason to learn them: thousands of steps are lost on that plateau.
    """
    rng = stream(recipe.seed, "text")
    parameters = [*model.text_model.named_parameters(), *model.text_projection.named_parameters()]
    parameters.append(("logit_scale", model.logit_scale))
    optimizer = _optimizer(parameters, recipe)
    for step, rows in enumerate(_batches(scenes, recipe.text_steps, recipe, rng)):
        some = [scenes[row] for row in rows]
        texts, claims = caption_frames(some, rng)
        whole = _embed_texts(model, tokenizer, describe_frames(some, rng))
        logits = _scaled(model, _embed_texts(model, tokenizer, texts), whole)
        loss = info_nce(logits, torch.from_numpy(claims.hold_in(truths_of(some))))
        _step(optimizer, loss, _learning_rate(step, recipe.text_steps, recipe))
        yield loss.item()


def train_both(
    model: CLIPModel, tokenizer: CLIPTokenizer, pool: FramePool, recipe: Recipe, pre: Preprocessing
) -> Iterator[float]:
    """Trains on frames and captions, text tower locked at first; yields the loss of every step."""
    rng = stream(recipe.seed, "training")
    optimizer = _optimizer(list(model.named_parameters()), recipe)
    for step, rows in enumerate(_batches(pool.scenes, recipe.steps, recipe, rng)):
        locked = step < recipe.locked_share * recipe.steps
        model.text_model.requires_grad_(not locked)
        model.text_projection.requires_grad_(not locked)
        scenes = [pool.scenes[row] for row in rows]
        texts, claims = caption_frames(scenes, rng)
        pixels = torch.from_numpy(pool.pixels[rows])
        images = _embed_images(model, normalise(pixels, pre, dtype=torch.float32))
        logits = _scaled(model, _embed_texts(model, tokenizer, texts), images)
        loss = info_nce(logits, torch.from_numpy(claims.hold_in(truths_of(scenes))))
        _step(optimizer, loss, _learning_rate(step, recipe.steps, recipe))
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, _MAX_LOGIT_SCALE)
        yield loss.item()


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for group in optimizer.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()


def info_nce(logits: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """Returns the symmetric InfoNCE loss with several positives.

    Args:
        logits: (N, M) similarities of N captions and M frames, scaled.
        truths: (N, M) bool, which captions are true of which frames; no empty row or column.

    Returns:
        Scalar: cross entropy against equal shares of the positives, mean of both directions.
    """
    positives = truths.to(logits.dtype)
    losses = [
        functional.cross_entropy(scores, target / target.sum(dim=1, keepdim=True))
        for scores, target in ((logits, positives), (logits.T, positives.T))
    ]
    return (losses[0] + losses[1]) / 2


def _embed_texts(model: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Returns unit vectors, (N, D)."""
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    output = model.get_text_features(input_ids=tokens["input_ids"])
    return functional.normalize(output.pooler_output, dim=1)


def _embed_images(model: CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """Returns unit vectors, (N, D)."""
    output = model.get_image_features(pixel_values=images)
    return functional.normalize(output.pooler_output, dim=1)


def _scaled(model: CLIPModel, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Returns cosines times the learned scale, (num_left, num_right)."""
    scores: torch.Tensor = model.logit_scale.exp() * (left @ right.T)
    return scores


def _optimizer(
    parameters: Sequence[tuple[str, torch.nn.Parameter]], recipe: Recipe
) -> torch.optim.Optimizer:
    matrices = [p for name, p in parameters if p.ndim >= 2 and "embedding" not in name]
    others = [p for name, p in parameters if p.ndim < 2 or "embedding" in name]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def _batches(
    scenes: Sequence[FrameScene], steps: int, recipe: Recipe, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yields the rows of each batch: groups of frames that share a background or a colour.

    In a batch drawn evenly, background and colour nearly always tell two frames apart, and shapes
    are learned late or never; here about half of a group's other frames can be told by shape alone.
    """
    backgrounds = np.array([f"{scene.background} {scene.tone}" for scene in scenes])
    colours = np.array(["".join(s.look.colour for s in scene.sprites[:1]) for scene in scenes])
    alike = [
        {value: np.flatnonzero(keys == value) for value in np.unique(keys)}
        for keys in (backgrounds, colours)
    ]
    for _ in range(steps):
        rows: list[int] = []
        while len(rows) < recipe.batch_size:
            anchor, which = int(rng.integers(len(scenes))), int(rng.integers(2))
            members = alike[which][(backgrounds, colours)[which][anchor]]
            rows.extend(rng.choice(members, min(recipe.group_size, len(members)), replace=False))
        yield np.array(rows[: recipe.batch_size], dtype=np.int64)


def _learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Rises during the warm-up, stays, and falls to 0 over the second half along a cosine."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    fallen = max(0.0, 2 * step / steps - 1)
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * fallen))


def validate(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    pool: FramePool,
    preprocessing: Preprocessing,
    *,
    seed: int,
) -> tuple[float, float]:
    """Returns the shares, 0 to 1, of captions and of frames whose best match in `pool` is true."""
    texts, claims = caption_frames(pool.scenes, stream(seed, "validation"))
    truths = torch.from_numpy(claims.hold_in(truths_of(pool.scenes)))
    images = normalise(torch.from_numpy(pool.pixels), preprocessing, dtype=torch.float32)
    model.eval()
    with torch.inference_mode():
        scores = _embed_texts(model, tokenizer, texts) @ _embed_images(model, images).T
    every = torch.arange(len(texts))
    captions = truths[every, scores.argmax(dim=1)].double().mean().item()
    frames = truths[scores.argmax(dim=0), every].double().mean().item()
    return captions, frames


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script: trains, writes the folder, logs what to put into its README."""
    parser = argparse.ArgumentParser(description="Train the demo's tiny CLIP.")
    parser.add_argument("folder", type=Path, help="where to write the model")
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    settings = vars(parser.parse_args(arguments))
    folder = settings.pop("folder")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    recipe = Recipe(**settings)
    outcome = train(folder, recipe)
    digest = weights_digest(CLIPModel.from_pretrained(folder, dtype=torch.float32).state_dict())
    _log.info("%s\n%s\nweights_sha256 %s", recipe, outcome, digest)


if __name__ == "__main__":
    main()
