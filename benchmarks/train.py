"""A step of training against the bare matrix products in it, on MSR-VTT-sized random features.

9,000 videos of 12 frames, 512 dimensions, 20 captions each, frozen text, batches of 128 videos with
all their captions (tightTransf: --tight-batch videos with one caption each, as all pairs of a batch
pass its layers). "Bare" is the head's products alone at the same shapes, forward once and backward
twice, in the same run, in turn with the steps. Each turn has as many of a kind as fill a quarter of
a second, steps and gathers over batch after batch of the epoch, so that neither pays for what the
other left in the caches. Data handling is what a step waits for its rows, and its share of the
epoch's plan. Last comes an epoch of 180,000 pairs with a text projection and meanP.

    python benchmarks/train.py [--rounds 5] [--heads meanP,seqLSTM] [--device cpu] [--skip-epoch]

Prints JSON lines.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, pairwise, zip_longest
from typing import Any

from vtr.arithmetic import prepare_arithmetic

prepare_arithmetic()  # as `vtr train` does, before torch is imported

import common
import numpy as np
import torch

from vtr.features.store import PackedFrames
from vtr.train.batches import BatchPlan, Step
from vtr.train.data import PairedData, Resident
from vtr.train.gradients import BatchGradient
from vtr.train.loop import make_optimiser
from vtr.train.model import ModelSpec, build_model
from vtr.train.presets import BatchOptions, LossOptions, TrainSettings
from vtr.train.text_tower import TextSpec
from vtr.train.texts import TextFeatures

FRAMES, DIM, CAPTIONS, LAYERS = 12, 512, 20, 4
Product = tuple[int, int, int, int, int]  # batches, rows, inner, columns, how often
TURN_SECONDS = 0.25


def made_up(num_videos: int) -> PairedData:
    rng = np.random.default_rng(0)
    rows, texts = num_videos * FRAMES, num_videos * CAPTIONS
    frames = rng.standard_normal((rows, DIM), np.float32).astype(np.float16)
    pooled = rng.standard_normal((texts, DIM), np.float32)
    videos = PackedFrames(
        tuple(f"video{v}" for v in range(num_videos)),
        frames,
        np.zeros(rows),
        np.arange(num_videos + 1) * FRAMES,
    )
    names = tuple(f"text{n}" for n in range(texts))
    return PairedData(TextFeatures(names, pooled), videos, np.arange(texts) // CAPTIONS)


def products(head: str, step: Step) -> list[Product]:
    """The forward products of one step; each costs two more of its size backward."""
    texts, videos = len(step.texts), len(step.videos)
    score = [(1, texts, DIM, videos, 1)]
    if head == "meanP":
        return score
    if head == "seqLSTM":
        gates = [(1, videos * FRAMES, DIM, 4 * DIM, 1), (1, videos, DIM, 4 * DIM, FRAMES)]
        return gates + score
    if head == "seqTransf":
        return transformer(videos, FRAMES) + score
    pairs, tokens = texts * videos, FRAMES + 1
    last = [  # of the last layer only the first token is read
        (1, pairs * tokens, DIM, 2 * DIM, 1),
        (pairs * DIM // 64, 1, 64, tokens, 1),
        (pairs * DIM // 64, 1, tokens, 64, 1),
        (1, pairs, DIM, DIM, 3),
        (1, pairs, DIM, 4 * DIM, 1),
        (1, pairs, 4 * DIM, DIM, 1),
    ]
    return [*transformer(pairs, tokens, LAYERS - 1), *last]


def transformer(items: int, tokens: int, layers: int = LAYERS) -> list[Product]:
    heads, rows = DIM // 64, items * tokens
    return [
        (1, rows, DIM, 3 * DIM, layers),
        (items * heads, tokens, 64, tokens, layers),
        (items * heads, tokens, tokens, 64, layers),
        (1, rows, DIM, DIM, layers),
        (1, rows, DIM, 4 * DIM, layers),
        (1, rows, 4 * DIM, DIM, layers),
    ]


def bare(shapes: list[Product], device: torch.device) -> Callable[[], None]:
    """Returns the products as one call: y = x w, dx = dy w', dw = x' dy."""
    operands = [
        (
            torch.randn(batches, rows, inner, device=device),
            torch.randn(batches, inner, columns, device=device),
            torch.randn(batches, rows, columns, device=device),
            count,
        )
        for batches, rows, inner, columns, count in shapes
    ]

    def run() -> None:
        for left, right, gradient, count in operands:
            for _ in range(count):
                torch.bmm(left, right)
                torch.bmm(gradient, right.transpose(1, 2))
                torch.bmm(left.transpose(1, 2), gradient)
        wait(device)

    return run


def flop(shapes: list[Product]) -> float:
    return 3 * sum(2.0 * b * m * k * n * count for b, m, k, n, count in shapes)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Training:
    """One head on the data, a step at a time."""

    def __init__(
        self, data: PairedData, head: str, options: BatchOptions, device: torch.device, text: str
    ) -> None:
        spec = ModelSpec(head, DIM, TextSpec(text, DIM, DIM))  # type: ignore[arg-type]
        self.model = build_model(spec).to(device).train()
        self.settings = replace(TrainSettings(), batch=options)
        self.optimiser, _ = make_optimiser(self.model, self.settings)
        self.resident = Resident(data, device)
        self.plan = BatchPlan(data.text_video, options)
        self.gradient = BatchGradient(self.model, self.resident, LossOptions())
        self.steps = self.plan.epoch(1)
        self.device = device

    def step(self, step: Step, following: Step | None = None) -> None:
        """One step as the loop does it."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.gradient(step, following)
        norm = torch.nn.utils.clip_grad_norm_(
            [p for p in self.model.parameters() if p.grad is not None], 1.0
        )
        torch.stack([loss.total, norm]).detach().tolist()
        self.optimiser.step()
        self.model.clamp_scale()

    def time_fixed_rows(self) -> None:
        """Sums what steps wait for their rows of codes that never change."""
        rows = self.gradient.fixed.rows

        def timed(*steps: Any) -> Any:
            start = time.perf_counter()
            found = rows(*steps)
            self.waited += time.perf_counter() - start
            self.num_waits += 1
            return found

        self.waited, self.num_waits = 0.0, 0
        self.gradient.fixed.rows = timed  # type: ignore[method-assign]

    def gather(self, step: Step) -> None:
        """The rows of features a step gathers, of what has no codes that never change."""
        for codes, rows, index in (
            (self.gradient.texts, self.resident.texts, step.texts),
            (self.gradient.videos, self.resident.videos, step.videos),
        ):
            if codes is None:
                rows.batch(index)
        wait(self.device)

    def plan_seconds(self) -> float:
        """Returns one step's share of planning an epoch."""
        start = time.perf_counter()
        self.plan.epoch(2)
        return (time.perf_counter() - start) / self.plan.num_steps


def per_call(action: Callable[[], None]) -> Callable[[], common.Cost]:
    """Returns what one call takes, over a turn of calls; the first two calls are not timed."""
    action()
    once = common.timed(action).wall
    count = max(1, round(TURN_SECONDS / once))

    def turn() -> None:
        for _ in range(count):
            action()

    def each() -> common.Cost:
        cost = common.timed(turn)
        return common.Cost(cost.wall / count, cost.cpu / count)

    return each


def measure(head: str, data: PairedData, arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    tight = head == "tightTransf"
    options = BatchOptions(size=arguments.tight_batch, captions=1) if tight else BatchOptions()
    training = Training(data, head, options, device, "frozen")
    step = training.steps[0]
    shapes = products(head, step)
    run_bare = bare(shapes, device)
    batches, pairs = cycle(training.steps), cycle(pairwise([*training.steps, training.steps[0]]))
    training.time_fixed_rows()
    times = common.in_turn(
        arguments.rounds,
        step=per_call(lambda: training.step(*next(pairs))),
        bare=per_call(run_bare),
        gather=per_call(lambda: training.gather(next(batches))),
    )
    seconds = {name: statistics.median(c.wall for c in costs) for name, costs in times.items()}
    both = list(zip(times["step"], times["bare"], strict=True))
    ratio = statistics.median(step.wall / bare.wall for step, bare in both)
    waited = training.waited / training.num_waits
    handling = (waited + seconds["gather"] + training.plan_seconds()) / seconds["step"]
    common.emit(
        "train-step",
        head=head,
        videos=len(step.videos),
        texts=len(step.texts),
        steps_per_second=1 / seconds["step"],
        step_ms=1e3 * seconds["step"],
        bare_ms=1e3 * seconds["bare"],
        gflop=flop(shapes) / 1e9,
        ratio=common.goal(ratio, at_most=1.4),
        ratio_cpu=statistics.median(step.cpu / bare.cpu for step, bare in both),
        data_share=common.goal(handling, at_most=0.01),
        epoch_seconds=seconds["step"] * training.plan.num_steps,
        device=str(device),
        threads=torch.get_num_threads(),
    )


def measure_epoch(data: PairedData, arguments: argparse.Namespace) -> None:
    training = Training(data, "meanP", BatchOptions(), torch.device(arguments.device), "projection")
    training.step(training.steps[0])
    start = time.perf_counter()
    steps = training.plan.epoch(1)
    for step, following in zip_longest(steps, steps[1:]):
        training.step(step, following)
    wait(training.device)
    seconds = time.perf_counter() - start
    common.emit(
        "train-epoch",
        head="meanP",
        text="projection",
        pairs=len(data.texts),
        seconds=seconds,
        pairs_per_second=len(data.texts) / seconds,
        device=arguments.device,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--heads", default="meanP,seqLSTM,seqTransf,tightTransf")
    parser.add_argument("--videos", type=int, default=9000)
    parser.add_argument("--tight-batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip-epoch", action="store_true")
    arguments = parser.parse_args()
    data = made_up(arguments.videos)
    for head in arguments.heads.split(","):
        measure(head, data, arguments)
    if not arguments.skip_epoch:
        measure_epoch(data, arguments)


if __name__ == "__main__":
    main()
