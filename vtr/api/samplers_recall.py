"""What samplers are worth to retrieval: R@1 of the heads that need no training, per sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vtr.progress import note

if TYPE_CHECKING:
    from vtr.evaluate.evaluator import Task
    from vtr.extract.samplers.base import Indices
    from vtr.features import FeatureStore
    from vtr.train.texts import TextFeatures
    from vtr.workspace import Workspace

HEADS = ("meanP", "maxP", "attentionP")
"""The heads without parameters: what they score is CLIP's and the sampler's doing alone."""


def recalls(
    dense: FeatureStore, chosen: Mapping[str, Mapping[str, Indices]], workspace: Workspace | None
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns sampler -> head -> zero-shot t2v R@1 with its interval, by the default protocol.

    Nothing where the store belongs to no workspace, or nobody says what its videos show.
    """
    from vtr.api.stores import check_same_model, read_dataset
    from vtr.errors import VtrError

    if workspace is None:
        return {}
    note("embedding the captions for R@1, where there are any")
    try:
        task = _task(dense, read_dataset(workspace))
        from vtr.clip.backbone import load_backbone

        backbone = load_backbone(workspace.model)
        check_same_model(backbone, dense)
    except VtrError as reason:
        note(f"no R@1: {reason}")
        return {}
    from vtr.train.texts import embed_texts

    texts = embed_texts(backbone, task.texts, cache=dense.folder)
    return {
        label: _by_head(task, texts, dense.with_selection(label, picks))
        for label, picks in chosen.items()
    }


def _task(dense: FeatureStore, dataset: Any) -> Task:
    from vtr.evaluate.coverage import cover
    from vtr.evaluate.evaluator import plan
    from vtr.evaluate.protocol import default_protocol, queries

    asked = queries(default_protocol(dataset.name), dataset)
    return plan(asked, cover(asked, dense))


def _by_head(task: Task, texts: TextFeatures, store: FeatureStore) -> dict[str, dict[str, float]]:
    from vtr.evaluate.evaluator import evaluate
    from vtr.evaluate.intervals import retrieval_intervals
    from vtr.evaluate.metrics import retrieval_metrics
    from vtr.train.headlist import build_head, parse_head
    from vtr.train.model import RetrievalModel
    from vtr.train.scoring import Scorer
    from vtr.train.text_tower import FrozenText

    packed = store.packed(task.video_ids, dtype="float32")
    found = {}
    for name in HEADS:
        head = build_head(parse_head(name), dim=packed.frames.shape[1], clip=None, seed=0)
        scorer = Scorer(RetrievalModel(FrozenText(), head), texts, packed)
        ranks = evaluate(task, scorer.blocks, score_pairs=scorer.score_pairs, ks=(1,)).ranks
        low, high = retrieval_intervals(ranks, (1,), seed=0)["t2v/R@1"]
        value = retrieval_metrics(ranks, (1,)).expected["t2v/R@1"]
        found[name] = {"value": value, "low": low, "high": high}
    return found
