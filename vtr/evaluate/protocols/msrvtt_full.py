"""MSR-VTT, official split."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="msrvtt-full",
    dataset="msrvtt",
    summary="the official split: 2,990 clips, each of their 59,800 captions a query",
    captions="all",
    num_videos=2_990,
    num_queries=59_800,
    ids_sha256="916e9b2dd9a4518131b76a1e9b4f47fd12847f50356ebd8413bcd555abe2bca8",
    source="Xu et al. 2016 (MSR-VTT, CVPR)",
)
