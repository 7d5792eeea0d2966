"""One batch: forward, loss, backward; in parts where asked, over several processes where there are.

A contrastive loss needs the whole batch at once, but only its codes, which are small. A large batch
is therefore encoded in parts without gradients, the loss is differentiated with respect to the
codes, and the parts are encoded again to carry that gradient on (GradCache, Gao et al. 2021,
arXiv:2101.06983). What dropout draws for an item follows from the item (`RowDropout`): however a
batch is cut, gradients are the whole's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vtr.train.ahead import Ahead
from vtr.train.batches import Step
from vtr.train.data import Index, Resident, ResidentVideos, chosen_rows
from vtr.train.distributed import ALONE, World
from vtr.train.dropout import RowDropout, keyed
from vtr.train.heads.base import Code, Head, pad_codes, select_code
from vtr.train.losses import Loss, best_bias, right_pairs, weighted_loss
from vtr.train.memory import fits
from vtr.train.model import RetrievalModel
from vtr.train.presets import LossOptions
from vtr.train.scoring import evaluating
from vtr.train.teacher import Teacher, encode_student, split_student
from vtr.train.text_tower import FrozenText

Encode = Callable[[Index], Code]
_AT_ONCE = 1024


@dataclass(frozen=True)
class BatchGradient:
    """Computes the gradients of batches."""

    model: RetrievalModel  # Its parameters' `grad` is added to
    data: Resident  # Training data
    options: LossOptions  # Of the loss
    chunk: int = 0  # Texts and videos encoded at once; 0 is all
    vision_chunk: int = 0  # The same of videos whose vision tower is trained
    world: World = ALONE  # The processes that share each batch
    # Whose ranking the model learns as well; every process asks it about whole batches.
    teacher: Teacher | None = None

    def __call__(self, step: Step, following: Step | None = None) -> Loss:
        """Returns the loss of a batch, with the gradients in place; prepares the following one."""
        if self.world.size == 1 and not self._is_large(step):
            texts, videos = self.fixed.rows(step, following)
            if texts is None:
                texts = self._encode_texts(step.texts)
            if videos is None:
                videos = self._encode_videos(step.videos)
            loss = self.loss(texts, videos, step)
            loss.total.backward()  # type: ignore[no-untyped-call]
            return loss
        return self._in_parts(step)

    def loss(self, texts: Code, videos: Code, step: Step) -> Loss:
        """Returns the loss of codes; with a teacher the videos' are those of `encode_student`."""
        head = self.model.head
        weighed: Code = ()
        if self.teacher is not None:
            videos, weighed = split_student(head, videos)
        terms = self.model.training_logits(texts, videos)
        loss = self._contrastive(texts, videos, terms, step)
        if self.teacher is None:
            return loss
        scores = terms[0][1]
        if len(terms) > 1:  # a head that trains on several matrices is still judged by one
            scores = self.model.scale() * head.score(head.bind_best(texts, videos), videos)
        total = self.teacher.loss(loss.total, scores, weighed, step, self.data)
        return Loss(total, loss.t2v, loss.v2t)

    @torch.no_grad()
    def start_bias(self, step: Step) -> None:
        """Sets the bias of the model's logits to the best one for a batch.

        SigLIP starts at -10, which fits a scale of 10 and untrained towers. Scores of a head on
        trained towers lie elsewhere, and at a head's rate a bias would not get there.
        """
        assert self.model.logit_bias is not None
        self.model.logit_bias.zero_()
        with evaluating(self.model):
            texts = [
                self.model.encode_texts(self.data.texts.batch(part))
                for part in _cut(step.texts, self.chunk)
            ]
            videos = [
                self.model.encode_videos(self.data.videos.batch(part))
                for part in _cut(step.videos, self._of_videos)
            ]
            terms = self.model.training_logits(pad_codes(texts), pad_codes(videos))
        right = self._right(step, self.model.logit_bias.device)
        best = float(best_bias(terms, right, self.options))
        self.model.logit_bias.fill_(self.world.share([best])[0])

    def _right(self, step: Step, device: torch.device) -> Tensor:
        owner = torch.from_numpy(step.videos).to(device)
        columns = torch.from_numpy(step.columns).to(device)
        return right_pairs(owner[columns], owner, reference=self.options.reference)

    def _contrastive(
        self, texts: Code, videos: Code, terms: Sequence[tuple[float, Tensor]], step: Step
    ) -> Loss:
        loss = weighted_loss(terms, self._right(step, texts[0].device), self.options)
        head = self.model.head
        if type(head).regulariser is not Head.regulariser:
            columns = torch.from_numpy(step.columns).to(texts[0].device)
            extra = head.regulariser(texts, select_code(videos, columns))
            if extra is not None:
                return Loss(loss.total + extra, loss.t2v, loss.v2t)
        return loss

    @cached_property
    def _dropouts(self) -> list[RowDropout]:
        return [m for m in self.model.modules() if isinstance(m, RowDropout) and m.p]

    def _encode_texts(
        self, index: Index, width: int | None = None, place: Index | None = None
    ) -> Code:
        if self.texts is not None:
            return tuple(chosen_rows(part, index) for part in self.texts)
        with self._keyed(index, place, side=0):
            return self.model.encode_texts(self.data.texts.batch(index, width))

    def _keyed(
        self, index: Index, place: Index | None, *, side: int
    ) -> AbstractContextManager[None]:
        where = np.arange(len(index)) if place is None else place
        return keyed(self._dropouts, index, where, side=side, device=self.data.device)

    @cached_property
    def fixed(self) -> Ahead:
        """Rows of the codes that training does not change."""
        return Ahead(self.texts, self.videos)

    @cached_property
    def texts(self) -> Code | None:
        """Codes of all captions; None where training changes them or they are many vectors."""
        if not isinstance(self.model.text_tower, FrozenText):
            return None
        texts = self.data.texts
        return self._fixed(len(texts), lambda part: self.model.encode_texts(texts.batch(part)))

    @cached_property
    def videos(self) -> Code | None:
        """Codes of all videos, the same way."""
        videos = self.data.videos
        if self.teacher is not None or not isinstance(videos, ResidentVideos):
            return None
        return self._fixed(len(videos), lambda part: self.model.encode_videos(videos.batch(part)))

    @torch.no_grad()
    def _fixed(self, count: int, encode: Encode) -> Code | None:
        """Encodes all items once: to the bit what a batch would have given."""
        if next(self.model.head.parameters(), None) is not None:
            return None
        first = encode(np.arange(1))
        needed = sum(count * part[0].numel() * part.element_size() for part in first)
        if any(part.ndim != 2 for part in first) or not fits(needed, self.data.device):
            return None
        starts = range(0, count, _AT_ONCE)
        parts = [encode(np.arange(i, min(i + _AT_ONCE, count))) for i in starts]
        return tuple(torch.cat(one) for one in zip(*parts, strict=True))

    def _encode_videos(
        self, index: Index, width: int | None = None, place: Index | None = None
    ) -> Code:
        if self.videos is not None:
            return tuple(chosen_rows(part, index) for part in self.videos)
        batch = self.model.embed_videos(self.data.videos.batch(index, width))
        with self._keyed(index, place, side=1):
            if self.teacher is None:
                return self.model.encode_videos(batch)
            return encode_student(self.model.head, batch)

    def _is_large(self, step: Step) -> bool:
        return _exceeds(len(step.texts), self.chunk) or _exceeds(len(step.videos), self._of_videos)

    @property
    def _of_videos(self) -> int:
        return self.chunk if self.model.vision is None else self.vision_chunk

    def _in_parts(self, step: Step) -> Loss:
        shares = np.array_split(np.arange(len(step.videos)), self.world.size)
        mine = shares[self.world.rank]
        bounds = [int(share[0]) for share in shares] + [len(step.videos)]
        text_bounds = np.searchsorted(step.columns, bounds)  # columns ascend
        first, last = text_bounds[self.world.rank], text_bounds[self.world.rank + 1]
        width, length = self.data.texts.width(step.texts), self.data.videos.width(step.videos)
        sides = (
            _Side(
                lambda place: self._encode_texts(step.texts[place], width, place),
                np.arange(first, last),
                np.diff(text_bounds).tolist(),
                self.chunk,
            ),
            _Side(
                lambda place: self._encode_videos(step.videos[place], length, place),
                mine,
                [len(share) for share in shares],
                self._of_videos,
            ),
        )
        encoded = [self._encode(side) for side in sides]
        whole = [
            _leaves(self.world.gather_code(code, side.sizes))
            for code, side in zip(encoded, sides, strict=True)
        ]
        loss = self.loss(whole[0], whole[1], step)
        (loss.total / self.world.size).backward()  # type: ignore[no-untyped-call]
        for code, side, leaves in zip(encoded, sides, whole, strict=True):
            self._carry_back(code, side, leaves)
        self.world.add_gradients(self.model)
        return loss

    def _encode(self, side: _Side) -> Code:
        """Encodes this process's share in parts; with the graph where one part is all."""
        if len(side.parts) == 1:
            return side.encode(side.mine)
        with torch.no_grad():
            return pad_codes([side.encode(part) for part in side.parts])

    def _carry_back(self, code: Code, side: _Side, leaves: Code) -> None:
        """Continues the backward pass from the codes' gradients into the encoders."""
        start = sum(side.sizes[: self.world.rank])
        gradients = [
            None if grad is None else self.world.add(grad)[start : start + len(side.mine)]
            for grad in (leaf.grad for leaf in leaves)
        ]
        if len(side.parts) == 1:
            _backward(code, gradients)
            return
        done = 0
        for part in side.parts:
            rows = slice(done, done + len(part))
            _backward(side.encode(part), [None if g is None else g[rows] for g in gradients])
            done += len(part)


@dataclass(frozen=True)
class _Side:
    """Texts or videos of one batch: how to encode those at some places, this process's places."""

    encode: Encode
    mine: Index
    sizes: list[int]
    chunk: int

    @property
    def parts(self) -> list[Index]:
        return _cut(self.mine, self.chunk)


def _exceeds(count: int, chunk: int) -> bool:
    return bool(chunk) and count > chunk


def _cut(index: Index, chunk: int) -> list[Index]:
    if not _exceeds(len(index), chunk):
        return [index]
    return [index[i : i + chunk] for i in range(0, len(index), chunk)]


def _leaves(code: Code) -> Code:
    return tuple(
        part.detach().requires_grad_(True) if part.is_floating_point() else part for part in code
    )


def _backward(code: Code, gradients: Sequence[Tensor | None]) -> None:
    pairs = [
        (part, gradient)
        for part, gradient in zip(code, gradients, strict=True)
        if gradient is not None and part.requires_grad
    ]
    if pairs:
        torch.autograd.backward([part for part, _ in pairs], [gradient for _, gradient in pairs])
