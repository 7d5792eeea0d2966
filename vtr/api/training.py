"""From a workspace and flags to a training: data, model, settings, what is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from vtr.counts import counted
from vtr.progress import embedding, note

if TYPE_CHECKING:
    from vtr.clip.backbone import Backbone
    from vtr.evaluate.evaluator import Task
    from vtr.evaluate.protocol import Protocol, QuerySet
    from vtr.features import FeatureStore, PackedFrames
    from vtr.train.model import ModelSpec
    from vtr.train.presets import Preset, TrainSettings
    from vtr.train.validation import Validation
    from vtr.workspace import Workspace

_NAMED = 3
AUTO_CHUNK = 256
"""Captions encoded at once where the text tower trains: 256 x 32 tokens of ViT-B/32's 12 layers
keep about 3 GB for the backward pass."""


@dataclass(frozen=True)
class Request:
    """What the flags ask for; None where a flag was not given. Stored with the run."""

    head: str | None = None  # Label of the head
    sampler: str | None = None  # Whose frames
    protocol: str | None = None  # Whose training and validation videos
    preset: str | None = None  # Named settings that the other flags change
    text: str | None = None  # Mode of the text tower
    tune_layers: int | None = None  # Last text layers to train
    dropout: float | None = None  # Of the text projection
    temperature: float | None = None  # Fixed temperature
    optimiser: str | None = None  # "adamw" or "bertadam"
    lr: float | None = None  # Rate
    coef_lr: float | None = None  # Factor for pretrained weights
    weight_decay: float | None = None  # Of matrices
    warmup: float | None = None  # Share of the training
    clip_norm: float | None = None  # Of all gradients
    epochs: int | None = None  # At most
    patience: int | None = None  # Epochs without a better validation
    batches: str | None = None  # "videos" or "pairs"
    batch_size: int | None = None  # Videos or pairs per step
    captions: str | None = None  # "all", "one" or a number
    loss: str | None = None  # "all" right answers or "reference"
    hard_negatives: int | None = None  # k
    mine: str | None = None  # "batch" or "global"
    chunk: int | None = None  # Encoded at once
    teacher: str | None = None  # Folder of the run that teaches, absolute
    # Share of the training videos kept for validation where the protocol has none.
    hold_out: float | None = None
    seed: int | None = None  # Seed

    def as_dict(self) -> dict[str, Any]:
        """Returns the flags that were given."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def read_captions(text: str) -> int:
    """Reads `--captions`.

    >>> read_captions("all"), read_captions("one"), read_captions("5")
    (0, 1, 5)

    Raises:
        ConfigError: Neither a word nor a number.
    """
    from vtr.errors import ConfigError

    if text in ("all", "one"):
        return int(text == "one")
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigError(f"--captions is {text!r}; allowed: all, one, or a number from 1")


def resolve_settings(
    request: Request, preset: Preset, *, seed: int, dim: int, num_videos: int
) -> TrainSettings:
    """Returns the preset's settings with the flags on top.

    Args:
        request: The flags.
        preset: The named settings.
        seed: Of the run.
        dim: Size of the features, for presets that adapt to it.
        num_videos: Training videos, likewise.

    Raises:
        ConfigError: A value out of range, or two that exclude each other.
    """
    from vtr.errors import ConfigError

    base = preset.fitted(dim=dim, num_videos=num_videos)
    names = ("optimiser", "lr", "coef_lr", "weight_decay", "warmup", "clip_norm", "epochs")
    changed = _given(request, (*names, "patience", "mine", "chunk"))
    batch = {"mode": request.batches, "size": request.batch_size}
    if request.captions is not None:
        batch["captions"] = read_captions(request.captions)
    if request.loss not in (None, "all", "reference"):
        raise ConfigError(f"--loss is {request.loss!r}; allowed: all, reference")
    reference = None if request.loss is None else request.loss == "reference"
    if request.batches == "videos" and reference is None:
        reference = False
    loss = {"hard_negatives": request.hard_negatives, "reference": reference}
    return replace(
        base,
        **changed,
        seed=seed,
        batch=replace(base.batch, **_set(batch)),
        loss=replace(base.loss, **_set(loss)),
    )


def check_settings(request: Request) -> None:
    """Refuses settings that no training can have, before torch is loaded and data are read.

    Raises:
        ConfigError: A value out of range, or two that exclude each other.
    """
    from vtr.errors import ConfigError
    from vtr.train.options import TEXT_MODES
    from vtr.train.presets import DEFAULT_PRESET, find_preset

    preset = find_preset(request.preset or DEFAULT_PRESET)
    resolve_settings(request, preset, seed=request.seed or 0, dim=512, num_videos=1000)
    share = request.hold_out
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"--hold-out is {share}; allowed: above 0 and below 1, such as 0.05")
    if request.text in TEXT_MODES:
        _check_text_flags(request, request.text)


def _given(request: Request, names: Sequence[str]) -> dict[str, Any]:
    return _set({name: getattr(request, name) for name in names})


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class Skipped:
    """Training videos that cannot be used."""

    videos: Mapping[str, str]  # Id to reason
    captions: int  # How many captions went with them

    @property
    def line(self) -> str:
        """One line for people; empty where nothing was skipped."""
        if not self.videos:
            return ""
        named = [f"{key} ({reason})" for key, reason in list(self.videos.items())[:_NAMED]]
        more = f" and {len(self.videos) - _NAMED:,} more" if len(self.videos) > _NAMED else ""
        return (
            f"skipped {counted(len(self.videos), 'training video')} without features and their "
            f"{counted(self.captions, 'caption')}: {', '.join(named)}{more}"
        )


@dataclass(frozen=True)
class Material:
    """Data of a training before any text is embedded."""

    workspace: Workspace  # The settings
    protocol: Protocol  # Whose split
    store: FeatureStore  # The features, seen through one sampler
    train: QuerySet  # The training queries, absent videos left out
    frames: PackedFrames  # Of `train.video_ids`
    skipped: Skipped  # What was left out
    task: Task | None  # The validation queries, or None
    val_frames: PackedFrames | None  # Of `task.video_ids`
    held_out: bool  # Whether validation videos were taken from the training ones
    val_asked: int = 0  # How many validation videos there would be with features of all

    @property
    def selection(self) -> str:
        """How the best epoch is chosen, in words for every result."""
        from vtr.counts import counted
        from vtr.train.validation import SELECTION

        if self.task is None:
            return "last epoch: no validation data"
        count, whole = len(self.task.video_ids), ""
        videos = counted(count, "video")
        if count < self.val_asked:
            whole = f" ({self.val_asked - count:,} more have no features: misses)"
        if self.held_out:
            return f"{SELECTION} on {videos} held out of the training split{whole}"
        return f"{SELECTION} on the {videos} of the validation split{whole}"


def gather(
    workspace: Workspace, request: Request, *, tell: Callable[[str], None] = lambda _: None
) -> Material:
    """Reads the dataset, the protocol's training and validation part, and the features.

    Args:
        workspace: The settings.
        request: The flags.
        tell: Called with what is begun.

    Raises:
        VtrError: Whatever is missing or does not fit; see the functions called.
    """
    from vtr.api.stores import meet, open_store, read_dataset
    from vtr.evaluate.coverage import check_features, cover
    from vtr.evaluate.evaluator import plan
    from vtr.evaluate.protocol import default_protocol, load_protocol, queries, validation_split

    dataset = read_dataset(workspace)
    name = request.protocol
    protocol = load_protocol(name) if name else default_protocol(dataset.name)
    hold_out = 0.05 if request.hold_out is None else request.hold_out
    named = validation_split(protocol, dataset)
    if request.hold_out is not None and named is not None:
        note(
            f"--hold-out is not needed: protocol {protocol.name} has the validation split {named!r}"
        )
    tell(f"loading the features in {workspace.features}")
    store = meet(open_store(workspace, request.sampler), dataset.video_ids)
    train, skipped = _present(queries(protocol, dataset, "train", hold_out=hold_out), store)
    frames = store.packed(train.video_ids)
    check_features(frames)
    task, val_frames, held_out = None, None, False
    asked = queries(protocol, dataset, "val", hold_out=hold_out)
    if any(asked.video_ids[v] in store for v in set(asked.query_video.tolist())):
        task = plan(asked, cover(asked, store))
        val_frames, held_out = store.packed(task.video_ids), asked.held_out
        check_features(val_frames)
    return Material(
        workspace, protocol, store, train, frames, skipped, task, val_frames, held_out,
        val_asked=len(asked.video_ids),
    )  # fmt: skip


def check_enough(material: Material) -> None:
    """Refuses training data without a contrast, before anything is embedded.

    Raises:
        ConfigError: Fewer than two videos; says where the others went.
    """
    from vtr.errors import ConfigError

    count = len(material.train.video_ids)
    if count >= 2:
        return
    gone = []
    if material.task is not None and material.held_out:
        kept = len(material.task.video_ids)
        gone.append(f"{kept:,} of {kept + count:,} was held out for validation")
    if material.skipped.videos:
        gone.append(f"{len(material.skipped.videos):,} have no features")
    raise ConfigError(
        f"training needs captions of at least 2 videos; there are captions of {count}"
        + (f" ({', '.join(gone)})" if gone else "")
        + ". Caption and extract more videos of the training split"
    )


def _present(asked: QuerySet, store: FeatureStore) -> tuple[QuerySet, Skipped]:
    """Leaves out the videos without features and those that nobody describes."""
    import numpy as np

    from vtr.errors import DatasetError

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
    return left, Skipped(lost, len(asked.texts) - len(rows))


def model_spec(
    request: Request, preset: Preset, backbone: Backbone, store: FeatureStore
) -> ModelSpec:
    """Returns what will be trained.

    A head without parameters leaves nothing to train beside frozen text: unless the user asked for
    just that, it gets a projection.

    Raises:
        ConfigError: Sizes that do not fit; says how to make them.
        ModelError: Text of one model against frames of another, without a projection between.
    """
    from vtr.api.stores import check_same_model
    from vtr.errors import ConfigError
    from vtr.train.headlist import build_head, parse_head
    from vtr.train.loop import NOTHING_TO_TRAIN
    from vtr.train.model import ModelSpec
    from vtr.train.text_tower import text_spec

    choice = parse_head(request.head or preset.head)
    dim = store.spec.embedding_dim
    mode: Any = request.text or preset.text
    temperature = preset.temperature if request.temperature is None else request.temperature
    if mode == "frozen":
        head = build_head(choice, dim=dim, clip=None, seed=0)
        bare = not any(True for _ in head.parameters())
        if bare and request.text is None:
            note(f"{choice.name} has no parameters: training a text projection (--text projection)")
            mode = "projection"
        elif bare and temperature is not None:
            raise ConfigError(NOTHING_TO_TRAIN)
    _check_text_flags(request, mode)
    layers = request.tune_layers
    if layers is None:
        layers = min(preset.tune_layers, _text_layers(backbone))
    text = text_spec(backbone, mode, video_dim=dim, layers=layers, dropout=request.dropout or 0.0)
    if mode != "projection":
        check_same_model(backbone, store)
    return ModelSpec(choice.label, dim, text, temperature)


def _check_text_flags(request: Request, mode: str) -> None:
    """Refuses a flag of another text mode: ignored, it would pass for followed."""
    from vtr.errors import ConfigError

    for flag, value, only in (
        ("--dropout", request.dropout, "projection"),
        ("--tune-layers", request.tune_layers, "tune"),
        ("--coef-lr", request.coef_lr, "tune"),  # only a tuned tower has pretrained layers
    ):
        if value is not None and mode in ("frozen", "projection", "tune") and mode != only:
            raise ConfigError(
                f"{flag} {value} needs --text {only}; the text side is {mode} here and would not "
                "heed it"
            )


def tell_unheeded(request: Request, settings: TrainSettings, material: Material) -> None:
    """Tells of a number of hard negatives that no batch can have: all would count."""
    from vtr.train.batches import BatchPlan

    plan = BatchPlan(material.train.query_video, settings.batch, seed=settings.seed)
    if request.hard_negatives is not None and request.hard_negatives >= plan.most_wrong > 0:
        note(
            f"--hard-negatives {request.hard_negatives:,} leaves nothing out: in batches of "
            f"{plan.size:,} {settings.batch.mode} there are at most {plan.most_wrong:,} wrong "
            "answers, and all count, as with 0"
        )


def _text_layers(backbone: Backbone) -> int:
    return backbone.model.text.sizes.layers


def with_chunk(settings: TrainSettings, spec: ModelSpec) -> TrainSettings:
    """Returns the settings with a bound on what a trained text tower keeps in memory."""
    if settings.chunk or spec.text.mode != "tune":
        return settings
    return replace(settings, chunk=AUTO_CHUNK)


def run_config(
    material: Material,
    request: Request,
    settings: TrainSettings,
    spec: ModelSpec,
    backbone: Backbone,
) -> dict[str, Any]:
    """Returns `config.json`: everything resolved."""
    store, task = material.store, material.task
    return {
        "model": spec.as_dict(),
        "text_model": {
            "id": material.workspace.model,
            "revision": backbone.revision,
            "weights_sha256": backbone.weights_sha256,
            "settings": backbone.text_settings,
        },
        "features": {
            "folder": str(store.folder),
            "fingerprint": store.fingerprint,
            "sampler": store.sampler,
            "frames": material.workspace.frames,
            "backbone": store.spec.backbone,
            "weights_sha256": store.spec.weights_sha256,
            "vision": dict(store.spec.vision),
        },
        "data": {
            "dataset": material.workspace.dataset,
            "protocol": material.protocol.name,
            "train_split": material.protocol.train_split,
            "val_split": None if material.held_out else material.protocol.val_split,
            "held_out": material.held_out,
            "train_videos": len(material.train.video_ids),
            "train_captions": len(material.train.texts),
            "train_digest": material.train.digest,
            "val_videos": 0 if task is None else len(task.video_ids),
            "val_queries": 0 if task is None else len(task.queries.texts),
            "skipped": dict(material.skipped.videos),
        },
        "settings": settings.as_dict(),
        "preset": request.preset,
        "request": request.as_dict(),
        "selection": material.selection,
        "versions": _versions(),
        "device": str(backbone.device),
    }


def _versions() -> dict[str, str]:
    import numpy
    import torch

    from vtr import __version__

    return {"vtr": __version__, "torch": torch.__version__, "numpy": numpy.__version__}


def make_validation(material: Material, spec: ModelSpec, backbone: Backbone) -> Validation | None:
    """Returns what each epoch is judged on."""
    from vtr.evaluate.evaluator import evaluate
    from vtr.evaluate.metrics import retrieval_metrics
    from vtr.train.inputs import embed_for
    from vtr.train.validation import Validation

    task, frames = material.task, material.val_frames
    if task is None or frames is None:
        return None
    store = material.store
    with embedding(len(task.texts)) as tell:
        texts = embed_for(spec, backbone, task.texts, cache=store.folder, tell=tell)

    def measure(scorer: Any) -> dict[str, float]:
        found = retrieval_metrics(
            evaluate(task, scorer.blocks, score_pairs=scorer.score_pairs).ranks
        ).expected
        return {key: value for key, value in found.items() if key.startswith(("t2v/", "v2t/"))}

    pad = store.pad_embedding if spec.choice.info.needs_pad else None
    return Validation(texts, frames, measure, pad)


def torch_device(name: str) -> str:
    """Returns the device; under torchrun each process's own GPU."""
    import torch

    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "cpu" if name == "auto" else name
