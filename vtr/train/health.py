"""Finding where a number first went wrong."""

from __future__ import annotations

import itertools
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
    parameters = list(model.named_parameters())
    in_order = itertools.chain(
        _inputs(data, step),
        ((f"weight {name}", parameter) for name, parameter in parameters),
        _first_activation(model, data, step),
        ((f"gradient of {name}", one.grad) for name, one in parameters if one.grad is not None),
    )
    return next((name for name, tensor in in_order if not tensor.isfinite().all()), "the loss")


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


def _first_activation(
    model: RetrievalModel, data: Resident, step: Step
) -> Iterator[tuple[str, Tensor]]:
    """Yields the first output of a module or the first code that is not finite, if there is one."""
    faulty: list[tuple[str, Tensor]] = []

    def note(name: str, output: Any) -> None:
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, Tensor) and not faulty and not tensor.isfinite().all():
                faulty.append((name, tensor))

    hooks = [
        module.register_forward_hook(lambda *call, name=name: note(f"output of {name}", call[-1]))
        for name, module in model.named_modules()
        if name and not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            texts = model.encode_texts(data.texts.batch(step.texts))
            note("the texts' codes", texts)
            videos = model.encode_videos(data.videos.batch(step.videos))
            note("the videos' codes", videos)
            note("the scores", [t for _, t in model.training_logits(texts, videos)])
    finally:
        for hook in hooks:
            hook.remove()
    yield from faulty
