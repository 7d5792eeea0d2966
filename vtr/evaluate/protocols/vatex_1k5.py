"""VATEX, random 1k5 split."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="vatex-1k5",
    dataset="vatex",
    summary="random 1k5: 1,500 clips of the official validation set, 10 English captions each",
    test_split="test-1k5",
    captions="all",
    num_videos=1_500,
    num_queries=15_000,
    ids_sha256="df88dab1df5fc178cc36780bd41d5b6c2a91da86c32bac3b2576ec993dfaab2e",
    source="CLIP2Video @e941318 data/vatex_data/test1k5_sec_list.txt (of its val and test lists)",
)
