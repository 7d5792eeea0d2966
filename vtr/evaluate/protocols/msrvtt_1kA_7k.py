"""MSR-VTT 1k-A with the 7k training list."""

from dataclasses import replace

from vtr.evaluate.protocols.msrvtt_1kA import PROTOCOL as WITH_9K

PROTOCOL = replace(
    WITH_9K,
    name="msrvtt-1kA-7k",
    summary="1k-A test, trained on the official train and validation videos (7,010)",
    train_split="trainval",
    source="Yu et al. 2018 (JSFusion, ECCV); 7k training list as in ArrowLuo/CLIP4Clip @508ffa3",
)
