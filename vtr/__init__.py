"""vtr: videos in, cached CLIP features, light retrieval heads, trustworthy numbers."""

__version__ = "0.1.0"
