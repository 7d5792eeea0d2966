"""Numbers from scores of one's own, and the scores of a model: one call each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.evaluate import metrics
from vtr.evaluate.intervals import retrieval_intervals
from vtr.evaluate.metrics import DEFAULT_KS, RetrievalMetrics
from vtr.evaluate.ranks import Ranks, RetrievalRanks, rank_rows, stream_ranks

if TYPE_CHECKING:
    from vtr.features.store import FeatureStore
    from vtr.train.run import Run


class Metric(NamedTuple):
    """One number: R@k, MRR, GeoMean and SumR in percent, MedR and MeanR as ranks from 1.

    >>> import vtr
    >>> number = vtr.retrieval_metrics([[0.9, 0.1], [0.3, 0.2]])["t2v/R@1"]
    >>> number.value, number.pessimistic, number.n
    (50.0, 50.0, 2)
    """

    value: float  # Ties by expectation
    low: float  # Lower end of the 95 % interval
    high: float  # Its upper end
    optimistic: float  # Every tie in favour of the correct item
    pessimistic: float  # Every tie against it
    n: int  # Over how many queries


def recall(
    scores: ArrayLike, targets: ArrayLike | None = None, k: int | Sequence[int] = DEFAULT_KS
) -> dict[int, float]:
    """Returns recall at each k, in percent, ties by expectation.

    >>> import vtr
    >>> vtr.recall([[0.9, 0.1, 0.0], [0.3, 0.2, 0.1]], targets=[0, 1], k=(1, 2))
    {1: 50.0, 2: 100.0}

    Args:
        scores: (Q, C) of Q queries with C candidates, larger is better.
        targets: (Q,) column of each query's correct candidate; the diagonal by default.
        k: Depths, each at least 1.

    Raises:
        ConfigError: Shapes that do not fit, or a k that is no depth.
        ModelError: A score is NaN or +inf.
    """
    matrix, columns = _checked(scores, targets)
    depths = metrics.check_ks(k)
    ranks = rank_rows(matrix, columns)
    return {depth: 100 * float(metrics.hits(ranks, depth).mean()) for depth in depths}


@overload
def retrieval_metrics(
    scores: RetrievalRanks | Mapping[str, Ranks], *, ks: Sequence[int] = ...
) -> RetrievalMetrics: ...
@overload
def retrieval_metrics(
    scores: ArrayLike,
    targets: ArrayLike | None = ...,
    *,
    k: int | Sequence[int] = ...,
    seed: int = ...,
) -> dict[str, Metric]: ...
def retrieval_metrics(
    scores: Any, targets: Any = None, *, ks: Any = None, k: Any = None, seed: int = 0
) -> Any:
    """Returns every number of both directions, with 95 % intervals and the bounds under ties.

    >>> import vtr
    >>> numbers = vtr.retrieval_metrics([[0.9, 0.1], [0.3, 0.2]])
    >>> numbers["t2v/R@1"].value, numbers["t2v/MedR"].value, numbers["t2v/R@1"].n
    (50.0, 1.5, 2)

    Args:
        scores: (Q, V) of Q captions with V videos, larger is better. Ranks that were counted
            already (`vtr.stream_ranks`) give a `RetrievalMetrics` without intervals.
        targets: (Q,) the video that each caption describes; the diagonal by default. Several
            captions of one video are drawn together in the intervals.
        k: Recall depths.
        ks: The former name of k.
        seed: Of the bootstrap; the same seed gives the same intervals.

    Returns:
        "DIRECTION/NAME" to its number: directions t2v and v2t (and v2t_groups where videos have
        several captions), names R@k, MedR, MeanR, MRR, GeoMean, SumR.

    Raises:
        ConfigError: Shapes that do not fit, or a k that is no depth.
        ModelError: A score is NaN or +inf.
    """
    if isinstance(scores, RetrievalRanks | Mapping):
        return metrics.retrieval_metrics(scores, ks or k or targets or DEFAULT_KS)
    depths = metrics.check_ks(next((one for one in (k, ks) if one is not None), DEFAULT_KS))
    if not (isinstance(seed, int) and seed >= 0):
        raise ConfigError(f"seed is {seed!r}; it must be a whole number, 0 or more")
    matrix, videos = _checked(scores, targets)
    ranks = stream_ranks(lambda: [(0, matrix)], videos, matrix.shape[1])
    numbers = metrics.retrieval_metrics(ranks, depths)
    intervals = retrieval_intervals(ranks, depths, seed=seed)
    return {
        name: Metric(
            value, *intervals[name], numbers.optimistic[name], numbers.pessimistic[name],
            numbers.num_queries[name.partition("/")[0]],
        )
        for name, value in numbers.expected.items()
    }  # fmt: skip


def _checked(
    scores: ArrayLike, targets: ArrayLike | None
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Returns scores as floats and targets as columns."""
    matrix = _array(scores, "scores", "(queries, items)")
    if matrix.dtype not in (np.float32, np.float64):
        if matrix.dtype.kind not in "fiub":
            raise ConfigError(f"scores are {matrix.dtype}; they must be numbers")
        matrix = matrix.astype(np.float32 if matrix.dtype.itemsize <= 2 else np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ConfigError(f"scores have the shape {matrix.shape}; they must be (queries, items)")
    if targets is None:
        if matrix.shape[0] != matrix.shape[1]:
            raise ConfigError(
                f"scores of shape {matrix.shape} have no diagonal: give targets, the column of "
                "each query's correct item"
            )
        return matrix, np.arange(len(matrix))
    columns = _array(targets, "targets", "(queries,)")
    if columns.shape != (len(matrix),) or columns.dtype.kind not in "iu":
        raise ConfigError(
            f"targets are {columns.dtype} of shape {columns.shape}; they must be a whole number "
            f"for each of {counted(len(matrix), 'query')}"
        )
    if columns.min() < 0 or columns.max() >= matrix.shape[1]:
        raise ConfigError(
            f"targets run from {columns.min()} to {columns.max()}; scores have columns 0 to "
            f"{matrix.shape[1] - 1}"
        )
    return matrix, columns.astype(np.int64)


def _array(values: ArrayLike, name: str, shape: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # rows of unequal length
        raise ConfigError(f"{name} have rows of unequal length; they must be {shape}") from None


def score_matrix(
    texts: Sequence[str],
    store: FeatureStore,
    run: Run | str | Path | None = None,
    *,
    ids: Sequence[str] | None = None,
    model: str | None = None,
    device: str = "auto",
) -> NDArray[np.float32]:
    """Returns the score of every text with every video of a store.

    >>> import vtr
    >>> world = vtr.open_workspace("demo-world")
    >>> store = vtr.open_features(world, "uniform")
    >>> vtr.score_matrix(["a red star", "a blue heart"], store, model=world.model).shape
    (2, 26)

    Args:
        texts: N captions.
        store: Its frames, as its sampler chose them.
        run: A trained run or its folder; None scores CLIP's text with the mean of the frames.
        ids: V videos, the columns; all of the store by default.
        model: Hub id or folder of the text tower; by default the run's, or the id that the store
            names (of a model that was in a folder it has the name alone).
        device: Where to compute: auto, cpu, cuda, cuda:1.

    Returns:
        (N, V) float32; larger is better. Only the order within a row means anything.

    Raises:
        ConfigError: No texts or videos.
        ModelError: The text tower and the frames are of different models.
        StoreError: A video without features.
    """
    from vtr.api.stores import check_same_model
    from vtr.clip.backbone import load_backbone
    from vtr.train.model import zero_shot_model
    from vtr.train.run import Run, load_run
    from vtr.train.scoring import Scorer
    from vtr.train.texts import embed_for, embed_texts, require_list

    require_list(texts)  # before a model is loaded
    trained = run if run is None or isinstance(run, Run) else load_run(Path(run))
    named = model or (store.spec.backbone if trained is None else trained.text_model)
    backbone = load_backbone(named, device=device)
    videos = store.packed(ids, dtype="float32")
    if trained is None:
        check_same_model(backbone, store)
        head, features = zero_shot_model(backbone.logit_scale), embed_texts(backbone, texts)
    else:
        trained.check_store(store)
        trained.check_text_model(backbone)
        head, features = trained.model, embed_for(trained.spec, backbone, texts)
    pad = store.pad_embedding if head.head.info.needs_pad else None
    return Scorer(head, features, videos, pad=pad, device=backbone.device).matrix()
