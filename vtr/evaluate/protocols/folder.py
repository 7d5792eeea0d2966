"""A folder of your own."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="folder",
    dataset="folder",
    summary="your own videos and captions: every caption of the test split a query, ranked against "
    "the folder without its training and validation videos",
    captions="all",
    gallery="folder",
    source="the captions file of the folder",
)
