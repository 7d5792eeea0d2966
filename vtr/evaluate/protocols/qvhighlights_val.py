"""QVHighlights, the validation queries: those of the test split have no published windows."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="qvhighlights-val",
    dataset="qvhighlights",
    summary="moments: 1,550 queries of the validation split; eval with --moments",
    test_split="val",
    val_split=None,
    captions="all",
    num_queries=1_550,
    source="Lei et al. 2021 (Moment-DETR), section 3; jayleicn/moment_detr",
)
