"""Published numbers beside one's own: context from the papers' own repositories, never a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One line of a published table, text to video, in percent."""

    protocol: str  # The protocol it was measured by
    backbone: str  # Of CLIP's sizes, such as "ViT-B/32"
    method: str  # Its name
    recall_at_1: float  # t2v R@1
    recall_at_5: float | None  # t2v R@5; None where the source does not give it
    recall_at_10: float | None  # t2v R@10; likewise
    trained: bool  # False for zero-shot
    source: str  # Where the number stands


_B32 = "ViT-B/32"
_C2V = "CLIP2Video README @e941318"
_DRL = "DRL README, its comparison table"
_S = "CLIP_video @91bcaf6 notebooks: 900 videos, 8 frames, best epoch chosen on test"
_C4C = "CLIP4Clip, arXiv:2104.08860"
_TABLE = (
    Published("msrvtt-1kA", _B32, "mean pooling, zero-shot", 31.1, None, None, False, _DRL),
    Published("msrvtt-1kA", _B32, "CLIP4Clip meanP", 42.9, None, None, True, _DRL),
    Published("msrvtt-1kA", _B32, "CLIP2Video", 45.6, 72.6, 81.7, True, _C2V),
    Published("msrvtt-1kA", _B32, "X-Pool", 46.9, None, None, True, "X-Pool README"),
    Published("msrvtt-1kA", _B32, "DRL (WTI)", 46.6, None, None, True, "DRL README"),
    Published("msrvtt-1kA", _B32, "meanP, uniform sampler", 38.0, 63.6, 75.8, True, _S),
    Published("msrvtt-1kA", _B32, "seqLSTM, uniform sampler", 39.6, 64.8, 74.6, True, _S),
    Published("msrvtt-1kA-7k", _B32, "X-Pool", 43.9, None, None, True, "X-Pool README"),
    Published("msrvtt-full", _B32, "CLIP2Video", 29.8, 55.5, 66.2, True, _C2V),
    Published("msvd", _B32, "CLIP2Video", 47.0, 76.8, 85.9, True, _C2V),
    Published("msvd", _B32, "X-Pool", 47.2, None, None, True, "X-Pool README"),
    Published("vatex-1k5", _B32, "CLIP2Video", 57.3, 90.0, 95.5, True, _C2V),
    Published("vatex-hgr", _B32, "CLIP2Video", 61.2, 90.9, 95.6, True, _C2V),
    Published("lsmdc", _B32, "X-Pool", 25.2, None, None, True, "X-Pool README"),
    Published("activitynet", _B32, "CLIP4Clip", 40.5, None, None, True, _C4C),
    Published("didemo", _B32, "CLIP4Clip", 43.4, 70.2, 80.6, True, _C4C),
)
_SIZES = {
    "vit-base-patch32": "ViT-B/32",
    "vit-b-32": "ViT-B/32",
    "vit-base-patch16": "ViT-B/16",
    "vit-b-16": "ViT-B/16",
    "vit-large-patch14": "ViT-L/14",
    "vit-l-14": "ViT-L/14",
    "vit-h-14": "ViT-H/14",
}


def backbone_size(model_id: str) -> str | None:
    """Returns CLIP's name of a model's size, where its id tells it.

    >>> backbone_size("openai/clip-vit-base-patch32")
    'ViT-B/32'
    """
    name = model_id.lower()
    return next((size for part, size in _SIZES.items() if part in name and "clip" in name), None)


def published_numbers(protocol: str, model_id: str) -> list[Published]:
    """Returns what was published for this protocol and this size of CLIP; may be empty."""
    size = backbone_size(model_id)
    return [row for row in _TABLE if row.protocol == protocol and row.backbone == size]
