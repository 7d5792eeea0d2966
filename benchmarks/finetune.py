"""A step of training the vision tower against the bare passes of it; caches, memory, reading.

ViT-B/32 (or `--patch 16`) with random weights on noise: 12 frames of 224 x 224 a video, one caption
each, frozen text, meanP. "Bare" is forward and backward of the same tower at the same shapes, on
pixels that are normalised already, in the same run and in turn with the steps. A step has gather,
normalising, loss, clipping and AdamW beside it.

    python benchmarks/finetune.py [--rounds 3] [--videos 2] [--device cpu] [--patch 32]

Prints JSON lines. On a GPU: 128 and 512 videos a step, and what an epoch of 9,000 videos takes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vtr.arithmetic import prepare_arithmetic

prepare_arithmetic()  # as `vtr train` does, before torch is imported

import common
import numpy as np
import torch
from encoders import clip_preprocessing

from vtr.clip.towers import Architecture, Sizes
from vtr.features import FeatureSpec, FeatureStore, LedgerRow, VideoRow
from vtr.features.shard import write_shard
from vtr.train.batches import Step
from vtr.train.data import PairedData, PictureRows, Resident
from vtr.train.gradients import BatchGradient
from vtr.train.heads.meanP import MeanPooling
from vtr.train.memory import saved_bytes
from vtr.train.model import RetrievalModel
from vtr.train.optim import make_optimiser
from vtr.train.presets import BatchOptions, LossOptions, TrainSettings
from vtr.train.text_tower import FrozenText
from vtr.train.texts import TextFeatures
from vtr.train.vision_tower import PictureBatch, TunedVision, VisionSpec

FRAMES, DIM, WIDTH, LAYERS = 12, 512, 768, 12
EPOCH = 9000


def architecture(patch: int) -> Architecture:
    vision = Sizes(WIDTH, LAYERS, 12, 4 * WIDTH, "quick_gelu", 1e-5)
    text = Sizes(DIM, 1, 8, 4 * DIM, "quick_gelu", 1e-5)
    return Architecture("clip", vision, text, DIM, 224, patch, 5, 77, 4)


class Training:
    """One kind of training on one batch.

    Args:
        frozen: Blocks that are frozen and read from activations.
        patch: Side of a patch.
        videos: In the batch.
        settings: How.
        device: Where.
    """

    def __init__(
        self, frozen: int, patch: int, videos: int, settings: TrainSettings, device: torch.device
    ) -> None:
        spec = VisionSpec(architecture(patch), clip_preprocessing(), frozen)
        torch.manual_seed(0)
        vision = TunedVision(spec)
        for parameter in vision.parameters():
            if parameter.ndim < 2 or parameter.abs().max() > 1:  # undrawn memory, biases, norms
                torch.nn.init.normal_(parameter, std=0.02)
        self.model = RetrievalModel(FrozenText(), MeanPooling(), vision=vision).to(device).train()
        self.model.compute(short=settings.short, checkpointing=settings.checkpointing)
        rng = np.random.default_rng(0)
        count = videos * FRAMES
        if frozen:
            shape = (count, (224 // patch) ** 2 + 1, WIDTH)
            rows = rng.standard_normal(shape, np.float32).astype(np.float16)
        else:
            rows = rng.integers(0, 256, (count, 224, 224, 3), np.uint8)
        ids = tuple(map(str, range(videos)))
        pooled = rng.standard_normal((videos, DIM), np.float32)
        pictures = PictureRows(ids, rows, np.arange(videos + 1) * FRAMES)
        data = PairedData(TextFeatures(ids, pooled), pictures, np.arange(videos))
        self.data = Resident(data, device)
        places = np.arange(videos)
        self.batch = Step(places, places, places)
        self.gradient = BatchGradient(
            self.model, self.data, LossOptions(), vision_chunk=settings.vision_chunk or 0
        )
        self.optimiser, _ = make_optimiser(self.model, settings)
        self.device = device

    def step(self) -> None:
        """Takes one."""
        self.optimiser.zero_grad(set_to_none=True)
        self.gradient(self.batch)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.wait()

    def bare(self) -> Callable[[], None]:
        """Returns forward and backward of the tower alone."""
        vision, side = self.model.vision, 224
        assert vision is not None
        pixels = torch.randn(len(self.batch.videos) * FRAMES, 3, side, side, device=self.device)

        def run() -> None:
            self.optimiser.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=vision.short):
                output = vision.tower(pixels)
            output.float().sum().backward()
            self.wait()

        return run

    def saved(self) -> int:
        """Returns the bytes that a backward pass keeps."""
        batch = self.data.videos.batch(self.batch.videos)
        assert isinstance(batch, PictureBatch)
        return saved_bytes(self.model, batch)

    def wait(self) -> None:
        """Returns once a GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def bench_steps(rounds: int, videos: int, patch: int, device: torch.device) -> None:
    settings = TrainSettings(batch=BatchOptions(size=videos), vision_chunk=0)
    everything = Training(0, patch, videos, settings, device)
    kept = Training(0, patch, videos, replace(settings, checkpointing=True), device)
    last = Training(LAYERS - 1, patch, videos, settings, device)
    bare = everything.bare()
    answers = common.in_turn(
        rounds,
        step=lambda: common.timed(everything.step).wall,
        bare=lambda: common.timed(bare).wall,
        checkpointed=lambda: common.timed(kept.step).wall,
        last=lambda: common.timed(last.step).wall,
    )
    each = {name: common.median(seconds) / videos for name, seconds in answers.items()}
    saved = {"all": everything.saved(), "checkpointed": kept.saved(), "last": last.saved()}

    def ratio(above: str, below: str) -> float:
        return common.median(common.ratios(answers[above], answers[below]))

    common.emit(
        "step",
        model=f"ViT-B/{patch}, random weights",
        device=str(device),
        threads=torch.get_num_threads(),
        videos=videos,
        seconds_per_video=each,
        step_to_bare=common.goal(ratio("step", "bare"), at_most=1.3),
        last_from_cache=common.goal(ratio("step", "last"), at_least=10),
        checkpointing_time=common.goal(ratio("checkpointed", "step"), at_most=1.4),
        saved_megabytes_per_picture={k: v / 1e6 / videos / FRAMES for k, v in saved.items()},
        checkpointing_bytes=common.goal(saved["checkpointed"] / saved["all"], at_most=0.1),
    )


def bench_reading(videos: int, rounds: int) -> None:
    """Raw pictures out of a store, as training reads them."""
    rng = np.random.default_rng(0)
    facts = {
        "backbone": "null", "revision": "local", "weights_sha256": "0" * 64, "embedding_dim": DIM,
        "compute_dtype": "float32", "preprocessing": clip_preprocessing().as_dict(), "vision": {},
        "storage_dtype": "float16", "candidate_fps": 1.0, "num_frames": FRAMES,
        "samplers": ("uniform",), "seed": 0,
    }  # fmt: skip
    pictures = rng.integers(0, 256, (FRAMES, 224, 224, 3), np.uint8)
    frames = rng.standard_normal((FRAMES, DIM), np.float32)
    rows = [
        VideoRow(
            LedgerRow(str(v), "ok"),
            frames,
            np.arange(FRAMES) * 1.0,
            {"uniform": np.arange(FRAMES)},
            pictures=pictures,
        )
        for v in range(videos)
    ]
    with tempfile.TemporaryDirectory(prefix="store-") as name:
        folder, pad = Path(name), np.zeros(DIM, np.float32)
        shard = {"slot": (1, 1, 0), "revision": 0, "pad_embedding": pad}
        write_shard(folder, rows, spec=FeatureSpec(**facts), **shard)
        ids = [str(v) for v in range(videos)]
        rates = []
        for _ in range(rounds):
            store = FeatureStore(folder)
            rates.append(videos / common.timed(lambda s=store: s.pictures(ids)).cpu)
    common.emit(
        "reading",
        videos=videos,
        videos_per_second_a_core=common.goal(common.median(rates), at_least=1000),
        gigabytes_per_10_000=10_000 * FRAMES * 224 * 224 * 3 / 1e9,
    )


def bench_epoch(patch: int, device: torch.device) -> None:
    """On a GPU: what a step of a usual batch and an epoch of MSR-VTT-9k take."""
    for videos, chunk in ((128, 0), (512, 64)):
        settings = TrainSettings(batch=BatchOptions(size=videos), vision_chunk=chunk, short=True)
        torch.cuda.reset_peak_memory_stats(device)
        one = Training(0, patch, videos, settings, device)
        one.step()
        step = common.median([common.timed(one.step).wall for _ in range(5)])
        peak = torch.cuda.max_memory_allocated(device)
        share = None
        if not chunk:
            bare = one.bare()
            bare()
            share = common.median([common.timed(bare).wall for _ in range(5)]) / step
        common.emit(
            "epoch",
            model=f"ViT-B/{patch}, random weights, bfloat16",
            device=torch.cuda.get_device_name(device),
            videos_per_step=videos,
            vision_chunk=chunk or videos,
            seconds_per_step=step,
            seconds_per_epoch=step * EPOCH / videos,
            of_the_bare_model=None if share is None else common.goal(share, at_least=0.85),
            peak_gigabytes=peak / 1e9,
        )
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the training of the vision tower.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=2, help="in a step")
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device, others = torch.device(arguments.device), common.Others()
    bench_reading(200, arguments.rounds)
    bench_steps(arguments.rounds, arguments.videos, arguments.patch, device)
    if device.type == "cuda":
        bench_epoch(arguments.patch, device)
    common.emit("machine", share_of_others=others.share())


if __name__ == "__main__":
    main()
