"""Every head in one run: parameters, a training step, and what scoring costs in time and memory.

    python benchmarks/heads.py [--heads meanP,wti:layers=4] [--device cuda] [--quick]

One JSON line per head and measurement, on random features of ViT-B/32's shape (D = 512, 12 frames,
texts of 4 to 32 tokens). Training steps of all heads are taken in turn, round by round. Scoring is
whole where it fits --seconds; else so many texts and videos as fit are scored, in blocks as
`vtr.train.scoring` makes them, and the time is extrapolated in proportion, which the line says.
Peaks are bytes above what the process (on a GPU: its allocator) held before. Let nothing else run.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr.arithmetic import prepare_arithmetic

prepare_arithmetic()  # as vtr does, before torch is imported

import torch
from common import Others, emit, in_turn, median
from torch import Tensor

from vtr.train.headlist import build_head, head_names, parse_head
from vtr.train.heads.base import Code, Head, TextBatch, VideoBatch, pad_codes, select_code
from vtr.train.losses import weighted_loss
from vtr.train.presets import LossOptions

DIM, FRAMES, WORDS = 512, 12, 32
BATCH = 128
ENCODED_AT_ONCE = 256  # as vtr.train.scoring.Scorer does by default
PAIRS_AT_ONCE = 1 << 15
RERANKED = 50  # candidates that a text sees together, for heads that compare them
SIZES = ((1_000, 1_000), (59_800, 2_990))  # MSR-VTT 1k-A and the full split
POOL = 1_024  # different texts; larger galleries repeat them


@dataclass(frozen=True)
class Bench:
    """What all measurements share.

    Args:
        heads: By label.
        device: Where.
        rounds: Of training steps.
        seconds: For scoring one size with one head.
        texts: Different texts.
        videos: Different videos.
    """

    heads: dict[str, Head]
    device: torch.device
    rounds: int
    seconds: float
    texts: TextBatch
    videos: VideoBatch


def random_texts(count: int, device: torch.device) -> TextBatch:
    """Texts of 4 to 32 tokens, 13 on average as MSR-VTT's captions have."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(count, WORDS, DIM, generator=generator)
    more = torch.empty(count).geometric_(0.1, generator=generator)
    lengths = (3 + more).clamp(max=WORDS).long()
    mask = torch.arange(WORDS) < lengths[:, None]
    pooled = tokens[torch.arange(count), lengths - 1]
    return TextBatch(pooled.to(device), tokens.to(device), mask.to(device))


def random_videos(count: int, device: torch.device) -> VideoBatch:
    """Videos with all their frames."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(count, FRAMES, DIM, generator=generator)
    mask = torch.ones(count, FRAMES, dtype=torch.bool)
    pad = torch.randn(DIM, generator=generator)
    return VideoBatch(frames.to(device), mask.to(device), pad.to(device))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - start


def peak_of(action: Callable[[], object], device: torch.device) -> int | None:
    """Returns the most bytes held during `action` above those before, None where unknown."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        action()
        return None
    # What the C library keeps for later would hide new needs.
    ctypes.CDLL(None).malloc_trim(0)
    clear.write_text("5")  # proc(5): resets the peak resident size
    before = status_bytes("VmRSS")
    action()
    return status_bytes("VmHWM") - before


def status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    words = next(line.split() for line in lines if line.startswith(f"{key}:"))
    return int(words[1]) * 1024


def training_step(head: Head, device: torch.device, *, batch: int = BATCH) -> Callable[[], None]:
    """Returns one step over a batch of pairs: codes, loss, gradients, AdamW."""
    texts, videos = random_texts(batch, device), random_videos(batch, device)
    right = torch.eye(batch, dtype=torch.bool, device=device)
    scale = torch.tensor(100.0 if head.info.scaled else 1.0, device=device, requires_grad=True)
    optimiser = torch.optim.AdamW([*head.parameters(), scale], lr=1e-5)

    def step() -> None:
        head.train()
        codes = head.encode_texts(texts), head.encode_videos(videos)
        terms = [(weight, scale * term) for weight, term in head.training_terms(*codes)]
        total = weighted_loss(terms, right, LossOptions()).total
        extra = head.regulariser(*codes)
        optimiser.zero_grad()
        (total if extra is None else total + extra).backward()
        optimiser.step()
        head.eval()

    return step


def bench_training(bench: Bench) -> None:
    """A step of each head, in turn; one that takes longer than --seconds is taken once."""
    steps = {label: training_step(head, bench.device) for label, head in bench.heads.items()}
    peaks, seconds = {}, {}
    for label, step in steps.items():
        start = time.perf_counter()
        peaks[label] = peak_of(step, bench.device)  # the first step warms up, too
        synchronise(bench.device)
        seconds[label] = [time.perf_counter() - start]
    actions = {
        label: lambda step=step: seconds_of(step, bench.device)
        for label, step in steps.items()
        if seconds[label][0] < bench.seconds
    }
    seconds |= in_turn(bench.rounds, **actions)
    for label, taken in seconds.items():
        emit(
            "training_step",
            head=label,
            batch=BATCH,
            milliseconds=1000 * median(taken),
            fastest=1000 * min(taken),
            slowest=1000 * max(taken),
            steps=len(taken),
            peak_mib=mebibytes(peaks[label]),
        )


def encode_videos(head: Head, count: int, videos: VideoBatch) -> Code:
    """Returns the codes of `count` videos."""
    place = torch.arange(count) % POOL
    with torch.no_grad():
        return pad_codes(
            [
                head.encode_videos(VideoBatch(videos.frames[part], videos.mask[part], videos.pad))
                for part in place.split(ENCODED_AT_ONCE)
            ]
        )


def score_texts(head: Head, texts: Code, videos: Code) -> Iterator[Tensor]:
    """Yields the scores of a block of texts against all videos, part by part."""
    count = len(videos[0])
    width = count if head.info.indexable else max(1, PAIRS_AT_ONCE // len(texts[0]))
    with torch.no_grad():
        for start in range(0, count, width):
            yield head.score(texts, tuple(part[start : start + width] for part in videos))


def encode_texts(head: Head, count: int, texts: TextBatch) -> Iterator[Code]:
    """Yields the codes of `count` texts, block by block."""
    assert texts.tokens is not None
    assert texts.token_mask is not None
    for start in range(0, count, ENCODED_AT_ONCE):
        place = torch.arange(start, min(start + ENCODED_AT_ONCE, count)) % POOL
        part = TextBatch(texts.pooled[place], texts.tokens[place], texts.token_mask[place])
        with torch.no_grad():
            yield head.encode_texts(part)


def affordable(head: Head, videos: Code, bench: Bench, size: tuple[int, int]) -> tuple[int, int]:
    """Returns how many texts and videos can be scored in the time: whole blocks before many."""
    (texts,) = encode_texts(head, 32, bench.texts)
    few = select_code(videos, torch.arange(32, device=bench.device))

    def probe() -> None:
        for _ in score_texts(head, texts, few):
            pass

    pairs = bench.seconds * 32 * 32 / seconds_of(probe, bench.device)
    num_videos = min(size[1], max(1, int(pairs / ENCODED_AT_ONCE)))
    return min(size[0], max(ENCODED_AT_ONCE, int(pairs / num_videos))), num_videos


def bench_scoring(head: Head, label: str, size: tuple[int, int], bench: Bench) -> None:
    """Scores of one gallery: encoding, scoring, peak."""
    codes: list[Code] = []
    encoding = seconds_of(
        lambda: codes.append(encode_videos(head, size[1], bench.videos)), bench.device
    )
    num_texts, num_videos = affordable(head, codes[0], bench, size)
    videos = tuple(part[:num_videos] for part in codes[0])

    def run(count: int) -> None:
        for texts in encode_texts(head, count, bench.texts):
            for _ in score_texts(head, texts, videos):
                pass

    taken = seconds_of(lambda: run(num_texts), bench.device)
    bound = None
    if head.info.together:
        (some,) = encode_texts(head, ENCODED_AT_ONCE, bench.texts)
        with torch.no_grad():
            bound = seconds_of(lambda: head.bind_best(some, codes[0], RERANKED), bench.device)
    peak = peak_of(lambda: run(min(num_texts, ENCODED_AT_ONCE)), bench.device)
    emit(
        "scoring",
        head=label,
        texts=size[0],
        videos=size[1],
        encode_videos_seconds=encoding,
        bind_seconds=None if bound is None else bound * size[0] / ENCODED_AT_ONCE,
        score_seconds=taken * size[0] * size[1] / (num_texts * num_videos),
        extrapolated_from=None if (num_texts, num_videos) == size else [num_texts, num_videos],
        code_mib=mebibytes(sum(part.numel() * part.element_size() for part in codes[0])),
        peak_mib=mebibytes(peak),
    )


def mebibytes(count: int | None) -> float | None:
    return None if count is None else count / 2**20


def describe(bench: Bench) -> None:
    """Says what is measured, on what."""
    on_gpu = bench.device.type == "cuda"
    emit(
        "machine",
        device=torch.cuda.get_device_name(bench.device) if on_gpu else "cpu",
        torch=torch.__version__,
        torch_threads=torch.get_num_threads(),
        rounds=bench.rounds,
    )
    for label, head in bench.heads.items():
        emit(
            "head",
            head=label,
            parameters=sum(parameter.numel() for parameter in head.parameters()),
            indexable=head.info.indexable,
            cost=head.info.cost,
        )


def parse(arguments: Sequence[str] | None) -> Bench:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--heads", default=",".join(head_names()), help="separated by commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="for one head and one size")
    parser.add_argument("--quick", action="store_true", help="1 round, 1 second")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    choices = [parse_head(word) for word in args.heads.split(",")]
    return Bench(
        {c.label: build_head(c, dim=DIM, clip=None, seed=0).to(device) for c in choices},
        device,
        rounds=1 if args.quick else args.rounds,
        seconds=1 if args.quick else args.seconds,
        texts=random_texts(POOL, device),
        videos=random_videos(POOL, device),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    bench = parse(arguments)
    describe(bench)
    measurements: dict[str, Callable[[], Any]] = {"training": lambda: bench_training(bench)}
    for label, head in bench.heads.items():
        measurements[label] = lambda label=label, head=head: [
            bench_scoring(head, label, size, bench) for size in SIZES
        ]
    for name, action in measurements.items():
        others = Others()
        action()
        emit("others", during=name, cpu_share=others.share())


if __name__ == "__main__":
    sys.exit(main())
