"""`vtr train --dry-run`: what a training would take, from a few steps on made-up captions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vtr.commands.console import human_bytes, human_seconds

if TYPE_CHECKING:
    from vtr.commands.train import Job
    from vtr.train.model import RetrievalModel
    from vtr.train.texts import TextFeatures

_TIMED_STEPS = 3
_TIMED_CAPTIONS = 32


def estimate(job: Job) -> dict[str, Any]:
    """Returns parameters, memory, steps and time.

    The time is that of a few real steps on this machine, with random captions of the real sizes,
    times their number; embedding the captions is estimated from a few real ones.
    """
    import torch

    from vtr.train.batches import BatchPlan
    from vtr.train.data import PairedData, Resident
    from vtr.train.gradients import BatchGradient
    from vtr.train.loop import make_optimiser
    from vtr.train.model import build_model, count_parameters

    material, settings = job.material, job.settings
    model = build_model(job.spec, backbone=job.backbone, seed=settings.seed).to(job.device)
    texts = _made_up(job)
    owner = material.train.query_video
    pad = material.store.pad_embedding if job.spec.choice.info.needs_pad else None
    data = Resident(PairedData(texts, material.frames, owner, pad), torch.device(job.device))
    plan = BatchPlan(owner, settings.batch, seed=settings.seed)
    gradient = BatchGradient(model, data, settings.loss, chunk=settings.chunk)
    optimiser, _ = make_optimiser(model, settings)
    model.train()
    seconds = []
    for step in plan.epoch(1)[:_TIMED_STEPS]:
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        gradient(step)
        optimiser.step()
        model.logit_scale.item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    total, trained = count_parameters(model)
    return {
        "head": job.spec.head,
        "text": job.spec.text.mode,
        "parameters": f"{total:,}",
        "trained": f"{trained:,}",
        "teacher": job.teaching.run.name + ", not in the times" if job.teaching else "none",
        "training videos": f"{len(material.train.video_ids):,}",
        "training captions": f"{len(material.train.texts):,}",
        "validation": material.selection,
        "skipped videos": f"{len(material.skipped.videos):,}",
        "steps per epoch": f"{plan.num_steps:,} of {plan.size} {settings.batch.mode}",
        "epochs at most": f"{settings.epochs:,}",
        "data in memory": human_bytes(_data_bytes(job, texts)),
        "weights, gradients, states": human_bytes(_model_bytes(model)),
        "peak memory": _peak(job.device),
        "time per step": human_seconds(min(seconds)),
        "time per epoch": human_seconds(min(seconds) * plan.num_steps),
        "time in all, at most": human_seconds(min(seconds) * plan.num_steps * settings.epochs),
        "time to embed captions": human_seconds(_embedding_seconds(job)),
        "device": job.device,
    }


def _made_up(job: Job) -> TextFeatures:
    """Random captions of the real sizes."""
    import numpy as np

    from vtr.train.texts import TextFeatures

    rng = np.random.default_rng(0)
    train, spec = job.material.train, job.spec
    pooled = rng.standard_normal((len(train.texts), spec.text.text_dim), dtype=np.float32)
    width = spec.text.width if spec.text.mode == "tune" else spec.text.text_dim
    if spec.text.mode != "tune" and not spec.choice.info.needs_tokens:
        return TextFeatures(train.text_ids, pooled)
    lengths = [len(row) for row in job.backbone.tokeniser.encode(train.texts).ids]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = rng.standard_normal((int(offsets[-1]), width), dtype=np.float32).astype(np.float16)
    return TextFeatures(train.text_ids, pooled, 0, tokens, offsets)


def _embedding_seconds(job: Job) -> float:
    texts = job.material.train.texts
    some = texts[:: max(1, len(texts) // _TIMED_CAPTIONS)][:_TIMED_CAPTIONS]
    start = time.perf_counter()
    job.backbone.encode_texts(some)
    return (time.perf_counter() - start) * len(texts) / len(some)


def _data_bytes(job: Job, texts: TextFeatures) -> int:
    tokens = 0 if texts.tokens is None else texts.tokens.nbytes
    return int(job.material.frames.frames.nbytes + texts.pooled.nbytes + tokens)


def _model_bytes(model: RetrievalModel) -> int:
    """Weights once, and gradients and two optimiser states of what is trained."""
    return sum(
        p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in model.parameters()
    )


def _peak(device: str) -> str:
    """Largest memory of this process so far, or of the GPU."""
    import resource
    import sys

    import torch

    if device.startswith("cuda"):
        return f"{human_bytes(torch.cuda.max_memory_allocated())} of the GPU"
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{human_bytes(kilobytes * unit)} of the process"
