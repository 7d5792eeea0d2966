"""VATEX, HGR split."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="vatex-hgr",
    dataset="vatex",
    summary="HGR: 1,500 clips of the official validation set, 10 English captions each",
    captions="all",
    num_videos=1_500,
    num_queries=15_000,
    ids_sha256="5c359709225c0551cc14ad58773c878f04cdaa993f1750c9ffc95ac051944993",
    source="Chen et al. 2020 (HGR, CVPR); list as in CLIP2Video @e941318 data/vatex_data",
)
