"""`vtr train --dry-run`: what a training would take, from a few steps on made-up captions."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vtr.api.train_inputs import Reader
from vtr.clip.backbone import Backbone
from vtr.counts import counted, human_bytes, human_seconds
from vtr.train.batches import BatchPlan
from vtr.train.data import PairedData, Resident
from vtr.train.gradients import BatchGradient
from vtr.train.memory import SHARE, fits, free_bytes, saved_bytes
from vtr.train.model import ModelSpec, RetrievalModel, build_model, count_parameters
from vtr.train.optim import make_optimiser
from vtr.train.presets import LAST_BATCH, TrainSettings
from vtr.train.scoring import Scorer
from vtr.train.texts import TextFeatures
from vtr.train.vision_tower import PictureBatch

_TIMED_STEPS = 5
_TIMED_CAPTIONS = 32
_TIMED_VIDEOS = (4, 32)
"""With a trained vision tower, on a CPU and on a GPU."""


def estimate(reader: Reader, settings: TrainSettings) -> dict[str, Any]:
    """Returns parameters, memory, steps and time of one training.

    The time is that of a few real steps on this machine, with random captions of the real sizes,
    times their number; embedding the captions is estimated from a few real ones, and so is a
    validation with a costly head. Where the vision tower is trained, a few videos stand for all.
    """
    data, spec, backbone = reader.data, reader.spec, reader.backbone
    device = backbone.device
    model = build_model(spec, backbone=backbone, seed=settings.seed).to(device)
    model.compute(short=settings.short, checkpointing=settings.checkpointing)
    texts = _made_up(data.train.texts, spec, backbone)
    plan = BatchPlan(data.train.query_video, settings.batch, seed=settings.seed)
    if spec.vision is not None:
        return _with_tower(reader, model, settings, texts, plan)
    pairs = PairedData(texts, data.frames, data.train.query_video, data.pad(spec))
    step = _step_seconds(model, Resident(pairs, device), settings, plan)
    validation = 0.0  # but for a head whose pairs cost more than an inner product
    if data.task is not None and data.val_frames is not None:
        captions = _made_up(data.task.texts, spec, backbone)
        validation = Scorer(model, captions, data.val_frames, pad=pairs.pad).expected_seconds()
    total, trained = count_parameters(model)
    return {
        "parameters": total,
        "trained": trained,
        "steps_per_epoch": plan.num_steps,
        "batch_size": plan.size,
        "data_bytes": _num_bytes(data.frames.frames, texts.pooled, texts.tokens),
        "model_bytes": _model_bytes(model),
        "peak_bytes": _peak_bytes(device),
        "seconds_per_step": step,
        "seconds_per_epoch": step * plan.num_steps + validation,
        "seconds_to_validate": validation,
        "seconds_to_embed": _embedding_seconds(backbone, data.train.texts),
    }


def _with_tower(
    reader: Reader,
    model: RetrievalModel,
    settings: TrainSettings,
    texts: TextFeatures,
    plan: BatchPlan,
) -> dict[str, Any]:
    """The same where the vision tower is trained: a step of a few videos, and what it keeps."""
    data, spec, device = reader.data, reader.spec, reader.backbone.device
    owner = data.train.query_video
    few = np.unique(owner)[: _TIMED_VIDEOS[device.type == "cuda"]]
    start = time.perf_counter()
    rows = reader.videos([data.train.video_ids[v] for v in few], data.frames)
    reading = (time.perf_counter() - start) / len(few)
    chosen = np.isin(owner, few)
    place = np.searchsorted(few, owner[chosen])
    pairs = PairedData(_some(texts, chosen), rows, place, data.pad(spec))
    resident = Resident(pairs, device)
    small = BatchPlan(place, replace(settings.batch, size=len(few), drop_last=False))
    share = plan.size / len(small.epoch(1)[0].videos)
    step = _step_seconds(model, resident, settings, small) * share
    batch = resident.videos.batch(np.arange(len(few)))
    assert isinstance(batch, PictureBatch)
    each = saved_bytes(model.train(), batch) / len(few)
    room = max(1, int(SHARE * free_bytes(device) / max(each, 1)))
    asked = settings.vision_chunk
    chunk = min(plan.size, room if asked is None else asked or plan.size)
    total, trained = count_parameters(model)
    in_memory = len(data.frames.frames) * batch.rows[0].nbytes
    if not fits(in_memory, torch.device("cpu")):
        in_memory = 0  # read batch by batch
    forward = step / share / len(few) / 3  # of the three passes that a step makes
    validation = 0.0 if data.val_frames is None else forward * len(data.val_frames.ids)
    return {
        "parameters": total,
        "trained": trained,
        "steps_per_epoch": plan.num_steps,
        "batch_size": plan.size,
        "vision_chunk": chunk,
        "data_bytes": in_memory + _num_bytes(texts.pooled, texts.tokens),
        "model_bytes": _model_bytes(model),
        "peak_bytes": int(_peak_bytes(device) + each * max(0, chunk - len(few))),
        "seconds_per_step": step,
        "seconds_per_epoch": step * plan.num_steps + validation,
        "seconds_to_validate": validation,
        "seconds_to_embed": _embedding_seconds(reader.backbone, data.train.texts)
        + reading * len(data.frames.ids),
    }


def described(document: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a dry run found in words, for people."""
    whose = "of the GPU" if str(document["device"]).startswith("cuda") else "of the process"
    step = document["seconds_per_step"]
    batch = f"{document['batch_size']} {document['batches']}"
    words = {
        "head": document["head"],
        "text": document["text"],
        "parameters": f"{document['parameters']:,}",
        "trained": f"{document['trained']:,}",
        "teacher": f"{document['teacher']}, not in the times" if document["teacher"] else "none",
        "training videos": f"{document['train_videos']:,}",
        "training captions": f"{document['train_captions']:,}",
        "validation": document["selection"],
        "skipped videos": f"{document['skipped_videos']:,}",
        "steps per epoch": f"{document['steps_per_epoch']:,} of {batch}",
        "epochs at most": f"{document['epochs_at_most']:,}",
        "seeds": f"{document['seeds']:,}",
        "data in memory": human_bytes(document["data_bytes"]),
        "weights, gradients, states": human_bytes(document["model_bytes"]),
        "peak memory": f"{human_bytes(document['peak_bytes'])} {whose}",
        "time per step": human_seconds(step) if step >= 1 else f"{1000 * step:.3g} ms",
        "time per epoch": human_seconds(document["seconds_per_epoch"]),
        "time of the head alone": human_seconds(document["seconds_head_first_at_most"]),
        "time in all, at most": human_seconds(document["seconds_in_all_at_most"]),
        "time to embed captions": human_seconds(document["seconds_to_embed"]),
        "vision tower": document["vision"]
        + (
            f", {counted(document['vision_chunk'], 'video')} at once"
            if "vision_chunk" in document
            else ""
        ),
        "device": document["device"],
        "preset": document["preset"],
    }
    for option, value in document["settings"].items():
        flag = option if option == LAST_BATCH else f"--{option.replace('_', '-')}"
        shown = f"{value:g}" if isinstance(value, float) else value
        words[f"  {flag}"] = f"{shown}{' (given)' if option in document['given'] else ''}"
    return words


def _step_seconds(
    model: RetrievalModel, data: Resident, settings: TrainSettings, plan: BatchPlan
) -> float:
    """Median of a few steps; the first one, which sets everything up, is left out if it can be."""
    gradient = BatchGradient(model, data, settings.loss, chunk=settings.chunk)
    optimiser, _ = make_optimiser(model, settings)
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


def _made_up(captions: Sequence[str], spec: ModelSpec, backbone: Backbone) -> TextFeatures:
    """Random features in the sizes of some captions."""
    rng = np.random.default_rng(0)
    ids = tuple(map(str, range(len(captions))))
    pooled = rng.standard_normal((len(captions), spec.text.text_dim), dtype=np.float32)
    width = spec.text.width if spec.text.mode == "tune" else spec.text.text_dim
    width = 1 if spec.text.vocabulary else width  # ids
    if spec.text.mode != "tune" and not spec.choice.info.needs_tokens:
        return TextFeatures(ids, pooled)
    lengths = [len(row) for row in backbone.tokeniser.encode(captions).ids]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = rng.standard_normal((int(offsets[-1]), width), dtype=np.float32).astype(np.float16)
    tokens = np.zeros_like(tokens) if spec.text.vocabulary else tokens
    return TextFeatures(ids, pooled, 0, tokens, offsets)


def _some(texts: TextFeatures, chosen: NDArray[np.bool_]) -> TextFeatures:
    """Returns the chosen captions."""
    ids = tuple(np.array(texts.ids)[chosen].tolist())
    if texts.tokens is None or texts.token_offsets is None:
        return TextFeatures(ids, texts.pooled[chosen])
    lengths = np.diff(texts.token_offsets)
    tokens = texts.tokens[np.repeat(chosen, lengths)]
    offsets = np.concatenate(([0], lengths[chosen].cumsum())).astype(np.int64)
    return TextFeatures(ids, texts.pooled[chosen], 0, tokens, offsets)


def _embedding_seconds(backbone: Backbone, texts: Sequence[str]) -> float:
    some = texts[:: max(1, len(texts) // _TIMED_CAPTIONS)][:_TIMED_CAPTIONS]
    start = time.perf_counter()
    backbone.encode_texts(some)
    return (time.perf_counter() - start) * len(texts) / len(some)


def _num_bytes(*arrays: np.ndarray | None) -> int:
    return sum(array.nbytes for array in arrays if array is not None)


def _model_bytes(model: RetrievalModel) -> int:
    """Weights once, and gradients and two optimiser states of what is trained."""
    return sum(
        p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in model.parameters()
    )


def _peak_bytes(device: torch.device) -> int:
    """Largest memory of this process so far, or of the GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kilobytes * (1 if sys.platform == "darwin" else 1024))


def event_line(event: Mapping[str, Any]) -> str:
    """Returns what happened on the way as a sentence.

    >>> event_line({"event": "batch larger than the data", "asked": 128, "used": 11})
    'a batch of 128 is larger than the data; each step took all 11'
    """
    if event["event"] == "batch larger than the data":
        return (
            f"a batch of {event['asked']:,} is larger than the data; each step took all "
            f"{event['used']:,}"
        )
    if event["event"] == "out of memory: batch halved":
        return (
            f"memory did not hold the batch in epoch {event['epoch']:,}; from there on it was "
            f"{event['batch_size']:,}"
        )
    if event["event"] == "vision chunk":
        return f"memory holds {counted(event['videos'], 'video')} at once; gradients are the same"
    if event["event"] == "out of memory: vision chunk halved":
        return (
            f"memory did not hold the pictures in epoch {event['epoch']:,}; from there on "
            f"{counted(event['vision_chunk'], 'video was', 'videos were')} encoded at once"
        )
    return ", ".join(f"{key} {value}" for key, value in event.items())
