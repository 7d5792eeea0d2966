"""vtr: videos in, cached CLIP features, light retrieval heads, trustworthy numbers.

The verbs (`extract_features`, `train_head`, `evaluate_run`, `compare_results`, `make_report`) do
what the commands do; the nouns below them are for everything in between. See docs/python.md.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Loaded when first used, so that `vtr --help` and reading a store need no torch. What type checkers
# and editors see of these names is in __init__.pyi; a test holds the two together.
_HOMES = {
    "Backbone": "vtr.clip.backbone",
    "Caption": "vtr.datasets.base",
    "Dataset": "vtr.datasets.base",
    "FeatureSpec": "vtr.features",
    "FeatureStore": "vtr.extract.choose",
    "LedgerRow": "vtr.features",
    "Metric": "vtr.api.metrics",
    "PackedFrames": "vtr.features",
    "Protocol": "vtr.evaluate.protocol",
    "QuerySet": "vtr.evaluate.protocol",
    "Result": "vtr.evaluate.reporting.results",
    "RetrievalMetrics": "vtr.evaluate.metrics",
    "RetrievalModel": "vtr.train.model",
    "RetrievalRanks": "vtr.evaluate.ranks",
    "Run": "vtr.train.run",
    "Scorer": "vtr.train.scoring",
    "TextFeatures": "vtr.train.texts",
    "Video": "vtr.datasets.base",
    "VideoFeatures": "vtr.features",
    "VtrError": "vtr.errors",
    "Workspace": "vtr.workspace",
    "compare_results": "vtr.api.compare",
    "dataset_names": "vtr.datasets.registry",
    "demo_workspace": "vtr.api.demo",
    "embed_for": "vtr.train.texts",
    "embed_texts": "vtr.train.texts",
    "evaluate_run": "vtr.api.runs",
    "extract_features": "vtr.api.extract",
    "load_backbone": "vtr.clip.backbone",
    "load_dataset": "vtr.datasets.registry",
    "load_protocol": "vtr.evaluate.protocol",
    "load_result": "vtr.evaluate.reporting.results",
    "load_run": "vtr.train.run",
    "make_report": "vtr.api.report",
    "mteb_model": "vtr.api.mteb",
    "mteb_task": "vtr.api.mteb",
    "open_features": "vtr.api",
    "open_workspace": "vtr.api",
    "protocol_names": "vtr.evaluate.protocol",
    "pull": "vtr.api.pull",
    "push": "vtr.api.push",
    "queries": "vtr.evaluate.protocol",
    "rank_rows": "vtr.evaluate.ranks",
    "recall": "vtr.api.metrics",
    "retrieval_metrics": "vtr.api.metrics",
    "score_matrix": "vtr.api.metrics",
    "search": "vtr.api.search",
    "stream_ranks": "vtr.evaluate.ranks",
    "train_head": "vtr.api.runs",
    "zero_shot_model": "vtr.train.model",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vtr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
