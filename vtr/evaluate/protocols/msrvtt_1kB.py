"""MSR-VTT 1k-B."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="msrvtt-1kB",
    dataset="msrvtt",
    summary="1k-B (Miech): another 1,000 clips, one given sentence each; 6,656 to train on",
    test_split="1kB-test",
    train_split="1kB-train",
    val_split=None,
    captions="one",
    num_videos=1_000,
    num_queries=1_000,
    ids_sha256="a0ad82bd7f2c45e38a460e40920fa9403a3411c053ea52a27f189d11b7ca1825",
    source="Miech et al. 2018 (MEE); lists of albanie/collaborative-experts misc/datasets/msrvtt",
)
