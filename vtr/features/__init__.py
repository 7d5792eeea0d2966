"""The HDF5 feature cache: neither torch nor a decoder is needed to read it."""

from vtr.features.rows import LedgerRow, VideoFeatures, VideoRow
from vtr.features.spec import FeatureSpec
from vtr.features.store import FeatureStore, PackedFrames

__all__ = ["FeatureSpec", "FeatureStore", "LedgerRow", "PackedFrames", "VideoFeatures", "VideoRow"]
