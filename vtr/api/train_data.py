"""What `vtr train` trains and validates on: captions, features, what of them is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vtr.api.stores import meet, open_store, read_dataset
from vtr.counts import counted
from vtr.errors import ConfigError, DatasetError
from vtr.evaluate.coverage import check_features, cover
from vtr.evaluate.evaluator import Task, plan
from vtr.evaluate.protocol import (
    Protocol,
    QuerySet,
    default_protocol,
    load_protocol,
    queries,
    validation_split,
)
from vtr.features import FeatureStore, PackedFrames
from vtr.progress import note
from vtr.train.data import PictureRows
from vtr.train.memory import fits
from vtr.train.model import ModelSpec
from vtr.train.scoring import SELECTION
from vtr.verbs.train import Recipe
from vtr.workspace import Workspace

_HOLD_OUT = 0.05
_NAMED = 3


@dataclass(frozen=True)
class TrainingData:
    """Captions and features of a training, before any text is embedded."""

    protocol: Protocol  # Whose splits
    store: FeatureStore  # The features, seen through one sampler
    train: QuerySet  # The training queries, absent videos left out
    frames: PackedFrames  # Of `train.video_ids`
    skipped: Mapping[str, str]  # Training videos that cannot be used: id to reason
    skipped_captions: int  # How many captions went with them
    task: Task | None  # The validation queries, or None
    val_frames: PackedFrames | None  # Of `task.video_ids`
    held_out: bool  # Whether validation videos were taken from the training ones
    val_asked: int  # How many validation videos there would be with features of all

    def pad(self, spec: ModelSpec) -> NDArray[np.float32] | None:
        """Returns what the vision tower makes of padding, (D,), for models that read it."""
        return self.store.pad_embedding if spec.choice.info.needs_pad else None

    def picture_rows(self, ids: Sequence[str], *, pad: bool) -> PictureRows:
        """Returns the pictures of some videos; `pad`: whether the head reads padding.

        They are read at once where memory holds them, else batch by batch.
        """
        self.store.require_pictures()
        offsets, size = self.store.offsets(ids), self.store.spec.preprocessing["size"]
        num_bytes = int(offsets[-1]) * size[0] * size[1] * 3
        if fits(num_bytes, torch.device("cpu")):
            return PictureRows(tuple(ids), self.store.pictures(ids).pixels, offsets, pad)
        slow = ", and decoded each time: --crops raw is faster" * (
            self.store.picture_format == "webp"
        )
        note(f"{num_bytes / 1e9:.3g} GB of pictures stay on the disk, read batch by batch{slow}")
        return PictureRows(tuple(ids), self.store, offsets, pad)

    @property
    def selection(self) -> str:
        """How the best epoch is chosen, in words for every result."""
        if self.task is None:
            return "last epoch: no validation data"
        count, whole = len(self.task.video_ids), ""
        videos = counted(count, "video")
        if count < self.val_asked:
            whole = (
                f" ({counted(self.val_asked - count, 'more has', 'more have')} no features: misses)"
            )
        if self.held_out:
            return f"{SELECTION} on {videos} held out of the training split{whole}"
        return f"{SELECTION} on the {videos} of the validation split{whole}"

    @property
    def skipped_line(self) -> str:
        """What was skipped in one line; empty where nothing was."""
        if not self.skipped:
            return ""
        named = [f"{key} ({reason})" for key, reason in list(self.skipped.items())[:_NAMED]]
        more = f" and {len(self.skipped) - _NAMED:,} more" if len(self.skipped) > _NAMED else ""
        return (
            f"skipped {counted(len(self.skipped), 'training video')} without features and their "
            f"{counted(self.skipped_captions, 'caption')}: {', '.join(named)}{more}"
        )

    def as_config(self, workspace: Workspace) -> dict[str, Any]:
        """Returns what `config.json` says of features and data."""
        store, task = self.store, self.task
        return {
            "features": {
                "folder": str(store.folder),
                "fingerprint": store.fingerprint,
                "sampler": store.sampler,
                "frames": workspace.frames,
                "backbone": store.spec.backbone,
                "weights_sha256": store.spec.weights_sha256,
                "vision": dict(store.spec.vision),
            },
            "data": {
                "dataset": workspace.dataset,
                "protocol": self.protocol.name,
                "train_split": self.protocol.train_split,
                "val_split": None if self.held_out else self.protocol.val_split,
                "held_out": self.held_out,
                "train_videos": len(self.train.video_ids),
                "train_captions": len(self.train.texts),
                "train_digest": self.train.digest,
                "val_videos": 0 if task is None else len(task.video_ids),
                "val_queries": 0 if task is None else len(task.queries.texts),
                "skipped": dict(self.skipped),
            },
        }

    def check_enough(self) -> None:
        """Refuses training data without a contrast, before anything is embedded."""
        count = len(self.train.video_ids)
        if count >= 2:
            return
        gone = []
        if self.task is not None and self.held_out:
            kept = len(self.task.video_ids)
            gone.append(f"{kept:,} of {kept + count:,} was held out for validation")
        if self.skipped:
            gone.append(f"{counted(len(self.skipped), 'has', 'have')} no features")
        raise ConfigError(
            f"training needs captions of at least 2 videos; there are captions of {count}"
            + (f" ({', '.join(gone)})" if gone else "")
            + ". Caption and extract more videos of the training split"
        )


def read_training_data(
    workspace: Workspace, recipe: Recipe, *, quiet: bool = False
) -> TrainingData:
    """Reads the dataset, the protocol's training and validation part, and the features."""
    dataset = read_dataset(workspace)
    name = recipe.protocol
    protocol = load_protocol(name) if name else default_protocol(dataset.name)
    hold_out = recipe.hold_out or _HOLD_OUT
    split = validation_split(protocol, dataset)
    if recipe.hold_out is not None and split is not None:
        note(
            f"--hold-out is not needed: protocol {protocol.name} has the validation split {split!r}"
        )
    if not quiet:
        note(f"loading the features in {workspace.features}")
    store = meet(open_store(workspace, recipe.sampler), dataset.video_ids)
    if recipe.resolve()["vision"] == "tune":
        store.require_pictures()
    asked = queries(protocol, dataset, "train", hold_out=hold_out)
    train, skipped = _with_features(asked, store)
    frames = store.packed(train.video_ids)
    check_features(frames)
    task, val_frames = None, None
    val = queries(protocol, dataset, "val", hold_out=hold_out)
    if any(val.video_ids[v] in store for v in set(val.query_video.tolist())):
        task = plan(val, cover(val, store))
        val_frames = store.packed(task.video_ids)
        check_features(val_frames)
    return TrainingData(
        protocol=protocol,
        store=store,
        train=train,
        frames=frames,
        skipped=skipped,
        skipped_captions=len(asked.texts) - len(train.texts),
        task=task,
        val_frames=val_frames,
        held_out=task is not None and val.held_out,
        val_asked=len(val.video_ids),
    )


def _with_features(asked: QuerySet, store: FeatureStore) -> tuple[QuerySet, dict[str, str]]:
    """Leaves out the videos without features, with the reasons, and those without captions."""
    there = np.array([video_id in store for video_id in asked.video_ids])
    described = np.zeros(len(there), dtype=bool)
    described[asked.query_video] = True
    kept = np.flatnonzero(there & described)
    if not len(kept):
        raise DatasetError(
            f"none of the {counted(len(there), 'training video')} of {asked.protocol!r} has "
            "features in "
            f"{store.folder}: extract them, or name another store with --features"
        )
    place = np.full(len(there), -1, np.int64)
    place[kept] = np.arange(len(kept))
    rows = np.flatnonzero(there[asked.query_video])
    lost = {asked.video_ids[v]: "not in the store" for v in np.flatnonzero(~there).tolist()}
    if lost:
        lost |= {row.id: row.error or row.status for row in store.ledger if row.id in lost}
    left = replace(
        asked,
        video_ids=tuple(asked.video_ids[v] for v in kept.tolist()),
        texts=tuple(asked.texts[q] for q in rows.tolist()),
        text_ids=tuple(asked.text_ids[q] for q in rows.tolist()),
        query_video=place[asked.query_video[rows]],
    )
    return left, lost
