"""What the loop of `vtr train` reads: captions embedded, videos as features or as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vtr.api.train_data import TrainingData
from vtr.clip.backbone import Backbone
from vtr.counts import counted
from vtr.evaluate.evaluator import Task, evaluate
from vtr.evaluate.metrics import retrieval_metrics
from vtr.features import PackedFrames
from vtr.progress import embedding, note
from vtr.train.data import PairedData, PictureRows
from vtr.train.model import ModelSpec
from vtr.train.picture_inputs import Kept, read_rows
from vtr.train.run import Run
from vtr.train.scoring import Scorer, Validation
from vtr.train.teacher import Teacher
from vtr.train.texts import TextFeatures, embed_for


class Inputs(NamedTuple):
    """What the loop is given."""

    pairs: PairedData
    validation: Validation | None
    teacher: Teacher | None


class Reader(NamedTuple):
    """Reads the inputs of one model."""

    data: TrainingData
    spec: ModelSpec
    backbone: Backbone
    kept: Kept = "float16"
    """Type of what frozen layers make of pictures."""

    def inputs(self, teacher: Run | None = None, *, chunk: int = 0) -> Inputs:
        """Embeds all captions, or reads them from the cache; reads the videos."""
        data, train = self.data, self.data.train
        note(f"embedding {counted(len(train.texts), 'training caption')}")
        texts = self._embed(self.spec, train.texts, train.text_ids)
        videos = self.videos(train.video_ids, data.frames)
        pairs = PairedData(texts, videos, train.query_video, data.pad(self.spec))
        validation = None
        if data.task is not None and data.val_frames is not None:
            val_texts = self._embed(self.spec, data.task.texts)
            measure = partial(_validation_metrics, data.task)
            gallery = self.videos(data.task.video_ids, data.val_frames)
            validation = Validation(val_texts, gallery, measure, pairs.pad)
        taught = None if teacher is None else self._teacher(teacher, chunk)
        return Inputs(pairs, validation, taught)

    def videos(self, ids: Sequence[str], stored: PackedFrames) -> PackedFrames | PictureRows:
        """Returns videos as the model reads them: stored features, or pictures."""
        vision = self.spec.vision
        if vision is None:
            return stored
        note(f"reading the pictures of {counted(len(ids), 'video')}")
        pictures = self.data.picture_rows(ids, pad=self.spec.choice.info.needs_pad)
        with embedding(pictures.num_rows, what="pictures") as update:
            return read_rows(
                vision, self.backbone, pictures, kept=self.kept, cache=self._cache, tell=update
            )

    def _teacher(self, run: Run, chunk: int) -> Teacher:
        train, task = self.data.train, self.data.task
        note(f"embedding {counted(len(train.texts), 'caption')} for the teacher")
        known = run.train_ids or frozenset()
        texts = self._embed(run.spec, train.texts, train.text_ids)
        shared = known.intersection(task.video_ids if task else ())
        if shared:
            note(
                f"the teacher was trained on {len(shared):,} of the validation videos: the best "
                "epoch is chosen on videos that it has seen"
            )
        pad, device = self.data.pad(run.spec), self.backbone.device
        return Teacher(run.model, texts, pad=pad, chunk=chunk, device=device)

    def _embed(
        self, spec: ModelSpec, texts: Sequence[str], ids: Sequence[str] | None = None
    ) -> TextFeatures:
        with embedding(len(texts)) as update:
            return embed_for(spec, self.backbone, texts, ids=ids, cache=self._cache, tell=update)

    @property
    def _cache(self) -> Path:
        return self.data.store.folder


def _validation_metrics(task: Task, scorer: Scorer) -> Mapping[str, float]:
    ranks = evaluate(task, scorer.stream, score_pairs=scorer.score_pairs).ranks
    expected = retrieval_metrics(ranks).expected
    return {key: value for key, value in expected.items() if key.startswith(("t2v/", "v2t/"))}
