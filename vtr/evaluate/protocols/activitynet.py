"""ActivityNet Captions, paragraphs."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="activitynet",
    dataset="activitynet",
    summary="paragraph retrieval on val_1: 4,917 videos, all sentences of one as one query",
    test_split="val_1",
    val_split=None,
    captions="paragraph",
    num_videos=4_917,
    num_queries=4_917,
    ids_sha256="6da5bed74d0b4940843c7adce3689003d1dfbefec8181c4aa269a48cddc882b3",
    source="Krishna et al. 2017; paragraphs after Zhang et al. 2018 (HSE), as CLIP4Clip @508ffa3",
)
