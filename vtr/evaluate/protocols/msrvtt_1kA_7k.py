"""MSR-VTT 1k-A with the 7k training list."""

from vtr.evaluate.protocol import Protocol

PROTOCOL = Protocol(
    name="msrvtt-1kA-7k",
    dataset="msrvtt",
    summary="1k-A test, trained on the official train and validation videos (7,010)",
    test_split="1kA-test",
    train_split="trainval",
    val_split=None,
    captions="one",
    num_videos=1_000,
    num_queries=1_000,
    ids_sha256="49a09fb68f7ec52b3b9bbb7e856ffbd3f00233976ed435fded658309c3cd491a",
    pairs_sha256="d37e910531ededccfff28adf4378a40d0c7a98df1ec35f3a111843ac88e2293b",
    source="Yu et al. 2018 (JSFusion, ECCV); 7k training list as in ArrowLuo/CLIP4Clip @508ffa3",
)
