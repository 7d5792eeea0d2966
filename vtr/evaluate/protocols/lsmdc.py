"""LSMDC."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="lsmdc",
    dataset="lsmdc",
    summary="the 2016 challenge: 1,000 film clips, one sentence each",
    captions="one",
    num_videos=1_000,
    num_queries=1_000,
    source="Rohrbach et al. 2017 (LSMDC); LSMDC16_challenge_1000_publictect.csv",
)
