"""`vtr train --dry-run`: what a training would take, from a few steps on made-up captions."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from vtr.commands.presets import flag, resolved_values
from vtr.counts import human_bytes, human_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vtr.api.training_job import Job
    from vtr.train.batches import BatchPlan
    from vtr.train.data import Resident
    from vtr.train.model import RetrievalModel
    from vtr.train.texts import TextFeatures

_TIMED_STEPS = 5
_TIMED_CAPTIONS = 32


def estimate(job: Job, *, seeds: int = 1) -> dict[str, Any]:
    """Returns parameters, memory, steps and time, as plain numbers; `described` words them.

    The time is that of a few real steps on this machine, with random captions of the real sizes,
    times their number; embedding the captions is estimated from a few real ones, and so is a
    validation with a costly head.
    """
    import torch

    from vtr.train.batches import BatchPlan
    from vtr.train.data import PairedData, Resident
    from vtr.train.model import build_model, count_parameters
    from vtr.train.presets import DEFAULT_PRESET

    material, settings = job.material, job.settings
    model = build_model(job.spec, backbone=job.backbone, seed=settings.seed).to(job.device)
    texts = _made_up(job, material.train.texts)
    owner = material.train.query_video
    data = Resident(PairedData(texts, material.frames, owner, _pad(job)), torch.device(job.device))
    plan = BatchPlan(owner, settings.batch, seed=settings.seed)
    step = _step_seconds(job, model, data, plan)
    validation = _validation_seconds(job, model)
    epochs = seeds * settings.epochs
    total, trained = count_parameters(model)
    return {
        "head": job.spec.head,
        "text": job.spec.text.mode,
        "parameters": total,
        "trained": trained,
        "teacher": None if job.teaching is None else job.teaching.run.name,
        "train_videos": len(material.train.video_ids),
        "train_captions": len(material.train.texts),
        "selection": material.selection,
        "skipped_videos": len(material.skipped.videos),
        "steps_per_epoch": plan.num_steps,
        "batch_size": plan.size,
        "batches": settings.batch.mode,
        "epochs_at_most": settings.epochs,
        "seeds": seeds,
        "data_bytes": _data_bytes(job, texts),
        "model_bytes": _model_bytes(model),
        "peak_bytes": _peak_bytes(job.device),
        "seconds_per_step": step,
        "seconds_per_epoch": step * plan.num_steps + validation,
        "seconds_in_all_at_most": (step * plan.num_steps + validation) * epochs
        + seeds * validation,
        "seconds_to_embed": _embedding_seconds(job),
        "device": job.device,
        "preset": job.request.preset or DEFAULT_PRESET,
        "settings": resolved_values(job),
        "given": sorted(job.request.as_dict()),
    }


def described(plan: Mapping[str, Any]) -> dict[str, str]:
    """Returns what `estimate` found in words, for people."""
    whose = "of the GPU" if str(plan["device"]).startswith("cuda") else "of the process"
    step = plan["seconds_per_step"]
    return {
        "head": plan["head"],
        "text": plan["text"],
        "parameters": f"{plan['parameters']:,}",
        "trained": f"{plan['trained']:,}",
        "teacher": f"{plan['teacher']}, not in the times" if plan["teacher"] else "none",
        "training videos": f"{plan['train_videos']:,}",
        "training captions": f"{plan['train_captions']:,}",
        "validation": plan["selection"],
        "skipped videos": f"{plan['skipped_videos']:,}",
        "steps per epoch": f"{plan['steps_per_epoch']:,} of {plan['batch_size']} {plan['batches']}",
        "epochs at most": f"{plan['epochs_at_most']:,}",
        "seeds": f"{plan['seeds']:,}",
        "data in memory": human_bytes(plan["data_bytes"]),
        "weights, gradients, states": human_bytes(plan["model_bytes"]),
        "peak memory": f"{human_bytes(plan['peak_bytes'])} {whose}",
        "time per step": human_seconds(step) if step >= 1 else f"{1000 * step:.3g} ms",
        "time per epoch": human_seconds(plan["seconds_per_epoch"]),
        "time in all, at most": human_seconds(plan["seconds_in_all_at_most"]),
        "time to embed captions": human_seconds(plan["seconds_to_embed"]),
        "device": plan["device"],
        "preset": plan["preset"],
        **{
            f"  {flag(option)}": f"{value}{' (given)' if option in plan['given'] else ''}"
            for option, value in plan["settings"].items()
        },
    }


def _step_seconds(job: Job, model: RetrievalModel, data: Resident, plan: BatchPlan) -> float:
    """Median of a few steps; the first one, which sets everything up, is left out if it can be."""
    from vtr.train.gradients import BatchGradient
    from vtr.train.loop import make_optimiser

    gradient = BatchGradient(model, data, job.settings.loss, chunk=job.settings.chunk)
    optimiser, _ = make_optimiser(model, job.settings)
    model.train()
    seconds = []
    for step in (plan.epoch(1) + plan.epoch(2))[:_TIMED_STEPS]:
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        gradient(step)
        optimiser.step()
        model.logit_scale.item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:] or seconds)


def _validation_seconds(job: Job, model: RetrievalModel) -> float:
    """Of one validation: that of a head whose pairs cost more than an inner product, else 0."""
    from vtr.train.scoring import Scorer

    task, frames = job.material.task, job.material.val_frames
    if task is None or frames is None:
        return 0.0
    scorer = Scorer(model, _made_up(job, task.texts), frames, pad=_pad(job))
    return scorer.expected_seconds()


def _pad(job: Job) -> NDArray[np.float32] | None:
    return job.material.store.pad_embedding if job.spec.choice.info.needs_pad else None


def _made_up(job: Job, captions: Sequence[str]) -> TextFeatures:
    """Random features in the sizes of some captions."""
    import numpy as np

    from vtr.train.texts import TextFeatures

    rng = np.random.default_rng(0)
    spec, ids = job.spec, tuple(map(str, range(len(captions))))
    pooled = rng.standard_normal((len(captions), spec.text.text_dim), dtype=np.float32)
    width = spec.text.width if spec.text.mode == "tune" else spec.text.text_dim
    if spec.text.mode != "tune" and not spec.choice.info.needs_tokens:
        return TextFeatures(ids, pooled)
    lengths = [len(row) for row in job.backbone.tokeniser.encode(captions).ids]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = rng.standard_normal((int(offsets[-1]), width), dtype=np.float32).astype(np.float16)
    return TextFeatures(ids, pooled, 0, tokens, offsets)


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


def _peak_bytes(device: str) -> int:
    """Largest memory of this process so far, or of the GPU."""
    import resource
    import sys

    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kilobytes * (1 if sys.platform == "darwin" else 1024))
