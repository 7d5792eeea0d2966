# Made by docs/make_reference.py from the functions and the models of their options.
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vtr.api import open_features
from vtr.api.demo import demo_workspace
from vtr.api.metrics import Metric, recall, retrieval_metrics, score_matrix
from vtr.clip.backbone import Backbone, load_backbone
from vtr.datasets.base import Caption, Dataset, Video
from vtr.datasets.registry import dataset_names, load_dataset
from vtr.errors import VtrError
from vtr.evaluate.compare import Comparison
from vtr.evaluate.metrics import RetrievalMetrics
from vtr.evaluate.protocol import Protocol, QuerySet, load_protocol, protocol_names, queries
from vtr.evaluate.ranks import RetrievalRanks, rank_rows, stream_ranks
from vtr.evaluate.reporting.results import Result, load_result
from vtr.extract.choose import FeatureStore
from vtr.extract.pipeline import ExtractReport
from vtr.features import FeatureSpec, LedgerRow, PackedFrames, VideoFeatures
from vtr.train.inputs import embed_for
from vtr.train.model import RetrievalModel, zero_shot_model
from vtr.train.run import Run, load_run
from vtr.train.scoring import Scorer
from vtr.train.texts import TextFeatures, embed_texts
from vtr.workspace import Workspace

def compare_results(
    first: Result | str | Path,
    *others: Result | str | Path,
    seeds: bool = ...,
    k: int = ...,
    resamples: int = ...,
    seed: int = ...,
    show: int = ...,
    out: str | Path | None = ...,
) -> tuple[Comparison, ...]: ...
def evaluate_run(
    workspace: Workspace,
    run: Run | str | Path | None = ...,
    *,
    protocol: str | None = ...,
    sampler: str | None = ...,
    missing: str = ...,
    gallery: str | None = ...,
    out: str | Path | None = ...,
    k: Sequence[int] = ...,
    dual_softmax: bool = ...,
    qb_norm: bool = ...,
    rerank: int | None = ...,
    save_similarity: bool = ...,
    force: bool = ...,
    device: str = ...,
) -> Result: ...
def extract_features(
    workspace: Workspace,
    *,
    quiet: bool = ...,
    device: str = ...,
    dtype: Literal["float32", "float16", "bfloat16"] = ...,
    memory: float = ...,
    max_pixels: int | None = ...,
    thumbnails: bool = ...,
    crops: Literal["raw", "webp", "none"] | None = ...,
    crops_budget: float | None = ...,
    from_crops: str | Path | None = ...,
    hash: bool = ...,
    shard: str = ...,
    retry: str | None = ...,
    overwrite: bool = ...,
    dataset: str = ...,
    videos: str | Path | None = ...,
    annotations: str | Path | None = ...,
    model: str = ...,
    features: str | Path = ...,
    runs: str | Path = ...,
    fps: float | str = ...,
    frames: int = ...,
    sampler: str = ...,
    seed: int = ...,
    route: Literal["exact", "fast"] = ...,
    shard_videos: int = ...,
    workers: int | None = ...,
    timeout_seconds: float = ...,
    batch_size: int | None = ...,
) -> ExtractReport: ...
def make_report(
    results: Sequence[Result | str | Path],
    out: str | Path = ...,
    *,
    title: str = ...,
    pictures: bool = ...,
    k: int = ...,
    bins: str | None = ...,
    frames: str | Path | None = ...,
    videos: str | Path | None = ...,
    examples: int = ...,
) -> Path: ...
def open_workspace(
    folder: str | Path = ...,
    *,
    dataset: str = ...,
    videos: str | Path | None = ...,
    annotations: str | Path | None = ...,
    model: str = ...,
    features: str | Path = ...,
    runs: str | Path = ...,
    fps: float | str = ...,
    frames: int = ...,
    sampler: str = ...,
    seed: int = ...,
    route: Literal["exact", "fast"] = ...,
    shard_videos: int = ...,
    workers: int | None = ...,
    timeout_seconds: float = ...,
    batch_size: int | None = ...,
) -> Workspace: ...
def train_head(
    workspace: Workspace,
    head: str | None = ...,
    *,
    quiet: bool = ...,
    sampler: str | None = ...,
    text: Literal["frozen", "projection", "tune"] | None = ...,
    tune_layers: int | None = ...,
    dropout: float | None = ...,
    preset: str | None = ...,
    protocol: str | None = ...,
    epochs: int | None = ...,
    patience: int | None = ...,
    batch_size: int | None = ...,
    batches: Literal["videos", "pairs"] | None = ...,
    captions: str | None = ...,
    optimiser: Literal["adamw", "bertadam"] | None = ...,
    lr: float | None = ...,
    coef_lr: float | None = ...,
    warmup: float | None = ...,
    weight_decay: float | None = ...,
    clip_norm: float | None = ...,
    loss: Literal["all", "reference"] | None = ...,
    temperature: float | None = ...,
    hard_negatives: int | None = ...,
    mine: Literal["batch", "global"] | None = ...,
    chunk: int | None = ...,
    vision: Literal["frozen", "tune"] | None = ...,
    freeze_layers: int | None = ...,
    linear_patch: Literal["2d", "3d"] | None = ...,
    coef_lr_vision: float | None = ...,
    precision: Literal["auto", "float32", "bfloat16"] | None = ...,
    checkpointing: bool = ...,
    vision_chunk: str | None = ...,
    activations: Literal["float16", "float32"] | None = ...,
    head_epochs: int | None = ...,
    lora: int | None = ...,
    start: str | Path | None = ...,
    teacher: str | Path | None = ...,
    hold_out: float | None = ...,
    seed: int | None = ...,
    name: str | None = ...,
    resume: bool = ...,
    overwrite: bool = ...,
    device: str = ...,
    tensorboard: bool = ...,
) -> Run: ...

__version__: str
__all__ = [
    "Backbone",
    "Caption",
    "Dataset",
    "FeatureSpec",
    "FeatureStore",
    "LedgerRow",
    "Metric",
    "PackedFrames",
    "Protocol",
    "QuerySet",
    "Result",
    "RetrievalMetrics",
    "RetrievalModel",
    "RetrievalRanks",
    "Run",
    "Scorer",
    "TextFeatures",
    "Video",
    "VideoFeatures",
    "VtrError",
    "Workspace",
    "__version__",
    "compare_results",
    "dataset_names",
    "demo_workspace",
    "embed_for",
    "embed_texts",
    "evaluate_run",
    "extract_features",
    "load_backbone",
    "load_dataset",
    "load_protocol",
    "load_result",
    "load_run",
    "make_report",
    "open_features",
    "open_workspace",
    "protocol_names",
    "queries",
    "rank_rows",
    "recall",
    "retrieval_metrics",
    "score_matrix",
    "stream_ranks",
    "train_head",
    "zero_shot_model",
]
