"""Rows of codes that training does not change, fetched for the next step while one is computed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from vtr.arithmetic import usable_cores
from vtr.train.batches import Step
from vtr.train.data import chosen_rows
from vtr.train.heads.base import Code

Sides = Sequence[Code | None]


class Ahead:
    """The rows that a step takes of the codes of all captions and of all videos.

    A step of frozen meanP is a product of 5 MB of captions, and to fetch them takes a twentieth of
    it. That is done beside the step before where a core is free for it. Where torch computes on all
    of them it would take from the step what it gives, and more: threads wait for the slowest.

    Args:
        texts: Codes of all captions; None where training changes them.
        videos: Codes of all videos, the same way.
        begins: Whether to fetch ahead; by default where a core is free.
    """

    def __init__(
        self, texts: Code | None, videos: Code | None, *, begins: bool | None = None
    ) -> None:
        self._tables = texts, videos
        if begins is None:
            on_cpu = all(
                part.device.type == "cpu" for codes in self._tables for part in codes or ()
            )
            begins = on_cpu and torch.get_num_threads() < usable_cores()
        self._pool = ThreadPoolExecutor(1) if begins and (texts or videos) else None
        self._begun: tuple[Step, Future[Sides]] | None = None

    def rows(self, step: Step, following: Step | None = None) -> Sides:
        """Returns the codes of a step's captions and videos; begins to fetch the next step's."""
        begun, self._begun = self._begun, None
        rows = begun[1].result() if begun and begun[0] is step else self._fetched(step)
        if self._pool is not None and following is not None:
            self._begun = following, self._pool.submit(self._fetched, following, True)
        return rows

    def _fetched(self, step: Step, beside: bool = False) -> Sides:
        return [
            None if codes is None else tuple(chosen_rows(part, index, beside) for part in codes)
            for codes, index in zip(self._tables, (step.texts, step.videos), strict=True)
        ]
