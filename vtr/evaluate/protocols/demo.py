"""The demo world."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="demo",
    dataset="demo",
    summary="the demo world: five captions per test clip, in groups with known ceilings",
    captions="all",
    source="vtr demo",
)
