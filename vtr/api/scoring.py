"""From a workspace and flags to scores: what `vtr eval` and `vtr simulate` have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.counts import counted, human_seconds
from vtr.progress import MANY_TEXTS, PLAIN_EVERY_SECONDS, embedding, note, progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vtr.clip.backbone import Backbone
    from vtr.commands.evaluate import Request
    from vtr.datasets.base import Dataset
    from vtr.evaluate.evaluator import Evaluation, PairScores, PostProcess, Task
    from vtr.evaluate.protocol import Protocol, QuerySet
    from vtr.evaluate.ranks import Blocks, Scores
    from vtr.evaluate.result import Setup
    from vtr.evaluate.similarity import SimilarityFile
    from vtr.features import FeatureStore, PackedFrames
    from vtr.train.model import RetrievalModel
    from vtr.train.run import Run
    from vtr.workspace import Workspace

_LONG_SECONDS = 60.0


@dataclass(frozen=True)
class Material:
    """What is asked and what is there, before any model."""

    workspace: Workspace  # The settings
    dataset: Dataset  # As read
    protocol: Protocol  # The declaration
    store: FeatureStore  # The features, seen through one sampler
    task: Task  # The queries over the present videos
    packed: PackedFrames  # The frames of `task.video_ids`

    @property
    def frames_per_video(self) -> float:
        """Mean number of frames."""
        return len(self.packed.frames) / len(self.packed.ids)


def gather(
    workspace: Workspace,
    protocol: str | None,
    *,
    sampler: str | None,
    missing: str = "miss",
    gallery: str | None = None,
) -> Material:
    """Reads the dataset, the protocol's queries and the features.

    Raises:
        VtrError: Whatever is missing or does not fit; see the functions called.
    """
    from vtr.api.stores import meet, open_store, read_dataset
    from vtr.evaluate.coverage import check_features, cover
    from vtr.evaluate.evaluator import plan
    from vtr.evaluate.protocol import default_protocol, load_protocol, queries, with_gallery

    dataset = read_dataset(workspace)
    chosen = load_protocol(protocol) if protocol else default_protocol(dataset.name)
    chosen = with_gallery(chosen, gallery)
    asked = queries(chosen, dataset, "test")
    store = meet(open_store(workspace, sampler), dataset.video_ids)
    task = plan(asked, cover(asked, store, policy=missing))
    packed = store.packed(task.video_ids, dtype="float32")
    check_features(packed)
    for problem in asked.problems:
        note(f"not the published protocol {chosen.name}: {problem}")
    return Material(workspace, dataset, chosen, store, task, packed)


@dataclass(frozen=True)
class Scored:
    """Everything that an evaluation needs."""

    material: Material  # What is asked of what
    model: RetrievalModel  # The scoring model
    run: Run | None  # Where it comes from, or None
    backbone: Backbone  # The text tower
    score_pairs: PairScores | None  # Chosen pairs of `blocks`
    blocks: Blocks  # Scores over `material.task`
    v2t_blocks: Blocks | None  # Those of the other direction, where re-ranking made others
    setup: Setup  # For the result
    bank: QuerySet | None = None  # The training captions of QB-Norm, where asked for

    def evaluation(self, request: Request, similarity: SimilarityFile | None) -> Evaluation:
        """Ranks everything."""
        from vtr.evaluate.evaluator import evaluate

        blocks, v2t_blocks = self.blocks, self.v2t_blocks
        if similarity is not None:
            blocks = similarity.watch("scores", blocks)
            v2t_blocks = v2t_blocks and similarity.watch("v2t_scores", v2t_blocks)
        return evaluate(
            self.material.task,
            blocks,
            score_pairs=self.score_pairs,
            v2t_blocks=v2t_blocks,
            ks=request.ks,
            postprocess=self._postprocess(request),
        )

    def _postprocess(self, request: Request) -> dict[str, PostProcess]:
        from vtr.evaluate.postprocess import dual_softmax, querybank_norm

        chosen: dict[str, PostProcess] = {}
        if request.dual_softmax:
            chosen["dual-softmax"] = lambda s: (dual_softmax(s), dual_softmax(s.T).T)
        if self.bank is not None:
            bank = self._bank_scores(self.bank)
            chosen["qb-norm"] = lambda s: (querybank_norm(s, bank), None)
        return chosen

    def _bank_scores(self, train: QuerySet) -> NDArray[np.float32]:
        """Scores of the training captions with the test videos."""
        import numpy as np

        note(f"bank of QB-Norm: {counted(len(train.texts), 'training caption')}")
        bank = score(self.model, self.run, self.backbone, self.material, train.texts)
        quiet = len(train.texts) < MANY_TEXTS
        return np.concatenate([rows for _, rows in _told(bank, "scoring the bank", quiet=quiet)])


def prepare(workspace: Workspace, request: Request) -> Scored:
    """Loads what the flags name and scores it.

    Raises:
        ConfigError: Both --zero-shot and --run, or --zero-shot and --rerank; a run trained on test
            videos without --force.
        ModelError: Text and frames of different models.
    """
    import numpy as np

    from vtr.api.stores import check_same_model
    from vtr.clip.backbone import load_backbone
    from vtr.errors import ConfigError
    from vtr.train.model import zero_shot_model

    if request.zero_shot and request.run is not None:
        raise ConfigError("--zero-shot and --run exclude each other: choose one")
    if request.zero_shot and request.rerank is not None:
        raise ConfigError(
            "--rerank lets the head of a run reorder what mean pooling found; --zero-shot is mean "
            "pooling itself. Leave out one of them"
        )
    run = None if request.zero_shot else _load_run(workspace, request.run)
    material = _material(workspace, request, run)
    bank = _bank(material) if request.qb_norm else None
    leaked = None if run is None else _leak(run, material.task.queries, force=request.force)
    model_id = workspace.model if run is None else run.text_model
    backbone = load_backbone(model_id, device=request.device)
    if run is None:
        check_same_model(backbone, material.store)
    else:
        run.check_text_model(backbone)
    model = zero_shot_model(backbone.logit_scale) if run is None else run.model
    scorer = score(model, run, backbone, material, material.task.texts)
    blocks: Blocks
    v2t_blocks: Blocks | None = None
    score_pairs: PairScores | None = None
    if request.rerank is not None:
        blocks, v2t_blocks = _reranked(material, backbone, scorer, request.rerank)
    else:
        quiet = _foretell(scorer) < PLAIN_EVERY_SECONDS
        blocks, score_pairs = partial(_told, scorer, "scoring", quiet=quiet), scorer.score_pairs
        if request.dual_softmax or request.qb_norm:
            blocks = partial(_one_block, np.concatenate([rows for _, rows in blocks()]))
    setup = _setup(material, run, backbone, rerank=request.rerank, trained_on_test=leaked)
    return Scored(material, model, run, backbone, score_pairs, blocks, v2t_blocks, setup, bank)


def _material(workspace: Workspace, request: Request, run: Run | None) -> Material:
    """Gathers what is asked of what; where the store does not fit the run, names the run's own."""
    from vtr.errors import ConfigError, ModelError, StoreError, UnknownNameError

    sampler = request.sampler or (None if run is None else run.sampler)
    try:
        material = gather(
            workspace,
            request.protocol,
            sampler=sampler,
            missing=request.missing,
            gallery=request.gallery,
        )
        if run is not None:
            run.check_store(material.store)
    except (ConfigError, ModelError, StoreError) as error:
        own = None if run is None else run.features_folder
        if run is None or own is None or isinstance(error, UnknownNameError):
            raise
        if not own.is_dir() or own == workspace.features.resolve():
            raise
        raise type(error)(
            f"{error}. {run.folder} was trained on the features in {own}: name them with --features"
        ) from None
    return material


def _bank(material: Material) -> QuerySet:
    """Returns the training captions, before anything costly is done.

    Raises:
        ConfigError: There are none.
    """
    from vtr.errors import ConfigError, VtrError
    from vtr.evaluate.protocol import queries

    try:
        return queries(material.protocol, material.dataset, "train")
    except VtrError as error:
        raise ConfigError(
            f"--qb-norm compares with training captions, and has none: {error}. Leave it out"
        ) from error


def _foretell(scorer: Any) -> float:
    """Says beforehand how many seconds a costly head will take, and what takes less."""
    seconds: float = scorer.expected_seconds()
    if seconds > _LONG_SECONDS:
        texts, videos = scorer.shape
        note(
            f"scoring all {texts:,} x {counted(videos, 'pair')} takes about "
            f"{human_seconds(seconds)} here; "
            "--rerank 50 scores only the best 50 of each list, and the result says so"
        )
    return seconds


def _told(scorer: Any, what: str, *, quiet: bool) -> Iterator[tuple[int, Scores]]:
    """Yields a scorer's blocks and shows how far they are."""
    with progress(what, quiet=quiet) as update:
        for start, rows in scorer.blocks():
            yield start, rows
            update(start + len(rows), scorer.shape[0], "captions")


def score(
    model: RetrievalModel,
    run: Run | None,
    backbone: Backbone,
    material: Material,
    texts: tuple[str, ...],
) -> Any:
    """Returns a `Scorer` of texts against the material's videos."""
    from vtr.train.inputs import embed_for
    from vtr.train.scoring import Scorer
    from vtr.train.texts import embed_texts

    cache = material.store.folder
    with embedding(len(texts)) as tell:
        features = (
            embed_texts(backbone, texts, cache=cache, tell=tell)
            if run is None
            else embed_for(run.spec, backbone, texts, cache=cache, tell=tell)
        )
    if features.num_truncated:
        note(
            f"{features.num_truncated:,} of "
            f"{counted(len(texts), 'caption was', 'captions were')} cut to the "
            "text tower"
        )
    pad = material.store.pad_embedding if model.head.info.needs_pad else None
    return Scorer(model, features, material.packed, pad=pad, device=backbone.device)


def _reranked(material: Material, backbone: Backbone, scorer: Any, k: int) -> tuple[Blocks, Blocks]:
    """Orders by mean pooling without training, then reorders the first k both ways."""
    from vtr.evaluate.rerank import rerank
    from vtr.train.model import zero_shot_model

    cheap = score(
        zero_shot_model(backbone.logit_scale), None, backbone, material, material.task.texts
    )
    found = rerank(cheap.matrix(), k, scorer.score_pairs)
    note(f"re-ranked {found.num_pairs:,} of {counted(cheap.shape[0] * cheap.shape[1], 'pair')}")
    return partial(_one_block, found.t2v), partial(_one_block, found.v2t)


def _one_block(matrix: Scores) -> list[tuple[int, Scores]]:
    return [(0, matrix)]


def _load_run(workspace: Workspace, folder: Path | None) -> Run:
    from vtr.errors import ConfigError
    from vtr.train.run import BEST, load_run, recency

    if folder is None:
        finished = [path.parent for path in workspace.runs.glob(f"*/{BEST}")]
        if not finished:
            raise ConfigError(
                f"no trained run in {workspace.runs}: run `vtr train --head seqTransf` first, name "
                "one with --run DIR, or evaluate CLIP as it is with --zero-shot"
            )
        folder = max(finished, key=recency)
        note(f"run: {folder} (the latest; another one with --run DIR)")
    elif not folder.exists() and (workspace.runs / folder).is_dir():
        folder = workspace.runs / folder
    return load_run(folder)


def _leak(run: Run, queries: QuerySet, *, force: bool) -> int | None:
    """Returns how many of the gallery's videos the run was trained on; None where unknown."""
    from vtr.errors import ConfigError

    if run.train_ids is None:
        note("it is not known which videos this run was trained on; the result says so")
        return None
    shared = sorted(set(run.train_ids) & set(queries.video_ids))
    if shared and not force:
        raise ConfigError(
            f"{run.folder} was trained on {len(shared):,} of the "
            f"{counted(len(queries.video_ids), 'video')} "
            f"that {queries.protocol!r} tests on ({', '.join(shared[:3])}, ...): its numbers would "
            "mean nothing. Train by this protocol, or evaluate anyway with --force: the result "
            "then says so"
        )
    return len(shared)


def _setup(
    material: Material,
    run: Run | None,
    backbone: Backbone,
    *,
    rerank: int | None,
    trained_on_test: int | None,
) -> Setup:
    from vtr.evaluate.coverage import frames_sha256
    from vtr.evaluate.reporting.results import marked
    from vtr.evaluate.result import Setup
    from vtr.files import file_sha256
    from vtr.train.run import BEST

    spec = material.store.spec
    sampler = str(material.store.sampler)
    head = "meanP" if run is None else run.spec.head
    text = "frozen" if run is None else run.spec.text.mode
    title = f"zero-shot, {sampler}"
    if run is not None:
        other = sampler if sampler != run.sampler else None
        title = marked(
            run.folder.name, sampler=other, rerank=rerank, trained_on_test=trained_on_test
        )
    return Setup(
        title=title,
        head=head,
        text=text,
        sampler=sampler,
        backbone=spec.backbone,
        fingerprint=material.store.fingerprint,
        zero_shot=run is None,
        run=None if run is None else str(run.folder),
        selection="none" if run is None else run.selection,
        seed=material.workspace.seed if run is None else run.seed,
        trained_on_test=0 if run is None else trained_on_test,
        rerank=rerank,
        device=str(backbone.device),
        frames_per_video=material.frames_per_video,
        weights_sha256=None if run is None else file_sha256(run.folder / BEST),
        frames_sha256=frames_sha256(material.packed),
    )
