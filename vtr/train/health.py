"""Finding where a number first went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vtr.train.batches import Step
from vtr.train.data import Resident
from vtr.train.heads.base import VideoBatch
from vtr.train.model import RetrievalModel


def first_non_finite(model: RetrievalModel, data: Resident, step: Step) -> str:
    """Returns the name of the first tensor of a batch that is not finite, in order of computation.

    Inputs first, then weights, then what each module makes of them, then the scores; where all of
    these are finite, the gradients.
    """
    for name, tensor in _inputs(data, step):
        if not _finite(tensor):
            return name
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"weight {name}"
    activation = _first_activation(model, data, step)
    if activation is not None:
        return activation
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"gradient of {name}"
    return "the loss"


def _inputs(data: Resident, step: Step) -> Iterator[tuple[str, Tensor]]:
    videos, texts = data.videos.batch(step.videos), data.texts.batch(step.texts)
    if isinstance(videos, VideoBatch):  # pictures are whole numbers
        for row, place in enumerate(step.videos.tolist()):
            frames = videos.frames[row][videos.mask[row]]
            yield f"features of video {data.videos.ids[place]!r}", frames
    for row, place in enumerate(step.texts.tolist()):
        yield f"features of caption {data.texts.ids[place]!r}", texts.pooled[row]
        if texts.tokens is not None and texts.token_mask is not None:
            tokens = texts.tokens[row][texts.token_mask[row]]
            yield f"token features of caption {data.texts.ids[place]!r}", tokens


def _first_activation(model: RetrievalModel, data: Resident, step: Step) -> str | None:
    faulty: list[str] = []
    hooks = [
        module.register_forward_hook(
            lambda *call, name=name: _note(f"output of {name}", call[-1], faulty)
        )
        for name, module in model.named_modules()
        if name and not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            texts = model.encode_texts(data.texts.batch(step.texts))
            _note("the texts' codes", texts, faulty)
            videos = model.encode_videos(data.videos.batch(step.videos))
            _note("the videos' codes", videos, faulty)
            _note("the scores", [t for _, t in model.training_logits(texts, videos)], faulty)
    finally:
        for hook in hooks:
            hook.remove()
    return faulty[0] if faulty else None


def _note(name: str, output: Any, faulty: list[str]) -> None:
    tensors = output if isinstance(output, tuple | list) else [output]
    for tensor in tensors:
        if isinstance(tensor, Tensor) and not faulty and not _finite(tensor):
            faulty.append(name)


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
