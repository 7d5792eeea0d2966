"""vtr: videos in, cached CLIP features, light retrieval heads, trustworthy numbers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vtr.clip.backbone import Backbone, load_backbone
    from vtr.errors import VtrError
    from vtr.features import FeatureSpec, FeatureStore, LedgerRow, PackedFrames, VideoFeatures

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "FeatureSpec",
    "FeatureStore",
    "LedgerRow",
    "PackedFrames",
    "VideoFeatures",
    "VtrError",
    "__version__",
    "load_backbone",
]

# Loaded when first used, so that `vtr --help` and reading a store need no torch.
_HOMES = {
    "Backbone": "vtr.clip.backbone",
    "load_backbone": "vtr.clip.backbone",
    "VtrError": "vtr.errors",
    "FeatureSpec": "vtr.features",
    "FeatureStore": "vtr.features",
    "LedgerRow": "vtr.features",
    "PackedFrames": "vtr.features",
    "VideoFeatures": "vtr.features",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vtr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
