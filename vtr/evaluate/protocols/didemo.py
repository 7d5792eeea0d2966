"""DiDeMo, paragraphs."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="didemo",
    dataset="didemo",
    summary="paragraph retrieval: 1,004 videos, all descriptions of one as one query",
    captions="paragraph",
    num_videos=1_004,
    num_queries=1_004,
    ids_sha256="cdcca842f67f430b89615d39ae9a4cb19284f45a76cd71edee89ed3e1fd793cf",
    source="Hendricks et al. 2017; paragraphs as in Liu et al. 2019 (CE) and CLIP4Clip @508ffa3",
)
