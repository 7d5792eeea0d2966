"""MSVD."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="msvd",
    dataset="msvd",
    summary="670 clips, each of their 27,763 captions a query",
    captions="all",
    num_videos=670,
    num_queries=27_763,
    ids_sha256="8d2c6c42af984fd02de95caffc7c6e4fafadeed81b5d99c8aa1584b12367a85c",
    source="Chen and Dolan 2011; split 1,200/100/670 as in ArrowLuo/CLIP4Clip @508ffa3",
)
