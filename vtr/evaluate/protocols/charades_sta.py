"""Charades-STA, the test sentences."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="charades-sta",
    dataset="charades-sta",
    summary="moments: 3,720 sentences on 1,334 videos; eval with --moments",
    val_split=None,
    captions="all",
    num_videos=1_334,
    num_queries=3_720,
    source="Gao et al. 2017 (TALL), section 4.1; counts of its published test file",
)
