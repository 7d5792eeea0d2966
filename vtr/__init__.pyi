from vtr.api import (
    open_features,
    open_workspace,
)
from vtr.api.compare import compare_results
from vtr.api.demo import demo_workspace
from vtr.api.evaluate import evaluate_run
from vtr.api.extract import extract_features
from vtr.api.report import make_report
from vtr.api.train import train_head
from vtr.clip.backbone import Backbone, load_backbone
from vtr.datasets.base import Caption, Dataset, Video
from vtr.datasets.registry import dataset_names, load_dataset
from vtr.errors import VtrError
from vtr.evaluate.metrics import RetrievalMetrics, retrieval_metrics
from vtr.evaluate.protocol import Protocol, QuerySet, load_protocol, protocol_names, queries
from vtr.evaluate.ranks import RetrievalRanks, rank_rows, stream_ranks
from vtr.evaluate.reporting.results import Result, load_result
from vtr.extract.choose import FeatureStore
from vtr.features import FeatureSpec, LedgerRow, PackedFrames, VideoFeatures
from vtr.train.inputs import embed_for
from vtr.train.model import RetrievalModel, zero_shot_model
from vtr.train.run import Run, load_run
from vtr.train.scoring import Scorer
from vtr.train.texts import TextFeatures, embed_texts
from vtr.workspace import Workspace

__all__ = [
    "Backbone",
    "Caption",
    "Dataset",
    "FeatureSpec",
    "FeatureStore",
    "LedgerRow",
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
    "retrieval_metrics",
    "stream_ranks",
    "train_head",
    "zero_shot_model",
]

__version__: str
