"""Evaluation on real CLIP ViT-B/32 numbers and on the published lists."""

from pathlib import Path

import numpy as np
import pytest

from vtr.datasets.registry import load_dataset
from vtr.evaluate.coverage import Coverage
from vtr.evaluate.evaluator import evaluate, plan
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.protocol import QuerySet, load_protocol, queries
from vtr.features import PackedFrames
from vtr.train.model import zero_shot_model
from vtr.train.scoring import Scorer
from vtr.train.texts import TextFeatures

pytestmark = pytest.mark.real


def test_the_barbell_video_ranks_a_barbell_first_of_1203_texts(real_data: Path) -> None:
    clip = real_data / "clip_golden"
    video = np.load(clip / "viashin_v_GGSY1Qvo990_vitb32.npz")
    words = np.load(clip / "detic_vitb32_text.npz")
    names = [str(name) for name in words["lvis_names"]]
    frames = video["all_frames"].astype(np.float32)
    packed = PackedFrames(
        ("v_GGSY1Qvo990",), frames, np.arange(len(frames), dtype=float), np.array([0, len(frames)])
    )
    texts = TextFeatures(tuple(names), words["lvis"].astype(np.float32))
    scores = 100 * Scorer(zero_shot_model(), texts, packed).matrix()[:, 0]
    best = np.argsort(-scores)[:3]
    assert [names[n] for n in best] == ["barbell", "mat_(gym_equipment)", "dumbbell"]
    assert scores[best] == pytest.approx([31.31, 27.11, 26.26], abs=0.005)

    barbell = names.index("barbell")
    owners = np.zeros(len(names), np.int64)
    asked = QuerySet("toy", "test", packed.ids, tuple(names), tuple(names), owners)
    task = plan(asked, Coverage("miss", np.array([True]), ()))
    matrix = scores[:, None].astype(np.float32)
    kept = evaluate(task, lambda: [(0, matrix)]).kept
    assert int(np.argmax(kept.own)) == barbell


@pytest.mark.parametrize(
    ("name", "num_train"),
    [
        ("msrvtt-1kA", 8550),
        ("msrvtt-1kA-7k", 6660),
        ("msrvtt-1kB", 6323),
        ("msrvtt-full", 6513),
        ("msvd", 1200),
        ("activitynet", 9509),
        ("didemo", 8362),
    ],
)
def test_the_published_lists_come_out_as_declared(
    real_data: Path, name: str, num_train: int
) -> None:
    protocol = load_protocol(name)
    dataset = load_dataset(
        protocol.dataset,
        annotations=real_data / "annotations" / protocol.dataset,
        videos=real_data / "videos",
    )
    test = queries(protocol, dataset)
    assert test.problems == ()
    assert (len(test.video_ids), len(test.texts)) == (protocol.num_videos, protocol.num_queries)
    train, val = (set(queries(protocol, dataset, part).video_ids) for part in ("train", "val"))
    assert len(train) == num_train
    assert val
    assert not train & val
    assert not set(test.video_ids) & (train | val)


def test_identical_queries_cap_1ka_at_99_5(real_data: Path) -> None:
    """Four sentences are asked of two or three videos each: at most one of them can be right."""
    dataset = load_dataset(
        "msrvtt", annotations=real_data / "annotations" / "msrvtt", videos=real_data / "videos"
    )
    asked = queries(load_protocol("msrvtt-1kA"), dataset)
    task = plan(asked, Coverage("miss", np.ones(1000, np.bool_), ()))
    assert len(task.texts) == 995
    perfect = np.zeros((995, 1000), np.float32)
    perfect[task.query_text, asked.query_video] = 1
    numbers = retrieval_metrics(evaluate(task, lambda: [(0, perfect)]).ranks).expected
    assert numbers["t2v/R@1"] == pytest.approx(99.5)
    assert numbers["t2v/R@5"] == 100
